import CArena
import Ledger

/// The fast path: an element of a slab in, an element out. What it cannot do is in `Slabs`, `Runs` and `SlotSpans`.
///
/// It is written to touch few cache lines and to wait for few of them in turn: an allocation writes the head slab of
/// its bin, a slot and a site's counters; a free reads a page map entry and the slab it names, and writes the same
/// three. Whatever is rare is a call that is never inlined, so that registers are not spilled for its sake. Unsigned
/// numbers, since signed ones are corrected after a shift.
extension ArenaState {
    @inline(__always)
    mutating func allocate(_ size: Int, site: UInt32, owner: UInt32, mustSucceed: Bool) -> UnsafeMutableRawPointer? {
        let sizeClass = SizeClasses.index(of: size)
        guard sizeClass <= SizeClasses.lastSlabClass else {
            return allocateLarge(size, sizeClass, site, owner, mustSucceed)
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
            let rest = low & (low &- 1)
            record.pointee.freeLow = rest
            // The slot of the class's next allocation: with many buffers alive it is in no cache.
            arena_prefetch(slots + (Int(record.pointee.firstSlot) &+ rest.trailingZeroBitCount))
        } else {
            let high = record.pointee.freeHigh
            element = 64 &+ high.trailingZeroBitCount
            record.pointee.freeHigh = high & (high &- 1)
        }
        record.pointee.allocations &+= 1
        record.pointee.freeCount &-= 1
        if record.pointee.freeCount == 0 { unlistFull(slab) }
        let slot = slots + (Int(record.pointee.firstSlot) &+ element)
        start(slot, size, Int(classes[sizeClass].bytes), site, owner)
        return base + Int(truncatingIfNeeded: slot.pointee.address)
    }

    @inline(never)
    private mutating func allocateLarge(
        _ size: Int, _ sizeClass: Int, _ site: UInt32, _ owner: UInt32, _ mustSucceed: Bool
    ) -> UnsafeMutableRawPointer? {
        size <= SizeClasses.chunkSize
            ? allocateRun(size, sizeClass, site, owner, mustSucceed) : allocateHuge(size, site, owner, mustSucceed)
    }

    /// Fills in what a slot learns at birth, and counts it. Address, class and arena are there already.
    ///
    /// Recording has no switch. `ARENA_RECORDING_OFF` is for one build only, the one that `Benchmarks/recording.sh`
    /// compares with: its dumps are worthless.
    @inline(__always)
    mutating func start(
        _ slot: UnsafeMutablePointer<SlotRecord>, _ size: Int, _ capacity: Int, _ site: UInt32, _ owner: UInt32
    ) {
        #if ARENA_RECORDING_OFF
        slot.pointee.requested = UInt64(truncatingIfNeeded: size)
        slot.pointee.state = SlotRecord.State.live.rawValue
        #else
        let now = arena_clock_now()
        slot.pointee.serial = nextSerial
        nextSerial &+= 256
        slot.pointee.birth = now
        slot.pointee.accessTime = now
        slot.pointee.requested = UInt64(truncatingIfNeeded: size)
        slot.pointee.site = site
        slot.pointee.owner = owner
        slot.pointee.accessSite = site
        slot.pointee.next = 0
        slot.pointee.state = SlotRecord.State.live.rawValue
        if site >= siteRows { ensureSiteRow(site) }
        let counters = counters(site)
        counters.pointee.allocations &+= 1
        counters.pointee.allocatedRequested &+= UInt64(truncatingIfNeeded: size)
        counters.pointee.allocatedCapacity &+= UInt64(truncatingIfNeeded: capacity)
        #endif
    }

    /// Counts a slot's end, with its lifetime, and remembers it for a while.
    ///
    /// - Parameter releaseSite: where in the code it was given up: the context's site, of the thread that did it.
    @inline(__always)
    mutating func finish(_ slot: UnsafeMutablePointer<SlotRecord>, _ capacity: Int, releaseSite: UInt32) {
        #if ARENA_RECORDING_OFF
        slot.pointee.state = SlotRecord.State.free.rawValue
        #else
        let now = arena_clock_now()
        // Before the slot is written: a wide read of what was just written in part would have to wait for it.
        remember(slot, now, releaseSite)
        slot.pointee.state = SlotRecord.State.free.rawValue
        let counters = counters(slot.pointee.site)
        counters.pointee.frees &+= 1
        counters.pointee.freedRequested &+= slot.pointee.requested
        counters.pointee.freedCapacity &+= UInt64(truncatingIfNeeded: capacity)
        let lifetime = now &- slot.pointee.birth
        let bucket = min(63 &- (lifetime | 1).leadingZeroBitCount, SiteCounters.lifetimeBuckets &- 1)
        let lifetimes = (UnsafeMutableRawPointer(counters) + SiteCounters.lifetimesOffset)
            .assumingMemoryBound(to: UInt64.self)
        lifetimes[bucket] &+= 1
        #endif
    }

    /// Enters a slot into the ring of recently freed ones.
    @inline(__always)
    private mutating func remember(_ slot: UnsafeMutablePointer<SlotRecord>, _ now: UInt64, _ releaseSite: UInt32) {
        let entry = freed + Int(freedCount & UInt32(FreedRecord.perArena - 1))
        freedCount &+= 1
        UnsafeMutableRawPointer(entry).copyMemory(from: slot, byteCount: MemoryLayout<SlotRecord>.stride)
        entry.pointee.freed = now
        entry.pointee.releaseSite = releaseSite
    }

    /// Frees the buffer that starts at `offset` of the pool's range, on this arena's thread.
    @inline(__always)
    mutating func free(_ offset: UInt, releaseSite: UInt32) {
        let entry = pageMap[Int(bitPattern: offset / UInt(SizeClasses.pageSize))]
        guard entry.isSlab else { return freeRun(offset, releaseSite) }
        let slab = slabs + Int(entry.value)
        let within =
            offset & UInt(SizeClasses.chunkSize &- 1) &- UInt(slab.pointee.firstPage) &* UInt(SizeClasses.pageSize)
        let element = Int(truncatingIfNeeded: (UInt64(within) &* slab.pointee.reciprocal) &>> 40)
        let slot = slots + (Int(slab.pointee.firstSlot) &+ element)
        // A pointer into the waste behind the last element leads to a slot of somewhere else, whose address differs.
        guard slot.pointee.address == UInt64(offset) else { misusedFree(offset) }
        guard slot.pointee.arena == index else { return freeRemote(slot, releaseSite) }
        guard slot.pointee.state == SlotRecord.State.live.rawValue else { misusedFree(offset) }
        release(slot, slab, element, releaseSite)
    }

    /// The same for a buffer that is a run, or has its own mapping.
    @inline(never)
    private mutating func freeRun(_ offset: UInt, _ releaseSite: UInt32) {
        let slot = slotOfStart(offset)
        guard slot.pointee.arena == index else { return freeRemote(slot, releaseSite) }
        guard slot.pointee.state == SlotRecord.State.live.rawValue else { misusedFree(offset) }
        releaseRun(slot, releaseSite: releaseSite)
    }

    /// The slot of the buffer that starts at `offset`; anything else is misuse.
    func slotOfStart(_ offset: UInt) -> UnsafeMutablePointer<SlotRecord> {
        guard let slot = slot(at: offset), slots[slot].address == UInt64(offset) else { misusedFree(offset) }
        return slots + slot
    }

    /// The slot of the buffer that `offset` is in.
    func slot(at offset: UInt) -> Int? {
        let entry = pageMap[Int(offset / UInt(SizeClasses.pageSize))]
        switch entry.kind {
        case .slab:
            let slab = slabs + Int(entry.value)
            let within =
                offset & UInt(SizeClasses.chunkSize - 1) &- UInt(slab.pointee.firstPage) &* UInt(SizeClasses.pageSize)
            let element = (UInt64(within) &* slab.pointee.reciprocal) &>> 40
            guard element < UInt64(slab.pointee.elements) else { return nil }
            return Int(slab.pointee.firstSlot) &+ Int(element)
        case .buffer:
            return Int(entry.value)
        case .free, .reserve:
            let chunk = chunks + Int(offset / UInt(SizeClasses.chunkSize))
            guard
                chunk.pointee.state == ChunkRecord.State.hugeHead.rawValue
                    || chunk.pointee.state == ChunkRecord.State.hugeBody.rawValue
            else { return nil }
            return Int(chunk.pointee.hugeSlot)
        }
    }

    /// Takes a slab's element back: the other half of `allocate`.
    @inline(__always)
    private mutating func release(
        _ slot: UnsafeMutablePointer<SlotRecord>, _ slab: UnsafeMutablePointer<SlabRecord>, _ element: Int,
        _ releaseSite: UInt32
    ) {
        finish(slot, Int(classes[Int(slab.pointee.sizeClass)].bytes), releaseSite: releaseSite)
        // The two words of free elements are the record's first members.
        let words = UnsafeMutableRawPointer(slab).assumingMemoryBound(to: UInt64.self)
        words[element &>> 6] |= 1 &<< UInt64(truncatingIfNeeded: element & 63)
        let freeCount = slab.pointee.freeCount &+ 1
        slab.pointee.freeCount = freeCount
        if freeCount == 1 || freeCount == slab.pointee.retireCount { filledOrEmptied(UInt32(slab - slabs)) }
    }

    /// Takes back a buffer of this arena that has been found and checked already.
    @inline(never)
    mutating func takeBack(_ slot: UnsafeMutablePointer<SlotRecord>, releaseSite: UInt32) {
        if isChecked { rememberPoison(slot) }
        guard Int(slot.pointee.sizeClass) <= SizeClasses.lastSlabClass else {
            return releaseRun(slot, releaseSite: releaseSite)
        }
        let slab = slabs + Int(pageMap[Int(slot.pointee.address) / SizeClasses.pageSize].value)
        release(slot, slab, (slot - slots) &- Int(slab.pointee.firstSlot), releaseSite)
    }
}
