extension ArenaPool {
    /// How full the arena is, as a word: what a program does about it is its own affair.
    ///
    /// A level is entered at its percent of the limit and left `hysteresisPercent` below that, so that a counter that
    /// stands at a threshold does not make it flutter.
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
    public var level: Level { budget.level }
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
        leave = percents.map { limit / 100 * ($0 - min(Self.hysteresisPercent, $0)) }
    }

    /// The level of a counter, where it was `old` before.
    func level(_ counter: UInt64, from old: ArenaPool.Level) -> ArenaPool.Level {
        let entered = ArenaPool.Level.allCases.last { counter >= enter[Int($0.rawValue)] } ?? .normal
        let kept = ArenaPool.Level.allCases.last { $0 <= old && counter >= leave[Int($0.rawValue)] } ?? .normal
        return max(entered, kept)
    }
}
