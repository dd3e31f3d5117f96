import DumpFormat
import Ledger

/// Snapshots of a broker as the tests need them: healthy in several ways, or with the incident's leak.
enum Fixture {
    static let second: UInt64 = 1_000_000_000
    static let minute: UInt64 = 60 * second
    static let mebibyte: UInt64 = 1 << 20
    /// 2026-11-23 12:00:03.25 UTC.
    static let noon: UInt64 = 1_795_435_203_250_000_000

    static let read: UInt32 = 1
    static let publish: UInt32 = 2
    static let convert: UInt32 = 3
    static let enqueue: UInt32 = 4
    static let retain: UInt32 = 5
    /// The first id that no fixture site has.
    static let siteCount: UInt32 = 6

    /// A broker up for three days, without live buffers.
    static func empty() -> Snapshot {
        var header = Snapshot.Header()
        header.program = "arena-broker"
        header.programVersion = "0.1.0"
        header.pid = 4242
        header.host = "edge-3"
        header.wallTime = noon
        header.startTime = 5 * second
        header.monotonicTime = header.startTime + 3 * 86_400 * second + 4 * 3_600 * second
        header.reason = "signal"
        header.pauseNanoseconds = 4_210_000
        header.residentBytes = 96 * mebibyte
        var totals = Snapshot.Totals()
        totals.limitBytes = 2_000_000_000
        totals.chunkSize = 16 * mebibyte
        totals.pageSize = 8192
        totals.ledgerBytes = 2_211_840
        var snapshot = Snapshot(header: header, totals: totals)
        snapshot.sites = [
            site("", "", 0, ""),
            site("channel read", "Broker/Listener.swift", 61, "channelRead(context:data:)"),
            site("publish packet", "Broker/Connection.swift", 88, "decodePublish()"),
            site("convertToRpcCommandResponse", "Broker/RPCBridge.swift", 141, "convertToRpcCommandResponse(_:)"),
            site("offline queue", "Broker/OfflineQueue.swift", 52, "enqueue(_:)"),
            site("retained message", "Broker/Retained.swift", 40, "store(_:)"),
        ]
        snapshot.owners = [owner(.process, "", parent: 0), owner(.listener, "0.0.0.0:1883", parent: 0)]
        return snapshot
    }

    /// The incident: everything the handler accessed last stays, and nobody holds it.
    static func leak(hasReferences: Bool = true) -> Snapshot {
        var snapshot = empty()
        snapshot.header.reason = "near-limit"
        snapshot.header.residentBytes = 1_950 * mebibyte
        snapshot.header.cgroupLimitBytes = 2_048 * mebibyte
        snapshot.header.cgroupCurrentBytes = 1_961 * mebibyte
        // 20 million publishes, answered within milliseconds, but for those one handler got.
        snapshot.sites[Int(publish)].allocations = 20_000_000
        snapshot.sites[Int(publish)].frees = 19_984_763
        snapshot.sites[Int(publish)].lifetimes = histogram([20: 9_000_000, 22: 10_980_000, 26: 4_763])
        snapshot.sites[Int(read)].allocations = 40_000_000
        snapshot.sites[Int(read)].frees = 39_999_998
        snapshot.sites[Int(read)].lifetimes = histogram([18: 39_999_998])
        let accessed = snapshot.header.monotonicTime - 12 * minute - 3 * second
        add(&snapshot, publish, convert, .session, 15_233, 1_996_357_632, oldest: accessed, isReachable: !hasReferences)
        add(&snapshot, publish, publish, .inflight, 4, 65_536, oldest: snapshot.header.monotonicTime - second)
        add(&snapshot, read, read, .connection, 2, 4_096, oldest: snapshot.header.monotonicTime - second)
        fill(&snapshot, chunks: 119, hasReferences: hasReferences)
        return snapshot
    }

    /// 50,000 devices, each with a small read buffer for hours: old, of one site, near the limit, and as it must be.
    static func manyConnections(hasReferences: Bool = true) -> Snapshot {
        var snapshot = empty()
        for index in 0..<50_000 {
            var connection = owner(.connection, "device-\(index)", parent: 1)
            connection.liveBuffers = 1
            connection.liveBytes = 32_768
            snapshot.owners.append(connection)
        }
        snapshot.sites[Int(read)].allocations = 900_000_000
        snapshot.sites[Int(read)].frees = 899_950_000
        snapshot.sites[Int(read)].lifetimes = histogram([18: 899_950_000])
        let hoursAgo = snapshot.header.monotonicTime - 600 * minute
        add(&snapshot, read, read, .connection, 50_000, 50_000 * 32_768, oldest: hoursAgo, toOwner: false)
        fill(&snapshot, chunks: 110, hasReferences: hasReferences)
        return snapshot
    }

    /// Devices that are away: their queues are full of what was published hours ago.
    static func deepQueues(hasReferences: Bool = true) -> Snapshot {
        var snapshot = empty()
        snapshot.sites[Int(publish)].allocations = 20_000_000
        snapshot.sites[Int(publish)].frees = 19_000_000
        snapshot.sites[Int(publish)].lifetimes = histogram([20: 19_000_000])
        let hoursAgo = snapshot.header.monotonicTime - 300 * minute
        add(&snapshot, publish, enqueue, .offlineQueue, 1_000_000, 1_024_000_000, oldest: hoursAgo)
        fill(&snapshot, chunks: 90, hasReferences: hasReferences)
        return snapshot
    }

    static func bigRetained(hasReferences: Bool = true) -> Snapshot {
        var snapshot = empty()
        snapshot.sites[Int(publish)].allocations = 1_000_000
        snapshot.sites[Int(publish)].frees = 998_500
        snapshot.sites[Int(publish)].lifetimes = histogram([20: 998_500])
        let start = snapshot.header.startTime + minute
        add(&snapshot, publish, retain, .retained, 1_500, 1_500 * mebibyte, oldest: start)
        fill(&snapshot, chunks: 110, hasReferences: hasReferences)
        return snapshot
    }

    static func nearlyEmpty(hasReferences: Bool = true) -> Snapshot {
        var snapshot = empty()
        let now = snapshot.header.monotonicTime
        add(&snapshot, read, read, .connection, 12, 24_576, oldest: now - 500 * minute)
        fill(&snapshot, chunks: 1, hasReferences: hasReferences)
        return snapshot
    }

    // MARK: Parts

    static func site(_ label: String, _ file: String, _ line: UInt32, _ function: String) -> Snapshot.Site {
        var site = Snapshot.Site()
        site.label = label
        site.file = file
        site.line = line
        site.function = function
        site.lifetimes = histogram([:])
        return site
    }

    static func owner(_ kind: OwnerKind, _ name: String, parent: UInt32) -> Snapshot.Owner {
        var owner = Snapshot.Owner()
        owner.kind = kind
        owner.name = name
        owner.parent = parent
        owner.createdTime = 5 * second
        return owner
    }

    static func histogram(_ buckets: [Int: UInt64]) -> [UInt64] {
        (0..<56).map { buckets[$0] ?? 0 }
    }

    /// One allocation group, with the site and an owner of that kind under the listener to match.
    static func add(
        _ snapshot: inout Snapshot, _ site: UInt32, _ access: UInt32, _ kind: OwnerKind, _ buffers: UInt64,
        _ bytes: UInt64, oldest: UInt64, isReachable: Bool = true, toOwner: Bool = true
    ) {
        var allocationGroup = Snapshot.AllocationGroup()
        allocationGroup.site = site
        allocationGroup.accessSite = access
        allocationGroup.ownerKind = kind
        allocationGroup.liveBuffers = buffers
        allocationGroup.liveBytes = bytes
        allocationGroup.requestedBytes = bytes
        allocationGroup.unreachableBuffers = isReachable ? 0 : buffers
        allocationGroup.unreachableBytes = isReachable ? 0 : bytes
        allocationGroup.oldestBirth = oldest
        allocationGroup.newestBirth = snapshot.header.monotonicTime
        snapshot.allocationGroups.append(allocationGroup)
        snapshot.sites[Int(site)].liveBuffers += buffers
        snapshot.sites[Int(site)].liveBytes += bytes
        snapshot.sites[Int(site)].requestedBytes += bytes
        guard toOwner else { return }
        var owner = owner(kind, "device-1", parent: 1)
        owner.liveBuffers = buffers
        owner.liveBytes = bytes
        snapshot.owners.append(owner)
    }

    /// Totals and chunks that agree with the allocation groups.
    static func fill(_ snapshot: inout Snapshot, chunks: Int, hasReferences: Bool) {
        let allocationGroups = snapshot.allocationGroups
        snapshot.totals.liveBuffers = allocationGroups.reduce(0) { $0 + $1.liveBuffers }
        snapshot.totals.liveBytes = allocationGroups.reduce(0) { $0 + $1.liveBytes }
        snapshot.totals.requestedBytes = snapshot.totals.liveBytes - snapshot.totals.liveBytes / 64
        snapshot.totals.chunkCount = UInt64(chunks)
        snapshot.totals.chunkBytes = UInt64(chunks) * snapshot.totals.chunkSize
        snapshot.totals.freeBytes = snapshot.totals.chunkBytes - snapshot.totals.liveBytes
        snapshot.totals.counterBytes = snapshot.totals.chunkBytes + snapshot.totals.ledgerBytes
        snapshot.totals.peakCounterBytes = snapshot.totals.counterBytes
        if hasReferences {
            snapshot.totals.unreachableBuffers = allocationGroups.reduce(0) { $0 + $1.unreachableBuffers }
            snapshot.totals.unreachableBytes = allocationGroups.reduce(0) { $0 + $1.unreachableBytes }
        }
        var left = snapshot.totals.liveBytes
        for index in 0..<chunks {
            var chunk = Snapshot.Chunk()
            chunk.index = UInt32(index)
            chunk.bytes = snapshot.totals.chunkSize
            chunk.liveBytes = min(left, chunk.bytes)
            left -= chunk.liveBytes
            snapshot.chunks.append(chunk)
        }
    }
}

// MARK: - Slots

extension Fixture {
    struct Buffer: Equatable {
        var serial: UInt64
        var site: UInt32
        var access: UInt32
        var owner: UInt32
        var bytes: UInt64
    }

    /// A snapshot whose slots, allocation groups, sites and totals come from these buffers.
    static func snapshot(of buffers: [Buffer], secondsAfterNoon: UInt64, chunks: Int, ownerKind: OwnerKind) -> Snapshot
    {
        var snapshot = empty()
        snapshot.header.wallTime += secondsAfterNoon * second
        snapshot.header.monotonicTime += secondsAfterNoon * second
        var slots = Snapshot.SlotColumns()
        slots.count = buffers.count
        slots.serial = buffers.map(\.serial)
        slots.site = buffers.map(\.site)
        slots.accessSite = buffers.map(\.access)
        slots.owner = buffers.map(\.owner)
        slots.capacity = buffers.map(\.bytes)
        slots.requested = slots.capacity
        slots.birth = buffers.map { _ in snapshot.header.monotonicTime }
        slots.accessTime = slots.birth
        slots.address = buffers.indices.map { UInt64($0) << 20 }
        slots.sizeClass = buffers.map { _ in 0 }
        slots.arena = slots.sizeClass
        slots.state = buffers.map { _ in 1 }
        snapshot.slots = slots
        let groups = Dictionary(grouping: buffers) { [$0.site, $0.access] }
        for (key, group) in groups.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            let bytes = group.reduce(0) { $0 + $1.bytes }
            add(
                &snapshot, key[0], key[1], ownerKind, UInt64(group.count), bytes,
                oldest: snapshot.header.startTime, toOwner: false)
        }
        fill(&snapshot, chunks: chunks, hasReferences: false)
        return snapshot
    }

    /// Nothing live in one chunk, and tables that agree about it to the last count.
    static func consistent() -> Snapshot {
        var snapshot = empty()
        snapshot.slots = Snapshot.SlotColumns()
        var arena = Snapshot.ArenaTotals()
        arena.name = "loop-0"
        arena.chunkCount = 1
        snapshot.arenas = [arena]
        for index in 0..<2_000 { snapshot.owners.append(owner(.session, "device-\(index * 7_919)", parent: 1)) }
        fill(&snapshot, chunks: 1, hasReferences: false)
        snapshot.chunks[0].freePages = 2_048
        snapshot.chunks[0].largestFreeRunPages = 2_048
        return snapshot
    }

    /// A leak that is `seconds` old: 100 publishes a second of 16 KiB stay with the handler; 50 others live briefly.
    static func growing(secondsAfterNoon seconds: UInt64) -> Snapshot {
        var buffers: [Buffer] = []
        for serial in 0..<100 * seconds {
            buffers.append(Buffer(serial: 10 * serial, site: publish, access: convert, owner: 2, bytes: 16_384))
        }
        for brief in 0..<50 {
            let serial = 1_000 * seconds + 10 * UInt64(brief) + 5
            buffers.append(Buffer(serial: serial, site: read, access: read, owner: 2, bytes: 2_048))
        }
        var snapshot = snapshot(of: buffers, secondsAfterNoon: seconds, chunks: 60, ownerKind: .session)
        snapshot.owners.append(owner(.session, "device-1", parent: 1))
        return snapshot
    }
}
