public import DumpFormat

/// Live memory by where it was allocated, and beneath each site by who accessed it last.
extension Report {
    /// The site's histogram bounds lifetimes from above.
    public static func sites(of snapshot: Snapshot) -> Report {
        var report = Report(command: "sites")
        report.add(
            nil,
            .lines([
                Line(
                    "live",
                    """
                    \(snapshot.totals.liveBuffers, of: "buffer", as: "live_buffers"), \
                    \(.bytes(snapshot.totals.liveBytes), as: "live_bytes"), at \
                    \(places(snapshot))
                    """)
            ]))
        var table = Table(
            name: "sites",
            columns: place("Site, and last access") + amounts + [
                .init("oldest_age_ns", "oldest"), .init("lifetime_p99_ns", "p99 life", isOptional: true),
                .init("allocations_per_second", "alloc/s", isOptional: true),
                .init("lifetime_p50_ns", "p50 life", isOptional: true),
                .init("lifetime_max_ns", "max life", isOptional: true), .init("frees", "freed", isOptional: true),
                .init("allocations", "allocated", isOptional: true), .init("requested_bytes"),
                .init("allocated_bytes"),
            ],
            childrenName: "last_accesses")
        let bySite = AccessesBySite(snapshot)
        table.rows = bySite.order.map { id in
            let site = snapshot.site(id)
            let lifetimes = Lifetimes(site)
            func life(_ bound: UInt64?) -> Value { bound.map { .below($0) } ?? .unknown }
            let accesses = bySite.accesses(id)
            let rate = perSecond(site.allocations, snapshot.uptime)
            let cells =
                cells(snapshot, id, site.liveBuffers, site.liveBytes, of: snapshot.totals.liveBytes)
                + [
                    accesses.map(\.oldestBirth).min().map { snapshot.ageValue($0) } ?? .unknown,
                    life(lifetimes.bound(share: 0.99)), rate, life(lifetimes.bound(share: 0.5)),
                    life(lifetimes.longest), snapshot.countValue(site.frees), snapshot.countValue(site.allocations),
                    .bytes(site.requestedBytes), snapshot.bytesValue(site.allocatedBytes),
                ]
            // A site whose buffers never left it needs no second line.
            let isOwnStory = accesses.map(\.access) == [id]
            let children = accesses.map { access -> Table.Row in
                var row = self.cells(snapshot, access.access, access.liveBuffers, access.liveBytes, of: site.liveBytes)
                row.append(snapshot.ageValue(access.oldestBirth))
                return Table.Row(
                    row + blanks(table.columns.count - row.count), for: isOwnStory ? .programs : .everyone)
            }
            return Table.Row(cells, children: children)
        }
        report.add(nil, .table(table))
        return report
    }

    /// How many sites have live buffers, and of how many: which others there were, a heap dump does not know.
    private static func places(_ snapshot: Snapshot) -> Phrase {
        let live = UInt64(snapshot.sites.count { $0.liveBuffers > 0 })
        guard snapshot.hasHistory else { return "\(live, of: "site", as: "live_sites")" }
        let used = UInt64(snapshot.sites.count { $0.allocations > 0 })
        return "\(.count(live), as: "live_sites") of \(used, of: "site", as: "used_sites")"
    }

    /// The summary's view of the same: the largest sites with their foremost last access.
    static func topSites(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "sites",
            columns: place("") + amounts + [
                .init("oldest_age_ns", "oldest"), .init("last_access"), .init("last_access_file"),
                .init("last_access_line"), .init("last_access_buffers"), .init("last_access_bytes"),
                .init("last_access_share"), .init("requested_bytes"),
            ])
        let bySite = AccessesBySite(snapshot)
        table.rows = bySite.order.map { id in
            let site = snapshot.site(id)
            let accesses = bySite.accesses(id)
            var cells = cells(snapshot, id, site.liveBuffers, site.liveBytes, of: snapshot.totals.liveBytes)
            cells.append(accesses.map(\.oldestBirth).min().map { snapshot.ageValue($0) } ?? .unknown)
            guard let first = accesses.first else {
                return Table.Row(cells + [Value](repeating: .unknown, count: 6) + [.bytes(site.requestedBytes)])
            }
            let name = snapshot.siteName(first.access)
            cells += [
                .text(name.label), .text(name.file), .number(UInt64(name.line)), .count(first.liveBuffers),
                .bytes(first.liveBytes), .ratio(first.liveBytes.share(of: site.liveBytes)),
                .bytes(site.requestedBytes),
            ]
            // Only what adds something: a buffer that stayed where it was allocated has no story.
            guard first.access != id, first.access != 0 else { return Table.Row(cells) }
            var child = self.cells(
                snapshot, first.access, first.liveBuffers, first.liveBytes, of: site.liveBytes, prefix: "last: ")
            child.append(snapshot.ageValue(first.oldestBirth))
            return Table.Row(cells, children: [Table.Row(child + blanks(table.columns.count - child.count))])
        }
        return table
    }

    // MARK: Columns and cells

    private static func place(_ title: String) -> [Table.Column] {
        [.init("site", title, for: .people), .init("label"), .init("file"), .init("line"), .init("function")]
    }

    private static var amounts: [Table.Column] {
        [.init("live_buffers", "buffers"), .init("live_bytes", "bytes"), .init("share", "share")]
    }

    private static func cells(
        _ snapshot: Snapshot, _ id: UInt32, _ buffers: UInt64, _ bytes: UInt64, of whole: UInt64, prefix: String = ""
    ) -> [Value] {
        let name = snapshot.siteName(id)
        var shown = name
        shown.label = prefix + name.label
        return [
            .site(shown), .text(name.label), .text(name.file), .number(UInt64(name.line)),
            .text(snapshot.site(id).function), .count(buffers), .bytes(bytes), .ratio(bytes.share(of: whole)),
        ]
    }

    private static func blanks(_ count: Int) -> [Value] { [Value](repeating: .blank, count: max(0, count)) }

    private static func perSecond(_ count: UInt64, _ uptime: UInt64) -> Value {
        uptime == 0 ? .unknown : .count(UInt64(min(Double(count) / (Double(uptime) / 1e9), 1e18).rounded()))
    }
}

/// The sites that have live buffers, largest first, each with its last accesses, largest first.
private struct AccessesBySite {
    let order: [UInt32]
    private var bySite: [UInt32: [Diagnosis.Group]] = [:]

    init(_ snapshot: Snapshot) {
        for group in Diagnosis(snapshot).groups { bySite[group.site, default: []].append(group) }
        let known = snapshot.sites.indices.lazy.map { UInt32($0) }.filter { snapshot.site($0).liveBuffers > 0 }
        order = known.sorted { (snapshot.site($1).liveBytes, $0) < (snapshot.site($0).liveBytes, $1) }
    }

    func accesses(_ site: UInt32) -> [Diagnosis.Group] { bySite[site] ?? [] }
}
