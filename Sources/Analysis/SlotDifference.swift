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

    var before: Amount {
        Amount(buffers: freed.buffers &+ survived.buffers, bytes: freed.bytes &+ survived.bytes)
    }
    var after: Amount {
        Amount(buffers: born.buffers &+ survived.buffers, bytes: born.bytes &+ survived.bytes)
    }
}

/// Two snapshots of one process, compared buffer by buffer.
///
/// Serial numbers are never reused, so a merge of both slot tables in serial order tells born, freed and survived
/// exactly. A survivor counts for the last touch and the owner it has in the later snapshot.
struct SlotDifference {
    private(set) var total = Turnover()
    /// By entry of the site directory.
    private(set) var bySite: [Turnover]
    /// By `pairKey` of site and last touch.
    private(set) var byPair: [UInt64: Turnover] = [:]
    private var pairs = PairNumbers()
    private var pairTurnovers: [Turnover] = []
    /// By entry of the owner directory: what was born into it, freed out of it, stayed.
    private(set) var byOwner: [Turnover]

    static let columns: Set<Snapshot.SlotColumns.Column> = [.serial, .site, .touchSite, .owner, .capacity]

    static func pairKey(_ site: Int, _ touch: Int) -> UInt64 { UInt64(site) << 32 | UInt64(touch) }

    /// Nil if one of the snapshots has not all the columns.
    init?(
        _ snapshots: [Snapshot], from older: Int, to newer: Int, _ sites: SiteDirectory, _ owners: OwnerDirectory
    ) {
        guard let before = snapshots[older].slots, let after = snapshots[newer].slots,
            Self.isWhole(before), Self.isWhole(after)
        else { return nil }
        bySite = Array(repeating: Turnover(), count: sites.count)
        byOwner = Array(repeating: Turnover(), count: owners.owners.count)
        var old = DifferenceSide(before, sites: sites.entries(in: older), owners: owners.entries(in: older))
        var new = DifferenceSide(after, sites: sites.entries(in: newer), owners: owners.entries(in: newer))
        while true {
            switch (old.row, new.row) {
            case (let left?, let right?) where before.serial[left] == after.serial[right]:
                count(.survived, new, right)
                old.advance()
                new.advance()
            case (let left?, let right?) where before.serial[left] > after.serial[right]:
                count(.born, new, right)
                new.advance()
            case (let left?, _):
                count(.freed, old, left)
                old.advance()
            case (nil, let right?):
                count(.born, new, right)
                new.advance()
            case (nil, nil):
                byPair = Dictionary(uniqueKeysWithValues: zip(pairs.pairs, pairTurnovers))
                return
            }
        }
    }

    private mutating func count(_ fate: Turnover.Fate, _ side: DifferenceSide, _ row: Int) {
        func entry(_ id: UInt32, _ entries: [Int]) -> Int { id < entries.count ? entries[Int(id)] : 0 }
        let bytes = side.slots.capacity[row]
        let site = entry(side.slots.site[row], side.sites)
        let touch = entry(side.slots.touchSite[row], side.sites)
        total.add(bytes, fate)
        bySite[site].add(bytes, fate)
        byOwner[entry(side.slots.owner[row], side.owners)].add(bytes, fate)
        let number = pairs.number(of: Self.pairKey(site, touch))
        if number == pairTurnovers.count { pairTurnovers.append(Turnover()) }
        pairTurnovers[number].add(bytes, fate)
    }

    private static func isWhole(_ slots: Snapshot.SlotColumns) -> Bool {
        let rows = slots.serial.count
        return rows == slots.count && slots.site.count == rows && slots.touchSite.count == rows
            && slots.owner.count == rows && slots.capacity.count == rows && rows <= UInt32.max
    }
}

/// One of the snapshots: its rows in the order of their serial numbers, and what ids mean in it.
private struct DifferenceSide {
    let slots: Snapshot.SlotColumns
    /// Nil if the table is in order already.
    private let order: [UInt32]?
    let sites: [Int]
    let owners: [Int]
    private var next = 0

    init(_ slots: Snapshot.SlotColumns, sites: [Int], owners: [Int]) {
        self.slots = slots
        self.sites = sites
        self.owners = owners
        let serials = slots.serial
        let isSorted = serials.indices.dropFirst().allSatisfy { serials[$0 - 1] <= serials[$0] }
        order = isSorted ? nil : RowOrder.sorted(by: serials)
    }

    /// The row that is next in turn.
    var row: Int? { next < slots.count ? order.map { Int($0[next]) } ?? next : nil }
    mutating func advance() { next += 1 }
}
