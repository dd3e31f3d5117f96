import DumpFormat
import Ledger
import SeededRandom

/// A broker with as many live buffers as asked for, as a dump of it would say: slabs of small classes that filled up over
/// hours, one buffer in eight newer than its neighbours, queues and inflight windows that hold nearly all, and a leak
/// of one in twenty. All tables agree, so that `verify` passes; the same numbers give the same broker.
struct SyntheticBroker {
    let buffers: Int
    /// The process this many generations later: some buffers are gone and others born, for `diff`.
    let generation: UInt64

    private static let second: UInt64 = 1_000_000_000
    private static let hours: UInt64 = 6 * 3_600 * second
    /// Dumps round times down to this many nanoseconds.
    private static let tick: UInt64 = 16_384
    private static let clients = 100
    private static let arenas = 2

    private enum Site: UInt32, CaseIterable { case unknown, read, assembly, publish, queue, retain, convert }

    private var random: SeededGenerator
    private var snapshot = Snapshot(header: .init(), totals: .init())
    private var slots = Snapshot.SlotColumns()
    private var runs = Snapshot.RunColumns()
    private var references = Snapshot.ReferenceColumns()
    private let geometries = (0..<SizeClasses.count).map { SizeClasses.geometry(of: $0) }

    init(buffers: Int, generation: UInt64 = 0) {
        self.buffers = buffers
        self.generation = generation
        random = SeededGenerator(seed: 42)
    }

    consuming func make() -> Snapshot {
        describeProcess()
        addOwners()
        addBuffers()
        addAllocationGroupsAndTotals()
        snapshot.slots = slots
        snapshot.runs = runs
        snapshot.references = references
        return snapshot
    }

    // MARK: The process

    private mutating func describeProcess() {
        var header = Snapshot.Header()
        header.program = "synthetic-broker"
        header.programVersion = "1"
        header.pid = 4242
        header.host = "nowhere"
        header.startTime = 5 * Self.second
        header.monotonicTime = header.startTime + Self.hours + generation * 60 * Self.second
        header.wallTime = 1_795_435_203_000_000_000 + generation * 60 * Self.second
        header.reason = "signal"
        header.pauseNanoseconds = 9_000_000
        header.threadCount = 4
        snapshot.header = header
        snapshot.sizeClasses = geometries.map {
            Snapshot.SizeClass(
                bytes: UInt64($0.bytes), runPages: UInt32($0.pages), elements: UInt32($0.elements))
        }
        snapshot.arenas = (0..<Self.arenas).map { index in
            var arena = Snapshot.ArenaTotals()
            arena.name = "loop-\(index)"
            return arena
        }
        snapshot.sites = Site.allCases.map { kind in
            var site = Snapshot.Site()
            (site.label, site.file, site.line, site.function) =
                switch kind {
                case .unknown: ("(unknown)", "", 0, "")
                case .read: ("socket read", "Broker/ReadBufferSource.swift", 39, "next()")
                case .assembly: ("packet assembly", "Broker/ConnectionHandler.swift", 146, "assemble(_:)")
                case .publish: ("publish packet", "Broker/Connection.swift", 88, "decodePublish()")
                case .queue: ("queued message", "Broker/OfflineQueue.swift", 52, "enqueue(_:)")
                case .retain: ("retained message", "Broker/Retained.swift", 40, "store(_:)")
                case .convert: ("convertToResponse", "Broker/RPCBridge.swift", 141, "convertToResponse(_:)")
                }
            site.lifetimes = (0..<56).map {
                $0 == 0 || kind == .unknown ? 0 : $0 == 20 ? 9_000_000 : $0 == 22 ? 400_000 : 0
            }
            site.frees = site.lifetimes.reduce(0, +)
            return site
        }
    }

    /// The process, a listener, and under it sessions, each with an offline queue.
    private mutating func addOwners() {
        func owner(_ kind: OwnerKind, _ name: String, _ parent: UInt32) -> Snapshot.Owner {
            var owner = Snapshot.Owner()
            owner.kind = kind
            owner.name = name
            owner.parent = parent
            owner.createdTime = snapshot.header.startTime
            return owner
        }
        snapshot.owners = [owner(.process, "process", 0), owner(.listener, "0.0.0.0:1883", 0), owner(.retained, "", 0)]
        for client in 0..<max(1, buffers / Self.clients) {
            let session = UInt32(snapshot.owners.count)
            snapshot.owners.append(owner(.session, "device-\(client)", 1))
            snapshot.owners.append(owner(.offlineQueue, "device-\(client)", session))
        }
    }

    // MARK: Buffers

    private mutating func addBuffers() {
        reserve()
        var chunk = newChunk(0)
        var page = 0
        var row = 0
        while row < buffers {
            // Messages of 64 to 600 bytes, and now and then one that is a run of its own.
            let isLarge = random.below(4_000) == 0
            let size = Int(isLarge ? 70_000 + random.below(60_000) : 64 + random.below(536))
            let sizeClass = SizeClasses.index(of: size)
            let geometry = geometries[sizeClass]
            if page + Int(geometry.pages) > SizeClasses.pagesPerChunk {
                close(&chunk, page)
                chunk = newChunk(chunk.index + 1)
                page = 0
            }
            var live: UInt16 = 0
            for element in 0..<Int(geometry.elements) where row < buffers && (element == 0 || random.below(20) > 0) {
                add(row, sizeClass, geometry, chunk, page, element)
                chunk.liveBuffers += 1
                chunk.liveBytes += UInt64(geometry.bytes)
                live += 1
                row += 1
            }
            addRun(chunk.index, page, sizeClass, geometry, live)
            page += Int(geometry.pages)
        }
        close(&chunk, page)
    }

    private mutating func reserve() {
        slots.serial.reserveCapacity(buffers)
        slots.birth.reserveCapacity(buffers)
        slots.address.reserveCapacity(buffers)
        slots.requested.reserveCapacity(buffers)
        slots.capacity.reserveCapacity(buffers)
        slots.accessTime.reserveCapacity(buffers)
        references.slotRow.reserveCapacity(buffers)
        references.referrerOwner.reserveCapacity(buffers)
        references.referrerKind.reserveCapacity(buffers)
    }

    private func newChunk(_ index: UInt32) -> Snapshot.Chunk {
        var chunk = Snapshot.Chunk()
        chunk.index = index
        chunk.arena = UInt16(Int(index) % Self.arenas)
        chunk.bytes = UInt64(SizeClasses.chunkSize)
        chunk.birth = snapshot.header.startTime
        return chunk
    }

    private mutating func close(_ chunk: inout Snapshot.Chunk, _ page: Int) {
        chunk.freePages = UInt32(SizeClasses.pagesPerChunk - page)
        chunk.largestFreeRunPages = chunk.freePages
        snapshot.chunks.append(chunk)
        snapshot.arenas[Int(chunk.arena)].chunkCount += 1
    }

    private mutating func addRun(
        _ chunk: UInt32, _ page: Int, _ sizeClass: Int, _ geometry: SizeClasses.Geometry, _ live: UInt16
    ) {
        runs.chunk.append(chunk)
        runs.firstPage.append(UInt16(page))
        runs.pages.append(geometry.pages)
        runs.kind.append((geometry.elements == 1 ? Snapshot.RunColumns.Kind.buffer : .slab).rawValue)
        runs.sizeClass.append(UInt16(sizeClass))
        runs.elements.append(geometry.elements)
        runs.liveElements.append(live)
    }

    private mutating func add(
        _ row: Int, _ sizeClass: Int, _ geometry: SizeClasses.Geometry, _ chunk: Snapshot.Chunk, _ page: Int,
        _ element: Int
    ) {
        let header = snapshot.header
        // Places are filled in order; one in eight was freed and taken again later. Odd serials are the later ones, at
        // any place in the order, but no two alike.
        let isLater = random.below(8) == 0
        let span = UInt64(buffers).nextPowerOfTwo
        let order = isLater ? (UInt64(row) &* 0x9E37_79B1 &+ 12_345) & (span - 1) : UInt64(row)
        let isReborn = generation > 0 && row % 50 == 7
        let serial = isReborn ? 8 * span + 4 * UInt64(row) : 4 * order + (isLater ? 1 : 0)
        let age = Self.hours - Self.hours / span * order + generation * 60 * Self.second
        let birth = rounded(isReborn ? header.monotonicTime - Self.second : header.monotonicTime - min(age, Self.hours))

        let kind = random.below(100)
        let (site, access): (Site, Site) =
            switch kind {
            case ..<5: (.publish, .convert)
            case ..<70: (.publish, .queue)
            case ..<85: (.assembly, .assembly)
            case ..<90: (.publish, .retain)
            default: (.read, .read)
            }
        let client = random.below(UInt64(max(1, buffers / Self.clients)))
        let session = UInt32(3 + 2 * client)
        let owner: UInt32 = access == .queue ? session + 1 : access == .retain ? 2 : session
        let wait = access == .queue ? random.below(3_600) * Self.second : random.below(20_000_000)

        slots.serial.append(serial)
        slots.birth.append(birth)
        slots.accessTime.append(rounded(min(header.monotonicTime, birth + wait)))
        slots.address.append(
            UInt64(chunk.index) << 24
                | UInt64(page * SizeClasses.pageSize + element * Int(geometry.bytes)))
        let least = sizeClass == 0 ? 1 : SizeClasses.bytes(of: sizeClass - 1) + 1
        slots.requested.append(UInt64(least) + random.below(UInt64(Int(geometry.bytes) - least + 1)))
        slots.capacity.append(UInt64(geometry.bytes))
        slots.sizeClass.append(UInt16(sizeClass))
        slots.arena.append(chunk.arena)
        slots.site.append(site.rawValue)
        slots.accessSite.append(access.rawValue)
        slots.owner.append(owner)
        slots.state.append(1)
        slots.count += 1
        guard access != .convert else { return }
        references.slotRow.append(UInt32(row))
        references.referrerOwner.append(owner)
        let referrer: ReferrerKind =
            switch access {
            case .queue: .offlineQueue
            case .retain: .retained
            case .assembly: .inflight
            default: .readBuffer
            }
        references.referrerKind.append(referrer.rawValue)
    }

    private func rounded(_ time: UInt64) -> UInt64 { time / Self.tick * Self.tick }

    // MARK: Sums

    private mutating func addAllocationGroupsAndTotals() {
        let kinds = 16
        let sites = Site.allCases.count
        var places = [Int](repeating: -1, count: sites * sites * kinds)
        var totals = Snapshot.Totals()
        for row in 0..<slots.count {
            let owner = Int(slots.owner[row])
            let kind = snapshot.owners[owner].kind
            let (site, access) = (Int(slots.site[row]), Int(slots.accessSite[row]))
            let key = (site * sites + access) * kinds + Int(kind.rawValue)
            if places[key] < 0 {
                places[key] = snapshot.allocationGroups.count
                var allocationGroup = Snapshot.AllocationGroup()
                (allocationGroup.site, allocationGroup.accessSite, allocationGroup.ownerKind) = (
                    UInt32(site), UInt32(access), kind
                )
                (allocationGroup.oldestBirth, allocationGroup.newestBirth) = (slots.birth[row], slots.birth[row])
                snapshot.allocationGroups.append(allocationGroup)
            }
            let (capacity, requested) = (slots.capacity[row], slots.requested[row])
            let isUnreachable = access == Int(Site.convert.rawValue)
            let place = places[key]
            snapshot.allocationGroups[place].liveBuffers += 1
            snapshot.allocationGroups[place].liveBytes += capacity
            snapshot.allocationGroups[place].requestedBytes += requested
            snapshot.allocationGroups[place].unreachableBuffers += isUnreachable ? 1 : 0
            snapshot.allocationGroups[place].unreachableBytes += isUnreachable ? capacity : 0
            snapshot.allocationGroups[place].oldestBirth = min(
                snapshot.allocationGroups[place].oldestBirth, slots.birth[row])
            snapshot.allocationGroups[place].newestBirth = max(
                snapshot.allocationGroups[place].newestBirth, slots.birth[row])
            snapshot.sites[site].liveBuffers += 1
            snapshot.sites[site].liveBytes += capacity
            snapshot.sites[site].requestedBytes += requested
            snapshot.owners[owner].liveBuffers += 1
            snapshot.owners[owner].liveBytes += capacity
            let arena = Int(slots.arena[row])
            snapshot.arenas[arena].liveBuffers += 1
            snapshot.arenas[arena].liveBytes += capacity
            snapshot.arenas[arena].requestedBytes += requested
            totals.liveBuffers += 1
            totals.liveBytes += capacity
            totals.requestedBytes += requested
        }
        for site in snapshot.sites.indices {
            snapshot.sites[site].allocations = snapshot.sites[site].frees + snapshot.sites[site].liveBuffers
            snapshot.sites[site].allocatedBytes = snapshot.sites[site].allocations * 300
        }
        totals.unreachableBuffers = snapshot.allocationGroups.reduce(0) { $0 + $1.unreachableBuffers }
        totals.unreachableBytes = snapshot.allocationGroups.reduce(0) { $0 + $1.unreachableBytes }
        totals.chunkSize = UInt64(SizeClasses.chunkSize)
        totals.pageSize = UInt64(SizeClasses.pageSize)
        totals.chunkCount = UInt64(snapshot.chunks.count)
        totals.chunkBytes = totals.chunkCount * totals.chunkSize
        totals.freeBytes = totals.chunkBytes - totals.liveBytes
        totals.ledgerBytes = UInt64(slots.count) * 64
        totals.counterBytes = totals.chunkBytes + totals.ledgerBytes
        totals.peakCounterBytes = totals.counterBytes
        totals.limitBytes = totals.counterBytes + totals.counterBytes / 8
        snapshot.totals = totals
    }
}

extension SeededGenerator {
    fileprivate mutating func below(_ bound: UInt64) -> UInt64 { next().multipliedFullWidth(by: bound).high }
}

extension UInt64 {
    fileprivate var nextPowerOfTwo: UInt64 { self <= 1 ? 1 : 1 << UInt64(64 - (self - 1).leadingZeroBitCount) }
}
