internal import Ledger

/// What references say of slots. All references come first, then the slots.
struct ReferenceChecks {
    private static let name = "references lead from owners to live slots"

    private var targets = Findings(Self.name)
    private var reach: [Reach]
    /// The reference that comes next.
    private var row: Int
    private var count = 0

    init(slotCount: Int, firstReference: Int = 0) {
        reach = [Reach](repeating: .nobody, count: slotCount)
        row = firstReference
    }

    /// As this one, for another thread to look at further slots with: without findings.
    var continued: ReferenceChecks {
        var other = self
        other.targets = Findings(Self.name)
        return other
    }

    /// Adds what was found in the references that follow.
    mutating func add(referencesOf later: ReferenceChecks) {
        targets.add(later.targets)
        for row in reach.indices { reach[row].formUnion(later.reach[row]) }
        row = later.row
        count += later.count
    }

    /// Adds what was found, by one that was `continued` from this, in the slots that follow.
    mutating func add(slotsOf later: ReferenceChecks) { targets.add(later.targets) }

    mutating func add(_ references: Snapshot.ReferenceColumns, owners: Int) {
        for reference in 0..<references.count {
            if Int(references.slotRow[reference]) >= reach.count {
                targets.add(
                    "reference row \(row + reference) points to slot row \(references.slotRow[reference]) of \(reach.count)"
                )
            }
            if Int(references.referrerOwner[reference]) >= owners {
                targets.add(
                    "reference row \(row + reference) names owner \(references.referrerOwner[reference]) of \(owners)")
            }
        }
        references.add(to: &reach)
        row += references.count
        count += references.count
    }

    /// - Returns: what reaches each of the slots.
    mutating func add(_ slots: Snapshot.SlotColumns, firstRow: Int) -> [Reach] {
        var reach = Array(reach[firstRow..<firstRow + slots.count])
        for row in reach.indices where slots.state[row] != Snapshot.SlotColumns.live {
            if slots.state[row] == Snapshot.SlotColumns.remoteFreed, reach[row] != .nobody {
                targets.add("a reference points to slot row \(firstRow + row), which is freed (state 2)")
            }
            reach[row] = .freed
        }
        return reach
    }

    var result: VerifyCheck { targets.result(counted(count, "reference")) }
}
