import DumpFormat
import Testing

/// Allocations of a size: how many a ByteBuf has, and how many nobody.
struct Counts: Equatable, CustomStringConvertible {
    var kept = 0
    var lost = 0
    var description: String { "\(kept) kept, \(lost) lost" }

    /// Those of a dump, what thread caches have left out.
    static func bySize(_ snapshot: Snapshot) throws -> [UInt64: Counts] {
        let slots = try #require(snapshot.slots)
        let reachable = Set(try #require(snapshot.references).slotRow.map { Int($0) })
        var counts: [UInt64: Counts] = [:]
        for row in 0..<slots.count where slots.state[row] == 1 {
            if reachable.contains(row) {
                counts[slots.capacity[row], default: Counts()].kept += 1
            } else {
                counts[slots.capacity[row], default: Counts()].lost += 1
            }
        }
        return counts
    }
}
