import CArena
import Ledger

/// The counter and its limit: every byte the arena takes from the operating system is charged here first.
///
/// The words live in the ledger's header, so that a copy of the ledger has them; they are changed atomically, by any
/// thread. `counter = chunk + huge + ledger + staging` holds whenever no charge is under way.
struct Budget: @unchecked Sendable {
    typealias Word = UnsafeMutablePointer<UInt64>

    let limit: UInt64
    let counter: Word
    let chunkCount: Word
    let chunkBytes: Word
    let hugeCount: Word
    let hugeBytes: Word
    let ledgerBytes: Word
    let stagingBytes: Word
    let failedAllocations: Word
    private let peak: Word
    private let overdraft: Word
    private let nearBytes: UInt64
    private let rearmBytes: UInt64
    private let thresholds: LevelThresholds
    /// Two words of 0 or 1: whether the next near-limit, the next refusal, is to be reported. Then the level.
    private let armed: Word
    private var levelWord: Word { armed + 2 }

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
        stagingBytes = word(\.stagingBytes)
        overdraft = word(\.overdraftBytes)
        failedAllocations = word(\.failedAllocations)
        nearBytes = limit / 100 * nearPercent
        rearmBytes = limit / 100 * (nearPercent - min(LevelThresholds.hysteresisPercent, nearPercent))
        thresholds = LevelThresholds(limit: limit, nearPercent: nearPercent)
        armed = .allocate(capacity: 3)
        armed.initialize(repeating: 1, count: 2)
        levelWord.initialize(to: ArenaPool.Level.normal.rawValue)
    }

    func deallocate() { armed.deallocate() }

    /// Charges `bytes` to `part`; false, and nothing is changed, where that would pass the limit. A forced charge is
    /// always made, and what it takes above the limit is recorded as overdraft.
    func charge(_ bytes: Int, to part: Word, forced: Bool = false) -> Bool {
        var old = arena_load(counter)
        while true {
            let new = old + UInt64(bytes)
            if new > limit && !forced { return false }
            if arena_compare_exchange(counter, &old, new) != 0 {
                if new > limit { raise(overdraft, to: new - limit) }
                raise(peak, to: new)
                break
            }
        }
        _ = arena_add(part, UInt64(bytes))
        return true
    }

    func refund(_ bytes: Int, from part: Word) {
        _ = arena_sub(part, UInt64(bytes))
        if arena_sub(counter, UInt64(bytes)) < rearmBytes {
            arena_store(armed, 1)
            arena_store(armed + 1, 1)
        }
    }

    var level: ArenaPool.Level { ArenaPool.Level(rawValue: arena_load(levelWord)) ?? .normal }

    /// Brings the level up to date. Returns the change, to exactly one of several callers that see it.
    func moveLevel() -> (old: ArenaPool.Level, new: ArenaPool.Level)? {
        var word = arena_load(levelWord)
        while true {
            let old = ArenaPool.Level(rawValue: word) ?? .normal
            let new = thresholds.level(arena_load(counter), from: old)
            if new == old { return nil }
            if arena_compare_exchange(levelWord, &word, new.rawValue) != 0 { return (old, new) }
        }
    }

    /// True once per excursion above the near level.
    func entersNear() -> Bool {
        arena_load_relaxed(counter) >= nearBytes && arena_load_relaxed(armed) == 1 && arena_exchange(armed, 0) == 1
    }

    /// True for the first refusal of an excursion.
    func entersRefusal() -> Bool { arena_exchange(armed + 1, 0) == 1 }

    private func raise(_ word: Word, to value: UInt64) {
        var old = arena_load(word)
        while old < value, arena_compare_exchange(word, &old, value) == 0 {}
    }
}
