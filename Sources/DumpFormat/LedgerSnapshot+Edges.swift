internal import Ledger

// What the referrers reach, in the order of the rows.

extension LedgerSnapshot {
    /// Adds a reference to each live buffer that nobody has named and that a loop may hold that could not be asked.
    ///
    /// - Returns: how many these are, and their bytes.
    static func complete(
        _ references: inout [[LedgerReference]], _ gaps: LedgerGaps, _ slots: Slots
    ) -> (buffers: UInt64, bytes: UInt64) {
        let records = slots.image.records(.slots, of: SlotRecord.self)
        var isReached = [Bool](repeating: false, count: slots.image.rows(.slots))
        for part in references {
            for reference in part where Int(reference.slot) < isReached.count { isReached[Int(reference.slot)] = true }
        }
        var possible: [LedgerReference] = []
        var bytes: UInt64 = 0
        for (row, slot) in slots.rows.enumerated() where slots.isLive(row: row) && !isReached[Int(slot)] {
            let record = records[Int(slot)]
            guard let owner = gaps.possibleReferrer(record) else { continue }
            possible.append(
                LedgerReference(
                    slot: slot, owner: owner.rawValue, kind: .missingLoop,
                    referredBytes: UInt32(clamping: record.requested)))
            bytes &+= slots.capacity(record)
        }
        references.append(possible)
        return (UInt64(possible.count), bytes)
    }

    /// References in the order of their slots' rows, as neighbours are alike: by counting, since there may be millions. They are
    /// let go of as they are placed.
    ///
    /// References to slots that are not live are passed over: what referrers share with threads that no safepoint stops may be
    /// freed by one of those after it was named, and before the rows were made.
    static func sort(_ references: inout [[LedgerReference]], _ slots: Slots) -> Snapshot.ReferenceColumns {
        let (rows, image) = (slots.rows, slots.image)
        var rowOfSlot = [UInt32](repeating: .max, count: image.rows(.slots))
        for (row, slot) in rows.enumerated() where slots.isLive(row: row) { rowOfSlot[Int(slot)] = UInt32(row) }
        func row(_ reference: LedgerReference) -> Int? {
            guard Int(reference.slot) < rowOfSlot.count else { return nil }
            let row = rowOfSlot[Int(reference.slot)]
            return row == .max ? nil : Int(row)
        }
        // Where the references of each row begin; then, as they are placed, where its next one goes.
        var places = [UInt32](repeating: 0, count: rows.count + 1)
        for part in references { for reference in part { if let row = row(reference) { places[row + 1] += 1 } } }
        for row in 0..<rows.count { places[row + 1] += places[row] }
        let count = Int(places[rows.count])
        var sorted = Snapshot.ReferenceColumns()
        sorted.referrerOwner = [UInt32](repeating: 0, count: count)
        sorted.referrerKind = [UInt8](repeating: 0, count: count)
        sorted.slotRow = [UInt32](repeating: 0, count: count)
        sorted.referredBytes = [UInt32](repeating: 0, count: count)
        for part in references.indices {
            for reference in references[part] {
                guard let row = row(reference) else { continue }
                let place = Int(places[row])
                places[row] += 1
                sorted.referrerOwner[place] = Snapshot.ownerIndex(reference.owner, in: image)
                sorted.referrerKind[place] = reference.kind.rawValue
                sorted.slotRow[place] = UInt32(row)
                sorted.referredBytes[place] = reference.referredBytes
            }
            references[part] = []
        }
        return sorted
    }
}
