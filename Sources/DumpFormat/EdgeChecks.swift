internal import Ledger

/// What edges say of slots. All edges come first, then the slots.
struct EdgeChecks {
    private static let name = "edges lead from owners to live slots"

    private var targets = Findings(Self.name)
    private var reach: [Reach]
    /// The edge that comes next.
    private var row: Int
    private var count = 0

    init(slotCount: Int, firstEdge: Int = 0) {
        reach = [Reach](repeating: .nobody, count: slotCount)
        row = firstEdge
    }

    /// As this one, for another thread to look at further slots with: without findings.
    var continued: EdgeChecks {
        var other = self
        other.targets = Findings(Self.name)
        return other
    }

    /// Adds what was found in the edges that follow.
    mutating func add(edgesOf later: EdgeChecks) {
        targets.add(later.targets)
        for row in reach.indices { reach[row].formUnion(later.reach[row]) }
        row = later.row
        count += later.count
    }

    /// Adds what was found, by one that was `continued` from this, in the slots that follow.
    mutating func add(slotsOf later: EdgeChecks) { targets.add(later.targets) }

    mutating func add(_ edges: Snapshot.EdgeColumns, owners: Int) {
        for edge in 0..<edges.count {
            if Int(edges.slotRow[edge]) >= reach.count {
                targets.add("edge row \(row + edge) points to slot row \(edges.slotRow[edge]) of \(reach.count)")
            }
            if Int(edges.holderOwner[edge]) >= owners {
                targets.add("edge row \(row + edge) names owner \(edges.holderOwner[edge]) of \(owners)")
            }
        }
        edges.add(to: &reach)
        row += edges.count
        count += edges.count
    }

    /// - Returns: what reaches each of the slots.
    mutating func add(_ slots: Snapshot.SlotColumns, firstRow: Int) -> [Reach] {
        var reach = Array(reach[firstRow..<firstRow + slots.count])
        for row in reach.indices where slots.state[row] != Snapshot.SlotColumns.live {
            if slots.state[row] == Snapshot.SlotColumns.remoteFreed, reach[row] != .nobody {
                targets.add("an edge points to slot row \(firstRow + row), which is freed (state 2)")
            }
            reach[row] = .freed
        }
        return reach
    }

    var result: VerifyCheck { targets.result(counted(count, "edge")) }
}
