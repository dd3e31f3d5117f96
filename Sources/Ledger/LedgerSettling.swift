/// Makes the copy of a ledger agree with itself that was made while some arenas went on.
///
/// The slots are the truth, as they were copied last: a run is there if its page map, its slab and its slots say the same
/// of it, and a slot if a run leads to it. All else was being given out or taken back and is left out; what follows from runs
/// and slots (free pages, elements in use, totals) is worked out again. Arenas that stood still are not touched.
/// `LedgerImage.settle` is the way in.
struct LedgerSettling {
    private let image: LedgerImage
    private let arenas: ArenaSet
    private let slots: UnsafeMutablePointer<SlotRecord>
    private let slabs: UnsafeMutablePointer<SlabRecord>
    private let chunks: UnsafeMutablePointer<ChunkRecord>
    private let slotCount: Int
    /// By slot: whether a run leads to it.
    private var isFound: [Bool]
    private let geometries = (0..<SizeClasses.count).map(SizeClasses.geometry(of:))
    private var leftOut = 0

    init(_ image: LedgerImage, _ arenas: ArenaSet) {
        self.image = image
        self.arenas = arenas
        slots = image.records(.slots, of: SlotRecord.self)
        slabs = image.records(.slabs, of: SlabRecord.self)
        chunks = image.records(.chunks, of: ChunkRecord.self)
        slotCount = image.rows(.slots)
        isFound = [Bool](repeating: false, count: slotCount)
    }

    /// - Returns: how many buffers and entries were left out.
    mutating func run() -> Int {
        for chunk in 0..<image.rows(.chunks) {
            switch ChunkRecord.State(rawValue: chunks[chunk].state) {
            case .chunk where chunk < image.rows(.pageMap): walk(chunk)
            case .hugeHead: settleHuge(chunk)
            case .chunk, .unused, .hugeBody, .cached, nil: break
            }
        }
        for slot in 0..<slotCount where !isFound[slot] && slots[slot].state != SlotRecord.State.free.rawValue {
            slots[slot].state = SlotRecord.State.free.rawValue
            leftOut += 1
        }
        settleTotals()
        settleRings()
        return leftOut
    }

    // MARK: Runs

    private mutating func walk(_ chunk: Int) {
        let map = image.record(.pageMap, chunk).assumingMemoryBound(to: PageEntry.self)
        let isMoving = arenas.contains(chunks[chunk].arena)
        var (page, free, longest, current) = (0, 0, 0, 0)
        while page < SizeClasses.pagesPerChunk {
            let entry = map[page]
            var pages: Int?
            switch entry.kind {
            case .slab: pages = slab(Int(entry.value), chunk, page, isMoving)
            case .buffer: pages = run(Int(entry.value), chunk, page)
            case .reserve: pages = 1
            case .free: break
            }
            current = pages == nil ? current + 1 : 0
            free += pages == nil ? 1 : 0
            longest = max(longest, current)
            if isMoving {
                for place in page..<page + (pages ?? 1) { map[place] = pages == nil ? .free : entry }
            }
            page += pages ?? 1
        }
        guard isMoving else { return }
        chunks[chunk].freePages = UInt32(free)
        chunks[chunk].largestFreeRun = UInt32(longest)
        chunks[chunk].mappedBytes = UInt64(SizeClasses.chunkSize)
    }

    /// The pages of the slab that begins here; nil where there is none.
    private mutating func slab(_ slab: Int, _ chunk: Int, _ page: Int, _ isMoving: Bool) -> Int? {
        guard slab < image.rows(.slabs) else { return nil }
        let record = slabs[slab]
        guard Int(record.sizeClass) <= SizeClasses.lastSlabClass else { return nil }
        let geometry = geometries[Int(record.sizeClass)]
        guard record.state != 0, Int(record.chunk) == chunk, Int(record.firstPage) == page,
            record.arena == chunks[chunk].arena, record.pages == geometry.pages, record.elements == geometry.elements,
            page + Int(record.pages) <= SizeClasses.pagesPerChunk,
            Int(record.firstSlot) + Int(record.elements) <= slotCount
        else { return nil }
        let start = chunk * SizeClasses.chunkSize + page * SizeClasses.pageSize
        var live = 0
        for element in 0..<Int(record.elements) {
            let slot = Int(record.firstSlot) + element
            if isLive(
                slot, at: start + element * Int(geometry.bytes), record.sizeClass, record.arena, UInt64(geometry.bytes))
            {
                find(slot)
                live += 1
            }
        }
        if isMoving { slabs[slab].freeCount = record.elements - UInt16(live) }
        return Int(record.pages)
    }

    /// The pages of the buffer that begins here; nil where there is none.
    private mutating func run(_ slot: Int, _ chunk: Int, _ page: Int) -> Int? {
        guard slot < slotCount else { return nil }
        let sizeClass = Int(slots[slot].sizeClass)
        guard sizeClass > SizeClasses.lastSlabClass, sizeClass < SizeClasses.count else { return nil }
        let geometry = geometries[sizeClass]
        let start = chunk * SizeClasses.chunkSize + page * SizeClasses.pageSize
        guard page + Int(geometry.pages) <= SizeClasses.pagesPerChunk,
            isLive(slot, at: start, UInt16(sizeClass), chunks[chunk].arena, UInt64(geometry.bytes))
        else { return nil }
        find(slot)
        return Int(geometry.pages)
    }

    /// A huge mapping without its buffer is left out with it.
    private mutating func settleHuge(_ chunk: Int) {
        let slot = Int(chunks[chunk].hugeSlot)
        let bytes = chunks[chunk].mappedBytes
        if slot < slotCount,
            isLive(slot, at: chunk * SizeClasses.chunkSize, SlotRecord.hugeClass, chunks[chunk].arena, bytes)
        {
            return find(slot)
        }
        chunks[chunk].state = ChunkRecord.State.unused.rawValue
        leftOut += 1
    }

    /// Whether a slot is what it should be, as the buffer at this place.
    private func isLive(_ slot: Int, at address: Int, _ sizeClass: UInt16, _ arena: UInt8, _ bytes: UInt64) -> Bool {
        let record = slots[slot]
        return (record.state == SlotRecord.State.live.rawValue || record.state == SlotRecord.State.remoteFreed.rawValue)
            && record.address == UInt64(address) && record.sizeClass == sizeClass && record.arena == arena
            && record.requested <= bytes && UInt8(truncatingIfNeeded: record.serial) == arena
            && record.serial != 0
    }

    private mutating func find(_ slot: Int) {
        isFound[slot] = true
        guard arenas.contains(slots[slot].arena) else { return }
        // What came into the tables of sites and owners after these were copied.
        if Int(slots[slot].site) >= image.rows(.sites) { slots[slot].site = 0 }
        if Int(slots[slot].accessSite) >= image.rows(.sites) { slots[slot].accessSite = 0 }
        let owner = OwnerID(rawValue: slots[slot].owner).index
        let isKnown =
            owner < image.rows(.owners)
            && image.record(.owners, owner).assumingMemoryBound(to: OwnerRecord.self).pointee.kind
                != OwnerKind.free.rawValue
        if !isKnown { slots[slot].owner = OwnerID.process.rawValue }
    }

    // MARK: What follows

    private func settleTotals() {
        let header = image.header
        let states = (0..<image.rows(.chunks)).map { ChunkRecord.State(rawValue: chunks[$0].state) }
        let own = states.count { $0 == .chunk || $0 == .cached }
        header.pointee.chunkCount = UInt64(own)
        header.pointee.chunkBytes = UInt64(own * SizeClasses.chunkSize)
        let huge = states.indices.filter { states[$0] == .hugeHead }
        header.pointee.hugeCount = UInt64(huge.count)
        header.pointee.hugeBytes = huge.reduce(0) { $0 &+ chunks[$1].mappedBytes }
        header.pointee.counterBytes =
            header.pointee.chunkBytes &+ header.pointee.hugeBytes &+ header.pointee.ledgerBytes
            &+ header.pointee.snapshotBufferBytes
        header.pointee.peakCounterBytes = max(header.pointee.peakCounterBytes, header.pointee.counterBytes)
        for chunk in states.indices where states[chunk] == .cached {
            chunks[chunk].mappedBytes = UInt64(SizeClasses.chunkSize)
            chunks[chunk].freePages = UInt32(SizeClasses.pagesPerChunk)
            chunks[chunk].largestFreeRun = UInt32(SizeClasses.pagesPerChunk)
        }
        for arena in 0..<image.rows(.arenas) where arenas.contains(UInt8(arena)) {
            let record = image.record(.arenas, arena).assumingMemoryBound(to: ArenaRecord.self)
            record.pointee.chunkCount = UInt64(
                states.indices.count { states[$0] == .chunk && Int(chunks[$0].arena) == arena })
        }
    }

    /// Of recently freed buffers, the entry that is being written may be half of the one before.
    private mutating func settleRings() {
        let now = image.header.pointee.monotonicTime
        for arena in 0..<image.groups(.freed) where arenas.contains(UInt8(arena)) {
            for row in 0..<image.rows(.freed) {
                let entry = image.record(.freed, row, group: arena).assumingMemoryBound(to: FreedRecord.self)
                let record = entry.pointee
                guard record.serial != 0 else { continue }
                if Int(UInt8(truncatingIfNeeded: record.serial)) == arena, record.birth <= record.freed,
                    record.freed <= now
                {
                    continue
                }
                entry.pointee.serial = 0
                leftOut += 1
            }
        }
    }
}

extension LedgerImage {
    /// Makes a copy that was made while these arenas went on agree with itself.
    ///
    /// - Returns: how many buffers and entries were being changed, and are left out.
    public func settle(_ arenas: ArenaSet) -> Int {
        var settling = LedgerSettling(self, arenas)
        return settling.run()
    }
}
