import Glibc
import Ledger
import SeededRandom
import Testing

@testable import Arena

@Suite("Misuse", .serialized)
struct MisuseTests {
    private func message(_ result: ExitTest.Result?) -> String {
        String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
    }

    @Test("a double free ends the process and names the buffer, its owner, and who freed it")
    func doubleFree() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let (pool, arena) = try makeBound(64)
            let session = pool.openOwner(.session, name: "device-1")
            let keep = try arena.allocate(100, owner: session, at: here)
            let pointer = try arena.allocate(
                100, owner: session, at: CodeLocation("packet", file: "Frame.swift", line: 12, function: "f"))
            Arena.recordAccess(pointer, at: CodeLocation("handler", file: "Handler.swift", line: 7, function: "f"))
            arena.setContext(owner: session, at: CodeLocation("reading", file: "Read.swift", line: 3, function: "f"))
            Arena.free(pointer)
            Arena.free(pointer)
            _ = keep
        }
        let message = message(result)
        #expect(message.contains("double free: 0x"))
        #expect(message.contains("100 bytes from \"packet\" (Frame.swift:12), owner session \"device-1\""))
        #expect(message.contains("last accessed at \"handler\" (Handler.swift:7)"))
        #expect(message.contains("under \"reading\" (Read.swift:3)"))
    }

    @Test("a double free from another thread ends the process, whoever comes second")
    func doubleRemoteFree() async {
        await #expect(processExitsWith: .failure) {
            let pool = try makePool(64)
            let arena = try pool.makeArena(name: "one")
            let other = try pool.makeArena(name: "two")
            arena.bind()
            nonisolated(unsafe) let pointer = try arena.allocate(100, owner: .process, at: here)
            pthread_join(onThread(other) { Arena.free(pointer) }, nil)
            Arena.free(pointer)
        }
    }

    @Test("freeing the middle of a buffer ends the process and names the buffer")
    func middle() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let (_, arena) = try makeBound(64)
            Arena.free(try arena.allocate(100, owner: .process, at: here) + 16)
        }
        #expect(message(result).contains("into the middle of a buffer"))
        #expect(message(result).contains("100 bytes from \"test\" (ArenaTests/ModelTests.swift:"))
    }

    @Test("freeing an element that was never handed out ends the process")
    func neverAllocated() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let (_, arena) = try makeBound(64)
            Arena.free(try arena.allocate(128, owner: .process, at: here) + 128)
        }
        #expect(message(result).contains("never allocated"))
    }

    @Test("freeing a pointer of somebody else's ends the process and names it")
    func foreign() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            Arena.free(UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 16))
        }
        #expect(message(result).contains("free of a pointer that is in no arena: 0x"))
    }

    @Test("the ring remembers the last buffers an arena freed, oldest overwritten first")
    func ring() throws {
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        let owner = pool.openOwner(.session, name: "device-1")
        var serials: [UInt64] = []
        for size in 1...FreedRecord.perArena + 10 {
            let pointer = try arena.allocate(size, owner: owner, at: here)
            serials.append(pool.slots[try #require(pool.slot(at: pointer))].serial)
            Arena.free(pointer)
        }
        let ring = (0..<FreedRecord.perArena).map { arena.state.pointee.freed[$0] }
        #expect(Set(ring.map(\.serial)) == Set(serials.suffix(FreedRecord.perArena)))
        for entry in ring {
            #expect(entry.owner == owner.rawValue)
            #expect(entry.freed >= entry.birth)
            #expect(serials[Int(entry.requested) - 1] == entry.serial)
        }
    }
}

@Suite("Checked mode", .serialized)
struct CheckedTests {
    private static func makeCheckedPool() throws -> ArenaPool {
        var configuration = ArenaPool.Configuration(limitBytes: 256 << 20)
        configuration.isChecked = true
        return try ArenaPool(configuration)
    }

    @Test("a byte written past the end of a buffer is found when it is freed", arguments: [100, 65536, 1_000_000])
    func overrun(size: Int) async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) { [size] in
            let pool = try Self.makeCheckedPool()
            let arena = try pool.makeArena(name: "test")
            arena.bind()
            let pointer = try arena.allocate(size, owner: .process, at: here)
            pointer.storeBytes(of: 1, toByteOffset: size, as: UInt8.self)
            Arena.free(pointer)
        }
        let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(message.contains("1 byte(s) or more were written past the end of a buffer"))
        #expect(message.contains("\(size) bytes from \"test\""))
    }

    @Test("a byte written after the free is found when the place is used again")
    func useAfterFree() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let pool = try Self.makeCheckedPool()
            let arena = try pool.makeArena(name: "test")
            arena.bind()
            let session = pool.openOwner(.session, name: "device-1")
            let pointer = try arena.allocate(100, owner: session, at: here)
            Arena.free(pointer)
            pointer.storeBytes(of: 1, toByteOffset: 40, as: UInt8.self)
            for _ in 0..<200 { _ = try arena.allocate(100, owner: .process, at: here) }
        }
        let message = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(message.contains("byte 40 of a buffer was written after it was freed"))
        #expect(message.contains("owner session \"device-1\""))
    }

    @Test("correct programs run as without checks: sizes, counters and remote frees agree")
    func correctProgram() throws {
        let pool = try Self.makeCheckedPool()
        let arena = try pool.makeArena(name: "test")
        let other = try pool.makeArena(name: "other")
        arena.bind()
        var random = SeededGenerator(seed: testSeed)
        var live: [(UnsafeMutableRawPointer, Int)] = []
        for _ in 0..<2000 {
            if live.count < 100 || Bool.random(using: &random) {
                let size = Int.random(in: 1...(Bool.random(using: &random) ? 1000 : 200_000), using: &random)
                guard let pointer = try? arena.allocate(size, owner: .process, at: here) else { continue }
                memset(pointer, 1, size)
                live.append((pointer, size))
            } else {
                let index = Int.random(in: 0..<live.count, using: &random)
                let size = Int.random(in: 1...300_000, using: &random)
                if let moved = Arena.reallocate(live[index].0, to: size, mustSucceed: false) {
                    live[index] = (moved, size)
                }
                Arena.free(live.remove(at: Int.random(in: 0..<live.count, using: &random)).0)
            }
        }
        try expectConsistent(pool, liveSizes: live.map(\.1), "seed \(testSeed)")
        nonisolated(unsafe) let rest = live
        pthread_join(onThread(other) { for (pointer, _) in rest { Arena.free(pointer) } }, nil)
        arena.unbind()
        try expectConsistent(pool, liveSizes: [], "seed \(testSeed), all freed")
        pool.trim(all: true)
        pool.retire()
    }
}
