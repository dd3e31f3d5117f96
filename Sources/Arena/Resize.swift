import Ledger

/// New sizes in place: within the class, and for runs also into the free pages behind them, or out of their own tail.
extension ArenaState {
    /// Grows or shrinks a buffer of this arena where it is. False where it must move.
    mutating func resizeInPlace(_ index: Int, to size: Int) -> Bool {
        let slot = slots + index
        guard slot.pointee.sizeClass != SlotRecord.hugeClass, size <= SizeClasses.chunkSize else { return false }
        let oldClass = Int(slot.pointee.sizeClass)
        let newClass = SizeClasses.index(of: size)
        if newClass != oldClass {
            // An element of a slab has neighbours.
            guard min(oldClass, newClass) > SizeClasses.lastSlabClass,
                resizeRun(slot, Int(classes[oldClass].pages), Int(classes[newClass].pages))
            else { return false }
            slot.pointee.sizeClass = UInt16(newClass)
            classCounts[oldClass].allocations &-= 1
            classCounts[newClass].allocations &+= 1
        }
        count(
            slot.pointee.site, requested: size - Int(slot.pointee.requested),
            capacity: Int(classes[newClass].bytes) - Int(classes[oldClass].bytes))
        slot.pointee.requested = UInt64(size)
        return true
    }

    private mutating func resizeRun(_ slot: UnsafeMutablePointer<SlotRecord>, _ old: Int, _ new: Int) -> Bool {
        let address = Int(slot.pointee.address)
        let chunk = address / SizeClasses.chunkSize
        let page = address % SizeClasses.chunkSize / SizeClasses.pageSize
        if new > old {
            guard extendRun(Run(chunk: chunk, page: page), from: old, to: new) else { return false }
            map(Run(chunk: chunk, page: page + old), new - old, PageEntry(.buffer, UInt32(slot - slots)))
        } else {
            returnRun(Run(chunk: chunk, page: page + new), old - new)
        }
        return true
    }

    /// Counters only ever grow: what a buffer gains was allocated, what it loses was freed.
    private func count(_ site: UInt32, requested: Int, capacity: Int) {
        let counters = counters(site)
        if requested >= 0 {
            counters.pointee.allocatedRequested &+= UInt64(requested)
        } else {
            counters.pointee.freedRequested &+= UInt64(-requested)
        }
        if capacity >= 0 {
            counters.pointee.allocatedCapacity &+= UInt64(capacity)
        } else {
            counters.pointee.freedCapacity &+= UInt64(-capacity)
        }
    }
}
