internal import Ledger

/// Slots added up by everything that has a table of its own, to compare with what the tables say.
struct SlotSums {
    private var total = Sums()
    private var chunks: [Sums]
    private var sites: [Sums]
    private var owners: [Sums]
    private var arenas: [Sums]
    private var retainers: RetainerSums

    init(_ snapshot: Snapshot) {
        chunks = [Sums](repeating: Sums(), count: snapshot.chunks.count)
        sites = [Sums](repeating: Sums(), count: snapshot.sites.count)
        owners = [Sums](repeating: Sums(), count: snapshot.owners.count)
        arenas = [Sums](repeating: Sums(), count: snapshot.arenas.count)
        retainers = RetainerSums(snapshot)
    }

    mutating func add(_ slots: Snapshot.SlotColumns, _ layout: Layout) {
        for row in 0..<slots.count {
            total.add(slots, row)
            if let chunk = layout.chunkRow(slots.address[row]) { chunks[chunk].add(slots, row) }
            let (site, owner, arena) = (Int(slots.site[row]), Int(slots.owner[row]), Int(slots.arena[row]))
            if site < sites.count { sites[site].add(slots, row) }
            if owner < owners.count { owners[owner].add(slots, row) }
            if arena < arenas.count { arenas[arena].add(slots, row) }
            retainers.add(slots, row)
        }
    }

    mutating func add(_ other: SlotSums) {
        total.add(other.total)
        for row in chunks.indices { chunks[row].add(other.chunks[row]) }
        for row in sites.indices { sites[row].add(other.sites[row]) }
        for row in owners.indices { owners[row].add(other.owners[row]) }
        for row in arenas.indices { arenas[row].add(other.arenas[row]) }
        retainers.add(other.retainers)
    }

    func results(_ snapshot: Snapshot) -> [VerifyCheck] {
        [
            totals(snapshot), ofChunks(snapshot), ofSites(snapshot), ofOwners(snapshot), ofArenas(snapshot),
            retainers.result(snapshot),
        ]
    }

    private func totals(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("totals = sums over slots")
        let totals = snapshot.totals
        findings.expect(
            "live", Sums(buffers: totals.liveBuffers, bytes: totals.liveBytes, requested: totals.requestedBytes), total)
        return findings.result("\(total)")
    }

    private func ofChunks(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("chunks = sums over slots")
        for (chunk, sum) in zip(snapshot.chunks, chunks) {
            findings.expect("live buffers of chunk \(chunk.index)", chunk.liveBuffers, sum.buffers)
            findings.expect("live bytes of chunk \(chunk.index)", chunk.liveBytes, sum.bytes)
            if chunk.liveBytes > chunk.bytes {
                findings.add("chunk \(chunk.index) has \(chunk.liveBytes) live bytes of \(chunk.bytes)")
            }
        }
        return findings.result(counted(chunks.count, "chunk"))
    }

    private func ofSites(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("sites = sums over slots")
        for (id, (site, sum)) in zip(snapshot.sites, sites).enumerated() {
            let stored = Sums(buffers: site.liveBuffers, bytes: site.liveBytes, requested: site.requestedBytes)
            findings.expect("site \(id) (\(site.label))", stored, sum)
        }
        return findings.result(counted(sites.count, "site"))
    }

    private func ofOwners(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("owners = sums over slots")
        for (id, (owner, sum)) in zip(snapshot.owners, owners).enumerated() {
            findings.expect("live buffers of owner \(id) (\(owner.name))", owner.liveBuffers, sum.buffers)
            findings.expect("live bytes of owner \(id) (\(owner.name))", owner.liveBytes, sum.bytes)
        }
        return findings.result(counted(owners.count, "owner"))
    }

    private func ofArenas(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("arenas = sums over slots")
        for (id, (arena, sum)) in zip(snapshot.arenas, arenas).enumerated() {
            let stored = Sums(buffers: arena.liveBuffers, bytes: arena.liveBytes, requested: arena.requestedBytes)
            findings.expect("arena \(id) (\(arena.name))", stored, sum)
            let chunks = snapshot.chunks.count { $0.kind == .chunk && Int($0.arena) == id }
            findings.expect("chunks of arena \(id)", arena.chunkCount, UInt64(chunks))
        }
        return findings.result(counted(arenas.count, "arena"))
    }
}

/// Slots by site, last touch and kind of owner.
private struct RetainerSums {
    private struct Key: Hashable, CustomStringConvertible {
        let site: UInt32
        let touchSite: UInt32
        let ownerKind: OwnerKind

        var description: String { "retainer (site \(site), touched by \(touchSite), \(ownerKind.name))" }
    }

    private struct Group {
        var sum = Sums()
        var oldest = UInt64.max
        var newest: UInt64 = 0
    }

    private let kinds: [OwnerKind]
    private var places: [Key: Int] = [:]
    private var groups: [Group] = []
    /// Neighbours are mostly alike.
    private var last: (key: Key, place: Int)?

    init(_ snapshot: Snapshot) { kinds = snapshot.owners.map(\.kind) }

    mutating func add(_ slots: Snapshot.SlotColumns, _ row: Int) {
        let owner = Int(slots.owner[row])
        guard owner < kinds.count else { return }
        let key = Key(site: slots.site[row], touchSite: slots.touchSite[row], ownerKind: kinds[owner])
        let place = place(of: key)
        groups[place].sum.add(slots, row)
        groups[place].oldest = min(groups[place].oldest, slots.birth[row])
        groups[place].newest = max(groups[place].newest, slots.birth[row])
    }

    mutating func add(_ other: RetainerSums) {
        for (key, index) in other.places {
            let place = place(of: key)
            groups[place].sum.add(other.groups[index].sum)
            groups[place].oldest = min(groups[place].oldest, other.groups[index].oldest)
            groups[place].newest = max(groups[place].newest, other.groups[index].newest)
        }
    }

    private mutating func place(of key: Key) -> Int {
        if let last, last.key == key { return last.place }
        let place = places[key] ?? groups.count
        if place == groups.count {
            places[key] = place
            groups.append(Group())
        }
        last = (key, place)
        return place
    }

    func result(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("retainers = sums over slots")
        var left = places
        for retainer in snapshot.retainers {
            let key = Key(site: retainer.site, touchSite: retainer.touchSite, ownerKind: retainer.ownerKind)
            guard let place = left.removeValue(forKey: key) else {
                findings.add("\(key) has no slots")
                continue
            }
            let found = groups[place]
            let stored = Sums(
                buffers: retainer.liveBuffers, bytes: retainer.liveBytes, requested: retainer.requestedBytes)
            findings.expect("\(key)", stored, found.sum)
            findings.expect("oldest birth of \(key)", retainer.oldestBirth, found.oldest)
            findings.expect("newest birth of \(key)", retainer.newestBirth, found.newest)
        }
        for (key, place) in left { findings.add("\(key) is not in the table and has \(groups[place].sum)") }
        return findings.result(counted(snapshot.retainers.count, "retainer"))
    }
}
