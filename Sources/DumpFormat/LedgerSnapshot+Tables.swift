internal import Ledger

// The small tables, without what is added up over the slots.

extension LedgerSnapshot {
    static func header(_ image: LedgerImage) -> Snapshot.Header {
        let words = image.header.pointee
        var header = Snapshot.Header()
        header.pid = words.pid
        header.wallTime = words.wallTime
        header.monotonicTime = words.monotonicTime
        header.startTime = words.startTime
        return header
    }

    static func totals(_ image: LedgerImage) -> Snapshot.Totals {
        let words = image.header.pointee
        var totals = Snapshot.Totals()
        totals.limitBytes = words.limitBytes
        totals.counterBytes = words.counterBytes
        totals.peakCounterBytes = words.peakCounterBytes
        totals.chunkSize = UInt64(SizeClasses.chunkSize)
        totals.pageSize = UInt64(SizeClasses.pageSize)
        totals.chunkCount = words.chunkCount
        totals.chunkBytes = words.chunkBytes
        totals.hugeCount = words.hugeCount
        totals.hugeBytes = words.hugeBytes
        totals.ledgerBytes = words.ledgerBytes
        totals.snapshotBufferBytes = words.snapshotBufferBytes
        totals.overLimitBytes = words.overLimitBytes
        totals.failedAllocations = words.failedAllocations
        return totals
    }

    private static func counters(_ image: LedgerImage, _ site: Int, _ arena: Int) -> UnsafeMutablePointer<SiteCounters>
    {
        image.record(.siteCounters, site, group: arena).assumingMemoryBound(to: SiteCounters.self)
    }

    static func arenas(_ image: LedgerImage) -> [Snapshot.ArenaTotals] {
        (0..<image.rows(.arenas)).map { index in
            let raw = image.record(.arenas, index)
            let record = raw.assumingMemoryBound(to: ArenaRecord.self).pointee
            var arena = Snapshot.ArenaTotals()
            arena.name = LedgerText.read(raw + ArenaRecord.nameOffset, capacity: ArenaRecord.nameCapacity)
            arena.chunkCount = record.chunkCount
            arena.remoteFrees = record.remoteFrees
            guard index < image.groups(.siteCounters) else { return arena }
            for site in 0..<image.rows(.siteCounters) {
                let counters = counters(image, site, index).pointee
                arena.allocations &+= counters.allocations
                arena.frees &+= counters.frees
            }
            return arena
        }
    }

    /// At least row 0, which everything that names no site is counted under.
    static func sites(_ image: LedgerImage) -> [Snapshot.Site] {
        if image.rows(.sites) == 0 {
            var unknown = Snapshot.Site()
            unknown.label = "(unknown)"
            unknown.lifetimes = [UInt64](repeating: 0, count: SiteCounters.lifetimeBuckets)
            return [unknown]
        }
        return (0..<image.rows(.sites)).map { index in
            let raw = image.record(.sites, index)
            var site = Snapshot.Site()
            site.label = LedgerText.read(raw + SiteRecord.labelOffset, capacity: SiteRecord.labelCapacity)
            site.file = LedgerText.read(raw + SiteRecord.fileOffset, capacity: SiteRecord.fileCapacity)
            site.function = LedgerText.read(raw + SiteRecord.functionOffset, capacity: SiteRecord.functionCapacity)
            site.line = raw.assumingMemoryBound(to: SiteRecord.self).pointee.line
            site.lifetimes = [UInt64](repeating: 0, count: SiteCounters.lifetimeBuckets)
            guard index < image.rows(.siteCounters) else { return site }
            for arena in 0..<image.groups(.siteCounters) {
                let counters = counters(image, index, arena)
                site.allocations &+= counters.pointee.allocations
                site.frees &+= counters.pointee.frees
                site.allocatedBytes &+= counters.pointee.allocatedRequested
                let lifetimes = (UnsafeMutableRawPointer(counters) + SiteCounters.lifetimesOffset)
                    .assumingMemoryBound(to: UInt64.self)
                for bucket in 0..<SiteCounters.lifetimeBuckets { site.lifetimes[bucket] &+= lifetimes[bucket] }
            }
            return site
        }
    }

    /// At least row 0, the process.
    static func owners(_ image: LedgerImage) -> [Snapshot.Owner] {
        if image.rows(.owners) == 0 {
            var process = Snapshot.Owner()
            process.kind = .process
            return [process]
        }
        return (0..<image.rows(.owners)).map { index in
            let raw = image.record(.owners, index)
            let record = raw.assumingMemoryBound(to: OwnerRecord.self).pointee
            var owner = Snapshot.Owner()
            owner.kind = OwnerKind(rawValue: record.kind) ?? .component
            owner.parent = Snapshot.ownerIndex(record.parent, in: image)
            owner.createdTime = record.created
            owner.closedTime = record.closed
            return owner
        }
    }

    static func chunks(_ image: LedgerImage) -> [Snapshot.Chunk] {
        let records = image.records(.chunks, of: ChunkRecord.self)
        return (0..<image.rows(.chunks)).compactMap { index in
            let record = records[index]
            var chunk = Snapshot.Chunk()
            switch ChunkRecord.State(rawValue: record.state) {
            case .chunk: chunk.kind = .chunk
            case .cached: chunk.kind = .cached
            case .hugeHead: chunk.kind = .huge
            case .unused, .hugeBody, nil: return nil
            }
            chunk.index = UInt32(index)
            chunk.arena = UInt16(record.arena)
            chunk.bytes = record.mappedBytes
            chunk.freePages = record.freePages
            chunk.largestFreeRunPages = record.largestFreeRun
            chunk.birth = record.birth
            return chunk
        }
    }
}

extension Snapshot {
    /// The row of an owner: its own, or the process's where its record serves another by now.
    static func ownerIndex(_ rawValue: UInt32, in image: LedgerImage) -> UInt32 {
        let owner = OwnerID(rawValue: rawValue)
        guard owner.index < image.rows(.owners) else { return 0 }
        let record = image.record(.owners, owner.index).assumingMemoryBound(to: OwnerRecord.self)
        return record.pointee.generation == owner.generation ? UInt32(owner.index) : 0
    }
}
