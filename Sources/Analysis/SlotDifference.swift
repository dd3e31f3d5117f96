import DumpFormat

/// Buffers and their bytes, as size classes.
struct Amount: Equatable {
    var buffers: UInt64 = 0
    var bytes: UInt64 = 0

    mutating func add(_ bytes: UInt64) {
        buffers &+= 1
        self.bytes &+= bytes
    }
}

/// What became of the buffers of one group between two snapshots.
struct Turnover: Equatable {
    var born = Amount()
    var freed = Amount()
    var survived = Amount()

    enum Fate { case born, freed, survived }

    mutating func add(_ bytes: UInt64, _ fate: Fate) {
        switch fate {
        case .born: born.add(bytes)
        case .freed: freed.add(bytes)
        case .survived: survived.add(bytes)
        }
    }

    mutating func add(_ other: Turnover) {
        born.add(other.born)
        freed.add(other.freed)
        survived.add(other.survived)
    }

    var before: Amount {
        Amount(buffers: freed.buffers &+ survived.buffers, bytes: freed.bytes &+ survived.bytes)
    }
    var after: Amount {
        Amount(buffers: born.buffers &+ survived.buffers, bytes: born.bytes &+ survived.bytes)
    }
}

/// Two snapshots of one process, compared buffer by buffer.
///
/// Serial numbers are never reused, so a set of the earlier ones tells exactly: a later buffer whose serial is in it survived,
/// others were born, and what of the set nobody asked for was freed. Three passes, each on two threads and in the order of the
/// file: nothing is sorted, and beside the set there is no memory for each buffer. A survivor counts for the last access and
/// the owner it has in the later snapshot.
struct SlotDifference {
    private(set) var total = Turnover()
    /// By entry of the site directory.
    private(set) var bySite: [Turnover]
    /// By `pairKey` of site and last access.
    private(set) var byPair: [UInt64: Turnover] = [:]
    /// By entry of the owner directory: what was born into it, freed out of it, stayed.
    private(set) var byOwner: [Turnover]

    static let columns: Set<Snapshot.SlotColumns.Column> = [.serial, .site, .accessSite, .owner, .capacity]

    static func pairKey(_ site: Int, _ access: Int) -> UInt64 { UInt64(site) << 32 | UInt64(access) }

    /// The rows of a snapshot that has all the columns; nil of another.
    static func rows(_ snapshot: Snapshot) -> SlotRows? {
        guard let slots = snapshot.slots, slots.hasWhole(columns) else { return nil }
        return SlotRows(slots)
    }

    /// `rows` are those of the snapshots; nil where one of the two has none, or there is no memory for as many.
    init?(
        _ rows: [SlotRows?], from older: Int, to newer: Int, _ sites: SiteDirectory, _ owners: OwnerDirectory
    ) {
        guard let before = rows[older], let after = rows[newer] else { return nil }
        guard let serials = try? SerialSet(count: before.count) else { return nil }
        bySite = Array(repeating: Turnover(), count: sites.count)
        byOwner = Array(repeating: Turnover(), count: owners.owners.count)
        _ = before.gather([.serial], {}) { _, slots, rows in
            for row in rows { _ = serials.insert(slots.serial[row]) }
        }
        let sizes = (sites: sites.count, owners: owners.owners.count)
        func tally(_ index: Int) -> () -> DifferenceTally {
            let (siteEntries, ownerEntries) = (sites.entries(in: index), owners.entries(in: index))
            return { DifferenceTally(sizes.sites, sizes.owners, sites: siteEntries, owners: ownerEntries) }
        }
        let later = after.gather(Self.columns, tally(newer)) { tally, slots, rows in
            for row in rows { tally.count(serials.mark(slots.serial[row]) ? .survived : .born, slots, row) }
        }
        let earlier = before.gather(Self.columns, tally(older)) { tally, slots, rows in
            for row in rows where !serials.isMarked(slots.serial[row]) { tally.count(.freed, slots, row) }
        }
        for tally in later + earlier { add(tally) }
    }

    private mutating func add(_ tally: DifferenceTally) {
        for site in bySite.indices {
            bySite[site].add(tally.bySite[site])
            total.add(tally.bySite[site])
        }
        for owner in byOwner.indices { byOwner[owner].add(tally.byOwner[owner]) }
        for (pair, turnover) in zip(tally.pairs.pairs, tally.byPair) { byPair[pair, default: Turnover()].add(turnover) }
    }
}

/// What one thread counted.
private struct DifferenceTally {
    private(set) var bySite: [Turnover]
    private(set) var byOwner: [Turnover]
    private(set) var pairs = PairNumbers()
    /// By number of the pair.
    private(set) var byPair: [Turnover] = []
    /// What ids mean in this snapshot.
    private let sites: [Int]
    private let owners: [Int]

    init(_ siteCount: Int, _ ownerCount: Int, sites: [Int], owners: [Int]) {
        bySite = Array(repeating: Turnover(), count: siteCount)
        byOwner = Array(repeating: Turnover(), count: ownerCount)
        self.sites = sites
        self.owners = owners
    }

    mutating func count(_ fate: Turnover.Fate, _ slots: Snapshot.SlotColumns, _ row: Int) {
        func entry(_ id: UInt32, _ entries: [Int]) -> Int { id < entries.count ? entries[Int(id)] : 0 }
        let bytes = slots.capacity[row]
        let site = entry(slots.site[row], sites)
        let access = entry(slots.accessSite[row], sites)
        bySite[site].add(bytes, fate)
        byOwner[entry(slots.owner[row], owners)].add(bytes, fate)
        let number = pairs.number(of: SlotDifference.pairKey(site, access))
        if number == byPair.count { byPair.append(Turnover()) }
        byPair[number].add(bytes, fate)
    }
}
