internal import Ledger

// What a ledger that was not copied at a safepoint may have been in the middle of.

extension LedgerSnapshot {
    /// Where the tables contradict each other, in words; nothing where the ledger stood still. A process that was
    /// killed leaves a few of these behind, each for one operation that was under way.
    func contradictions() -> [String] {
        var found: [String] = []
        counters(&found)
        slotStates(&found)
        slabs(&found)
        sites(&found)
        return found
    }

    private func counters(_ found: inout [String]) {
        let totals = tables.totals
        let parts = totals.chunkBytes &+ totals.hugeBytes &+ totals.ledgerBytes &+ totals.snapshotBufferBytes
        if totals.counterBytes != parts {
            found.append("a charge was under way: the counter is \(totals.counterBytes), its parts make \(parts)")
        }
        let chunks = UInt64(tables.chunks.count { $0.kind != .huge })
        if totals.chunkCount != chunks {
            found.append("a chunk was coming or going: \(totals.chunkCount) counted, \(chunks) in the table")
        }
    }

    private func slotStates(_ found: inout [String]) {
        if slots.unknownStates > 0 {
            found.append("\(slots.unknownStates) slots are in no known state and were left out")
        }
        if slots.strays > 0 {
            found.append("\(slots.strays) live slots are in no run: they were just given out, or taken back")
        }
        if slots.lostEntries > 0 {
            found.append("\(slots.lostEntries) entries of page maps lead nowhere")
        }
    }

    private func slabs(_ found: inout [String]) {
        let records = image.records(.slabs, of: SlabRecord.self)
        let slots = image.records(.slots, of: SlotRecord.self)
        let count = image.rows(.slots)
        var unsettled = 0
        for slab in 0..<image.rows(.slabs) where records[slab].state != 0 {
            let record = records[slab]
            let free = record.freeLow.nonzeroBitCount + record.freeHigh.nonzeroBitCount
            var live = 0
            for element in 0..<min(Int(record.elements), SizeClasses.maximumSlabElements) {
                let slot = Int(record.firstSlot) + element
                if slot < count, slots[slot].state != SlotRecord.State.free.rawValue { live += 1 }
            }
            if free != Int(record.freeCount) || live + free != Int(record.elements) { unsettled += 1 }
        }
        if unsettled > 0 {
            found.append("\(unsettled) slabs were in the middle of an allocation or a free")
        }
    }

    private func sites(_ found: inout [String]) {
        var buffers: UInt64 = 0
        for site in tables.sites {
            let difference = Int64(bitPattern: site.allocations &- site.frees &- site.liveBuffers)
            buffers = buffers.addingClamped(difference.magnitude)
        }
        if buffers > 0 {
            found.append(
                "\(buffers) allocations or frees are counted at their sites and not in the slots, or the reverse")
        }
    }
}
