public import DumpFormat
import Ledger

extension Report {
    /// Two snapshots or more, in the order they were taken.
    /// With a filter, they are reduced to it.
    /// `rows` are their buffers where they are not in the snapshots themselves.
    public static func difference(
        of snapshots: [Snapshot], where filter: Filter? = nil, rows: [SlotRows]? = nil
    ) -> Report {
        let difference = Difference(snapshots, where: filter, rows: rows)
        var report = Report(command: "diff")
        report.mainTableName = "sites"
        if let filter { report.add(nil, .lines([Line("filter", "\(.text(filter.text))")])) }
        report.add(nil, .lines(difference.times))
        if let warning = difference.warning {
            report.add(nil, .paragraph("\(.text(warning), as: "warning")", .warning))
        } else {
            report.data.append(Field("warning", .unknown))
        }
        report.add(nil, .lines(difference.totals))
        if snapshots.count > 2 { report.add("Over time", .table(difference.overTime)) }
        report.add("Sites", .table(difference.siteTable))
        if difference.overall != nil { report.add("Owners that changed most", .table(difference.ownerTable)) }
        let tone: Tone = difference.suspect != nil ? .alarm : .good
        report.add("Verdict", .paragraph("\(.text(difference.sentence), as: "verdict")", tone))
        report.data += difference.data + filterFields(filter)
        return report
    }
}

// MARK: - Totals

extension Difference {
    fileprivate var times: [Report.Line] {
        let first = snapshots[0].header
        let last = newest.header
        let count: Phrase = snapshots.count == 2 ? "" : ", \(.count(UInt64(snapshots.count))) dumps"
        var lines = [
            Report.Line(
                "from",
                "\(.time(first.wallTime), as: "from_time") (\(.text(first.program)), pid \(.number(first.pid)))"),
            Report.Line(
                "to",
                """
                \(.time(last.wallTime), as: "to_time") (\(.text(last.program)), pid \(.number(last.pid))), \
                \(.duration(interval), as: "interval_ns") later\(count)
                """),
        ]
        // Dumps of ours say so themselves.
        if isSameProcess, first.format == .nettyHeapDump {
            lines.append(
                Report.Line("process", "one, \(.text(sameness.grade.rawValue)) by \(.text(sameness.reason))"))
        }
        return lines
    }

    fileprivate var warning: String? {
        switch sameness.verdict {
        case .same: break
        case .different:
            let who = snapshots.count == 2 ? "Two different processes" : "Different processes"
            let surely = sameness.grade == .likely ? ", as it seems" : ""
            return "\(who)\(surely) (by \(sameness.reason)): compared by site, not by buffer."
        case .unknown:
            return
                "Whether these dumps are of one process cannot be known, because \(sameness.reason): compared by site, "
                + "not by buffer."
        }
        if overall == nil {
            return "The buffers themselves cannot be compared: a dump lacks its slots table. Compared by site only."
        }
        return nil
    }

    fileprivate var totals: [Report.Line] {
        let before = snapshots[0].totals
        let after = newest.totals
        let buffersChange = after.liveBuffers.change(from: before.liveBuffers)
        var lines = [
            Report.Line(
                "counter",
                """
                \(.bytes(before.counterBytes)) -> \(.bytes(after.counterBytes), as: "counter_bytes"), \
                \(.bytesChange(after.counterBytes.change(from: before.counterBytes)), as: "counter_change_bytes")
                """),
            Report.Line(
                "live",
                """
                \(.bytes(before.liveBytes)) -> \(.bytes(after.liveBytes), as: "live_bytes"), \
                \(.bytesChange(liveChange), as: "live_change_bytes") in \
                \(.countChange(buffersChange), as: "live_change_buffers") \
                \(buffersChange.magnitude, one: "buffer", many: "buffers")
                """),
        ]
        if let total = overall?.total {
            lines.append(
                Report.Line(
                    "buffers",
                    """
                    born \(.count(total.born.buffers), as: "born_buffers") \
                    (\(.bytes(total.born.bytes), as: "born_bytes")), \
                    freed \(.count(total.freed.buffers), as: "freed_buffers") \
                    (\(.bytes(total.freed.bytes), as: "freed_bytes")), \
                    survived \(.count(total.survived.buffers), as: "survived_buffers") \
                    (\(.bytes(total.survived.bytes), as: "survived_bytes"))
                    """))
        }
        if isSameProcess {
            lines.append(
                Report.Line(
                    "growth",
                    "\(.bytesPerSecond(growth.bytesPerSecond), as: "growth_bytes_per_second"); \(.text(timeLeft))"))
        }
        return lines
    }

    /// `at 2.1 MiB/s the limit is reached in 3 min 20 s (2026-11-23 12:15:23Z)`
    fileprivate var timeLeft: String {
        let totals = newest.totals
        if filter != nil { return "the limit is a matter of all buffers, not of those that match" }
        if newest.hasSeveralCounters { return "each copy of Netty has a limit of its own" }
        guard totals.limitBytes > 0 else { return "there is no limit" }
        guard let nanoseconds = growth.nanosecondsToLimit else {
            return growth.bytesPerSecond > 0 ? "the limit is far away" : "live memory does not grow"
        }
        if growth.headroom == 0 { return "the limit is reached" }
        let (time, overflow) = newest.header.wallTime.addingReportingOverflow(nanoseconds)
        let when = overflow ? "" : " (\(Format.time(time)))"
        return "at that rate the limit is reached in \(Format.duration(nanoseconds))\(when)"
    }

    fileprivate var data: [Report.Field] {
        let suspect = suspect
        let left = isSameProcess && filter == nil ? growth.nanosecondsToLimit : nil
        let when = left.flatMap { left -> UInt64? in
            let (time, overflow) = newest.header.wallTime.addingReportingOverflow(left)
            return overflow ? nil : time
        }
        return [
            Report.Field("same_process", .flag(isSameProcess)),
            Report.Field("same_process_grade", .text(sameness.grade.rawValue)),
            Report.Field("same_process_reason", .text(sameness.reason)),
            Report.Field("limit_bytes", .bytes(newest.totals.limitBytes)),
            Report.Field("headroom_bytes", .bytes(growth.headroom)),
            Report.Field("time_to_limit_ns", left.map { .duration($0) } ?? .unknown),
            Report.Field("limit_time", when.map { .time($0) } ?? .unknown),
            Report.Field("suspect_site", suspect.map { .site(sites.names[$0.site]) } ?? .unknown),
            Report.Field("suspect_last_access", suspect.map { .site(sites.names[$0.access]) } ?? .unknown),
            Report.Field("suspect_change_bytes", suspect.map { .bytesChange($0.bytesChange) } ?? .unknown),
        ]
    }
}

// MARK: - Tables

extension Difference {
    fileprivate var overTime: Table {
        var table = Table(
            name: "steps",
            columns: [
                .init("time", "Taken"), .init("counter_bytes", "counter"), .init("live_bytes", "live"),
                .init("live_buffers", "buffers"), .init("live_change_bytes", "change"),
                .init("growth_bytes_per_second", "rate"), .init("born_buffers", "born", isOptional: true),
                .init("freed_buffers", "freed", isOptional: true),
            ])
        table.rows = snapshots.indices.map { index in
            let totals = snapshots[index].totals
            var cells: [Value] = [
                .time(snapshots[index].header.wallTime), .bytes(totals.counterBytes), .bytes(totals.liveBytes),
                .count(totals.liveBuffers),
            ]
            if index == 0 {
                cells += [.blank, .blank, .blank, .blank]
            } else {
                let turnover = steps[index - 1]?.total
                cells += [
                    .bytesChange(totals.liveBytes.change(from: snapshots[index - 1].totals.liveBytes)),
                    .bytesPerSecond(Growth(Array(snapshots[index - 1...index])).bytesPerSecond),
                    turnover.map { .count($0.born.buffers) } ?? .unknown,
                    turnover.map { .count($0.freed.buffers) } ?? .unknown,
                ]
            }
            return Table.Row(cells)
        }
        return table
    }

    private static let turnoverColumns: [Table.Column] = [
        .init("change_buffers", "buffers"), .init("change_bytes", "bytes"), .init("born_buffers", "born"),
        .init("freed_buffers", "freed"), .init("survived_buffers", "survived"), .init("born_bytes"),
        .init("freed_bytes"), .init("survived_bytes"), .init("before_bytes"), .init("after_bytes"),
    ]

    private static func cells(_ before: Amount, _ after: Amount, _ turnover: Turnover?) -> [Value] {
        func count(_ amount: Amount?) -> Value { amount.map { .count($0.buffers) } ?? .unknown }
        func bytes(_ amount: Amount?) -> Value { amount.map { .bytes($0.bytes) } ?? .unknown }
        return [
            .countChange(after.buffers.change(from: before.buffers)),
            .bytesChange(after.bytes.change(from: before.bytes)), count(turnover?.born), count(turnover?.freed),
            count(turnover?.survived), bytes(turnover?.born), bytes(turnover?.freed), bytes(turnover?.survived),
            .bytes(before.bytes), .bytes(after.bytes),
        ]
    }

    fileprivate var siteTable: Table {
        var table = Table(
            name: "sites",
            columns: [
                .init("site", "", for: .people), .init("label"), .init("file"),
                .init("line"), .init("function"),
            ] + Self.turnoverColumns + [.init("grew_steps", snapshots.count > 2 ? "grew" : nil), .init("steps")],
            childrenName: "last_accesses")
        func row(_ entry: Int, _ series: [Amount], _ turnover: Turnover?, _ children: [Table.Row] = []) -> Table.Row {
            let name = sites.names[entry]
            return Table.Row(
                [
                    .site(name), .text(name.label), .text(name.file), .number(UInt64(name.line)),
                    .text(sites.functions[entry]),
                ] + Self.cells(series[0], series[series.count - 1], turnover) + [
                    .count(UInt64(Self.steps(grown: series))), .count(UInt64(series.count - 1)),
                ], children: children)
        }
        func byChange(_ left: [Amount], _ right: [Amount]) -> Bool {
            left[left.count - 1].bytes.change(from: left[0].bytes)
                > right[right.count - 1].bytes.change(from: right[0].bytes)
        }
        let pairs = Dictionary(grouping: pairSeries.keys) { Int($0 >> 32) }
        let isSeen = siteSeries.indices.filter { entry in
            siteSeries[entry].contains { $0.buffers > 0 } || overall.map { $0.bySite[entry] != Turnover() } ?? false
        }
        table.rows = isSeen.sorted { byChange(siteSeries[$0], siteSeries[$1]) }.map { entry in
            let keys = (pairs[entry] ?? []).sorted().sorted { byChange(pairSeries[$0]!, pairSeries[$1]!) }
            var children = keys.map { key in
                row(Int(key & 0xFFFF_FFFF), pairSeries[key]!, overall.map { $0.byPair[key] ?? Turnover() })
            }
            if keys == [SlotDifference.pairKey(entry, entry)] { children[0].audience = .programs }
            return row(entry, siteSeries[entry], overall?.bySite[entry], children)
        }
        return table
    }

    fileprivate var ownerTable: Table {
        var table = Table(
            name: "owners",
            columns: [.init("owner", "", for: .people), .init("kind"), .init("name")] + Self.turnoverColumns
                + [.init("closed")])
        let turnovers = overall?.byOwner ?? []
        func change(_ entry: Int) -> Int64 { turnovers[entry].after.bytes.change(from: turnovers[entry].before.bytes) }
        // An owner that changed is shown by how much; the sign tells which way.
        let changed = turnovers.indices.filter { turnovers[$0] != Turnover() }
            .sorted { (change($1).magnitude, $0) < (change($0).magnitude, $1) }
        table.rows = changed.map { entry in
            let owner = owners.owners[entry]
            let kind = entry == 0 ? "unknown" : owner.kind.name
            let turnover = turnovers[entry]
            return Table.Row(
                [.text(entry == 0 ? kind : owner.title), .text(kind), .text(owner.name)]
                    + Self.cells(turnover.before, turnover.after, turnover) + [.flag(owner.closedTime != 0)])
        }
        table.limit(to: 10, noun: "owner")
        return table
    }
}

// MARK: - In words

extension Difference {
    var sentence: String {
        let amount = Format.bytesChange(liveChange)
        guard let suspect else {
            if liveChange < Self.growthFloor {
                return "No suspect: live memory changed by \(amount) in \(Format.duration(interval))."
            }
            let steps = snapshots.count > 2 ? " and grew in every dump" : ""
            return "No suspect: live memory grew by \(amount), but no one site makes up most of it\(steps)\(deadline)."
        }
        let site = sites.names[suspect.site]
        let access = sites.names[suspect.access]
        let place = site.location.isEmpty ? "\"\(site.label)\"" : "\"\(site.label)\" (\(site.location))"
        let grew =
            "grew by \(Format.countChange(suspect.buffersChange).dropFirst()) "
            + Format.noun(suspect.buffersChange.magnitude, "buffer")
            + " (\(Format.bytes(suspect.bytesChange.magnitude)), \(Format.ratio(min(suspect.share, 1))) of the growth)"
            + (snapshots.count > 2 ? ", and in every one of \(snapshots.count) dumps" : "")
        let who =
            suspect.access == suspect.site || suspect.access == 0
            ? "Buffers allocated at \(place) \(grew)"
            : "Buffers last accessed by \(access.label), allocated at \(place), \(grew)"
        return "\(who)\(survivors(suspect))\(deadline)\(remedy(suspect))."
    }

    private func survivors(_ suspect: Suspect) -> String {
        guard let turnover = overall?.byPair[SlotDifference.pairKey(suspect.site, suspect.access)],
            turnover.before.buffers > 0
        else { return "" }
        let before = Format.count(turnover.before.buffers)
        return
            "; of \(before) there before, \(Format.count(turnover.freed.buffers)) \(turnover.freed.buffers == 1 ? "was" : "were") freed"
    }

    private var deadline: String {
        isSameProcess && filter == nil && growth.nanosecondsToLimit != nil
            ? "; at \(Format.rate(bytesPerSecond: growth.bytesPerSecond))"
                + " \(timeLeft.replacingPrefix("at that rate ", with: ""))" : ""
    }

    /// What holds the suspect's buffers now decides what growth means.
    private func remedy(_ suspect: Suspect) -> String {
        var byKind: [OwnerKind: UInt64] = [:]
        var unreachable: UInt64 = 0
        let index = snapshots.count - 1
        for allocationGroup in newest.allocationGroups
        where sites.entry(allocationGroup.site, in: index) == suspect.site
            && sites.entry(allocationGroup.accessSite, in: index) == suspect.access
        {
            byKind[allocationGroup.ownerKind, default: 0] &+= allocationGroup.liveBytes
            unreachable &+= allocationGroup.unreachableBuffers
        }
        if newest.totals.unreachableBuffers != nil, unreachable > 0 {
            let grade = EvidenceGrade(newest, for: .lost)
            let who = ". No referrer reaches \(Format.count(unreachable)) of them: "
            return switch grade.level {
            case .proved: who + "this is a leak"
            case .likely: who + "a leak is likely, and not proved, because \(grade.reason)"
            case .cannotSay: who + "whether that is a leak cannot be said, because \(grade.reason)"
            }
        }
        let most = byKind.max { ($0.value, $1.key.rawValue) < ($1.value, $0.key.rawValue) }?.key
        guard let most else { return "" }
        switch most {
        case .offlineQueue, .inflight, .transport: return ". They wait in \(most.plural), a backlog that is not drained"
        case .retained, .will: return ". They are kept on purpose, as \(most.plural)"
        default:
            if newest.totals.unreachableBuffers == nil { return ". A leak there is likely" }
            let isJudged = EvidenceGrade(newest, for: .nothingElseLost).level == .proved
            return isJudged ? ". All of them are reachable" : ". None of them is known to be lost"
        }
    }
}

extension String {
    fileprivate func replacingPrefix(_ prefix: String, with other: String) -> String {
        hasPrefix(prefix) ? other + dropFirst(prefix.count) : self
    }
}
