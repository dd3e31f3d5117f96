import CArena
import Glibc
import Ledger
import Synchronization
import Testing

@testable import Arena

@Suite("Counter and limit", .serialized)
struct LimitTests {
    @Test("the limit is never passed, and the error says what was needed, used and allowed")
    func limit() throws {
        let (pool, arena) = try makeBound(100)
        defer { arena.unbind() }
        var live: [UnsafeMutableRawPointer] = []
        var failure: ArenaError?
        while failure == nil {
            do { live.append(try arena.allocate(100_000, owner: .process, at: here)) } catch { failure = error }
            #expect(pool.counterBytes <= pool.limitBytes)
        }
        // 6 chunks of 16 MiB are 96 MiB; a seventh does not fit 100 MiB.
        #expect(pool.chunkCount == 6)
        #expect(failure == .limit(needed: 16_777_216, used: pool.counterBytes, limit: 100 << 20))
        #expect(
            failure.map(String.init(describing:))
                == "failed to allocate 16777216 byte(s) of arena memory (used: \(pool.counterBytes), max: 104857600)")
        #expect(pool.failedAllocations == 1)
        // Nothing else is broken: what is freed can be had again.
        Arena.free(live.removeLast())
        live.append(try arena.allocate(100_000, owner: .process, at: here))
        for pointer in live { Arena.free(pointer) }
        try expectConsistent(pool, liveSizes: [], "all freed")
    }

    @Test("an allocation that cannot be refused draws on the reserve before it passes the limit")
    func reserve() throws {
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        var live: [UnsafeMutableRawPointer] = []
        while let pointer = try? arena.allocate(65536, owner: .process, at: here) { live.append(pointer) }
        let chunks = pool.chunkCount
        let reserved = try #require(
            arena.allocate(65536, site: .unknown, owner: .process, mustSucceed: true))
        live.append(reserved)
        #expect(pool.chunkCount == chunks, "the reserve was inside the limit")
        #expect(pool.counterBytes <= pool.limitBytes)
        #expect(pool.ledger.header.pointee.overLimitBytes == 0)
        for _ in 0..<40 {
            live.append(try #require(arena.allocate(65536, site: .unknown, owner: .process, mustSucceed: true)))
        }
        #expect(pool.counterBytes > pool.limitBytes, "beyond the reserve the limit is passed, not the process ended")
        #expect(Int(pool.ledger.header.pointee.overLimitBytes) == pool.counterBytes - pool.limitBytes)
        for pointer in live { Arena.free(pointer) }
        try expectConsistent(pool, liveSizes: [], "all freed")
    }

    @Test("near-limit pressure is reported once per excursion, and again after the counter has fallen")
    func pressure() throws {
        let pool = try makePool(200)
        let reports = Mutex<[ArenaPool.Pressure]>([])
        pool.onPressure { pressure in
            if case .level = pressure { return }
            reports.withLock { $0.append(pressure) }
        }
        let arena = try pool.makeArena(name: "test")
        arena.bind()
        defer { arena.unbind() }
        for excursion in 1...3 {
            var live: [UnsafeMutableRawPointer] = []
            while let pointer = try? arena.allocate(1 << 20, owner: .process, at: here) { live.append(pointer) }
            #expect((try? arena.allocate(1 << 20, owner: .process, at: here)) == nil, "a second refusal")
            let seen = reports.withLock { $0 }
            #expect(seen.filter { $0 == .nearLimit }.count == excursion)
            #expect(seen.count == 2 * excursion)
            for pointer in live { Arena.free(pointer) }
            arena.giveBackUnused()
            pool.trim(all: true)
        }
    }

    @Test("a dump's snapshot buffer, given back, does not make an excursion look over")
    func snapshotBufferIsNoRelief() throws {
        let pool = try makePool(64)
        let reports = Mutex<[ArenaPool.Pressure]>([])
        pool.onPressure { pressure in reports.withLock { $0.append(pressure) } }
        let arena = try pool.makeArena(name: "test")
        arena.bind()
        defer { arena.unbind() }
        var live: [UnsafeMutableRawPointer] = []
        while let pointer = try? arena.allocate(1 << 20, owner: .process, at: here) { live.append(pointer) }
        for _ in 0..<20 {
            do { let snapshotBuffer = try #require(pool.makeSnapshotBuffer()); withExtendedLifetime(snapshotBuffer) {} }
            #expect((try? arena.allocate(1 << 20, owner: .process, at: here)) == nil)
        }
        let seen = reports.withLock { $0 }
        // 64 MiB hold three chunks: the third is the last that fits, below 85 percent.
        #expect(seen.filter { $0 == .nearLimit }.count == 1)
        #expect(seen.filter { if case .refused = $0 { true } else { false } }.count == 1)
        for pointer in live { Arena.free(pointer) }
    }

    @Test("a huge buffer has its own mapping, is counted in whole pages, and goes back at once")
    func huge() throws {
        let (pool, arena) = try makeBound(256)
        defer { arena.unbind() }
        let size = 50_000_001
        let pointer = try arena.allocate(size, owner: .process, at: here)
        #expect(pool.hugeBytes == (size + 8191) / 8192 * 8192)
        #expect(pool.chunkCount == 0)
        pointer.storeBytes(of: 7, toByteOffset: size - 1, as: UInt8.self)
        #expect(pool.slot(at: pointer + size - 1) == pool.slot(at: pointer))
        try expectConsistent(pool, liveSizes: [size], "huge")
        Arena.free(pointer)
        #expect(pool.hugeBytes == 0)
        #expect(throws: ArenaError.self) { try arena.allocate(300 << 20, owner: .process, at: here) }
        #expect(throws: ArenaError.self) { try arena.allocate(.max, owner: .process, at: here) }
    }

    @Test("resident memory follows the counter: what is freed goes back to the system after the decay")
    func decay() async {
        // In a process of its own: resident memory is the whole process's.
        await #expect(processExitsWith: .success) {
            let (pool, arena) = try makeBound(300)
            let before = residentBytes()
            var live: [UnsafeMutableRawPointer] = []
            for _ in 0..<250 {
                let pointer = try arena.allocate(1 << 20, owner: .process, at: here)
                memset(pointer, 1, 1 << 20)
                live.append(pointer)
            }
            #expect(residentBytes() - before >= 250 << 20)
            for pointer in live { Arena.free(pointer) }
            arena.giveBackUnused()
            pool.trim()
            #expect(residentBytes() - before < 32 << 20)
        }
    }

    @Test("free pages between used ones can be given back to the system, and be used again")
    func discard() async {
        await #expect(processExitsWith: .success) {
            let (pool, arena) = try makeBound(300)
            func fill(_ value: Int32) throws -> UnsafeMutableRawPointer {
                let pointer = try arena.allocate(1 << 20, owner: .process, at: here)
                memset(pointer, value, 1 << 20)
                return pointer
            }
            var live = try (0..<250).map { _ in try fill(1) }
            for index in stride(from: 0, to: 250, by: 2) { Arena.free(live[index]) }
            let (before, counter) = (residentBytes(), pool.counterBytes)
            #expect(arena.discardFreePages() >= 125 << 20)
            #expect(before - residentBytes() >= 120 << 20)
            #expect(pool.counterBytes == counter)
            for index in stride(from: 0, to: 250, by: 2) { live[index] = try fill(2) }
            #expect(pool.counterBytes == counter)
            for (index, pointer) in live.enumerated() {
                let bytes = UnsafeRawBufferPointer(start: pointer, count: 1 << 20)
                #expect(bytes.allSatisfy { $0 == (index % 2 == 0 ? 2 : 1) })
            }
            try expectConsistent(pool, liveSizes: live.map { _ in 1 << 20 }, "discarded")
        }
    }

    @Test("a limit too small for a chunk is refused with a reason")
    func tooSmall() {
        #expect(throws: ArenaError.self) { try ArenaPool(ArenaPool.Configuration(limitBytes: 1 << 20)) }
    }
}

/// What the kernel says this process has in memory.
func residentBytes() -> Int {
    let file = fopen("/proc/self/statm", "r")
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    fgets(&line, 256, file)
    let text = String(decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 4096 } ?? 0
}
