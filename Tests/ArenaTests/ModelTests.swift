import Glibc
import Ledger
import SeededRandom
import Synchronization
import Testing

@testable import Arena

let here = CodeLocation("test", file: #fileID, line: #line, function: #function)

/// A fresh seed unless `ARENA_TEST_SEED` names one; failures print it.
let testSeed: UInt64 =
    getenv("ARENA_TEST_SEED").flatMap { UInt64(String(cString: $0)) } ?? UInt64.random(in: 1...(.max))

func makePool(_ mebibytes: Int, decay: UInt64 = 0) throws -> ArenaPool {
    var configuration = ArenaPool.Configuration(limitBytes: mebibytes << 20)
    configuration.decayNanoseconds = decay
    return try ArenaPool(configuration)
}

/// A pool, and an arena of it that is this thread's until it is unbound.
func makeBound(_ mebibytes: Int, decay: UInt64 = 0) throws -> (pool: ArenaPool, arena: Arena) {
    let pool = try makePool(mebibytes, decay: decay)
    let arena = try pool.makeArena(name: "test")
    arena.bind()
    return (pool, arena)
}

/// Runs `body` on a thread of its own with an arena bound to it.
func onThread(_ arena: Arena, _ body: @escaping @Sendable () -> Void) -> pthread_t {
    final class Work {
        let arena: Arena
        let body: @Sendable () -> Void
        init(_ arena: Arena, _ body: @escaping @Sendable () -> Void) { (self.arena, self.body) = (arena, body) }
    }
    var thread = pthread_t()
    let work = Unmanaged.passRetained(Work(arena, body))
    pthread_create(
        &thread, nil,
        { raw in
            let work = Unmanaged<Work>.fromOpaque(raw!).takeRetainedValue()
            work.arena.bind()
            work.body()
            work.arena.unbind()
            return nil
        }, work.toOpaque())
    return thread
}

@Suite("The allocator against a model", .serialized)
struct ModelTests {
    /// Sizes as a broker sees them: mostly small, some large, a few huge.
    static func size(_ random: inout SeededGenerator) -> Int {
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<60: Int.random(in: 1...4096, using: &random)
        case 60..<90: Int.random(in: 4097...65536, using: &random)
        case 90..<99: Int.random(in: 65537...1 << 20, using: &random)
        default: Int.random(in: 15 << 20...40 << 20, using: &random)
        }
    }

    @Test("random allocations never overlap, keep their bytes, and count exactly")
    func againstModel() throws {
        let (pool, arena) = try makeBound(400)
        defer { arena.unbind() }
        var random = SeededGenerator(seed: testSeed)
        var live: [(pointer: UnsafeMutableRawPointer, size: Int, mark: UInt8)] = []
        var refused = 0
        for step in 0..<20000 {
            let grow = live.count < 50 || (live.count < 3000 && Bool.random(using: &random))
            if grow {
                let size = Self.size(&random)
                if let pointer = try? arena.allocate(size, owner: .process, at: here) {
                    let mark = UInt8(truncatingIfNeeded: step)
                    // First and last byte are enough to see an overlap with a neighbour.
                    pointer.storeBytes(of: mark, as: UInt8.self)
                    pointer.storeBytes(of: mark, toByteOffset: size - 1, as: UInt8.self)
                    live.append((pointer, size, mark))
                } else {
                    refused += 1
                    #expect(pool.counterBytes <= pool.limitBytes, "seed \(testSeed), step \(step)")
                }
            } else {
                let index = Int.random(in: 0..<live.count, using: &random)
                let (pointer, size, mark) = live.remove(at: index)
                #expect(pointer.load(as: UInt8.self) == mark, "seed \(testSeed), step \(step)")
                #expect(
                    pointer.load(fromByteOffset: size - 1, as: UInt8.self) == mark, "seed \(testSeed), step \(step)")
                Arena.free(pointer)
            }
            if step % 1000 == 0 {
                try expectConsistent(pool, liveSizes: live.map(\.size), "seed \(testSeed), step \(step)")
            }
        }
        let ranges = live.map { (UInt(bitPattern: $0.pointer), UInt(bitPattern: $0.pointer) + UInt($0.size)) }.sorted {
            $0.0 < $1.0
        }
        for (left, right) in zip(ranges, ranges.dropFirst()) {
            #expect(left.1 <= right.0, "overlap, seed \(testSeed)")
        }
        #expect(refused < 20000, "seed \(testSeed)")
        for item in live { Arena.free(item.pointer) }
        try expectConsistent(pool, liveSizes: [], "seed \(testSeed), all freed")
        arena.giveBackUnused()
        pool.trim(all: true)
        // Only the chunk that holds the reserve may stay.
        #expect(pool.chunkCount <= 1, "seed \(testSeed)")
        #expect(pool.hugeBytes == 0)
    }

    @Test("buffers freed by other threads come back, and every byte is accounted for")
    func crossThread() throws {
        let pool = try makePool(512)
        let count = 4
        let arenas = try (0..<count).map { try pool.makeArena(name: "loop \($0)") }
        let mailboxes = (0..<count).map { _ in Mailbox() }
        let seed = testSeed
        let threads = (0..<count).map { index in
            onThread(arenas[index]) {
                var random = SeededGenerator(seed: seed &+ UInt64(index))
                var own: [UnsafeMutableRawPointer] = []
                for step in 0..<20000 {
                    if let pointer = try? arenas[index].allocate(
                        Int.random(in: 1...20000, using: &random), owner: .process, at: here)
                    {
                        pointer.storeBytes(of: UInt64(step), as: UInt64.self)
                        own.append(pointer)
                    }
                    if own.count > 200 {
                        let pointer = own.remove(at: Int.random(in: 0..<own.count, using: &random))
                        // Half are freed here, half by whoever finds them in the mail.
                        if Bool.random(using: &random) {
                            Arena.free(pointer)
                        } else {
                            mailboxes[Int.random(in: 0..<count, using: &random)].put(pointer)
                        }
                    }
                    if step % 64 == 0 {
                        for pointer in mailboxes[index].take() {
                            Arena.recordAccess(pointer, at: here)
                            Arena.free(pointer)
                        }
                    }
                }
                for pointer in own { Arena.free(pointer) }
            }
        }
        for thread in threads { pthread_join(thread, nil) }
        // The threads are gone: what is left in the mail is freed by a thread without an arena.
        for mailbox in mailboxes { for pointer in mailbox.take() { Arena.free(pointer) } }
        try expectConsistent(pool, liveSizes: [], "seed \(seed)")
        pool.retire()
    }

    final class Mailbox: Sendable {
        private let lock = Lock()
        nonisolated(unsafe) private var pointers: [UnsafeMutableRawPointer] = []

        func put(_ pointer: UnsafeMutableRawPointer) { lock.withLock { pointers.append(pointer) } }
        func take() -> [UnsafeMutableRawPointer] {
            lock.withLock {
                defer { pointers = [] }
                return pointers
            }
        }
    }

    @Test("reallocation keeps the bytes, the site and the owner")
    func reallocation() throws {
        let (pool, arena) = try makeBound(128)
        defer { arena.unbind() }
        var random = SeededGenerator(seed: testSeed)
        let owner = pool.openOwner(.session, name: "device-1")
        var size = 100
        var pointer = try arena.allocate(size, owner: owner, at: here)
        for byte in 0..<size {
            pointer.storeBytes(of: UInt8(truncatingIfNeeded: byte), toByteOffset: byte, as: UInt8.self)
        }
        for _ in 0..<200 {
            let next = Int.random(in: 100...3 << 20, using: &random)
            pointer = try #require(Arena.reallocate(pointer, to: next, mustSucceed: true))
            size = next
            for byte in 0..<100 {
                #expect(pointer.load(fromByteOffset: byte, as: UInt8.self) == UInt8(byte), "seed \(testSeed)")
            }
        }
        let slot = try #require(pool.slot(at: pointer))
        #expect(pool.slots[slot].owner == owner.rawValue)
        #expect(pool.slots[slot].requested == UInt64(size))
        try expectConsistent(pool, liveSizes: [size], "seed \(testSeed)")
        Arena.free(pointer)
    }
}

/// Checks every identity the ledger promises: counters, slots, slabs, page maps and chunks agree to the byte.
func expectConsistent(
    _ pool: ArenaPool, liveSizes: [Int], _ comment: String, sourceLocation: SourceLocation = #_sourceLocation
) throws {
    let ledger = pool.ledger
    let slots = ledger.records(.slots, of: SlotRecord.self)
    var live = 0
    var requested = 0
    var perChunkLive: [Int: Int] = [:]
    let chunks = ledger.records(.chunks, of: ChunkRecord.self)
    for index in 0..<ledger.rows(.slots) where slots[index].state == SlotRecord.State.live.rawValue {
        live += 1
        requested += Int(slots[index].requested)
        let chunk = Int(slots[index].address) / SizeClasses.chunkSize
        if slots[index].sizeClass != SlotRecord.hugeClass {
            perChunkLive[chunk, default: 0] += SizeClasses.bytes(of: Int(slots[index].sizeClass))
        }
        #expect(
            pool.slot(at: pool.range.base + Int(slots[index].address)) == index, "\(comment)",
            sourceLocation: sourceLocation)
    }
    #expect(live == liveSizes.count, "\(comment)", sourceLocation: sourceLocation)
    #expect(requested == liveSizes.reduce(0, +), "\(comment)", sourceLocation: sourceLocation)

    var countedLive = 0
    var countedRequested = 0
    for group in 0..<ledger.groups(.siteCounters) {
        for site in 0..<ledger.rows(.siteCounters) {
            let counters = ledger.record(.siteCounters, site, group: group).assumingMemoryBound(to: SiteCounters.self)
            countedLive += Int(counters.pointee.allocations &- counters.pointee.frees)
            countedRequested += Int(counters.pointee.allocatedRequested &- counters.pointee.freedRequested)
        }
    }
    #expect(countedLive == live, "\(comment)", sourceLocation: sourceLocation)
    #expect(countedRequested == requested, "\(comment)", sourceLocation: sourceLocation)

    var chunkCount = 0
    var hugeBytes = 0
    let pageMap = ledger.records(.pageMap, of: PageEntry.self)
    for index in 0..<ledger.rows(.chunks) {
        switch ChunkRecord.State(rawValue: chunks[index].state) {
        case .chunk:
            chunkCount += 1
            let bits = PageBits(ledger.record(.pageBits, index))
            var free = 0
            for page in 0..<SizeClasses.pagesPerChunk {
                let entry = pageMap[index * SizeClasses.pagesPerChunk + page]
                if !bits.isUsed(page) { free += 1 }
                #expect(
                    bits.isUsed(page) == (entry.kind != .free), "\(comment): chunk \(index) page \(page)",
                    sourceLocation: sourceLocation)
            }
            #expect(free == Int(chunks[index].freePages), "\(comment)", sourceLocation: sourceLocation)
            #expect(
                bits.longestFreeRun() == Int(chunks[index].largestFreeRun), "\(comment)", sourceLocation: sourceLocation
            )
            #expect(
                perChunkLive[index, default: 0] + free * SizeClasses.pageSize <= SizeClasses.chunkSize, "\(comment)",
                sourceLocation: sourceLocation)
        case .cached: chunkCount += 1
        case .hugeHead: hugeBytes += Int(chunks[index].mappedBytes)
        default: #expect(perChunkLive[index] == nil, "\(comment)", sourceLocation: sourceLocation)
        }
    }
    #expect(pool.chunkCount == chunkCount, "\(comment)", sourceLocation: sourceLocation)
    #expect(pool.chunkBytes == chunkCount * SizeClasses.chunkSize, "\(comment)", sourceLocation: sourceLocation)
    #expect(pool.hugeBytes == hugeBytes, "\(comment)", sourceLocation: sourceLocation)
    #expect(
        pool.counterBytes == pool.chunkBytes + pool.hugeBytes + pool.ledgerBytes + pool.snapshotBufferBytes,
        "\(comment)",
        sourceLocation: sourceLocation)
}
