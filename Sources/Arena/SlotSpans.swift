import Ledger

/// Slots are handed out in spans of 2^order (one slot for a run, up to 128 for a slab), cut from blocks of 128 slots
/// that hold spans of one order. A block without a used span goes back to the pool and can be cut anew.
extension ArenaState {
    /// The first slot of a free span, or nil at the limit.
    mutating func takeSpan(_ order: UInt8, forced: Bool) -> UInt32? {
        var block = spanLists[Int(order)]
        if block == .max {
            guard let fresh = pool.takeUnretainedValue().takeSlotBlock(forced: forced) else { return nil }
            block = fresh
            let spans = UInt64(SlotBlockRecord.slots) >> UInt64(order)
            var record = SlotBlockRecord()
            record.freeLow = spans >= 64 ? ~0 : (1 << spans) - 1
            record.freeHigh = spans > 64 ? ~0 : 0
            record.order = order
            record.arena = index
            record.freeSpans = UInt8(spans)
            blocks[Int(block)] = record
            listBlock(block)
        }
        let record = blocks + Int(block)
        let span: Int
        if record.pointee.freeLow != 0 {
            span = record.pointee.freeLow.trailingZeroBitCount
            record.pointee.freeLow &= record.pointee.freeLow - 1
        } else {
            span = 64 + record.pointee.freeHigh.trailingZeroBitCount
            record.pointee.freeHigh &= record.pointee.freeHigh - 1
        }
        record.pointee.freeSpans -= 1
        if record.pointee.freeSpans == 0 {
            unlistBlock(block)
            record.pointee.state = 2
        }
        return block * UInt32(SlotBlockRecord.slots) + UInt32(span) << UInt32(order)
    }

    mutating func returnSpan(_ firstSlot: UInt32, _ order: UInt8) {
        let block = firstSlot / UInt32(SlotBlockRecord.slots)
        let span = UInt64(firstSlot % UInt32(SlotBlockRecord.slots)) >> UInt64(order)
        let record = blocks + Int(block)
        if span < 64 { record.pointee.freeLow |= 1 << span } else { record.pointee.freeHigh |= 1 << (span - 64) }
        record.pointee.freeSpans += 1
        if record.pointee.freeSpans == 1 { listBlock(block) }
        // One block an order stays, so that a lone buffer that comes and goes does not take the pool's lock.
        let isAlone = record.pointee.next == .max && record.pointee.previous == .max
        if Int(record.pointee.freeSpans) == SlotBlockRecord.slots >> Int(order), !isAlone {
            unlistBlock(block)
            pool.takeUnretainedValue().returnSlotBlock(block)
        }
    }

    private mutating func listBlock(_ block: UInt32) {
        let record = blocks + Int(block)
        record.pointee.state = 1
        blocks.insert(block, at: spanLists + Int(record.pointee.order))
    }

    private mutating func unlistBlock(_ block: UInt32) {
        blocks.remove(block, from: spanLists + Int(blocks[Int(block)].order))
    }
}
