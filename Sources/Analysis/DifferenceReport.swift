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
        let tone: Tone = difference.suspect != nil ? .alarm : difference.hasLost ? .warning : .good
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
            if hasSlots {
                return
                    "The buffers themselves cannot be compared: this machine has no memory for so many. Compared by site only."
            }
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

    /// What is said of the limit after the rate: nothing of a limit that is not that of what is counted here.
    fileprivate var timeLeft: String {
        if filter != nil { return "the limit is a matter of all buffers, not of those that match" }
        if newest.hasSeveralCounters { return "each copy of Netty has a limit of its own" }
        return switch growth.forecast {
        case .noLimit: "there is no limit"
        case .farAway: "the limit is far away"
        case .notGrowing where growth.bytesPerSecond > 0: "in the last step live memory did not grow"
        case .notGrowing: "live memory does not grow"
        case .atLimit, .limit: deadlineInWords(rate: "that rate")
        }
    }

    /// `at 2.1 MiB/s the limit is reached in 3 min 20 s (2026-11-23 12:15:23Z)`, or that it has been reached; empty where
    /// nothing leads to it. The rate is that of the last step, which of two dumps is that of all: `rate` is what to call it.
    private func deadlineInWords(rate: String) -> String {
        switch growth.forecast {
        case .noLimit, .notGrowing, .farAway: return ""
        case .atLimit(let refused):
            guard refused > 0 else { return "memory is at the limit" }
            let were = refused == 1 ? "was" : "were"
            return
                "no more is let in: \(Format.count(refused, of: "allocation")) \(were) refused since the dump before"
        case .limit(let nanoseconds):
            let (time, overflow) = newest.header.wallTime.addingReportingOverflow(nanoseconds)
            let when = overflow ? "" : " (\(Format.time(time)))"
            let last = "the last step's \(Format.rate(bytesPerSecond: growth.lastStepBytesPerSecond))"
            return
                "at \(snapshots.count > 2 ? last : rate) the limit is reached in \(Format.duration(nanoseconds))\(when)"
        }
    }

    /// Whether growth and the limit are about the same.
    private var hasForecast: Bool { isSameProcess && filter == nil && !newest.hasSeveralCounters }

    fileprivate var data: [Report.Field] {
        let suspect = suspect
        let left = hasForecast ? growth.nanosecondsToLimit : nil
        let isAtLimit = left == 0
        let when = left.flatMap { left -> UInt64? in
            let (time, overflow) = newest.header.wallTime.addingReportingOverflow(left)
            return overflow || isAtLimit ? nil : time
        }
        return [
            Report.Field(
                "last_step_bytes_per_second",
                isSameProcess ? .bytesPerSecond(growth.lastStepBytesPerSecond) : .unknown),
            Report.Field("at_limit", hasForecast ? .flag(isAtLimit) : .unknown),
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
                    .bytesPerSecond(Growth.bytesPerSecond(from: snapshots[index - 1], to: snapshots[index])),
                    turnover.map { .count($0.born.buffers) } ?? .unknown,
                    turnover.map { .count($0.freed.buffers) } ?? .unknown,
                ]
            }
            return Table.Row(cells)
        }
        return table
    }

    /// What one owner, or one client in all of its sessions, changed by.
    private struct OwnerChange {
        /// The first of its entries.
        var entry: Int
        var turnover: Turnover
        /// All of them are closed.
        var isClosed: Bool

        var change: Int64 { turnover.after.bytes.change(from: turnover.before.bytes) }
    }

    /// Those that changed. A client that comes back with a new session is one client: it is known by its identifier.
    private var ownerChanges: [OwnerChange] {
        var changes: [OwnerChange] = []
        var clients: [ClientIdentity: Int] = [:]
        for (entry, turnover) in (overall?.byOwner ?? []).enumerated() where turnover != Turnover() {
            let owner = owners.owners[entry]
            let isClosed = owner.closedTime != 0
            if let client = ClientIdentity(owner), let known = clients[client] {
                changes[known].turnover.add(turnover)
                changes[known].isClosed = changes[known].isClosed && isClosed
                continue
            }
            if let client = ClientIdentity(owner) { clients[client] = changes.count }
            changes.append(OwnerChange(entry: entry, turnover: turnover, isClosed: isClosed))
        }
        return changes
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
        // An owner that changed is shown by how much; the sign tells which way.
        let changed = ownerChanges.sorted { ($1.change.magnitude, $0.entry) < ($0.change.magnitude, $1.entry) }
        table.rows = changed.map { row in
            let owner = owners.owners[row.entry]
            let kind = row.entry == 0 ? "unknown" : owner.kind.name
            return Table.Row(
                [.text(row.entry == 0 ? kind : owner.title), .text(kind), .text(owner.name)]
                    + Self.cells(row.turnover.before, row.turnover.after, row.turnover) + [.flag(row.isClosed)])
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
            let opening = lost.map { $0 + " Live" } ?? "No suspect: live"
            if liveChange < Self.growthFloor {
                return "\(opening) memory changed by \(amount) in \(Format.duration(interval))."
            }
            let steps = snapshots.count > 2 ? " and grew in every dump" : ""
            return
                "\(opening) memory grew by \(Format.bytes(liveChange.magnitude)), but no one site makes up most of it\(steps)\(deadline)."
        }
        let site = sites.names[suspect.site]
        let access = sites.names[suspect.access]
        let place = site.location.isEmpty ? "\"\(site.label)\"" : "\"\(site.label)\" (\(site.location))"
        let grew =
            "grew by \(Format.bytes(suspect.bytesChange.magnitude)), \(Format.ratio(min(suspect.share, 1))) of the growth, "
            + "from \(Format.count(suspect.first.buffers)) to \(Format.count(suspect.last.buffers, of: "buffer"))"
            + (snapshots.count > 2 ? ", and in every one of \(snapshots.count) dumps" : "")
        let who =
            suspect.access == suspect.site || suspect.access == 0
            ? "Buffers allocated at \(place) \(grew)"
            : "Buffers last accessed by \(access.label), allocated at \(place), \(grew)"
        return "\(who)\(survivors(suspect))\(deadline)\(remedy(suspect))."
    }

    private func survivors(_ suspect: Suspect) -> String {
        // Those that somebody else had in the first dump are not among the first ones of the suspect's.
        guard let turnover = overall?.byPair[SlotDifference.pairKey(suspect.site, suspect.access)],
            turnover.before == suspect.first, turnover.before.buffers > 0
        else { return "" }
        let freed = turnover.freed.buffers
        return
            "; of the first \(Format.count(suspect.first.buffers)), \(Format.count(freed)) \(freed == 1 ? "was" : "were") freed"
    }

    private var deadline: String {
        guard hasForecast, growth.nanosecondsToLimit != nil else { return "" }
        return "; " + deadlineInWords(rate: Format.rate(bytesPerSecond: growth.bytesPerSecond))
    }

    /// Whether there are buffers that no referrer reaches. Those that did not grow are no suspects here, and lost all the same.
    fileprivate var hasLost: Bool { (newest.totals.unreachableBuffers ?? 0) > 0 }

    private var lost: String? {
        guard hasLost, let buffers = newest.totals.unreachableBuffers else { return nil }
        let live = Format.count(newest.totals.liveBuffers, of: newest.liveNoun)
        let who = newest.hasClock ? "No referrer reaches" : "No ByteBuf refers to"
        return "\(who) \(Format.count(buffers)) of \(live) in the last dump (see leaks)."
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
            let all = suspect.last.buffers
            let which = unreachable == all ? "any" : Format.count(unreachable)
            let nobody = newest.hasClock ? "No referrer reaches" : "No ByteBuf refers to"
            let who = ". \(nobody) \(which) of these \(Format.count(all)): "
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
