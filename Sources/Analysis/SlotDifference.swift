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
        let beforeOrder = SerialOrder(before.serial)
        let afterOrder = SerialOrder(after.serial)
        var left = 0
        var right = 0
        while left < before.serial.count || right < after.serial.count {
            let leftRow = left < before.serial.count ? beforeOrder[left] : nil
            let rightRow = right < after.serial.count ? afterOrder[right] : nil
            switch (leftRow, rightRow) {
            case (let old?, let new?) where before.serial[old] == after.serial[new]:
                count(\.survived, after, new, newer, sites, owners)
                left += 1
                right += 1
            case (let old?, let new?) where before.serial[old] > after.serial[new]:
                count(\.born, after, new, newer, sites, owners)
                right += 1
            case (let old?, _):
                count(\.freed, before, old, older, sites, owners)
                left += 1
            case (nil, let new?):
                count(\.born, after, new, newer, sites, owners)
                right += 1
            case (nil, nil): return
            }
        }
    }

    private mutating func count(
        _ kind: WritableKeyPath<Turnover, Amount>, _ slots: Snapshot.SlotColumns, _ row: Int, _ snapshot: Int,
        _ sites: SiteDirectory, _ owners: OwnerDirectory
    ) {
        let bytes = slots.capacity[row]
        let site = sites.entry(slots.site[row], in: snapshot)
        let touch = sites.entry(slots.touchSite[row], in: snapshot)
        let owner = owners.entry(slots.owner[row], in: snapshot)
        total[keyPath: kind].add(bytes)
        bySite[site][keyPath: kind].add(bytes)
        byOwner[owner][keyPath: kind].add(bytes)
        byPair[Self.pairKey(site, touch), default: Turnover()][keyPath: kind].add(bytes)
    }

    private static func isWhole(_ slots: Snapshot.SlotColumns) -> Bool {
        let rows = slots.serial.count
        return rows == slots.count && slots.site.count == rows && slots.touchSite.count == rows
            && slots.owner.count == rows && slots.capacity.count == rows && rows <= UInt32.max
    }
}

/// The rows of a slot table in the order of their serial numbers.
private struct SerialOrder {
    /// Nil if the table is in order already.
    private let rows: [UInt32]?

    init(_ serials: [UInt64]) {
        let isSorted = serials.indices.dropFirst().allSatisfy { serials[$0 - 1] <= serials[$0] }
        rows = isSorted ? nil : Self.sorted(serials)
    }

    subscript(position: Int) -> Int { rows.map { Int($0[position]) } ?? position }

    /// Least-significant-digit radix sort: linear, and only over the digits in which the serials differ.
    private static func sorted(_ serials: [UInt64]) -> [UInt32] {
        let digitBits: UInt64 = 11
        let mask: UInt64 = 1 << digitBits - 1
        let varying = serials.reduce(0) { $0 | ($1 ^ serials[0]) }
        var rows = serials.indices.map { UInt32($0) }
        var scratch = rows
        var shift: UInt64 = 0
        while shift < 64 {
            defer { shift += digitBits }
            guard varying >> shift & mask != 0 else { continue }
            var starts = [Int](repeating: 0, count: Int(mask) + 2)
            for serial in serials { starts[Int(serial >> shift & mask) + 1] += 1 }
            for digit in 1..<starts.count { starts[digit] += starts[digit - 1] }
            for row in rows {
                let digit = Int(serials[Int(row)] >> shift & mask)
                scratch[starts[digit]] = row
                starts[digit] += 1
            }
            swap(&rows, &scratch)
        }
        return rows
    }
}
