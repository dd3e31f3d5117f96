import CArena
import Ledger

extension ArenaPool {
    /// How full the arena is, as a word: what a program does about it is its own affair.
    ///
    /// A level is entered at its percent of the limit and left `hysteresisPercent` below that, or at half of it where that is
    /// more, so that a counter that stands at a threshold does not make it flutter.
    public enum Level: UInt64, Sendable, Comparable, CaseIterable {
        case normal = 0
        /// Time to trim.
        case elevated = 1
        /// Time to stop taking in.
        case near = 2
        /// Time to throw out.
        case critical = 3

        public static func < (left: Level, right: Level) -> Bool { left.rawValue < right.rawValue }
    }

    /// The level now. Any thread.
    public var level: Level { budget.levels.level }
}

/// Where levels begin and end, in bytes of the counter.
struct LevelThresholds: Sendable {
    private let enter: [UInt64]
    private let leave: [UInt64]

    static let elevatedPercent: UInt64 = 75
    static let criticalPercent: UInt64 = 95
    static let hysteresisPercent: UInt64 = 5

    /// - Parameter nearPercent: where `near` begins; `elevated` and `critical` make way for it.
    init(limit: UInt64, nearPercent: UInt64) {
        let percents = [
            0, min(Self.elevatedPercent, nearPercent), nearPercent, max(Self.criticalPercent, nearPercent),
        ]
        enter = percents.map { limit / 100 * $0 }
        leave = enter.map { Self.leave($0, limit: limit) }
    }

    /// Where what was entered at so many bytes is left. Never at 0, below which no counter goes.
    static func leave(_ entered: UInt64, limit: UInt64) -> UInt64 {
        entered - min(limit / 100 * hysteresisPercent, entered / 2)
    }

    /// The level of a counter, where it was `old` before.
    func level(_ counter: UInt64, from old: ArenaPool.Level) -> ArenaPool.Level {
        let entered = ArenaPool.Level.allCases.last { counter >= enter[Int($0.rawValue)] } ?? .normal
        let kept = ArenaPool.Level.allCases.last { $0 <= old && counter >= leave[Int($0.rawValue)] } ?? .normal
        return max(entered, kept)
    }
}

/// What is known of how full the arena is: the level, and whether anybody has heard of the excursion above the near level, and
/// of the first refusal, that is underway.
///
/// Its words are atomic: of several threads that see the same change exactly one gets to report it. They are the process's
/// own, not the ledger's, since they say nothing of the memory.
struct LevelWatch: @unchecked Sendable {
    private let thresholds: LevelThresholds
    private let limit: UInt64
    private let nearBytes: UInt64
    private let words: UnsafeMutablePointer<UInt64>
    private var levelWord: UnsafeMutablePointer<UInt64> { words }
    /// 0 or 1.
    private var reportedNear: UnsafeMutablePointer<UInt64> { words + 1 }
    /// What was in use then, or where near begins, if that is more; or 0.
    private var reportedRefusal: UnsafeMutablePointer<UInt64> { words + 2 }

    init(limit: UInt64, nearPercent: UInt64) {
        self.limit = limit
        thresholds = LevelThresholds(limit: limit, nearPercent: nearPercent)
        // Under a small limit the chunk before the last may lie below the near level and the last one above the limit:
        // so near is also where no further chunk fits, unless that is early.
        let lastFit = max(
            limit - min(limit, UInt64(SizeClasses.chunkSize)), limit / 100 * LevelThresholds.elevatedPercent)
        nearBytes = min(limit / 100 * nearPercent, lastFit)
        words = .allocate(capacity: 3)
        words.initialize(repeating: 0, count: 3)
        levelWord.pointee = ArenaPool.Level.normal.rawValue
    }

    func deallocate() { words.deallocate() }

    var level: ArenaPool.Level { ArenaPool.Level(rawValue: arena_load(levelWord)) ?? .normal }

    /// Brings the level up to date. Returns the change, to exactly one of several callers that see it.
    func move(to used: () -> UInt64) -> (old: ArenaPool.Level, new: ArenaPool.Level)? {
        var word = arena_load(levelWord)
        while true {
            let old = ArenaPool.Level(rawValue: word) ?? .normal
            let new = thresholds.level(used(), from: old)
            if new == old { return nil }
            if arena_compare_exchange(levelWord, &word, new.rawValue) != 0 { return (old, new) }
        }
    }

    /// True once per excursion above the near level; it ends 5 points below, or below half of it.
    func entersNear(_ used: UInt64) -> Bool {
        used >= nearBytes && arena_load_relaxed(reportedNear) == 0 && arena_exchange(reportedNear, 1) == 0
    }

    /// True for the first refusal of an excursion, which ends when `used` is 5 points below where it was refused, or below where near
    /// begins: what is too large may be refused while next to nothing is used, and less than that never is.
    func entersRefusal(_ used: UInt64) -> Bool {
        var none: UInt64 = 0
        return arena_compare_exchange(reportedRefusal, &none, max(used, nearBytes, 1)) != 0
    }

    /// Ends the excursions that are over.
    func fall(to used: UInt64) {
        if used < LevelThresholds.leave(nearBytes, limit: limit) { arena_store(reportedNear, 0) }
        let refused = arena_load_relaxed(reportedRefusal)
        if used <= LevelThresholds.leave(refused, limit: limit) { arena_store(reportedRefusal, 0) }
    }
}
