import DumpFormat
import Glibc
import Ledger
import Testing

/// A file that goes away with the test.
final class TemporaryFile {
    let path: String

    init(_ bytes: [UInt8] = []) {
        var template = Array("/tmp/arena-dump-test-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        precondition(descriptor >= 0)
        close(descriptor)
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        store(bytes)
    }

    deinit { unlink(path) }

    func store(_ bytes: [UInt8]) {
        let descriptor = open(path, O_WRONLY | O_TRUNC)
        defer { close(descriptor) }
        var done = 0
        while done < bytes.count {
            done += bytes.withUnsafeBytes { write(descriptor, $0.baseAddress! + done, $0.count - done) }
        }
    }

    /// Changes bits of one byte, of those that it has, at each of these places in turn, and puts them back.
    func flip(
        _ bytes: [UInt8], at offsets: some Sequence<Int>, _ bits: (Int) -> UInt8, _ look: (_ offset: Int) throws -> Void
    ) rethrows {
        let descriptor = open(path, O_RDWR)
        defer { close(descriptor) }
        for offset in offsets {
            var byte = bytes[offset] ^ bits(offset)
            pwrite(descriptor, &byte, 1, off_t(offset))
            try look(offset)
            byte = bytes[offset]
            pwrite(descriptor, &byte, 1, off_t(offset))
        }
    }
}

/// Reads a dump that is in memory, by way of a file.
func read(_ bytes: [UInt8], _ selection: DumpSelection = .everything) throws -> Snapshot {
    let file = TemporaryFile(bytes)
    return try withExtendedLifetime(file) { try DumpReader.read(path: file.path, selection) }
}

func verify(_ bytes: [UInt8]) -> VerifyReport {
    let file = TemporaryFile(bytes)
    return withExtendedLifetime(file) { DumpVerifier.verify(path: file.path) }
}

func encode(_ snapshot: Snapshot, level: Int32 = 3) throws -> [UInt8] {
    let sink = MemorySink()
    try DumpWriter(sink: sink, level: level).write(snapshot)
    return sink.bytes
}

func expectSame(_ a: Snapshot, _ b: Snapshot, _ location: SourceLocation = #_sourceLocation) {
    #expect(a.header == b.header, sourceLocation: location)
    #expect(a.totals == b.totals, sourceLocation: location)
    #expect(a.sizeClasses == b.sizeClasses, sourceLocation: location)
    #expect(a.arenas == b.arenas, sourceLocation: location)
    #expect(a.sites == b.sites, sourceLocation: location)
    #expect(a.owners == b.owners, sourceLocation: location)
    #expect(a.allocationGroups == b.allocationGroups, sourceLocation: location)
    #expect(a.chunks == b.chunks, sourceLocation: location)
    #expect(a.events == b.events, sourceLocation: location)
    #expect(a.freed == b.freed, sourceLocation: location)
    #expect(a.notes == b.notes, sourceLocation: location)
    #expect(a.runs == b.runs, sourceLocation: location)
    #expect(a.slots == b.slots, sourceLocation: location)
    #expect(a.references == b.references, sourceLocation: location)
}

@Suite("what is written is read back")
struct RoundTripTests {
    @Test("a random arena is the same after writing and reading", arguments: [1, 2, 3, 77] as [UInt64])
    func random(seed: UInt64) throws {
        var arena = SyntheticArena(seed: seed)
        arena.slots = Int(seed) * 40
        let snapshot = arena.make()
        let file = TemporaryFile(try encode(snapshot))
        let read = try DumpReader.read(path: file.path, .everything)
        #expect(read.completeness.isComplete, "seed \(seed): \(read.completeness)")
        expectSame(read, snapshot)
    }

    @Test("tables longer than a block are put together again, whatever the number of threads", arguments: [1, 2, 5])
    func manyBlocks(parallelism: Int) throws {
        var arena = SyntheticArena(seed: 9)
        arena.slots = 150_000
        arena.owners = 500
        let snapshot = arena.make()
        let file = TemporaryFile(try encode(snapshot))
        let read = try DumpReader.read(path: file.path, .everything, parallelism: parallelism)
        #expect(read.completeness.isComplete, "\(read.completeness)")
        expectSame(read, snapshot)
    }
}

@Suite("selections")
struct SelectionTests {
    @Test("only what is asked for is read", arguments: Snapshot.SlotColumns.Column.allCases)
    func oneColumn(column: Snapshot.SlotColumns.Column) throws {
        let snapshot = VerifyTests.arena()
        let slots = try #require(snapshot.slots)
        let file = TemporaryFile(try encode(snapshot))
        let read = try DumpReader.read(path: file.path, DumpSelection(slots: [column]))
        var expected = Snapshot.SlotColumns()
        expected.count = slots.count
        switch column {
        case .serial: expected.serial = slots.serial
        case .birth: expected.birth = slots.birth
        case .address: expected.address = slots.address
        case .requested: expected.requested = slots.requested
        case .capacity: expected.capacity = slots.capacity
        case .sizeClass: expected.sizeClass = slots.sizeClass
        case .arena: expected.arena = slots.arena
        case .site: expected.site = slots.site
        case .owner: expected.owner = slots.owner
        case .accessSite: expected.accessSite = slots.accessSite
        case .accessTime: expected.accessTime = slots.accessTime
        case .state: expected.state = slots.state
        }
        #expect(read.slots == expected)
        #expect(read.runs == nil)
        #expect(read.references == nil)
        #expect(read.completeness.isComplete)
    }

    @Test("tables that were not written are absent, not missing")
    func absent() throws {
        var snapshot = VerifyTests.arena()
        snapshot.references = nil
        snapshot.totals.unreachableBuffers = nil
        snapshot.totals.unreachableBytes = nil
        let read = try DumpFormatTests.read(try encode(snapshot))
        #expect(read.completeness.isComplete)
        expectSame(read, snapshot)
    }

    @Test("a snapshot that was read in part cannot be written as if it were whole")
    func partial() throws {
        let file = TemporaryFile(try encode(VerifyTests.arena()))
        let read = try DumpReader.read(path: file.path, DumpSelection(slots: [.site]))
        do {
            _ = try encode(read)
            Issue.record("a partial snapshot was written")
        } catch let error as DumpError {
            #expect(error.kind == .invalidSnapshot)
        }
    }
}
