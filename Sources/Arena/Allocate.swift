import CArena
import Ledger

/// The fast path: an element of a slab in, an element out. What it cannot do is in `Slabs`, `Runs` and `SlotSpans`.
extension ArenaState {
    @inline(__always)
    mutating func allocate(_ size: Int, site: UInt32, owner: UInt32, mustSucceed: Bool) -> UnsafeMutableRawPointer? {
        guard size <= SizeClasses.chunkSize else { return allocateHuge(size, site, owner, mustSucceed) }
        let sizeClass = SizeClasses.index(of: size)
        guard sizeClass <= SizeClasses.lastSlabClass else {
            return allocateRun(size, sizeClass, site, owner, mustSucceed)
        }
        var slab = bins[sizeClass]
        if slab == .max {
            guard let fresh = refill(sizeClass, mustSucceed: mustSucceed) else { return nil }
            slab = fresh
        }
        let record = slabs + Int(slab)
        let element: Int
        let low = record.pointee.freeLow
        if low != 0 {
            element = low.trailingZeroBitCount
            record.pointee.freeLow = low & (low &- 1)
        } else {
            let high = record.pointee.freeHigh
            element = 64 &+ high.trailingZeroBitCount
            record.pointee.freeHigh = high & (high &- 1)
        }
        record.pointee.freeCount &-= 1
        if record.pointee.freeCount == 0 { unlistFull(slab) }
        let slot = slots + (Int(record.pointee.firstSlot) &+ element)
        start(slot, size, Int(classes[sizeClass].bytes), site, owner)
        return base + Int(slot.pointee.address)
    }

    /// Fills in what a slot learns at birth, and counts it. Address, class and arena are there already.
    @inline(__always)
    mutating func start(
        _ slot: UnsafeMutablePointer<SlotRecord>, _ size: Int, _ capacity: Int, _ site: UInt32, _ owner: UInt32
    ) {
        let now = arena_clock_now()
        slot.pointee.serial = nextSerial &<< 8 | UInt64(index)
        nextSerial &+= 1
        slot.pointee.birth = now
        slot.pointee.touchTime = now
        slot.pointee.requested = UInt64(size)
        slot.pointee.site = site
        slot.pointee.owner = owner
        slot.pointee.touchSite = site
        slot.pointee.state = SlotRecord.State.live.rawValue
        if site >= siteRows { ensureSiteRow(site) }
        let counters = counters(site)
        counters.pointee.allocations &+= 1
        counters.pointee.allocatedRequested &+= UInt64(size)
        counters.pointee.allocatedCapacity &+= UInt64(capacity)
    }

    /// Counts a slot's end, with its lifetime.
    @inline(__always)
    func finish(_ slot: UnsafeMutablePointer<SlotRecord>, _ capacity: Int) {
        slot.pointee.state = SlotRecord.State.free.rawValue
        let counters = counters(slot.pointee.site)
        counters.pointee.frees &+= 1
        counters.pointee.freedRequested &+= slot.pointee.requested
        counters.pointee.freedCapacity &+= UInt64(capacity)
        let lifetime = arena_clock_now() &- slot.pointee.birth
        let bucket = min(63 &- (lifetime | 1).leadingZeroBitCount, SiteCounters.lifetimeBuckets &- 1)
        let lifetimes = (UnsafeMutableRawPointer(counters) + SiteCounters.lifetimesOffset)
            .assumingMemoryBound(to: UInt64.self)
        lifetimes[bucket] &+= 1
    }

    /// Frees the buffer that starts at `offset` of the pool's range, on this arena's thread.
    @inline(__always)
    mutating func free(_ offset: Int) {
        let slot = slotOfStart(offset)
        if slot.pointee.arena == index {
            guard slot.pointee.state == SlotRecord.State.live.rawValue else { misuse("double free", UInt64(offset)) }
            release(slot, offset)
        } else {
            freeRemote(slot)
        }
    }

    /// Frees on a thread that has no arena.
    func freeFromOutside(_ offset: Int) { freeRemote(slotOfStart(offset)) }

    /// The slot of the buffer that starts at `offset`; anything else is misuse.
    @inline(__always)
    func slotOfStart(_ offset: Int) -> UnsafeMutablePointer<SlotRecord> {
        guard let slot = slot(at: offset), slots[slot].address == UInt64(offset) else {
            misuse("free of a pointer that starts no buffer, at offset", UInt64(offset))
        }
        return slots + slot
    }

    /// The slot of the buffer that `offset` is in.
    @inline(__always)
    func slot(at offset: Int) -> Int? {
        let entry = pageMap[offset / SizeClasses.pageSize]
        switch entry.kind {
        case .slab:
            let slab = slabs + Int(entry.value)
            let within = offset & (SizeClasses.chunkSize - 1) &- Int(slab.pointee.firstPage) &* SizeClasses.pageSize
            let element = (UInt64(within) &* classes[Int(slab.pointee.sizeClass)].reciprocal) &>> 40
            guard element < UInt64(slab.pointee.elements) else { return nil }
            return Int(slab.pointee.firstSlot) &+ Int(element)
        case .buffer:
            return Int(entry.value)
        case .free, .reserve:
            let chunk = chunks + offset / SizeClasses.chunkSize
            guard
                chunk.pointee.state == ChunkRecord.State.hugeHead.rawValue
                    || chunk.pointee.state == ChunkRecord.State.hugeBody.rawValue
            else { return nil }
            return Int(chunk.pointee.hugeSlot)
        }
    }

    /// Takes a buffer of this arena back: the other half of `allocate`.
    @inline(__always)
    mutating func release(_ slot: UnsafeMutablePointer<SlotRecord>, _ offset: Int) {
        let sizeClass = Int(slot.pointee.sizeClass)
        guard sizeClass <= SizeClasses.lastSlabClass else { return releaseRun(slot, offset) }
        finish(slot, Int(classes[sizeClass].bytes))
        let slab = pageMap[offset / SizeClasses.pageSize].value
        let record = slabs + Int(slab)
        let element = Int(slot - slots) &- Int(record.pointee.firstSlot)
        if element < 64 {
            record.pointee.freeLow |= 1 &<< UInt64(element)
        } else {
            record.pointee.freeHigh |= 1 &<< UInt64(element &- 64)
        }
        record.pointee.freeCount &+= 1
        if record.pointee.freeCount == 1 {
            list(slab)
        } else if record.pointee.freeCount == record.pointee.elements {
            retireIfSpare(slab)
        }
    }

    /// Grows or shrinks a buffer of this arena within its class. False where it must move.
    mutating func resizeInPlace(_ index: Int, to size: Int) -> Bool {
        let slot = slots + index
        guard slot.pointee.sizeClass != SlotRecord.hugeClass, size <= SizeClasses.chunkSize,
            SizeClasses.index(of: size) == Int(slot.pointee.sizeClass)
        else { return false }
        let counters = counters(slot.pointee.site)
        counters.pointee.allocatedRequested &+= UInt64(bitPattern: Int64(size) - Int64(slot.pointee.requested))
        slot.pointee.requested = UInt64(size)
        return true
    }
}
