import Arena
import Ledger

/// How short of memory one event loop is, and what follows from it.
///
/// The counter alone does not say: it counts whole chunks, and a chunk taken can be all but empty. What counts is what a
/// loop can still get: the free pages of its own chunks, and its share of the chunks that nobody has. What its buffers
/// cost beside the arena (objects on the heap) is subtracted. The levels are percents of a loop's share of the limit:
///
///     available   100 ........ 25 ........ 15 ........ 5 ........ 0 %
///                   normal     | elevated  | near      | critical
///     read            64 KiB   |   8 KiB   | publishers are not read, other clients are
///     new clients     come     |   come    | only those with a session: "server busy"
///     publishes       are taken            |           | refused, QoS 0 dropped
///     consumers       are served . . . . . . . . . . . . . . . . . .  the slowest are disconnected
///
/// So each class has a reserve that the weaker ones cannot touch: what publishers bring ends at 5 %, and what drains
/// queues (egress) has those, but for the last `Limits.controlReserveBytes`, which are for acknowledgements. A client
/// that comes to fetch its messages is always let in, since only that makes room.
struct PressureGauge {
    private(set) var level = ArenaPool.Level.normal
    /// Entered below, left above; by level.
    private let enter: [Int]
    private let leave: [Int]

    /// - Parameters:
    ///   - share: a loop's part of the limit, in bytes.
    ///   - nearPercent: of the limit used, at which publishers are no longer read.
    init(share: Int, nearPercent: Int) {
        let near = 100 - nearPercent
        let percents = [
            100, max(Limits.elevatedFreePercent, near), near, min(Limits.criticalFreePercent, near),
        ]
        enter = percents.map { share / 100 * $0 }
        leave = percents.map { share / 100 * ($0 + Limits.pressureHysteresisPercent) }
    }

    /// With at least this much the level is normal, whatever it was.
    var comfortableBytes: Int { leave[Int(ArenaPool.Level.elevated.rawValue)] }

    /// Takes note of what is available now.
    ///
    /// - Returns: whether the level has changed.
    mutating func update(available: Int) -> Bool {
        let entered = ArenaPool.Level.allCases.last { $0 == .normal || available < enter[Int($0.rawValue)] } ?? .normal
        let kept =
            ArenaPool.Level.allCases.last { $0 <= level && ($0 == .normal || available < leave[Int($0.rawValue)]) }
            ?? .normal
        let new = max(entered, kept)
        defer { level = new }
        return new != level
    }
}
