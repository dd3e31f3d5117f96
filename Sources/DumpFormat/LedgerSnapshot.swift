public import Ledger

/// A ledger in memory (the live one at a safepoint, or a copy of it) as a snapshot: small tables made at once, bulk
/// columns read from the ledger's records while they are written, so that only a row index is kept in memory.
///
/// The descriptors of the image are trusted, its records are not: they may be of a process that was killed in the middle
/// of an operation, or of a damaged file. An index that leads nowhere is passed over, sums wrap around, nothing traps.
public struct LedgerSnapshot {
    /// All small tables. Set the header's program, host, reason and process figures before writing.
    public var tables: Snapshot
    public let slots: Slots
    public let runs: Snapshot.RunColumns
    public let edges: Snapshot.EdgeColumns?
    /// The first bytes of the buffers, where the dump is to have them.
    public let payloads: Payloads?
    let image: LedgerImage

    /// - Parameter edges: what the holders reach, by slot; nil where nobody asked them, and then nothing is known to
    ///   be unheld.
    /// - Parameter payloads: where the buffers' first bytes are; nil: not wanted.
    /// - Parameter gaps: what could not be asked when the edges were found; the image has been settled.
    public init(
        _ image: LedgerImage, edges: consuming [[LedgerEdge]]?, payloads: PayloadImage? = nil, gaps: LedgerGaps? = nil
    ) {
        self.image = image
        slots = Slots(image)
        runs = LedgerSnapshot.runs(image)
        tables = Snapshot(header: LedgerSnapshot.header(image), totals: LedgerSnapshot.totals(image))
        tables.sizeClasses = (0..<SizeClasses.count).map { index in
            let geometry = SizeClasses.geometry(of: index)
            return Snapshot.SizeClass(
                bytes: UInt64(geometry.bytes), runPages: UInt32(geometry.pages), elements: UInt32(geometry.elements))
        }
        tables.arenas = LedgerSnapshot.arenas(image)
        tables.sites = LedgerSnapshot.sites(image)
        tables.owners = LedgerSnapshot.owners(image)
        tables.chunks = LedgerSnapshot.chunks(image)

        tables.events = LedgerSnapshot.events(image)
        tables.freed = LedgerSnapshot.freed(image)
        let slots = slots
        self.payloads = payloads.map { Payloads(slots, $0) }

        let rows = slots.rows
        var held: [Bool]?
        if var edges {
            if let gaps {
                let unjudged = LedgerSnapshot.complete(&edges, gaps, slots)
                (tables.header.unjudgedBuffers, tables.header.unjudgedBytes) = unjudged
                tables.header.leftOut = UInt64(gaps.leftOut)
            }
            let sorted = LedgerSnapshot.sort(&edges, rows, image)
            var reached = [Bool](repeating: false, count: rows.count)
            for row in sorted.slotRow { reached[Int(row)] = true }
            self.edges = sorted
            held = reached
        } else {
            self.edges = nil
        }
        count(image, rows: rows, held: held)
        nameOwners()
    }

    /// Leaves out edges to what was freed while they were found, and adds one to each live buffer that nobody has named and
    /// that a loop may hold that could not be asked.
    ///
    /// - Returns: how many these are, and their bytes.
    private static func complete(
        _ edges: inout [[LedgerEdge]], _ gaps: LedgerGaps, _ slots: Slots
    ) -> (buffers: UInt64, bytes: UInt64) {
        let records = slots.image.records(.slots, of: SlotRecord.self)
        let count = slots.image.rows(.slots)
        func isLive(_ slot: Int) -> Bool { slot < count && records[slot].state == SlotRecord.State.live.rawValue }
        var isReached = [Bool](repeating: false, count: count)
        for part in edges.indices {
            edges[part].removeAll { !isLive(Int($0.slot)) }
            for edge in edges[part] { isReached[Int(edge.slot)] = true }
        }
        var possible: [LedgerEdge] = []
        var bytes: UInt64 = 0
        for slot in slots.rows where !isReached[Int(slot)] && isLive(Int(slot)) {
            let record = records[Int(slot)]
            guard let owner = gaps.possibleHolder(record) else { continue }
            possible.append(
                LedgerEdge(
                    slot: slot, owner: owner.rawValue, kind: .missingLoop,
                    referredBytes: UInt32(clamping: record.requested)))
            bytes &+= slots.capacity(record)
        }
        edges.append(possible)
        return (UInt64(possible.count), bytes)
    }

    /// Edges in the order of their slots' rows, as neighbours are alike: by counting, since there may be millions. They are
    /// let go of as they are placed.
    private static func sort(_ edges: inout [[LedgerEdge]], _ rows: [UInt32], _ image: LedgerImage)
        -> Snapshot.EdgeColumns
    {
        var rowOfSlot = [UInt32](repeating: .max, count: image.rows(.slots))
        for (row, slot) in rows.enumerated() { rowOfSlot[Int(slot)] = UInt32(row) }
        func row(_ edge: LedgerEdge) -> Int? {
            guard Int(edge.slot) < rowOfSlot.count else { return nil }
            let row = rowOfSlot[Int(edge.slot)]
            return row == .max ? nil : Int(row)
        }
        // Where the edges of each row begin; then, as they are placed, where its next one goes.
        var places = [UInt32](repeating: 0, count: rows.count + 1)
        for part in edges { for edge in part { if let row = row(edge) { places[row + 1] += 1 } } }
        for row in 0..<rows.count { places[row + 1] += places[row] }
        let count = Int(places[rows.count])
        var sorted = Snapshot.EdgeColumns()
        sorted.holderOwner = [UInt32](repeating: 0, count: count)
        sorted.holderKind = [UInt8](repeating: 0, count: count)
        sorted.slotRow = [UInt32](repeating: 0, count: count)
        sorted.referredBytes = [UInt32](repeating: 0, count: count)
        for part in edges.indices {
            for edge in edges[part] {
                guard let row = row(edge) else { continue }
                let place = Int(places[row])
                places[row] += 1
                sorted.holderOwner[place] = Snapshot.ownerIndex(edge.owner, in: image)
                sorted.holderKind[place] = edge.kind.rawValue
                sorted.slotRow[place] = UInt32(row)
                sorted.referredBytes[place] = edge.referredBytes
            }
            edges[part] = []
        }
        return sorted
    }

    /// Gives owners their names, but for those that are closed, have nothing and are named by nobody: after a day of clients
    /// that come and go they would be most of the file, and of the memory it takes to write it. Their rows stay, as others are
    /// referred to by row.
    private mutating func nameOwners() {
        var isNamed = tables.owners.map { $0.closedTime == 0 || $0.liveBuffers > 0 }
        for freed in tables.freed where Int(freed.owner) < isNamed.count { isNamed[Int(freed.owner)] = true }
        for owner in edges?.holderOwner ?? [] where Int(owner) < isNamed.count { isNamed[Int(owner)] = true }
        // Whoever is named names those above it.
        for row in isNamed.indices where isNamed[row] {
            var above = Int(tables.owners[row].parent)
            while above < isNamed.count, !isNamed[above] {
                isNamed[above] = true
                above = Int(tables.owners[above].parent)
            }
        }
        for row in isNamed.indices where row < image.rows(.owners) {
            if isNamed[row] || row == 0 {
                let raw = image.record(.owners, row)
                tables.owners[row].name = LedgerText.read(
                    raw + OwnerRecord.nameOffset, capacity: OwnerRecord.nameCapacity)
            } else {
                tables.owners[row] = Snapshot.Owner()
            }
        }
    }

    /// Adds the live slots up: by arena, site, owner, chunk and retainer, and in all.
    private mutating func count(_ image: LedgerImage, rows: [UInt32], held: [Bool]?) {
        let records = image.records(.slots, of: SlotRecord.self)
        let chunkRows = Dictionary(uniqueKeysWithValues: tables.chunks.enumerated().map { (UInt64($1.index), $0) })
        var retainerRows: [RetainerKey: Int] = [:]
        var last: (key: RetainerKey, row: Int)?
        var unheld = (buffers: UInt64(0), bytes: UInt64(0))
        for (row, slot) in rows.enumerated() {
            let record = records[Int(slot)]
            let capacity = slots.capacity(record)
            let owner = Int(tables.ownerIndex(record.owner, in: image))
            let site = Int(record.site) < tables.sites.count ? Int(record.site) : 0
            let touchSite = Int(record.touchSite) < tables.sites.count ? record.touchSite : 0

            tables.totals.liveBuffers += 1
            tables.totals.liveBytes &+= capacity
            tables.totals.requestedBytes &+= record.requested
            tables.owners[owner].liveBuffers += 1
            tables.owners[owner].liveBytes &+= capacity
            tables.sites[site].liveBuffers += 1
            tables.sites[site].liveBytes &+= capacity
            tables.sites[site].requestedBytes &+= record.requested
            if Int(record.arena) < tables.arenas.count {
                tables.arenas[Int(record.arena)].liveBuffers += 1
                tables.arenas[Int(record.arena)].liveBytes &+= capacity
                tables.arenas[Int(record.arena)].requestedBytes &+= record.requested
            }
            if let chunk = chunkRows[record.address / UInt64(SizeClasses.chunkSize)] {
                tables.chunks[chunk].liveBuffers += 1
                tables.chunks[chunk].liveBytes &+= capacity
            }

            let key = RetainerKey(site: UInt32(site), touchSite: touchSite, kind: tables.owners[owner].kind)
            let index: Int
            if let last, last.key == key {
                index = last.row
            } else if let known = retainerRows[key] {
                index = known
            } else {
                index = tables.retainers.count
                retainerRows[key] = index
                var retainer = Snapshot.Retainer()
                retainer.site = key.site
                retainer.touchSite = key.touchSite
                retainer.ownerKind = key.kind
                retainer.oldestBirth = .max
                tables.retainers.append(retainer)
            }
            last = (key, index)
            tables.retainers[index].liveBuffers += 1
            tables.retainers[index].liveBytes &+= capacity
            tables.retainers[index].requestedBytes &+= record.requested
            tables.retainers[index].oldestBirth = min(
                tables.retainers[index].oldestBirth, Self.coarse(record.birth))
            tables.retainers[index].newestBirth = max(
                tables.retainers[index].newestBirth, Self.coarse(record.birth))
            if let held, !held[row], record.state == SlotRecord.State.live.rawValue {
                tables.retainers[index].unheldBuffers += 1
                tables.retainers[index].unheldBytes &+= capacity
                unheld.buffers += 1
                unheld.bytes &+= capacity
            }
        }
        tables.totals.freeBytes = tables.totals.chunkBytes &+ tables.totals.hugeBytes &- tables.totals.liveBytes
        if held != nil {
            tables.totals.unheldBuffers = unheld.buffers
            tables.totals.unheldBytes = unheld.bytes
        }
    }

    /// A time as dumps have it: rounded down to 16.384 microseconds. Nobody reads ages finer than that, and the noise
    /// below would be a third of the file.
    static func coarse(_ time: UInt64) -> UInt64 { time & ~0x3fff }

    private struct RetainerKey: Hashable {
        let site: UInt32
        let touchSite: UInt32
        let kind: OwnerKind
    }

    /// The live slots of a ledger, as rows.
    public struct Slots: SlotSource {
        let image: LedgerImage
        /// Slot of each row.
        let rows: [UInt32]
        /// Live slots that no page map leads to.
        let strays: Int
        /// Entries of page maps that name a slot or slab there is not.
        let lostEntries: Int
        public var count: Int { rows.count }

        /// In the order of addresses, chunk by chunk, as neighbours are alike; a live slot that no page map leads to
        /// comes last, where `verify` finds it.
        init(_ image: LedgerImage) {
            self.image = image
            let records = image.records(.slots, of: SlotRecord.self)
            let slabs = image.records(.slabs, of: SlabRecord.self)
            let chunks = image.records(.chunks, of: ChunkRecord.self)
            var isFound = [Bool](repeating: false, count: image.rows(.slots))
            var rows: [UInt32] = []
            func add(_ slot: Int) {
                guard slot < isFound.count, !isFound[slot], Self.isLive(records[slot].state) else { return }
                isFound[slot] = true
                rows.append(UInt32(slot))
            }
            var lost = 0
            // A slab is one run's, and has so many elements at most; a damaged file may have it everywhere.
            var isSeen = [Bool](repeating: false, count: image.rows(.slabs))
            for chunk in 0..<image.rows(.chunks) {
                if chunks[chunk].state == ChunkRecord.State.hugeHead.rawValue { add(Int(chunks[chunk].hugeSlot)) }
                lost += LedgerSnapshot.forEachRun(image, chunk) { _, entry, _ in
                    switch entry.kind {
                    case .buffer: add(Int(entry.value))
                    case .slab where isSeen[Int(entry.value)]: break
                    case .slab:
                        isSeen[Int(entry.value)] = true
                        let slab = slabs[Int(entry.value)]
                        for element in 0..<min(Int(slab.elements), SizeClasses.maximumSlabElements) {
                            add(Int(slab.firstSlot) + element)
                        }
                    case .free, .reserve: break
                    }
                }
            }
            let found = rows.count
            for slot in isFound.indices where !isFound[slot] { add(slot) }
            self.rows = rows
            strays = rows.count - found
            lostEntries = lost
        }

        /// Slots whose state is none there is; they are no rows.
        var unknownStates: Int {
            let records = image.records(.slots, of: SlotRecord.self)
            return (0..<image.rows(.slots)).count { records[$0].state > SlotRecord.State.remoteFreed.rawValue }
        }

        private static func isLive(_ state: UInt8) -> Bool {
            state == SlotRecord.State.live.rawValue || state == SlotRecord.State.remoteFreed.rawValue
        }

        /// The latest birth or touch that is not after `limit`.
        func latestTime(upTo limit: UInt64) -> UInt64 {
            let records = image.records(.slots, of: SlotRecord.self)
            var latest: UInt64 = 0
            for slot in rows {
                for time in [records[Int(slot)].birth, records[Int(slot)].touchTime] where time <= limit {
                    latest = max(latest, time)
                }
            }
            return latest
        }

        /// Bytes of the class, or of the mapping.
        func capacity(_ record: SlotRecord) -> UInt64 {
            if record.sizeClass < SizeClasses.count { return UInt64(SizeClasses.bytes(of: Int(record.sizeClass))) }
            let chunk = record.address / UInt64(SizeClasses.chunkSize)
            guard chunk < UInt64(image.rows(.chunks)) else { return record.requested }
            return image.records(.chunks, of: ChunkRecord.self)[Int(chunk)].mappedBytes
        }

        /// Bytes that a slot's buffer holds; nil if there is no live buffer in it.
        public func capacity(ofSlot slot: UInt32) -> UInt64? {
            guard slot < image.rows(.slots) else { return nil }
            let record = image.records(.slots, of: SlotRecord.self)[Int(slot)]
            return Self.isLive(record.state) ? capacity(record) : nil
        }

        public func owner(ofRow row: Int) -> UInt32 {
            Snapshot.ownerIndex(image.records(.slots, of: SlotRecord.self)[Int(rows[row])].owner, in: image)
        }

        public func requested(ofRow row: Int) -> UInt64 {
            image.records(.slots, of: SlotRecord.self)[Int(rows[row])].requested
        }

        public func fill<Element>(
            _ column: TypedColumn<Snapshot.SlotColumns, Element>, rows: Range<Int>,
            into values: UnsafeMutableBufferPointer<Element>
        ) {
            switch column.id {
            case .serial: store(rows, sameType(values, count: rows.count)) { $0.serial }
            case .birth: store(rows, sameType(values, count: rows.count)) { LedgerSnapshot.coarse($0.birth) }
            case .address: store(rows, sameType(values, count: rows.count)) { $0.address }
            case .requested: store(rows, sameType(values, count: rows.count)) { $0.requested }
            case .capacity: store(rows, sameType(values, count: rows.count), capacity)
            case .sizeClass: store(rows, sameType(values, count: rows.count)) { $0.sizeClass }
            case .arena: store(rows, sameType(values, count: rows.count)) { UInt16($0.arena) }
            case .site: store(rows, sameType(values, count: rows.count)) { $0.site }
            case .owner:
                store(rows, sameType(values, count: rows.count)) { Snapshot.ownerIndex($0.owner, in: image) }
            case .touchSite: store(rows, sameType(values, count: rows.count)) { $0.touchSite }
            case .touchTime: store(rows, sameType(values, count: rows.count)) { LedgerSnapshot.coarse($0.touchTime) }
            case .state: store(rows, sameType(values, count: rows.count)) { $0.state }
            }
        }

        private func store<Value>(
            _ rows: Range<Int>, _ target: UnsafeMutableBufferPointer<Value>, _ value: (SlotRecord) -> Value
        ) {
            let records = image.records(.slots, of: SlotRecord.self)
            for (index, slot) in self.rows[rows].enumerated() { target[index] = value(records[Int(slot)]) }
        }
    }
}

extension LedgerSnapshot {
    private static func header(_ image: LedgerImage) -> Snapshot.Header {
        let words = image.header.pointee
        var header = Snapshot.Header()
        header.pid = words.pid
        header.wallTime = words.wallTime
        header.monotonicTime = words.monotonicTime
        header.startTime = words.startTime
        return header
    }

    private static func totals(_ image: LedgerImage) -> Snapshot.Totals {
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
        totals.stagingBytes = words.stagingBytes
        totals.overdraftBytes = words.overdraftBytes
        totals.failedAllocations = words.failedAllocations
        return totals
    }

    private static func counters(_ image: LedgerImage, _ site: Int, _ arena: Int) -> UnsafeMutablePointer<SiteCounters>
    {
        image.record(.siteCounters, site, group: arena).assumingMemoryBound(to: SiteCounters.self)
    }

    private static func arenas(_ image: LedgerImage) -> [Snapshot.ArenaTotals] {
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
    private static func sites(_ image: LedgerImage) -> [Snapshot.Site] {
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
    private static func owners(_ image: LedgerImage) -> [Snapshot.Owner] {
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

    private static func chunks(_ image: LedgerImage) -> [Snapshot.Chunk] {
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

    /// The runs the page maps name.
    private static func runs(_ image: LedgerImage) -> Snapshot.RunColumns {
        var runs = Snapshot.RunColumns()
        let slabs = image.records(.slabs, of: SlabRecord.self)
        let slots = image.records(.slots, of: SlotRecord.self)
        for chunk in 0..<image.rows(.chunks) {
            forEachRun(image, chunk) { page, entry, pages in
                var kind = Snapshot.RunColumns.Kind.buffer
                var sizeClass = SlotRecord.hugeClass
                var elements = UInt16(1)
                var live = UInt16(1)
                switch entry.kind {
                case .slab:
                    let slab = slabs[Int(entry.value)]
                    (kind, sizeClass, elements) = (.slab, slab.sizeClass, slab.elements)
                    live = slab.elements &- slab.freeCount
                case .buffer: sizeClass = slots[Int(entry.value)].sizeClass
                case .free, .reserve: (kind, elements, live) = (.reserve, 0, 0)
                }
                runs.chunk.append(UInt32(chunk))
                runs.firstPage.append(UInt16(page))
                runs.pages.append(UInt16(pages))
                runs.kind.append(kind.rawValue)
                runs.sizeClass.append(sizeClass)
                runs.elements.append(elements)
                runs.liveElements.append(live)
            }
        }
        return runs
    }

    /// Calls `body` with (first page, entry, pages) of each used run of a chunk. Entries that lead nowhere are passed
    /// over, and their number is returned.
    @discardableResult
    private static func forEachRun(
        _ image: LedgerImage, _ chunk: Int, _ body: (Int, PageEntry, Int) -> Void
    ) -> Int {
        guard image.records(.chunks, of: ChunkRecord.self)[chunk].state == ChunkRecord.State.chunk.rawValue,
            chunk < image.rows(.pageMap)
        else { return 0 }
        var lost = 0
        let map = image.record(.pageMap, chunk).assumingMemoryBound(to: PageEntry.self)
        var page = 0
        while page < SizeClasses.pagesPerChunk {
            let entry = map[page]
            var pages = 1
            switch entry.kind {
            case .slab where Int(entry.value) < image.rows(.slabs):
                pages = Int(image.records(.slabs, of: SlabRecord.self)[Int(entry.value)].pages)
                body(page, entry, pages)
            case .buffer where Int(entry.value) < image.rows(.slots):
                let sizeClass = Int(image.records(.slots, of: SlotRecord.self)[Int(entry.value)].sizeClass)
                if sizeClass < SizeClasses.count { pages = SizeClasses.bytes(of: sizeClass) / SizeClasses.pageSize }
                body(page, entry, pages)
            case .reserve:
                while page + pages < SizeClasses.pagesPerChunk, map[page + pages] == entry { pages += 1 }
                body(page, entry, pages)
            case .slab, .buffer: lost += 1
            case .free: break
            }
            page += max(1, pages)
        }
        return lost
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

    func ownerIndex(_ rawValue: UInt32, in image: LedgerImage) -> UInt32 { Self.ownerIndex(rawValue, in: image) }
}

extension LedgerSnapshot.Slots {
    /// The selected columns in memory.
    func columns(_ selection: Set<Snapshot.SlotColumns.Column>) -> Snapshot.SlotColumns {
        var columns = Snapshot.SlotColumns()
        columns.count = count
        func read(_ column: some BulkColumn<Snapshot.SlotColumns>) {
            guard selection.contains(column.typed.id) else { return }
            columns[keyPath: column.typed.values] = values(column.typed, rows: 0..<count)
        }
        for column in Snapshot.SlotColumns.columns { read(column) }
        return columns
    }
}
