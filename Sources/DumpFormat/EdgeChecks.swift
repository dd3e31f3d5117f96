internal import Ledger

/// What edges say of slots, and which slots none speaks of. All edges come first, then the slots.
struct EdgeChecks {
    private static let name = "edges lead from owners to live slots"

    private var targets = Findings(Self.name)
    private var isHeld: [Bool]
    /// The edge that comes next.
    private var row: Int
    private var count = 0
    private var unheld = Sums()

    init(slotCount: Int, firstEdge: Int = 0) {
        isHeld = [Bool](repeating: false, count: slotCount)
        row = firstEdge
    }

    /// As this one, for another thread to look at further slots with: without findings.
    var continued: EdgeChecks {
        var other = self
        other.targets = Findings(Self.name)
        other.unheld = Sums()
        return other
    }

    /// Adds what was found in the edges that follow.
    mutating func add(edgesOf later: EdgeChecks) {
        targets.add(later.targets)
        for row in isHeld.indices where later.isHeld[row] { isHeld[row] = true }
        row = later.row
        count += later.count
    }

    /// Adds what was found, by one that was `continued` from this, in the slots that follow.
    mutating func add(slotsOf later: EdgeChecks) {
        targets.add(later.targets)
        unheld.add(later.unheld)
    }

    mutating func add(_ edges: Snapshot.EdgeColumns, owners: Int) {
        for edge in 0..<edges.count {
            let slot = Int(edges.slotRow[edge])
            if slot < isHeld.count {
                isHeld[slot] = true
            } else {
                targets.add("edge row \(row + edge) points to slot row \(slot) of \(isHeld.count)")
            }
            if Int(edges.holderOwner[edge]) >= owners {
                targets.add("edge row \(row + edge) names owner \(edges.holderOwner[edge]) of \(owners)")
            }
        }
        row += edges.count
        count += edges.count
    }

    mutating func add(_ slots: Snapshot.SlotColumns, firstRow: Int) {
        for row in 0..<slots.count {
            let held = isHeld[firstRow + row]
            if held, slots.state[row] == 2 {
                targets.add("an edge points to slot row \(firstRow + row), which is freed (state 2)")
            } else if !held, slots.state[row] == 1 {
                unheld.add(slots, row)
            }
        }
    }

    func results(_ snapshot: Snapshot) -> [VerifyCheck] {
        var findings = Findings("unheld = live slots without an edge")
        if let stored = snapshot.totals.unheldBuffers { findings.expect("unheldBuffers", stored, unheld.buffers) }
        if let stored = snapshot.totals.unheldBytes { findings.expect("unheldBytes", stored, unheld.bytes) }
        if snapshot.totals.unheldBuffers != nil {
            let inRetainers = snapshot.retainers.reduce(UInt64(0)) { $0 &+ $1.unheldBuffers }
            findings.expect("unheld buffers of all retainers", inRetainers, unheld.buffers)
            let retainerBytes = snapshot.retainers.reduce(UInt64(0)) { $0 &+ $1.unheldBytes }
            findings.expect("unheld bytes of all retainers", retainerBytes, unheld.bytes)
        }
        return [
            targets.result(counted(count, "edge")),
            findings.result(counted(unheld.buffers, "buffer") + ", " + counted(unheld.bytes, "byte")),
        ]
    }
}
