public import DumpFormat
import Ledger

/// The question of `leaks`: suspects of one dump or several, less what is suppressed or known from a baseline.
public struct LeakSearch {
    private var findings: Findings
    private let suppressions: Suppressions?
    private let filter: Filter?
    /// By rule of the suppressions, how many findings it covers.
    private var matches: [Int] = []
    private var suppressed: [Finding] = []
    private let hasBaseline: Bool
    /// Nil before ``addDetails(from:)``.
    private var pinnedForLittle: PinnedForLittle?

    /// What a reader must load of the newest dump for `addDetails`, and only if `hasSuspects`.
    public static func detailsSelection(_ filter: Filter?) -> DumpSelection {
        Findings.detailsSelection.union(filter?.selection).union(PinnedForLittle.selection)
    }

    /// Snapshots of one process in the order they were taken; small tables suffice.
    public init(
        _ snapshots: [Snapshot], baseline: Snapshot? = nil, suppressions: Suppressions? = nil, filter: Filter? = nil
    ) {
        findings = Findings(snapshots)
        self.suppressions = suppressions
        self.filter = filter
        hasBaseline = baseline != nil
        if let suppressions {
            matches = Array(repeating: 0, count: suppressions.rules.count)
            var open: [Finding] = []
            for finding in findings.findings {
                if let rule = findings.rule(for: finding, in: suppressions) {
                    matches[rule] += 1
                    suppressed.append(finding)
                } else {
                    open.append(finding)
                }
            }
            findings.findings = open
        }
        if let baseline {
            let known = Set(Findings([baseline]).findings.map(\.fingerprint))
            for index in findings.findings.indices {
                findings.findings[index].isKnown = known.contains(findings.findings[index].fingerprint)
            }
            // What is new is what a gate asks about.
            findings.findings = findings.findings.filter { !$0.isKnown } + findings.findings.filter(\.isKnown)
        }
    }

    public var hasSuspects: Bool { !findings.findings.isEmpty }

    /// Exact births and owners, from the newest dump's slot table.
    public mutating func addDetails(from snapshot: Snapshot) {
        findings.addDetails(from: snapshot, where: filter)
        pinnedForLittle = PinnedForLittle(snapshot)
    }

    /// Totals of the newest dump, and the suspects that neither a suppression nor the baseline covers.
    public var figures: Condition.Figures {
        var figures = Condition.Figures(findings.newest)
        let open = findings.findings.filter { !$0.isKnown }
        figures.add(open, findings.diagnosis)
        return figures
    }

    public var report: Report {
        var report = Report(command: "leaks")
        report.mainTableName = "suspects"
        if findings.findings.isEmpty {
            report.add(nil, noSuspects)
        }
        report.add(findings.findings.isEmpty ? nil : "Suspects", .table(table))
        for (index, finding) in findings.findings.enumerated() {
            let story = FindingStory(finding, findings.newest)
            let known = finding.isKnown ? " (known from the baseline)" : ""
            let isAlarming = finding.confidence.isProved && finding.importance == .major
            let tone: Report.Tone = finding.isKnown ? .plain : isAlarming ? .alarm : .warning
            report.add("\(index + 1). \(story.headline)\(known)", .paragraph("\(.text(story.paragraph))", tone))
        }
        addReachable(to: &report)
        pinnedForLittle?.add(to: &report, findings.newest)
        addSuppressions(to: &report)
        let open = findings.findings.filter { !$0.isKnown }
        report.data = [
            .init("verdict", .text(findings.diagnosis.sentence)),
            .init("suspect_count", .count(UInt64(open.count))),
            .init("known_count", .count(UInt64(findings.findings.count - open.count))),
            .init("suppressed_count", .count(UInt64(suppressed.count))),
            .init("has_baseline", .flag(hasBaseline)),
            .init("unreachable_buffers", findings.newest.totals.unreachableBuffers.map { .count($0) } ?? .unknown),
            .init("unreachable_bytes", findings.newest.totals.unreachableBytes.map { .bytes($0) } ?? .unknown),
        ]
        report.data += findings.diagnosis.grade.fields
        report.data += Report.filterFields(filter)
        return report
    }

    /// That nothing speaks against anybody, or nobody who is not accounted for.
    private var noSuspects: Report.Body {
        if !suppressed.isEmpty {
            return .paragraph("No suspects that are not suppressed.", .good)
        }
        if let words = filter.flatMap({ findings.diagnosis.reassurance(under: $0) }) {
            return .paragraph("\(.text(words))", .good)
        }
        return .paragraph("\(.text(findings.diagnosis.sentence))", findings.diagnosis.tone)
    }

    private var table: Table {
        let hasMinor = findings.findings.contains { $0.importance == .minor }
        var table = Table(
            name: "suspects",
            columns: [
                .init("site", "", for: .people), .init("fingerprint", "fingerprint"), .init("kind"),
                .init("confidence", "confidence"), .init("buffers", "buffers"), .init("bytes", "bytes"),
                .init("share", "share"), .init("importance", hasMinor ? "importance" : nil, isOptional: true),
                .init("first_birth"),
                .init("last_birth"), .init("oldest_age_ns"),
                .init("newest_age_ns"), .init("label"), .init("file"), .init("line"), .init("function"),
                .init("last_access"), .init("last_access_file"), .init("last_access_line"),
                .init("last_access_function"),
                .init("owner_kind"), .init("owner_count"), .init("top_owners"), .init("outlived_buffers"),
                .init("growth_bytes"), .init("growth_bytes_per_second"), .init("known"), .init("story"),
            ])
        // Nobody needs a heading over nothing.
        if findings.findings.isEmpty {
            for column in table.columns.indices { table.columns[column].audience = .programs }
        }
        let newest = findings.newest
        table.rows = findings.findings.map { finding in
            let site = newest.siteName(finding.site)
            let access = newest.siteName(finding.access)
            let details = finding.details
            let owners = details?.topOwners.map { newest.ownerTitle($0.owner) }.joined(separator: ", ")
            return Table.Row(
                [
                    .site(finding.access == 0 ? site : access), .text(finding.fingerprint),
                    .text(finding.kind.rawValue),
                    .text(finding.confidence.word), .count(finding.amount.buffers), .bytes(finding.amount.bytes),
                    .ratio(finding.amount.bytes.share(of: newest.totals.liveBytes)),
                    .text(finding.importance.rawValue), newest.momentValue(finding.oldestBirth),
                    newest.momentValue(finding.newestBirth),
                    newest.ageValue(finding.oldestBirth), newest.ageValue(finding.newestBirth),
                    .text(site.label), .text(site.file), .number(UInt64(site.line)),
                    .text(newest.site(finding.site).function), .text(access.label), .text(access.file),
                    .number(UInt64(access.line)), .text(newest.site(finding.access).function),
                    .text(finding.ownerKind.name), details.map { .count(UInt64($0.ownerCount)) } ?? .unknown,
                    owners.map { .text($0) } ?? .unknown, details.map { .count($0.outlived) } ?? .unknown,
                    finding.growth.map { .bytesChange($0.bytesChange) } ?? .unknown,
                    finding.growth.map { .bytesPerSecond($0.bytesPerSecond) } ?? .unknown, .flag(finding.isKnown),
                    .text(FindingStory(finding, newest).paragraph),
                ], tone: finding.isKnown ? .plain : .warning)
        }
        return table
    }

    /// A slow consumer looks like a leak from afar, and may stand beside one.
    private func addReachable(to report: inout Report) {
        guard !findings.growingReachable.isEmpty else { return }
        let newest = findings.newest
        var table = Table(
            name: "growing_reachable",
            columns: [
                .init("last_access", "Growing, and reachable: no leak"), .init("owner_kind", "mostly of"),
                .init("growth_bytes", "growth"), .init("growth_buffers", "buffers"),
                .init("growth_bytes_per_second", "rate"), .init("oldest_age_ns", "backlog's age"),
            ])
        table.rows = findings.growingReachable.map { group, growth in
            let allocationGroups = newest.allocationGroups.filter {
                $0.site == group.site && $0.accessSite == group.access
            }
            let kind = allocationGroups.max { $0.liveBytes < $1.liveBytes }?.ownerKind
            return Table.Row([
                .site(newest.siteName(group.access)), .text(kind?.plural ?? "unknown"),
                .bytesChange(growth.bytesChange), .countChange(growth.buffersChange),
                .bytesPerSecond(growth.bytesPerSecond), newest.ageValue(group.oldestBirth),
            ])
        }
        report.add(nil, .table(table))
    }

    private func addSuppressions(to report: inout Report) {
        guard let suppressions else { return }
        var table = Table(
            name: "suppressions", columns: [.init("rule", "Suppressions"), .init("line"), .init("matches", "matches")])
        table.rows = zip(suppressions.rules, matches).map { rule, count in
            Table.Row([.text(rule.text), .number(UInt64(rule.line)), .count(UInt64(count))])
        }
        report.add(nil, .table(table))
    }
}
