import Analysis
import Foundation
import Glibc
import Ledger
import SeededRandom
import Synchronization
import TestSupport
import Testing

@testable import Arena
@testable import Broker
@testable import DumpFormat

@Suite("the flight recorder's file", .mayBlock)
struct FlightRecorderTests {
    static let here = CodeLocation("test", file: #fileID, line: #line, function: #function)

    /// A pool that records to a file in a directory of its own, with buffers of all kinds in it.
    static func withPool(
        limit: Int = 128 << 20, _ body: (ArenaPool, String) throws -> Void
    ) throws {
        try withFolder { folder in
            let path = "\(folder)/flight.ledger"
            var configuration = ArenaPool.Configuration(limitBytes: limit)
            configuration.flightRecorder = FlightRecorder(
                path: path, program: "test", programVersion: "1.2", configuration: "port = 1\n")
            let pool = try ArenaPool(configuration)
            defer { pool.retire() }
            let session = pool.openOwner(.session, name: "device-1")
            var held: [UnsafeMutableRawPointer] = []
            for index in 0..<500 {
                held.append(
                    try pool.sharedArena.allocate(64 + index * 97 % 40_000, owner: session, at: here))
            }
            for size in [100_000, 3 << 20, 17 << 20] {
                held.append(try pool.sharedArena.allocate(size, owner: .process, at: here))
            }
            for index in stride(from: 0, to: 250, by: 2) { Arena.free(held[index]) }
            for index in stride(from: 248, through: 0, by: -2) { held.remove(at: index) }
            defer { for pointer in held { Arena.free(pointer) } }
            try body(pool, path)
        }
    }

    @Test("has the totals, tables and slots of a dump taken at the same moment")
    func sameAsDump() throws {
        try Self.withPool { pool, path in
            let snapshotBuffer = try #require(pool.makeSnapshotBuffer())
            snapshotBuffer.fill(try #require(snapshotBuffer.layOut()), part: 0, of: 1)
            var dumped = LedgerSnapshot(snapshotBuffer.image, references: nil).tables
            let recorded = try DumpReader.read(path: path, .everything)
            // The copy itself is charged before it is made, and still is.
            #expect(recorded.totals == dumped.totals)
            #expect(recorded.sites == dumped.sites)
            #expect(recorded.owners == dumped.owners)
            #expect(recorded.chunks == dumped.chunks)
            #expect(recorded.arenas == dumped.arenas)
            #expect(recorded.allocationGroups == dumped.allocationGroups)
            #expect(recorded.totals.liveBuffers == 378)
            #expect(recorded.totals.hugeCount == 1)
            #expect(recorded.totals.unreachableBuffers == nil)
            #expect(recorded.slots?.count == 378)
            #expect(recorded.header.monotonicTime == dumped.header.monotonicTime)
            // It is being written to, which is said; otherwise it is whole.
            #expect(recorded.completeness.problems.count == 1)
            #expect(recorded.completeness.problems.first?.contains("still records here") == true)
            for check in SnapshotInvariants.check(recorded) { #expect(check.passed, "\(check.name): \(check.detail)") }
            dumped.header = recorded.header
            dumped.events = recorded.events
            dumped.runs = recorded.runs
            let answers = [dumped, recorded].map { snapshot in
                [
                    Report.summary(of: snapshot), .sites(of: snapshot), .owners(of: snapshot),
                ].map { TextRenderer().render($0) }
            }
            #expect(answers[0] == answers[1])
        }
    }

    @Test("says who wrote it, and is for its owner only")
    func header() throws {
        try Self.withPool { pool, path in
            let read = try DumpReader.read(path: path)
            #expect(read.header.program == "test")
            #expect(read.header.programVersion == "1.2")
            #expect(read.header.configuration == "port = 1\n")
            #expect(read.header.pid == UInt64(getpid()))
            #expect(!read.header.host.isEmpty)
            #expect(read.header.reason == "flight-recorder")
            #expect(read.ending == "the process still runs")
            let attributes = try FileManager.default.attributesOfItem(atPath: path)
            #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)
            // Sparse: it takes what is in use, not its length.
            let size = try #require((attributes[.size] as? NSNumber)?.intValue)
            let taken = Self.dataBytes(path)
            #expect(taken > 0 && taken < 16 << 20)
            #expect(taken < size / 4)
        }
    }

    // Glibc does not show these.
    private static let (seekData, seekHole) = (CInt(3), CInt(4))

    /// Bytes of a file that are no holes.
    private static func dataBytes(_ path: String) -> Int {
        let file = open(path, O_RDONLY)
        defer { close(file) }
        var (bytes, place) = (0, lseek(file, 0, seekData))
        while place >= 0 {
            let hole = lseek(file, place, seekHole)
            bytes += Int(hole - place)
            place = lseek(file, hole, seekData)
        }
        return bytes
    }

    /// A copy of the file as another process would find it, without the lock.
    static func copy(_ path: String, to other: String) throws -> FileHandle {
        let source = open(path, O_RDONLY)
        defer { close(source) }
        let target = open(other, O_RDWR | O_CREAT | O_TRUNC, 0o600)
        ftruncate(target, lseek(source, 0, SEEK_END))
        var place: off_t = 0
        var block = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            place = lseek(source, place, seekData)
            if place < 0 { break }
            let count = pread(source, &block, block.count, place)
            if count <= 0 { break }
            pwrite(target, block, count, place)
            place += off_t(count)
        }
        return FileHandle(fileDescriptor: target, closeOnDealloc: true)
    }

    @Test("cut at any page it answers, and says what is missing")
    func cut() throws {
        try Self.withPool { pool, path in
            let other = path + ".copy"
            let file = try Self.copy(path, to: other)
            let whole = try DumpReader.read(path: other, .everything)
            #expect(whole.completeness.isComplete, "\(whole.completeness.problems)")
            #expect(whole.ending?.hasPrefix("the process did not end in order") == true)
            let size = Int(try file.seekToEnd())
            var lengths: [Int] = Array(stride(from: 4096, to: 200_000, by: 4096))
            var length = 200_000
            while length < size {
                lengths.append(length)
                length += length / 3
            }
            for length in lengths.reversed() {
                ftruncate(file.fileDescriptor, off_t(length))
                let read = try DumpReader.read(path: other, .everything)
                #expect(!read.completeness.isComplete, "cut at \(length)")
                #expect(read.totals.counterBytes == whole.totals.counterBytes)
                _ = SnapshotInvariants.check(read)
                _ = TextRenderer().render(.summary(of: read))
            }
            for length in [4095, 100, 8] {
                ftruncate(file.fileDescriptor, off_t(length))
                #expect(throws: DumpError.self) { try DumpReader.read(path: other) }
            }
        }
    }

    @Test("an operation cut short is said, and never traps", arguments: 0..<6 as Range<UInt64>)
    func unsettled(seed: UInt64) throws {
        try Self.withPool { pool, path in
            let other = path + ".copy"
            let file = try Self.copy(path, to: other)
            var random = SeededGenerator(seed: seed)
            let header = 0..<2800
            for round in 0..<60 {
                var places: [(off_t, UInt8)] = []
                var byte: UInt8 = 0
                for _ in 0..<Int.random(in: 1...8, using: &random) {
                    let place: Int
                    if round % 3 == 0 {
                        place = Int.random(in: header, using: &random)
                    } else {
                        // Inside a table, where its descriptor says.
                        let table = LedgerTable.allCases.randomElement(using: &random)!
                        let descriptor = pool.withLedger { $0.descriptor(table).pointee }
                        let bytes = Int(descriptor.rows * descriptor.stride)
                        place = Int(descriptor.offset) + Int.random(in: 0...max(0, bytes - 1), using: &random)
                    }
                    pread(file.fileDescriptor, &byte, 1, off_t(place))
                    places.append((off_t(place), byte))
                    byte = [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &random)]
                        .randomElement(using: &random)!
                    if place >= 8 { pwrite(file.fileDescriptor, &byte, 1, off_t(place)) }
                }
                if let read = try? DumpReader.read(path: other, .everything) {
                    _ = SnapshotInvariants.check(read)
                    for report in [Report.summary(of: read), .sites(of: read), .owners(of: read)] {
                        _ = TextRenderer().render(report)
                    }
                }
                for (place, old) in places.reversed() {
                    byte = old
                    pwrite(file.fileDescriptor, &byte, 1, place)
                }
            }
            #expect(try DumpReader.read(path: other, .everything).completeness.isComplete)
            // One slot given out, its slab not yet told.
            try pool.withLedger { image in
                let descriptor = image.descriptor(.slots).pointee
                let records = image.records(.slots, of: SlotRecord.self)
                let free = try #require(
                    (0..<Int(descriptor.rows)).first { records[$0].state == SlotRecord.State.free.rawValue })
                let state = MemoryLayout<SlotRecord>.offset(of: \.state)!
                var live = SlotRecord.State.live.rawValue
                pwrite(file.fileDescriptor, &live, 1, off_t(Int(descriptor.offset) + free * 64 + state))
            }
            let read = try DumpReader.read(path: other, .everything)
            #expect(!read.completeness.isComplete)
            #expect(read.totals.liveBuffers == 379)
        }
    }

    @Test("a run that has ended in order says so")
    func ended() throws {
        try Self.withPool { pool, path in
            pool.noteEnd()
            let other = path + ".copy"
            _ = try Self.copy(path, to: other)
            let read = try DumpReader.read(path: other)
            #expect(read.ending?.hasPrefix("the process ended in order at 20") == true)
            #expect(read.completeness.isComplete)
        }
    }

    @Test("a file of another version, or another file, is refused with a reason")
    func refusals() throws {
        try Self.withPool { pool, path in
            let other = path + ".copy"
            let file = try Self.copy(path, to: other)
            var version: UInt32 = 77
            pwrite(file.fileDescriptor, &version, 4, 8)
            #expect {
                try DumpReader.read(path: other)
            } throws: {
                ($0 as? DumpError)?.kind == .unsupportedVersion
            }
        }
    }

    private static func message(of body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "(no error)"
    }

    private static func makePool(_ path: String, limit: Int = 64 << 20) throws -> ArenaPool {
        var configuration = ArenaPool.Configuration(limitBytes: limit)
        configuration.flightRecorder = FlightRecorder(
            path: path, program: "test", programVersion: "1", configuration: "")
        return try ArenaPool(configuration)
    }

    @Test("what cannot be recorded to is refused at the start, with the reason")
    func refusedPaths() throws {
        try withFolder { folder in
            let foreign = "\(folder)/letter.txt"
            try Data("dear all".utf8).write(to: URL(filePath: foreign))
            #expect(Self.message { _ = try Self.makePool(foreign) }.contains("no flight recorder's file"))
            #expect(try String(contentsOfFile: foreign, encoding: .utf8) == "dear all")
            #expect(Self.message { _ = try Self.makePool(folder) }.contains("not a regular file"))
            #expect(Self.message { _ = try Self.makePool("\(foreign)/x") }.contains("Not a directory"))
            #expect(Self.message { _ = try Self.makePool("\(folder)/none/x") }.contains("No such file"))

            let pool = try Self.makePool("\(folder)/a")
            let message = Self.message { _ = try Self.makePool("\(folder)/a") }
            #expect(message.contains("another process records into it"), "\(message)")
            pool.retire()
        }
    }

    @Test("the file of a run before is kept, and one that ended badly longer than one that did not")
    func previous() throws {
        try withFolder { folder in
            let path = "\(folder)/flight"
            func run(_ end: Bool) throws -> UInt64 {
                let pool = try Self.makePool(path)
                if end { pool.noteEnd() }
                let start = pool.withLedger { $0.header.pointee.startWallTime }
                pool.retire()
                return start
            }
            func start(_ path: String) throws -> UInt64 {
                let bytes = try #require(try FileHandle(forReadingFrom: URL(filePath: path)).read(upToCount: 4096))
                return bytes.withUnsafeBytes { $0.loadUnaligned(as: LedgerHeader.self).startWallTime }
            }
            let crashed = try run(false)
            let ended = try run(true)
            #expect(try start(path + ".previous") == crashed)
            #expect(try start(path) == ended)
            _ = try run(true)
            #expect(try start(path + ".previous") == crashed, "a run that ended in order took its place")
            let again = try run(false)
            _ = try run(true)
            #expect(try start(path + ".previous") == again)
        }
    }

    /// Frees one buffer in each arena of a pool, so that the ring of each has an entry.
    private static func freeOneInEach(_ arenas: [Arena]) throws {
        for arena in arenas {
            arena.bind()
            Arena.free(try arena.allocate(100, owner: .process, at: here))
            arena.unbind()
        }
    }

    /// Allocates and frees on an arena of its own, and frees what another thread has allocated, until it is told to stop.
    private final class Worker: @unchecked Sendable {
        private let arena: Arena
        private let mailbox: Mailbox
        private let isOver = DispatchSemaphore(value: 0)
        let rounds = Atomic<Int>(0)
        let mustStop = Atomic<Bool>(false)
        private(set) var kept: [UnsafeMutableRawPointer] = []

        final class Mailbox: @unchecked Sendable {
            private let letters = Mutex<[UInt]>([])
            func put(_ pointer: UnsafeMutableRawPointer) { letters.withLock { $0.append(UInt(bitPattern: pointer)) } }
            func takeAll() -> [UnsafeMutableRawPointer] {
                let all = letters.withLock { letters in
                    defer { letters = [] }
                    return letters
                }
                return all.map { UnsafeMutableRawPointer(bitPattern: $0)! }
            }
        }

        init(_ arena: Arena, _ mailbox: Mailbox) { (self.arena, self.mailbox) = (arena, mailbox) }

        func start() { Thread.detachNewThread { self.run() } }

        private func run() {
            arena.bind()
            while !mustStop.load(ordering: .relaxed) {
                let round = rounds.add(1, ordering: .relaxed).newValue
                for pointer in mailbox.takeAll() { Arena.free(pointer) }
                if let pointer = try? arena.allocate(64 + round * 97 % 9_000, owner: .process, at: here) {
                    if round % 3 == 0 { mailbox.put(pointer) } else { kept.append(pointer) }
                }
                if kept.count > 2_000 {
                    for pointer in kept.prefix(1_000) { Arena.free(pointer) }
                    kept.removeFirst(1_000)
                }
            }
            arena.unbind()
            isOver.signal()
        }

        func join() {
            mustStop.store(true, ordering: .relaxed)
            isOver.wait()
        }
    }

    @Test(
        "before another program cuts the file short the ledger leaves it, under load and without the loss of a store",
        arguments: [true, false])
    func leaving(canRenew: Bool) throws {
        try Self.withPool { pool, path in
            let mailbox = Worker.Mailbox()
            let workers = try (0..<3).map { Worker(try pool.makeArena(name: "loop-\($0)"), mailbox) }
            for worker in workers { worker.start() }
            func awaitRounds() {
                let before = workers.map { $0.rounds.load(ordering: .relaxed) }
                let deadline = Patience.end
                while zip(workers, before).contains(where: { $0.rounds.load(ordering: .relaxed) < $1 + 5_000 }),
                    ContinuousClock.now < deadline
                {
                    usleep(1_000)
                }
            }
            awaitRounds()
            #expect(pool.guardFlightRecorder() == .guarded)
            // No new file takes the place of one that is not there.
            let file = canRenew ? path : path + ".moved"
            if !canRenew { #expect(rename(path, file) == 0) }
            for _ in 0..<(canRenew ? 5 : 1) {
                let cutting = Opening(file, O_WRONLY | O_TRUNC)
                let deadline = Patience.end
                var last = pool.guardFlightRecorder()
                while last == .guarded, ContinuousClock.now < deadline {
                    usleep(1_000)
                    last = pool.guardFlightRecorder()
                }
                #expect(last == (canRenew ? .renewed(toWrite: true) : .left))
                while !cutting.isOver, ContinuousClock.now < deadline { usleep(1_000) }
                #expect(cutting.size == 0)
                cutting.close()
                awaitRounds()
            }
            #expect(pool.guardFlightRecorder() == (canRenew ? .guarded : nil))
            for worker in workers { worker.join() }
            for pointer in mailbox.takeAll() { Arena.free(pointer) }
            let arenas = pool.arenas.map { Arena(state: $0) }
            for arena in arenas { _ = arena.drainRemoteFrees() }
            let snapshotBuffer = try #require(pool.makeSnapshotBuffer())
            snapshotBuffer.fill(try #require(snapshotBuffer.layOut()), part: 0, of: 1)
            let ledger = LedgerSnapshot(snapshotBuffer.image, references: nil)
            let kept = workers.reduce(0) { $0 + $1.kept.count }
            #expect(ledger.tables.totals.liveBuffers == UInt64(378 + kept))
            #expect(ledger.contradictions() == [])
            if canRenew {
                // As after `kill -9`: nobody has it leased.
                let copy = path + ".copy"
                let reading = Opening(path, O_RDONLY)
                while !reading.isOver { _ = pool.guardFlightRecorder() }
                reading.copy(to: copy)
                reading.close()
                let read = try DumpReader.read(path: copy, .everything)
                #expect(read.ending?.hasPrefix("the process went on; this is what it had recorded at 20") == true)
                #expect(read.totals == ledger.tables.totals)
                #expect(read.completeness.problems == [])
            }
            for worker in workers { for pointer in worker.kept { Arena.free(pointer) } }
            for arena in arenas { _ = arena.drainRemoteFrees() }
        }
    }

    @Test(
        "a reader has the file as it was when it came, and recording goes on in a new one; what else has its name stays"
    )
    func readers() throws {
        try Self.withPool { pool, path in
            #expect(pool.guardFlightRecorder() == .guarded)
            let deadline = Patience.end
            func open(_ path: String) -> Opening {
                let reading = Opening(path, O_RDONLY)
                while !reading.isOver, ContinuousClock.now < deadline {
                    #expect(pool.guardFlightRecorder() != .left)
                    usleep(1_000)
                }
                return reading
            }
            let first = open(path)
            let pointer = try pool.sharedArena.allocate(100, owner: .process, at: Self.here)
            defer { Arena.free(pointer) }
            let second = open(path)
            for (reading, live) in [(first, 378), (second, 379)] {
                reading.copy(to: path + ".copy")
                reading.close()
                #expect(try DumpReader.read(path: path + ".copy").totals.liveBuffers == UInt64(live))
            }
            // Another start that means the same file does not get it.
            #expect(throws: ArenaError.self) { try Self.makePool(path, limit: 64 << 20).retire() }
            while pool.guardFlightRecorder() != .guarded, ContinuousClock.now < deadline {}

            #expect(rename(path, path + ".moved") == 0)
            try "notes".write(toFile: path, atomically: false, encoding: .utf8)
            open(path + ".moved").close()
            #expect(try String(contentsOfFile: path, encoding: .utf8) == "notes")
            #expect(FileStatus(path + ".next") == nil)
            #expect(pool.guardFlightRecorder() == .guarded)
        }
    }

    /// Opens a file on a thread of its own, which may wait for it.
    private final class Opening: Sendable {
        private let descriptor = Atomic<CInt>(-2)

        init(_ path: String, _ flags: CInt) {
            Thread.detachNewThread { self.descriptor.store(open(path, flags | O_CLOEXEC), ordering: .releasing) }
        }

        var isOver: Bool { descriptor.load(ordering: .acquiring) != -2 }
        var size: Int { Int(lseek(descriptor.load(ordering: .acquiring), 0, SEEK_END)) }

        /// With holes where there is nothing.
        func copy(to path: String) {
            let from = descriptor.load(ordering: .acquiring)
            let to = Glibc.open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
            defer { Glibc.close(to) }
            ftruncate(to, off_t(size))
            // SEEK_DATA and SEEK_HOLE, which Swift does not import.
            var end: off_t = 0
            while case let start = lseek(from, end, 3), start >= 0 {
                end = lseek(from, start, 4)
                var piece = [UInt8](repeating: 0, count: Int(end - start))
                pread(from, &piece, piece.count, start)
                pwrite(to, piece, piece.count, start)
            }
        }

        func close() { Glibc.close(descriptor.load(ordering: .acquiring)) }
    }

    @Test("a file that the handler of crashes has no place for is not guarded: moving its ledger would end the process")
    func moreThanNoted() async {
        // In a process of its own: the handler is the process's.
        await #expect(processExitsWith: .success) { try FlightRecorderTests.guardSeventeen() }
    }

    static func guardSeventeen() throws {
        try withFolder { folder in
            let pools = try (1...17).map { try makePool("\(folder)/flight-\($0)") }
            for pool in pools.dropLast() { #expect(pool.guardFlightRecorder() == .guarded) }
            let last = try #require(pools.last)
            for _ in 0..<2 { #expect(last.guardFlightRecorder() == .unguarded(code: EUSERS)) }
            for pool in pools { pool.retire() }
        }
    }

    @Test("every arena has its part of each table: room for it in the file, and a reader that finds it")
    func perArena() throws {
        try withFolder { folder in
            // More than the first step of the file has rings for.
            let count = 40
            let path = "\(folder)/flight"
            let pool = try Self.makePool(path, limit: 1 << 30)
            let arenas = try (1...count).map { try pool.makeArena(name: "loop-\($0)") }
            for table in LedgerTable.allCases where table.isPerArena {
                let descriptor = pool.ledger.descriptor(table).pointee
                #expect(descriptor.groups == UInt64(count + 1))
                let backed = pool.region.backedBytes(table)
                #expect(backed >= Int(descriptor.groups * descriptor.rowsPerGroup * descriptor.stride), "\(table)")
            }
            try Self.freeOneInEach(arenas)
            let read = try DumpReader.read(path: path, .everything)
            #expect(Set(read.freed.map(\.arena)) == Set(1...UInt16(count)))
            #expect(read.arenas.dropFirst().allSatisfy { $0.allocations == 1 && $0.frees == 1 })
            pool.retire()
        }
    }

    @Test(
        "a file system that is full when loops start costs their rows, never the program", .enabled(if: canMountSmall))
    func fullDiskPerArena() throws {
        try withFolder { folder in
            try #require(mount("tmpfs", folder, "tmpfs", 0, "size=8m") == 0)
            defer { umount2(folder, Int32(MNT_DETACH)) }
            let pool = try Self.makePool("\(folder)/flight", limit: 1 << 30)
            let arenas = try (1...40).map { try pool.makeArena(name: "loop-\($0)") }
            try Self.freeOneInEach(arenas)
            #expect(pool.isFlightRecorderIncomplete)
            let read = try DumpReader.read(path: "\(folder)/flight", .everything)
            #expect(read.completeness.problems.contains { $0.contains("file system was full") })
            #expect(read.freed.count >= 15)
            pool.retire()
        }
    }

    @Test("a file system that is full costs rows of the file, never the program", .enabled(if: canMountSmall))
    func fullDisk() throws {
        try withFolder { folder in
            try #require(mount("tmpfs", folder, "tmpfs", 0, "size=4m") == 0)
            defer { umount2(folder, Int32(MNT_DETACH)) }
            let pool = try Self.makePool("\(folder)/flight")
            var held: [UnsafeMutableRawPointer] = []
            for _ in 0..<60_000 { held.append(try pool.sharedArena.allocate(64, owner: .process, at: Self.here)) }
            #expect(pool.isFlightRecorderIncomplete)
            #expect(pool.liveBufferCount == 60_000)
            let read = try DumpReader.read(path: "\(folder)/flight", .everything)
            #expect(read.totals.liveBuffers < 60_000)
            #expect(read.totals.liveBuffers > 1_000)
            #expect(read.sites.reduce(0) { $0 + $1.allocations } == 60_000)
            #expect(read.completeness.problems.contains { $0.contains("file system was full") && $0.contains("slots") })
            for pointer in held { Arena.free(pointer) }
            pool.retire()
        }
        try withFolder { folder in
            try #require(mount("tmpfs", folder, "tmpfs", 0, "size=1m") == 0)
            defer { umount2(folder, Int32(MNT_DETACH)) }
            #expect(Self.message { _ = try Self.makePool("\(folder)/flight") }.contains("no room"))
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
        }
    }

    /// Whether this process may mount a small file system to fill up: root, outside most containers.
    static let canMountSmall: Bool = {
        var template = Array("/tmp/flight-mount-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { return false }
        defer { rmdir(template) }
        guard mount("tmpfs", template, "tmpfs", 0, "size=64k") == 0 else { return false }
        umount2(template, Int32(MNT_DETACH))
        return true
    }()
}
