public import DumpFormat
import Ledger

/// What happened between two or more snapshots: who grew, how fast, and the time left to the limit.
public struct Difference {
    /// What a reader must load of each dump.
    public static func selection(_ filter: Filter?) -> DumpSelection {
        DumpSelection(slots: SlotDifference.columns).union(filter.map { Snapshot.narrowingSelection($0) })
    }

    /// What the snapshots are reduced to.
    let filter: Filter?
    /// Snapshots in the order they were taken, at least two.
    let snapshots: [Snapshot]
    let sites: SiteDirectory
    let owners: OwnerDirectory
    let sameness: ProcessSameness
    var isSameProcess: Bool { sameness.isSame }
    /// Whether the first snapshot and the last have buffers that could be compared.
    let hasSlots: Bool
    /// From the first to the last; nil where buffers cannot be compared.
    let overall: SlotDifference?
    /// Between neighbours; with two snapshots this is `overall`.
    let steps: [SlotDifference?]
    let growth: Growth
    /// By site, and by site and last access: live memory in each snapshot.
    let siteSeries: [[Amount]]
    let pairSeries: [UInt64: [Amount]]

    /// With a filter, the snapshots are reduced to it. `rows` are their buffers where they are not in the snapshots themselves.
    public init(_ snapshots: [Snapshot], where filter: Filter? = nil, rows: [SlotRows]? = nil) {
        precondition(snapshots.count >= 2, "a difference needs two snapshots")
        self.filter = filter
        self.snapshots = snapshots
        let sites = SiteDirectory(snapshots)
        let owners = OwnerDirectory(snapshots)
        self.sites = sites
        self.owners = owners
        let sameness = ProcessSameness(snapshots)
        let isSameProcess = sameness.isSame
        self.sameness = sameness
        let last = snapshots.count - 1
        let rows = rows ?? snapshots.map(SlotDifference.rows)
        hasSlots = rows[0] != nil && rows[last] != nil
        overall = isSameProcess ? SlotDifference(rows, from: 0, to: last, sites, owners) : nil
        if !isSameProcess {
            steps = [SlotDifference?](repeating: nil, count: last)
        } else if last == 1 {
            steps = [overall]
        } else {
            steps = (0..<last).map { SlotDifference(rows, from: $0, to: $0 + 1, sites, owners) }
        }
        growth = Growth(snapshots)

        var siteSeries = [[Amount]](
            repeating: [Amount](repeating: Amount(), count: snapshots.count), count: sites.count)
        var pairSeries: [UInt64: [Amount]] = [:]
        for (index, snapshot) in snapshots.enumerated() {
            for allocationGroup in snapshot.allocationGroups {
                let site = sites.entry(allocationGroup.site, in: index)
                let key = SlotDifference.pairKey(site, sites.entry(allocationGroup.accessSite, in: index))
                var series = pairSeries[key] ?? [Amount](repeating: Amount(), count: snapshots.count)
                series[index].buffers &+= allocationGroup.liveBuffers
                series[index].bytes &+= allocationGroup.liveBytes
                siteSeries[site][index].buffers &+= allocationGroup.liveBuffers
                siteSeries[site][index].bytes &+= allocationGroup.liveBytes
                pairSeries[key] = series
            }
        }
        self.siteSeries = siteSeries
        self.pairSeries = pairSeries
    }

    var newest: Snapshot { snapshots[snapshots.count - 1] }

    var interval: UInt64 { newest.header.wallTime.less(snapshots[0].header.wallTime) }

    var liveChange: Int64 { newest.totals.liveBytes.change(from: snapshots[0].totals.liveBytes) }
}

// MARK: - The suspect

extension Difference {
    /// Less growth than this is the ordinary coming and going of buffers.
    static let growthFloor: Int64 = 1 << 20
    /// The suspect must account for this share of all growth.
    static let growthShare = 0.5

    /// Buffers of one site and last access that grew in every step.
    struct Suspect {
        var site: Int
        var access: Int
        /// In the first snapshot, and in the last.
        var first: Amount
        var last: Amount
        /// Of live bytes' growth; above 1 where others shrank.
        var share: Double

        var bytesChange: Int64 { last.bytes.change(from: first.bytes) }
    }

    var suspect: Suspect? {
        guard liveChange >= Self.growthFloor else { return nil }
        let candidates = pairSeries.compactMap { key, series -> Suspect? in
            guard Self.grewInEveryStep(series) else { return nil }
            let change = series[series.count - 1].bytes.change(from: series[0].bytes)
            let share = Double(change) / Double(liveChange)
            guard change >= Self.growthFloor, share >= Self.growthShare else { return nil }
            return Suspect(
                site: Int(key >> 32), access: Int(key & 0xFFFF_FFFF), first: series[0], last: series[series.count - 1],
                share: share)
        }
        return candidates.max { ($0.bytesChange, $1.site, $1.access) < ($1.bytesChange, $0.site, $0.access) }
    }

    static func grewInEveryStep(_ series: [Amount]) -> Bool {
        series.indices.dropFirst().allSatisfy { series[$0].bytes > series[$0 - 1].bytes }
    }

    static func steps(grown series: [Amount]) -> Int {
        series.indices.dropFirst().count { series[$0].bytes > series[$0 - 1].bytes }
    }
}
