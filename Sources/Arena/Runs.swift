import Ledger

/// Where a run starts.
struct Run: Equatable {
    var chunk: Int
    var page: Int
}

/// Runs of pages: taken from the fullest fitting chunk, given back with a bit each, chunks listed by their longest
/// free run. Buffers above 64 KiB are runs of their own, buffers above a chunk have their own mapping.
extension ArenaState {
    /// Pages kept back in each arena for allocations that cannot be refused: 1 MiB.
    static var reservePages: Int { 128 }
    /// The shortest free run whose memory is given back: 64 KiB.
    static var discardedPages: Int { 8 }

    @inline(never)
    mutating func allocateRun(
        _ size: Int, _ sizeClass: Int, _ site: UInt32, _ owner: UInt32, _ mustSucceed: Bool
    ) -> UnsafeMutableRawPointer? {
        let geometry = classes[sizeClass]
        guard let slot = takeSpan(0, forced: mustSucceed) else { return nil }
        guard let run = takeRun(Int(geometry.pages), mustSucceed: mustSucceed) else {
            returnSpan(slot, 0)
            return nil
        }
        map(run, Int(geometry.pages), PageEntry(.buffer, slot))
        let record = slots + Int(slot)
        record.pointee.address = UInt64(run.chunk * SizeClasses.chunkSize + run.page * SizeClasses.pageSize)
        record.pointee.sizeClass = UInt16(sizeClass)
        record.pointee.arena = index
        classCounts[sizeClass].allocations &+= 1
        start(record, size, Int(geometry.bytes), site, owner)
        return base + Int(record.pointee.address)
    }

    @inline(never)
    mutating func allocateHuge(
        _ size: Int, _ site: UInt32, _ owner: UInt32, _ mustSucceed: Bool
    ) -> UnsafeMutableRawPointer? {
        let (sum, overflow) = size.addingReportingOverflow(SizeClasses.pageSize - 1)
        guard !overflow, sum < rangeBytes else { return nil }
        let bytes = sum & ~(SizeClasses.pageSize - 1)
        guard let slot = takeSpan(0, forced: mustSucceed) else { return nil }
        let pool = pool.takeUnretainedValue()
        guard let chunk = pool.takeHuge(bytes: bytes, slot: slot, arena: index, forced: mustSucceed) else {
            returnSpan(slot, 0)
            return nil
        }
        let record = slots + Int(slot)
        record.pointee.address = UInt64(Int(chunk) * SizeClasses.chunkSize)
        record.pointee.sizeClass = SlotRecord.hugeClass
        record.pointee.arena = index
        classCounts[SizeClasses.count].allocations &+= 1
        start(record, size, bytes, site, owner)
        return base + Int(record.pointee.address)
    }

    /// Takes a buffer that is a run, or has its own mapping, back.
    @inline(never)
    mutating func releaseRun(_ slot: UnsafeMutablePointer<SlotRecord>, releaseSite: UInt32) {
        let offset = Int(slot.pointee.address)
        let chunk = offset / SizeClasses.chunkSize
        if slot.pointee.sizeClass == SlotRecord.hugeClass {
            finish(slot, Int(chunks[chunk].mappedBytes), releaseSite: releaseSite)
            classCounts[SizeClasses.count].frees &+= 1
            pool.takeUnretainedValue().returnHuge(UInt32(chunk))
        } else {
            let geometry = classes[Int(slot.pointee.sizeClass)]
            finish(slot, Int(geometry.bytes), releaseSite: releaseSite)
            classCounts[Int(slot.pointee.sizeClass)].frees &+= 1
            let page = offset & (SizeClasses.chunkSize - 1) / SizeClasses.pageSize
            returnRun(Run(chunk: chunk, page: page), Int(geometry.pages))
        }
        returnSpan(UInt32(slot - slots), 0)
    }

    /// Enters a run into the page map.
    func map(_ run: Run, _ pages: Int, _ entry: PageEntry) {
        (pageMap + run.chunk * SizeClasses.pagesPerChunk + run.page).update(repeating: entry, count: pages)
    }

    // MARK: Taking and returning

    mutating func takeRun(_ pages: Int, mustSucceed: Bool) -> Run? {
        if let run = findRun(pages) { return run }
        if drainRemoteFrees() > 0, let run = findRun(pages) { return run }
        let pool = pool.takeUnretainedValue()
        if let chunk = pool.takeChunk(for: index, forced: false) { return adopt(chunk, pages) }
        if retireEmptySlabs(), let run = findRun(pages) { return run }
        guard mustSucceed else { return nil }
        if spendReserve(), let run = findRun(pages) { return run }
        guard let chunk = pool.takeChunk(for: index, forced: true) else { return nil }
        return adopt(chunk, pages)
    }

    /// A run from a chunk the arena has. Lists of longer runs always fit; in the list of the same length some may.
    private mutating func findRun(_ pages: Int) -> Run? {
        let exact = Int.bitWidth - 1 - pages.leadingZeroBitCount
        var chunk = chunkLists[exact]
        var tries = 8
        while chunk != .max, tries > 0 {
            if Int(chunks[Int(chunk)].largestFreeRun) >= pages { return carve(chunk, pages) }
            chunk = chunks[Int(chunk)].next
            tries -= 1
        }
        for list in exact + 1..<Self.listCount where chunkLists[list] != .max {
            return carve(chunkLists[list], pages)
        }
        // Rare: the exact list is long and only chunks far down fit.
        while chunk != .max {
            if Int(chunks[Int(chunk)].largestFreeRun) >= pages { return carve(chunk, pages) }
            chunk = chunks[Int(chunk)].next
        }
        return nil
    }

    private mutating func carve(_ chunk: UInt32, _ pages: Int) -> Run? {
        let bits = bits(chunk)
        guard let page = bits.firstFit(pages) else { return nil }
        if chunks[Int(chunk)].freePages == SizeClasses.pagesPerChunk { emptyChunks -= 1 }
        bits.set(page, pages)
        relist(chunk, freePages: Int(chunks[Int(chunk)].freePages) - pages)
        return Run(chunk: Int(chunk), page: page)
    }

    mutating func returnRun(_ run: Run, _ pages: Int) {
        map(run, pages, .free)
        let chunk = UInt32(run.chunk)
        bits(chunk).reset(run.page, pages)
        let freePages = Int(chunks[run.chunk].freePages) + pages
        relist(chunk, freePages: freePages)
        if freePages == SizeClasses.pagesPerChunk {
            emptyChunks += 1
            if emptyChunks > 1 { giveBack(chunk) }
        }
    }

    /// Lengthens a used run into the pages behind it. False where they are not free.
    mutating func extendRun(_ run: Run, from old: Int, to new: Int) -> Bool {
        let bits = bits(UInt32(run.chunk))
        guard run.page + new <= SizeClasses.pagesPerChunk, bits.isFree(run.page + old, new - old) else { return false }
        bits.set(run.page + old, new - old)
        relist(UInt32(run.chunk), freePages: Int(chunks[run.chunk].freePages) - (new - old))
        return true
    }

    private mutating func adopt(_ chunk: UInt32, _ pages: Int) -> Run? {
        bits(chunk).clear()
        // Its pages are not counted yet.
        chunks[Int(chunk)].freePages = 0
        chunks[Int(chunk)].list = UInt8(Self.listCount)
        relist(chunk, freePages: SizeClasses.pagesPerChunk)
        emptyChunks += 1
        record.pointee.chunkCount += 1
        // The reserve may not starve the allocation that brought the chunk.
        if reserve == nil, pages + Self.reservePages <= SizeClasses.pagesPerChunk,
            let run = carve(chunk, Self.reservePages)
        {
            setAside(run)
        }
        return carve(chunk, pages)
    }

    private mutating func setAside(_ run: Run) {
        map(run, Self.reservePages, PageEntry(.reserve, 0))
        reserve = run.chunk << 11 | run.page
        isReserveSpent = false
        record.pointee.reserveBytes = UInt64(Self.reservePages * SizeClasses.pageSize)
    }

    /// Sets the reserve aside again once its pages can be had in a chunk that is here.
    mutating func refillReserve() {
        guard isReserveSpent else { return }
        // The first chunk brings it.
        if record.pointee.chunkCount == 0 { return isReserveSpent = false }
        if let run = findRun(Self.reservePages) { setAside(run) }
    }

    /// Frees the reserve. False where it is spent already.
    private mutating func spendReserve() -> Bool {
        guard let reserve else { return false }
        self.reserve = nil
        isReserveSpent = true
        record.pointee.reserveBytes = 0
        returnRun(Run(chunk: reserve >> 11, page: reserve & 2047), Self.reservePages)
        return true
    }

    /// An empty chunk goes back to the pool.
    private mutating func giveBack(_ chunk: UInt32) {
        unlist(chunk)
        emptyChunks -= 1
        freePages -= SizeClasses.pagesPerChunk
        record.pointee.chunkCount -= 1
        pool.takeUnretainedValue().returnChunk(chunk)
    }

    /// Gives back the chunk that is kept for the next run, if it is empty.
    mutating func giveBackEmptyChunks() {
        _ = retireEmptySlabs()
        while emptyChunks > 0 {
            let chunk = chunkLists[Self.listCount - 1]
            guard chunk != .max, chunks[Int(chunk)].freePages == SizeClasses.pagesPerChunk else { return }
            giveBack(chunk)
        }
    }

    /// Gives the memory behind long free runs back to the system. What a run costs when it is used again is a fault for
    /// each page, so short ones are left.
    func discardFreeRuns() -> Int {
        var bytes = 0
        for list in Self.discardedPages.trailingZeroBitCount..<Self.listCount {
            var chunk = chunkLists[list]
            while chunk != .max {
                let start = base + Int(chunk) * SizeClasses.chunkSize
                bits(chunk).forEachFreeRun { page, pages in
                    guard pages >= Self.discardedPages else { return true }
                    OS.discard(start + page * SizeClasses.pageSize, pages * SizeClasses.pageSize)
                    bytes += pages * SizeClasses.pageSize
                    return true
                }
                chunk = chunks[Int(chunk)].next
            }
        }
        return bytes
    }

    // MARK: Chunk lists

    private func bits(_ chunk: UInt32) -> PageBits {
        PageBits(pageBits + Int(chunk) * (SizeClasses.pagesPerChunk / 8))
    }

    /// Notes a chunk's new figures and moves it to the list they call for.
    private mutating func relist(_ chunk: UInt32, freePages: Int) {
        let longest = bits(chunk).longestFreeRun()
        let record = chunks + Int(chunk)
        self.freePages += freePages - Int(record.pointee.freePages)
        record.pointee.freePages = UInt32(freePages)
        record.pointee.largestFreeRun = UInt32(longest)
        let list = longest == 0 ? Self.listCount : Int.bitWidth - 1 - longest.leadingZeroBitCount
        guard list != Int(record.pointee.list) else { return }
        unlist(chunk)
        record.pointee.list = UInt8(list)
        guard list < Self.listCount else { return }
        chunks.insert(chunk, at: chunkLists + list)
    }

    private mutating func unlist(_ chunk: UInt32) {
        let list = Int(chunks[Int(chunk)].list)
        guard list < Self.listCount else { return }
        chunks.remove(chunk, from: chunkLists + list)
        chunks[Int(chunk)].list = UInt8(Self.listCount)
    }
}
