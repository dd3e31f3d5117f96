import Ledger
import SeededRandom
import Testing

@testable import Arena

@Suite("Chunks and huge mappings")
struct ChunkAllocatorTests {
    static let chunk = SizeClasses.chunkSize

    @Test("the lowest free places are taken first, and a huge mapping takes neighbours")
    func places() throws {
        let parts = try PoolParts(200)
        #expect((0..<4).map { _ in parts.takeChunk() } == [0, 1, 2, 3])
        parts.unmap(1, .chunk)
        // Two places, of which the one that is free has no free neighbour.
        #expect(parts.takeHuge(Self.chunk + 8192) == 4)
        #expect(parts.takeChunk() == 1)
        parts.unmap(4, .huge(bytes: Self.chunk + 8192))
        #expect(parts.takeHuge(2 * Self.chunk) == 4)
        #expect(parts.takeChunk() == 6)
        // Tables by chunk have rows for those, and no more.
        #expect(parts.ledger.rows(.chunks) == 7 && parts.ledger.rows(.pageMap) == 7)
    }

    @Test("a cached chunk is charged, is taken before any other, and is due when its decay is over, the oldest first")
    func cache() throws {
        let parts = try PoolParts(200, decay: 1_000)
        let taken = (0..<3).map { _ in parts.takeChunk()! }
        let counter = parts.counterBytes
        for index in taken { parts.cache(index) }
        #expect(parts.counterBytes == counter && parts.cachedCount == 3)
        #expect(parts.takeChunk() == 2, "the one cached last: its pages are the warmest")
        let cachedAt = parts.ledger.records(.chunks, of: ChunkRecord.self)[0].birth
        #expect(parts.takeDue(at: cachedAt + 999, all: false) == nil)
        #expect(parts.takeDue(at: cachedAt + 1_000, all: false) == 0)
        #expect(parts.takeDue(at: cachedAt, all: true) == 1)
        #expect(parts.takeDue(at: cachedAt, all: true) == nil && parts.cachedCount == 0)
        // Nobody can have the place before its memory has gone.
        #expect(parts.counterBytes == counter && parts.takeChunk() == 3)
        for index in [UInt32(0), 1] { parts.unmap(index, .chunk) }
        #expect(parts.takeChunk() == 0)
        #expect(Int(parts.budget.chunkBytes.pointee) == 3 * Self.chunk && parts.budget.chunkCount.pointee == 3)
    }

    @Test("cached chunks make way for a huge mapping that would not fit beside them")
    func makeWay() throws {
        let parts = try PoolParts(100)
        let taken = (0..<5).map { _ in parts.takeChunk()! }
        for index in taken.dropFirst() { parts.cache(index) }
        let huge = try #require(parts.takeHuge(4 * Self.chunk))
        // Where it lies nobody knows beforehand: the places of the cached ones are free by then.
        #expect(huge == 1 && parts.cachedCount == 0)
        #expect(parts.budget.chunkCount.pointee == 1 && parts.budget.hugeCount.pointee == 1)
        #expect(Int(parts.budget.hugeBytes.pointee) == 4 * Self.chunk)
    }

    @Test("what the limit refuses leaves nothing behind, and what is forced passes it")
    func limit() throws {
        let parts = try PoolParts(64)
        for _ in 0..<3 { #expect(parts.takeChunk() != nil) }
        let counter = parts.counterBytes
        #expect(parts.takeChunk() == nil && parts.takeHuge(17 << 20) == nil)
        #expect(parts.counterBytes - counter < 1 << 20, "rows of the ledger at most")
        #expect(parts.budget.chunkCount.pointee == 3 && parts.budget.hugeCount.pointee == 0)
        #expect(parts.takeChunk(forced: true) == 3)
        #expect(parts.counterBytes > 64 << 20)
        #expect(Int(parts.ledger.header.pointee.overLimitBytes) == parts.counterBytes - 64 << 20)
    }

    @Test("of the address range nothing is handed out beyond its end")
    func end() throws {
        let parts = try PoolParts(32)
        var taken: Set<UInt32> = []
        while let index = parts.takeChunk(forced: true) { #expect(taken.insert(index).inserted) }
        #expect(taken.count == parts.range.places && taken.max() == UInt32(parts.range.places - 1))
        parts.unmap(7, .chunk)
        #expect(parts.takeHuge(Self.chunk + 1, forced: true) == nil, "two places are nowhere")
        #expect(parts.takeChunk(forced: true) == 7)
    }

    @Test("mappings never overlap, and the budget is their sum, whatever comes and goes", arguments: 1...20)
    func random(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let parts = try PoolParts(400)
        var live: [(index: UInt32, mapping: Mapping)] = []
        for step in 0..<2_000 {
            switch random.next() % 8 {
            case 0...2:
                if let index = parts.takeChunk() { live.append((index, .chunk)) }
            case 3:
                let bytes = (1 + Int(random.next() % 6_000)) * 8192
                guard bytes > Self.chunk else { continue }
                if let index = parts.takeHuge(bytes) { live.append((index, .huge(bytes: bytes))) }
            case 4:
                guard parts.cachedCount > 0, random.next() % 4 == 0 else { continue }
                while let index = parts.takeDue(at: 0, all: true) { parts.unmap(index, .chunk) }
            default:
                guard !live.isEmpty else { continue }
                let (index, mapping) = live.remove(at: Int(random.next() % UInt64(live.count)))
                if mapping == .chunk, random.next() % 2 == 0 {
                    parts.cache(index)
                } else {
                    parts.unmap(index, mapping)
                }
            }
            var used: Set<Int> = []
            let isDisjoint = live.allSatisfy { index, mapping in
                (Int(index)..<Int(index) + mapping.places).allSatisfy { used.insert($0).inserted }
            }
            let huge = live.filter { $0.mapping != .chunk }
            let chunks = live.count - huge.count + parts.cachedCount
            let hugeBytes = huge.reduce(0) { $0 + $1.mapping.bytes }
            #expect(isDisjoint, "seed \(seed), step \(step)")
            #expect(
                parts.budget.chunkCount.pointee == chunks && parts.budget.chunkBytes.pointee == chunks * Self.chunk
                    && parts.budget.hugeCount.pointee == huge.count && parts.budget.hugeBytes.pointee == hugeBytes
                    && parts.counterBytes == chunks * Self.chunk + hugeBytes + parts.ledgerBytes,
                "seed \(seed), step \(step)")
        }
    }
}
