internal import Ledger

// What the holders reach, in the order of the rows.

extension LedgerSnapshot {
    /// Leaves out edges to what was freed while they were found, and adds one to each live buffer that nobody has named and
    /// that a loop may hold that could not be asked.
    ///
    /// - Returns: how many these are, and their bytes.
    static func complete(
        _ edges: inout [[LedgerEdge]], _ gaps: LedgerGaps, _ slots: Slots
    ) -> (buffers: UInt64, bytes: UInt64) {
        let records = slots.image.records(.slots, of: SlotRecord.self)
        let count = slots.image.rows(.slots)
        func isLive(_ slot: Int) -> Bool { slot < count && records[slot].state == SlotRecord.State.live.rawValue }
        var isReached = [Bool](repeating: false, count: count)
        for part in edges.indices {
            edges[part].removeAll { !isLive(Int($0.slot)) }
            for edge in edges[part] { isReached[Int(edge.slot)] = true }
        }
        var possible: [LedgerEdge] = []
        var bytes: UInt64 = 0
        for slot in slots.rows where !isReached[Int(slot)] && isLive(Int(slot)) {
            let record = records[Int(slot)]
            guard let owner = gaps.possibleHolder(record) else { continue }
            possible.append(
                LedgerEdge(
                    slot: slot, owner: owner.rawValue, kind: .missingLoop,
                    referredBytes: UInt32(clamping: record.requested)))
            bytes &+= slots.capacity(record)
        }
        edges.append(possible)
        return (UInt64(possible.count), bytes)
    }

    /// Edges in the order of their slots' rows, as neighbours are alike: by counting, since there may be millions. They are
    /// let go of as they are placed.
    static func sort(_ edges: inout [[LedgerEdge]], _ rows: [UInt32], _ image: LedgerImage)
        -> Snapshot.EdgeColumns
    {
        var rowOfSlot = [UInt32](repeating: .max, count: image.rows(.slots))
        for (row, slot) in rows.enumerated() { rowOfSlot[Int(slot)] = UInt32(row) }
        func row(_ edge: LedgerEdge) -> Int? {
            guard Int(edge.slot) < rowOfSlot.count else { return nil }
            let row = rowOfSlot[Int(edge.slot)]
            return row == .max ? nil : Int(row)
        }
        // Where the edges of each row begin; then, as they are placed, where its next one goes.
        var places = [UInt32](repeating: 0, count: rows.count + 1)
        for part in edges { for edge in part { if let row = row(edge) { places[row + 1] += 1 } } }
        for row in 0..<rows.count { places[row + 1] += places[row] }
        let count = Int(places[rows.count])
        var sorted = Snapshot.EdgeColumns()
        sorted.holderOwner = [UInt32](repeating: 0, count: count)
        sorted.holderKind = [UInt8](repeating: 0, count: count)
        sorted.slotRow = [UInt32](repeating: 0, count: count)
        sorted.referredBytes = [UInt32](repeating: 0, count: count)
        for part in edges.indices {
            for edge in edges[part] {
                guard let row = row(edge) else { continue }
                let place = Int(places[row])
                places[row] += 1
                sorted.holderOwner[place] = Snapshot.ownerIndex(edge.owner, in: image)
                sorted.holderKind[place] = edge.kind.rawValue
                sorted.slotRow[place] = UInt32(row)
                sorted.referredBytes[place] = edge.referredBytes
            }
            edges[part] = []
        }
        return sorted
    }
}
