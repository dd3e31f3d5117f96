public import DumpFormat

/// Live buffers counted by one property: one row a value, largest first.
extension Report {
    /// What a reader must load.
    public static func histogramSelection(by grouping: Grouping, _ filter: Filter?) -> DumpSelection {
        DumpSelection(slots: [.capacity, .requested, .birth]).union(grouping.selection).union(filter?.selection)
    }

    /// Nil where the snapshot lacks the columns, or the references that `referrer` and `unreachable` need.
    public static func histogram(of snapshot: Snapshot, by grouping: Grouping, where filter: Filter? = nil) -> Report? {
        guard let slots = snapshot.slots, slots.hasWhole([.capacity, .requested, .birth]),
            let groups = SlotGroups(grouping, snapshot)
        else { return nil }
        var mask: RowMask?
        if let filter {
            guard let rows = filter.rows(in: snapshot) else { return nil }
            mask = rows
        }
        var counts = [GroupCount](repeating: GroupCount(), count: groups.count)
        for row in 0..<slots.count where mask?[row] ?? true {
            counts[Int(groups.group[row])].add(
                capacity: slots.capacity[row], requested: slots.requested[row], birth: slots.birth[row])
        }
        var total = GroupCount()
        for count in counts { total.add(count) }
        let used = counts.indices.filter { counts[$0].buffers > 0 }
        let order =
            grouping == .age
            ? used : used.sorted { (counts[$1].bytes, $0) < (counts[$0].bytes, $1) }

        var report = Report(command: "histogram")
        report.add(nil, .lines([matched(total, snapshot, filter)]))
        var table = Table(
            name: "groups",
            columns: [
                .init("key", "By \(grouping.rawValue)"), .init("id"), .init("buffers", "buffers"),
                .init("bytes", "bytes"), .init("share", "share"), .init("mean_bytes", "mean", isOptional: true),
                .init("internal_fragmentation_bytes", "slack", isOptional: true), .init("oldest_age_ns", "oldest"),
                .init("newest_age_ns", "newest", isOptional: true),
            ])
        table.rows = order.map { group in
            let count = counts[group]
            return Table.Row([
                groups.name(group, snapshot), .number(UInt64(group)), .count(count.buffers), .bytes(count.bytes),
                .ratio(count.bytes.share(of: total.bytes)), .bytes(count.bytes / max(1, count.buffers)),
                .bytes(count.bytes.less(count.requested)), snapshot.ageValue(count.oldest),
                snapshot.ageValue(count.newest),
            ])
        }
        if grouping != .age || snapshot.hasClock { report.add(nil, .table(table)) }
        addClockNote(to: &report, snapshot, filter)
        report.data = [Field("by", .text(grouping.rawValue))] + filterFields(filter)
        return report
    }

    static func filterFields(_ filter: Filter?) -> [Field] {
        [Field("filter", filter.map { .text($0.text) } ?? .unknown)]
    }

    /// How much of all live memory an answer is about.
    static func matched(_ count: GroupCount, _ snapshot: Snapshot, _ filter: Filter?) -> Line {
        let amount: Phrase =
            "\(count.buffers, of: "buffer", as: "matched_buffers"), \(.bytes(count.bytes), as: "matched_bytes")"
        guard filter != nil else { return Line("live", amount) }
        return Line(
            "matched",
            """
            \(amount): \(.ratio(count.bytes.share(of: snapshot.totals.liveBytes))) of \
            \(snapshot.totals.liveBuffers, of: "\(snapshot.liveNoun)'s", plural: "\(snapshot.liveNoun)s'") \(.bytes(snapshot.totals.liveBytes))
            """)
    }
}

/// What one group of buffers comes to.
struct GroupCount: Equatable {
    var buffers: UInt64 = 0
    var bytes: UInt64 = 0
    var requested: UInt64 = 0
    var oldest: UInt64 = .max
    var newest: UInt64 = 0

    mutating func add(capacity: UInt64, requested: UInt64, birth: UInt64) {
        buffers &+= 1
        bytes &+= capacity
        self.requested &+= requested
        oldest = min(oldest, birth)
        newest = max(newest, birth)
    }

    mutating func add(_ other: GroupCount) {
        buffers &+= other.buffers
        bytes &+= other.bytes
        requested &+= other.requested
        oldest = min(oldest, other.oldest)
        newest = max(newest, other.newest)
    }
}
