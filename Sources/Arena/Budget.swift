import CArena
import Ledger

/// The counter and its limit: every byte the arena takes from the operating system is charged here first.
///
/// The words live in the ledger's header, so that a copy of the ledger has them; they are changed atomically, by any
/// thread. `counter = chunk + huge + ledger + snapshot buffer` holds whenever no charge is under way.
///
/// What the program keeps beside the arena (`external`) is not in the counter, and leaves the arena that much less of the
/// limit.
struct Budget: @unchecked Sendable {
    typealias Word = UnsafeMutablePointer<UInt64>

    let limit: UInt64
    let counter: Word
    let chunkCount: Word
    let chunkBytes: Word
    let hugeCount: Word
    let hugeBytes: Word
    let ledgerBytes: Word
    let snapshotBufferBytes: Word
    let failedAllocations: Word
    private let peak: Word
    private let overLimit: Word
    private let nearBytes: UInt64
    private let hysteresisBytes: UInt64
    private let thresholds: LevelThresholds
    /// Four words: whether near-limit was reported (0 or 1), what was in use when a refusal was reported (or 0), the level,
    /// what the program has beside the arena.
    private let reported: Word
    private var reportedNear: Word { reported }
    private var reportedRefusal: Word { reported + 1 }
    private var levelWord: Word { reported + 2 }
    private var external: Word { reported + 3 }

    init(header: UnsafeMutablePointer<LedgerHeader>, limit: UInt64, nearPercent: UInt64) {
        func word(_ path: KeyPath<LedgerHeader, UInt64>) -> Word {
            let offset = MemoryLayout<LedgerHeader>.offset(of: path as PartialKeyPath<LedgerHeader>)!
            return (UnsafeMutableRawPointer(header) + offset).assumingMemoryBound(to: UInt64.self)
        }
        self.limit = limit
        header.pointee.limitBytes = limit
        counter = word(\.counterBytes)
        peak = word(\.peakCounterBytes)
        chunkCount = word(\.chunkCount)
        chunkBytes = word(\.chunkBytes)
        hugeCount = word(\.hugeCount)
        hugeBytes = word(\.hugeBytes)
        ledgerBytes = word(\.ledgerBytes)
        snapshotBufferBytes = word(\.snapshotBufferBytes)
        overLimit = word(\.overLimitBytes)
        failedAllocations = word(\.failedAllocations)
        // Under a small limit the chunk before the last may lie below the near level and the last one above the limit:
        // so near is also where no further chunk fits, unless that is early.
        let lastFit = max(limit - min(limit, UInt64(SizeClasses.chunkSize)), limit / 100 * 75)
        nearBytes = min(limit / 100 * nearPercent, lastFit)
        hysteresisBytes = limit / 100 * LevelThresholds.hysteresisPercent
        thresholds = LevelThresholds(limit: limit, nearPercent: nearPercent)
        reported = .allocate(capacity: 4)
        reported.initialize(repeating: 0, count: 4)
        levelWord.pointee = ArenaPool.Level.normal.rawValue
    }

    func deallocate() { reported.deallocate() }

    /// Charges `bytes` to `part`; false, and nothing is changed, where that would pass the limit. A forced charge is
    /// always made, and what it takes above the limit is recorded as over-limit allocation.
    func charge(_ bytes: Int, to part: Word, forced: Bool = false) -> Bool {
        var old = arena_load(counter)
        let others = externalBytes
        while true {
            let new = old + UInt64(bytes)
            if new + others > limit && !forced { return false }
            if arena_compare_exchange(counter, &old, new) != 0 {
                if new + others > limit { raise(overLimit, to: new + others - limit) }
                raise(peak, to: new)
                break
            }
        }
        _ = arena_add(part, UInt64(bytes))
        return true
    }

    func refund(_ bytes: Int, from part: Word) {
        _ = arena_sub(part, UInt64(bytes))
        _ = arena_sub(counter, UInt64(bytes))
        // What a dump takes and gives back is no sign that the excursion it was written for is over.
        guard part != snapshotBufferBytes else { return }
        let settled = settledCounter + hysteresisBytes
        if settled < nearBytes { arena_store(reportedNear, 0) }
        if settled <= arena_load_relaxed(reportedRefusal) { arena_store(reportedRefusal, 0) }
    }

    var externalBytes: UInt64 { arena_load_relaxed(external) }

    /// What the program has taken or given back beside the arena.
    func noteExternal(_ change: Int) { _ = arena_add(external, UInt64(bitPattern: Int64(change))) }

    /// What is in use, without what dumps in the making take.
    private var settledCounter: UInt64 {
        let snapshotBuffer = arena_load(snapshotBufferBytes)
        return max(arena_load(counter), snapshotBuffer) - snapshotBuffer + externalBytes
    }

    var level: ArenaPool.Level { ArenaPool.Level(rawValue: arena_load(levelWord)) ?? .normal }

    /// Brings the level up to date. Returns the change, to exactly one of several callers that see it.
    func moveLevel() -> (old: ArenaPool.Level, new: ArenaPool.Level)? {
        var word = arena_load(levelWord)
        while true {
            let old = ArenaPool.Level(rawValue: word) ?? .normal
            let new = thresholds.level(arena_load(counter) + externalBytes, from: old)
            if new == old { return nil }
            if arena_compare_exchange(levelWord, &word, new.rawValue) != 0 { return (old, new) }
        }
    }

    /// True once per excursion above the near level; it ends 5 points below.
    func entersNear() -> Bool {
        settledCounter >= nearBytes && arena_load_relaxed(reportedNear) == 0 && arena_exchange(reportedNear, 1) == 0
    }

    /// True for the first refusal of an excursion, which ends when the counter is 5 points below where it was refused.
    func entersRefusal() -> Bool {
        var none: UInt64 = 0
        return arena_compare_exchange(reportedRefusal, &none, max(settledCounter, 1)) != 0
    }

    private func raise(_ word: Word, to value: UInt64) {
        var old = arena_load(word)
        while old < value, arena_compare_exchange(word, &old, value) == 0 {}
    }
}
