import Ledger

/// Slabs: runs cut into equal elements, listed by class while they have a free one.
extension ArenaState {
    /// A slab of the class with free elements, when its bin is empty: by way of what other threads freed, or new.
    @inline(never)
    mutating func refill(_ sizeClass: Int, mustSucceed: Bool) -> UInt32? {
        if drainRemoteFrees() > 0, bins[sizeClass] != .max { return bins[sizeClass] }
        let geometry = classes[sizeClass]
        let pool = pool.takeUnretainedValue()
        guard let slab = pool.takeSlab(forced: mustSucceed) else { return nil }
        guard let firstSlot = takeSpan(geometry.spanOrder, forced: mustSucceed) else {
            pool.returnSlab(slab)
            return nil
        }
        guard let run = takeRun(Int(geometry.pages), mustSucceed: mustSucceed) else {
            returnSpan(firstSlot, geometry.spanOrder)
            pool.returnSlab(slab)
            return nil
        }
        let elements = Int(geometry.elements)
        let low: UInt64 = elements >= 64 ? ~0 : (1 << UInt64(elements)) - 1
        let high: UInt64 = elements <= 64 ? 0 : elements == 128 ? ~0 : (1 << UInt64(elements - 64)) - 1
        var record = SlabRecord()
        record.freeLow = low
        record.freeHigh = high
        record.firstSlot = firstSlot
        record.chunk = UInt32(run.chunk)
        record.firstPage = UInt16(run.page)
        record.pages = geometry.pages
        record.sizeClass = UInt16(sizeClass)
        record.elements = geometry.elements
        record.freeCount = geometry.elements
        record.reciprocal = geometry.reciprocal
        record.arena = index
        slabs[Int(slab)] = record
        let start = run.chunk * SizeClasses.chunkSize + run.page * SizeClasses.pageSize
        for element in 0..<elements {
            let slot = slots + Int(firstSlot) + element
            slot.pointee.address = UInt64(start + element * Int(geometry.bytes))
            slot.pointee.sizeClass = UInt16(sizeClass)
            slot.pointee.arena = index
            slot.pointee.state = SlotRecord.State.free.rawValue
            // What the slot was before has nothing to do with this place.
            slot.pointee.serial = 0
        }
        map(run, Int(geometry.pages), PageEntry(.slab, slab))
        list(slab)
        return slab
    }

    /// A free has given a slab its first free element, or its last.
    @inline(never)
    mutating func filledOrEmptied(_ slab: UInt32) {
        if slabs[Int(slab)].freeCount == 1 { list(slab) } else { retire(slab) }
    }

    /// Puts a slab at the head of its bin.
    mutating func list(_ slab: UInt32) {
        let record = slabs + Int(slab)
        let bin = bins + Int(record.pointee.sizeClass)
        record.pointee.state = 1
        record.pointee.retireCount = SlabRecord.keep
        if bin.pointee != .max {
            record.pointee.retireCount = record.pointee.elements
            slabs[Int(bin.pointee)].retireCount = record.pointee.elements
        }
        slabs.insert(slab, at: bin)
    }

    /// The slab at the head of its bin has become full.
    @inline(never)
    mutating func unlistFull(_ slab: UInt32) {
        let record = slabs + Int(slab)
        record.pointee.state = 2
        slabs.remove(slab, from: bins + Int(record.pointee.sizeClass))
        keepIfAlone(Int(record.pointee.sizeClass))
    }

    /// The only slab of a bin stays when it is empty: the next buffer would want it.
    private func keepIfAlone(_ sizeClass: Int) {
        let slab = bins[sizeClass]
        if slab != .max, slabs[Int(slab)].next == .max { slabs[Int(slab)].retireCount = SlabRecord.keep }
    }

    /// An empty slab goes back to its chunk.
    private mutating func retire(_ slab: UInt32) {
        let record = slabs[Int(slab)]
        slabs.remove(slab, from: bins + Int(record.sizeClass))
        keepIfAlone(Int(record.sizeClass))
        classCounts[Int(record.sizeClass)].allocations &+= record.allocations
        classCounts[Int(record.sizeClass)].frees &+= record.allocations
        if isChecked {
            for element in 0..<UInt32(record.elements) { expectPoison(slots[Int(record.firstSlot + element)].address) }
        }
        returnRun(Run(chunk: Int(record.chunk), page: Int(record.firstPage)), Int(record.pages))
        returnSpan(record.firstSlot, classes[Int(record.sizeClass)].spanOrder)
        pool.takeUnretainedValue().returnSlab(slab)
    }

    /// Retires every empty slab. Returns whether there was one.
    mutating func retireEmptySlabs() -> Bool {
        var any = false
        for sizeClass in 0...SizeClasses.lastSlabClass {
            var slab = bins[sizeClass]
            while slab != .max {
                let record = slabs[Int(slab)]
                if record.freeCount == record.elements {
                    retire(slab)
                    any = true
                }
                slab = record.next
            }
        }
        return any
    }
}
