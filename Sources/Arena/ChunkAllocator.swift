import CArena
import Ledger

/// What lies at a place of the range: a chunk, which an arena divides, or a buffer larger than one.
enum Mapping: Equatable {
    case chunk
    case huge(bytes: Int)

    var bytes: Int {
        switch self {
        case .chunk: SizeClasses.chunkSize
        case .huge(let bytes): bytes
        }
    }

    var places: Int { (bytes + SizeClasses.chunkSize - 1) / SizeClasses.chunkSize }
}

/// Which places of the range are mapped, and which chunks nobody uses.
///
///     free --map--> used --cache--> cached --(decay) takeDue, decommit, forget--> free
///                     ^---------------'
///
/// A place is free, or of one mapping. What is mapped is charged: its bytes and its number, in the budget's words for its
/// kind. A cached chunk is mapped, charged and no arena's. The lowest free places are taken first, so that the ledger's tables
/// by chunk stay short.
///
/// Part of what the pool's lock guards.
struct ChunkAllocator {
    private let range: ChunkRange
    private let budget: Budget
    private let ledger: LedgerImage
    private let decayNanoseconds: UInt64
    /// A bit each, set where a place is free.
    private var freePlaces: [UInt64]
    /// Oldest first.
    private var cached: [UInt32] = []

    init(range: ChunkRange, budget: Budget, ledger: LedgerImage, decayNanoseconds: UInt64) {
        (self.range, self.budget, self.ledger) = (range, budget, ledger)
        self.decayNanoseconds = decayNanoseconds
        freePlaces = .init(repeating: .max, count: (range.places + 63) / 64)
        if range.places & 63 != 0 { freePlaces[range.places >> 6] = (1 << UInt64(range.places & 63)) - 1 }
    }

    /// Chunks that no arena uses and that wait for their decay.
    var cachedCount: Int { cached.count }

    // MARK: Taking

    /// The chunk cached last, or a new mapping; nil at the limit.
    mutating func takeChunk(forced: Bool, _ growth: inout LedgerGrowth) -> UInt32? {
        cached.popLast() ?? map(.chunk, forced: forced, &growth)
    }

    /// A mapping of its own; nil at the limit.
    mutating func takeHuge(bytes: Int, forced: Bool, _ growth: inout LedgerGrowth) -> UInt32? {
        if let index = map(.huge(bytes: bytes), forced: false, &growth) { return index }
        // Chunks that nobody uses stand in the way of no one.
        for index in cached {
            precondition(chunks[Int(index)].state == ChunkRecord.State.cached.rawValue)
            range.decommit(Int(index), Mapping.chunk.bytes)
            forget(index, .chunk)
        }
        cached.removeAll()
        return map(.huge(bytes: bytes), forced: forced, &growth)
    }

    private mutating func map(_ mapping: Mapping, forced: Bool, _ growth: inout LedgerGrowth) -> UInt32? {
        let (places, bytes) = (mapping.places, mapping.bytes)
        guard let index = lowestFreePlaces(places) else { return nil }
        let rows = index + places
        for table in [LedgerTable.chunks, .pageBits, .pageMap] {
            guard growth.grow(table, rows: rows, forced: forced) else { return nil }
        }
        let words = words(mapping)
        guard budget.charge(bytes, to: words.bytes, forced: forced) else { return nil }
        guard range.commit(index, bytes) else {
            budget.refund(bytes, from: words.bytes)
            return nil
        }
        _ = arena_add(words.count, 1)
        for place in index..<rows { freePlaces[place >> 6] &= ~(1 << UInt64(place & 63)) }
        var record = ChunkRecord()
        record.mappedBytes = UInt64(bytes)
        record.next = .max
        record.previous = .max
        (chunks + index).initialize(repeating: record, count: places)
        return UInt32(index)
    }

    // MARK: Returning

    /// Keeps an empty chunk for whoever needs one next, until its decay.
    mutating func cache(_ index: UInt32) {
        let record = chunks + Int(index)
        record.pointee.state = ChunkRecord.State.cached.rawValue
        record.pointee.birth = arena_clock_now()
        cached.append(index)
    }

    /// The chunk cached first, if its decay is over or all are due: to be decommitted, then forgotten.
    mutating func takeDue(at now: UInt64, all: Bool) -> UInt32? {
        guard let oldest = cached.first, all || now &- chunks[Int(oldest)].birth >= decayNanoseconds else { return nil }
        return cached.removeFirst()
    }

    /// A mapping's memory has gone: its places are free, and its bytes are no longer charged.
    mutating func forget(_ index: UInt32, _ mapping: Mapping) {
        for place in Int(index)..<Int(index) + mapping.places {
            chunks[place].state = ChunkRecord.State.unused.rawValue
            freePlaces[place >> 6] |= 1 << UInt64(place & 63)
        }
        let words = words(mapping)
        _ = arena_sub(words.count, 1)
        budget.refund(mapping.bytes, from: words.bytes)
    }

    // MARK: Where and how much

    private var chunks: UnsafeMutablePointer<ChunkRecord> { ledger.records(.chunks, of: ChunkRecord.self) }

    private func words(_ mapping: Mapping) -> (bytes: Budget.Word, count: Budget.Word) {
        switch mapping {
        case .chunk: (budget.chunkBytes, budget.chunkCount)
        case .huge: (budget.hugeBytes, budget.hugeCount)
        }
    }

    private func lowestFreePlaces(_ count: Int) -> Int? {
        if count == 1 {
            guard let word = freePlaces.firstIndex(where: { $0 != 0 }) else { return nil }
            return word * 64 + freePlaces[word].trailingZeroBitCount
        }
        var length = 0
        for place in 0..<range.places {
            length = freePlaces[place >> 6] >> UInt64(place & 63) & 1 == 1 ? length + 1 : 0
            if length == count { return place - count + 1 }
        }
        return nil
    }
}
