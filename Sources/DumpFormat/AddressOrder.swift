/// Whether slots overlap, told from row to row where rows are in the order of their addresses, as dumps have them.
struct AddressOrder {
    private struct Slot {
        var row: Int
        var address: UInt64
        var end: UInt64
    }

    private static let name = "no two slots overlap"

    private(set) var findings = Findings(Self.name)
    private(set) var isInOrder = true
    private var first: Slot?
    private var last: Slot?

    mutating func add(_ slots: Snapshot.SlotColumns, firstRow: Int) {
        guard isInOrder else { return }
        for row in 0..<slots.count {
            let address = slots.address[row]
            add(Slot(row: firstRow + row, address: address, end: address.addingClamped(slots.capacity[row])))
        }
    }

    @inline(__always) private mutating func add(_ slot: Slot) {
        if let last {
            if last.address > slot.address { isInOrder = false }
            if last.end > slot.address { findings.add(Self.overlap(last.row, last.end, slot.row, slot.address)) }
        } else {
            first = slot
        }
        last = slot
    }

    /// Adds what was found in the rows that follow.
    mutating func add(_ later: AddressOrder) {
        if let slot = later.first { add(slot) }
        findings.add(later.findings)
        isInOrder = isInOrder && later.isInOrder
        last = later.last ?? last
    }

    private static func overlap(_ first: Int, _ end: UInt64, _ second: Int, _ address: UInt64) -> String {
        "slot row \(first) ends at \(SlotChecks.hex(end)), behind the start of row \(second) at \(SlotChecks.hex(address))"
    }

    /// The same of rows in any order.
    static func overlaps(_ slots: (addresses: [UInt64], capacities: [UInt64])) -> Findings {
        var findings = Findings(name)
        let order = slots.addresses.indices.map { UInt32(truncatingIfNeeded: $0) }
            .sorted { slots.addresses[Int($0)] < slots.addresses[Int($1)] }
        for place in order.indices.dropFirst() {
            let (first, second) = (Int(order[place - 1]), Int(order[place]))
            let end = slots.addresses[first].addingClamped(slots.capacities[first])
            if end > slots.addresses[second] { findings.add(overlap(first, end, second, slots.addresses[second])) }
        }
        return findings
    }
}
