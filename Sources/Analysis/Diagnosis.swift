import DumpFormat
import Ledger

/// Does this one dump show a leak, and whose?
///
/// Live buffers are judged in groups of one allocation site and one last access. The rules are data, tried strongest
/// evidence first. A buffer that no referrer reaches needs no company to be lost. What only statistics speak against needs a
/// ratio *and* absolute floors, so that small or young memory is never accused; after Redis' `getMemoryDoctorReport`.
/// How much a suspect matters is another question: `Importance`.
struct Diagnosis {
    enum Verdict {
        /// Nothing tells who holds the buffers, and they are so few that a ratio of them says nothing.
        case tooSmall
        /// What would tell is not in this dump.
        case cannotSay
        case noSuspect
        case suspect(Group, Rule)
    }

    /// Live buffers allocated at one site and last accessed at one site.
    struct Group {
        var site: UInt32
        var access: UInt32
        var liveBuffers: UInt64 = 0
        var liveBytes: UInt64 = 0
        var unreachableBuffers: UInt64 = 0
        var unreachableBytes: UInt64 = 0
        var oldestBirth: UInt64 = .max

        /// What that evidence speaks against.
        func amount(_ evidence: Evidence) -> Amount {
            evidence == .unreachable
                ? Amount(buffers: unreachableBuffers, bytes: unreachableBytes)
                : Amount(buffers: liveBuffers, bytes: liveBytes)
        }
    }

    enum Evidence {
        /// No referrer reaches them. What that is worth the dump's `EvidenceGrade` says.
        case unreachable
        /// Far more of them, and far older, than the lifetimes of what the site freed explain.
        case survivors
        /// Nearly everything that lives, and old, near the limit.
        case share
    }

    struct Rule {
        var evidence: Evidence
        /// Of all live bytes.
        var shareFloor: Double
        var bytesFloor: UInt64
        var buffersFloor: UInt64
        var ageFloor: UInt64
    }

    static let minute: UInt64 = 60_000_000_000

    /// Less live memory than this is not judged by statistics.
    static let judgedBytes: UInt64 = 1 << 20

    static let unreachableRule = Rule(
        evidence: .unreachable, shareFloor: 0, bytesFloor: 0, buffersFloor: 1, ageFloor: 0)
    static let rules = [
        unreachableRule,
        Rule(evidence: .survivors, shareFloor: 0.25, bytesFloor: 16 << 20, buffersFloor: 64, ageFloor: minute),
        Rule(evidence: .share, shareFloor: 0.90, bytesFloor: 64 << 20, buffersFloor: 64, ageFloor: 5 * minute),
    ]

    /// How many times the number of live buffers must exceed what rate x lifetime explains (Little's law).
    static let survivorExcess = 20.0
    /// How many times the oldest must outlive 99.9 % of what the site freed.
    static let ageExcess = 20.0
    /// The site must have freed this many before its histogram counts as evidence.
    static let histogramFloor: UInt64 = 100
    /// `share` alone says nothing while there is room: the counter must stand at this share of the limit.
    static let pressure = 0.75
    /// That many buffers for each connection or session are its own state (read buffer, outbound), not a heap of them.
    static let buffersPerOwner: UInt64 = 4

    let snapshot: Snapshot
    let groups: [Group]
    let verdict: Verdict
    /// What the verdict is worth.
    let grade: EvidenceGrade
    /// Each suspicious group with the strongest rule it matches; the strongest evidence and the most bytes first.
    let suspects: [(group: Group, rule: Rule)]

    init(_ snapshot: Snapshot) {
        self.snapshot = snapshot
        groups = Self.groups(snapshot, where: { _ in true })
        let totals = snapshot.totals
        let grade = EvidenceGrade(snapshot, for: .lost)
        if grade.level == .cannotSay {
            self.grade = grade
            verdict = .cannotSay
            suspects = []
            return
        }
        // With references, a buffer that a queue holds is no suspect. Without, leave out what is kept on purpose.
        var suspicious = groups
        if totals.unreachableBuffers == nil {
            let owners = Self.liveOwners(snapshot)
            suspicious = Self.groups(snapshot) { Self.isSuspicious($0, owners) }
        }
        var suspects = snapshot.header.format == .nettyHeapDump ? Self.heapDumpSuspects(groups) : []
        for rule in snapshot.header.format == .nettyHeapDump ? [] : Self.rules {
            let matches = suspicious.filter { Self.matches($0, rule, snapshot) }
            suspicious.removeAll { group in matches.contains { $0.site == group.site && $0.access == group.access } }
            suspects += matches.sorted { Self.weight($0, rule) > Self.weight($1, rule) }.map { ($0, rule) }
        }
        self.suspects = suspects
        if let worst = suspects.first {
            self.grade = grade
            verdict = .suspect(worst.group, worst.rule)
        } else {
            self.grade = EvidenceGrade(snapshot, for: .nothingElseLost)
            // Where the dump says who holds each buffer, that all are held is known whatever their number.
            let isTooSmall = totals.unreachableBuffers == nil && totals.liveBytes < Self.judgedBytes
            verdict = self.grade.level == .cannotSay ? .cannotSay : isTooSmall ? .tooSmall : .noSuspect
        }
    }

    var suspect: Group? {
        if case .suspect(let group, _) = verdict { group } else { nil }
    }

    /// What the suspect is suspected of.
    var suspectAmount: Amount? {
        if case .suspect(let group, let rule) = verdict { group.amount(rule.evidence) } else { nil }
    }

    /// How much the suspect matters; nil without one.
    var suspectImportance: Importance? {
        if case .suspect(let group, let rule) = verdict { importance(of: group, rule.evidence) } else { nil }
    }

    func importance(of group: Group, _ evidence: Evidence) -> Importance {
        let amount = group.amount(evidence)
        return snapshot.header.format == .nettyHeapDump && evidence == .unreachable
            ? heapDumpImportance(of: amount) : Importance(of: amount, beside: snapshot.totals)
    }

    // MARK: The rules

    private static func weight(_ group: Group, _ rule: Rule) -> UInt64 { group.amount(rule.evidence).bytes }

    private static func matches(_ group: Group, _ rule: Rule, _ snapshot: Snapshot) -> Bool {
        let totals = snapshot.totals
        let amount = group.amount(rule.evidence)
        guard amount.bytes >= rule.bytesFloor, amount.buffers >= rule.buffersFloor,
            amount.bytes.share(of: totals.liveBytes) >= rule.shareFloor,
            snapshot.age(group.oldestBirth) >= rule.ageFloor
        else { return false }
        switch rule.evidence {
        case .unreachable:
            return totals.unreachableBuffers != nil
        case .survivors:
            return totals.unreachableBuffers == nil && outlivesItsSite(group, snapshot)
        case .share:
            return totals.unreachableBuffers == nil && totals.counterBytes.share(of: totals.limitBytes) >= pressure
                && Lifetimes(snapshot.site(group.site)).count < histogramFloor
        }
    }

    private static func outlivesItsSite(_ group: Group, _ snapshot: Snapshot) -> Bool {
        let site = snapshot.site(group.site)
        let lifetimes = Lifetimes(site)
        guard lifetimes.count >= histogramFloor, let usual = lifetimes.bound(share: 0.999) else { return false }
        let explained = expectedLive(site, snapshot)
        return Double(group.liveBuffers) >= survivorExcess * max(explained, 1)
            && Double(snapshot.age(group.oldestBirth)) >= ageExcess * Double(usual)
    }

    /// Little's law: allocations a second times the mean lifetime of what was freed.
    static func expectedLive(_ site: Snapshot.Site, _ snapshot: Snapshot) -> Double {
        guard snapshot.uptime > 0 else { return 0 }
        return Double(site.allocations) / Double(snapshot.uptime) * Lifetimes(site).meanBound
    }

    /// Without references the owner's kind must do: queues and retained messages keep buffers on purpose, and a few buffers
    /// for each connection are its state.
    static func isSuspicious(_ allocationGroup: Snapshot.AllocationGroup, _ liveOwners: [OwnerKind: UInt64]) -> Bool {
        switch allocationGroup.ownerKind {
        case .inflight, .offlineQueue, .retained, .will, .dumper, .listener, .eventLoop: return false
        case .connection, .session:
            return allocationGroup.liveBuffers > buffersPerOwner * liveOwners[allocationGroup.ownerKind, default: 0]
        default: return true
        }
    }

    /// How many owners of each kind have live buffers.
    static func liveOwners(_ snapshot: Snapshot) -> [OwnerKind: UInt64] {
        var counts: [OwnerKind: UInt64] = [:]
        for owner in snapshot.owners where owner.liveBuffers > 0 { counts[owner.kind, default: 0] += 1 }
        return counts
    }

    private static func groups(_ snapshot: Snapshot, where isIn: (Snapshot.AllocationGroup) -> Bool) -> [Group] {
        var groups: [UInt64: Group] = [:]
        for allocationGroup in snapshot.allocationGroups where isIn(allocationGroup) {
            let key = UInt64(allocationGroup.site) << 32 | UInt64(allocationGroup.accessSite)
            var group = groups[key] ?? Group(site: allocationGroup.site, access: allocationGroup.accessSite)
            group.liveBuffers &+= allocationGroup.liveBuffers
            group.liveBytes &+= allocationGroup.liveBytes
            group.unreachableBuffers &+= allocationGroup.unreachableBuffers
            group.unreachableBytes &+= allocationGroup.unreachableBytes
            group.oldestBirth = min(group.oldestBirth, allocationGroup.oldestBirth)
            groups[key] = group
        }
        return groups.values.sorted {
            ($1.liveBytes, $0.site, $0.access) < ($0.liveBytes, $1.site, $1.access)
        }
    }
}

// MARK: - In words

extension Diagnosis {
    var tone: Report.Tone {
        switch verdict {
        case .tooSmall: .plain
        case .cannotSay: .warning
        case .noSuspect: .good
        case .suspect(_, let rule): rule.evidence == .share || suspectImportance == .minor ? .warning : .alarm
        }
    }

    /// `proved`, `likely`, `possible`, `none`, `too-small` or `unknown`, for programs.
    var confidence: String {
        switch verdict {
        case .tooSmall: "too-small"
        case .cannotSay: "unknown"
        case .noSuspect: "none"
        case .suspect(_, let rule): grade.confidence(in: rule.evidence).word
        }
    }

    /// The verdict as one calm sentence or two.
    var sentence: String {
        let totals = snapshot.totals
        let live = Format.count(totals.liveBuffers, of: snapshot.liveNoun)
        switch verdict {
        case .cannotSay:
            return cannotSay
        case .tooSmall:
            return "Too small to judge without references: \(live), \(Format.bytes(totals.liveBytes)).\(reservation)"
        case .noSuspect:
            return "No suspect: \(reassurance).\(reservation)"
        case .suspect(let group, _) where snapshot.header.format == .nettyHeapDump:
            return heapDumpSentence(group)
        case .suspect(let group, let rule):
            return "\(accusation(group)); \(conclusion(group, rule))."
        }
    }

    private func accusation(_ group: Group) -> String {
        let totals = snapshot.totals
        let amount =
            "\(Format.count(group.liveBuffers)) of \(Format.count(totals.liveBuffers, of: "live buffer"))"
            + " (\(Format.bytes(group.liveBytes)), \(Format.ratio(group.liveBytes.share(of: totals.liveBytes)))"
            + " of live bytes)"
        let age = "the oldest \(Format.duration(snapshot.age(group.oldestBirth))) ago"
        let site = quoted(snapshot.siteName(group.site))
        guard group.access != group.site, group.access != 0 else {
            return "\(amount) were allocated at \(site) and not accessed elsewhere since, \(age)"
        }
        return "\(snapshot.siteName(group.access).label) was the last to access \(amount);"
            + " they were allocated at \(site), \(age)"
    }

    private func conclusion(_ group: Group, _ rule: Rule) -> String {
        let site = snapshot.site(group.site)
        let lifetimes = Lifetimes(site)
        var usual = ""
        if lifetimes.count >= Self.histogramFloor, let bound = lifetimes.bound(share: 0.999) {
            usual = "99.9 % of the buffers freed there lived under \(Format.duration(bound))"
        }
        switch rule.evidence {
        case .unreachable:
            let reach =
                group.unreachableBuffers == group.liveBuffers
                ? "referrers reach none of them"
                : "referrers do not reach \(Format.count(group.unreachableBuffers)) of these \(Format.count(group.liveBuffers))"
                    + " (\(Format.bytes(group.unreachableBytes)))"
            return (usual.isEmpty ? "" : usual + ", and ") + "\(reach): \(leakInWords)"
        case .survivors:
            return usual + ": a leak there is likely"
        case .share:
            return
                "\(Format.count(site.frees, of: "buffer")) from there \(site.frees == 1 ? "was" : "were") ever freed: compare with a later dump (diff)"
        }
    }

    /// `this is a leak`, or why that is not proved; and if it is small, that too.
    var leakInWords: String {
        let size = suspectImportance?.inWords ?? ""
        return grade.level == .proved
            ? "this is a leak\(size)"
            : "a leak\(size)\(size.isEmpty ? "" : ",") is likely, and not proved, because \(grade.reason)"
    }

    /// What a verdict without a suspect is worth, where that is not everything. Without references it rests on the sites'
    /// histories, and says so.
    private var reservation: String {
        grade.missing.isEmpty || snapshot.totals.unreachableBuffers == nil
            ? "" : " Not proved, because \(grade.reason)."
    }

    /// Why there is no verdict.
    private var cannotSay: String {
        let totals = snapshot.totals
        let live = Format.count(totals.liveBuffers, of: snapshot.liveNoun)
        let unjudged = snapshot.header.unjudgedBuffers
        if snapshot.allocationGroups.isEmpty, totals.liveBuffers > 0 {
            return "Cannot say who holds the \(live), because \(grade.reason)."
        }
        if !snapshot.hasClock, let unreachable = totals.unreachableBuffers,
            grade.missing.contains(where: { $0.premise == .wholeFile })
        {
            return
                "Cannot say: no ByteBuf was found for \(Format.count(unreachable)) of \(live), but \(grade.reason), and what holds "
                + "them may be in the part that could not be read: take another dump."
        }
        let which = "\(Format.count(unjudged)) of \(live) (\(Format.bytes(snapshot.header.unjudgedBytes)))"
        return snapshot.hasClock
            ? "Cannot say: nobody who was asked holds \(which), but \(grade.reason)."
            : "Cannot say: no root in this dump leads to the ByteBufs of \(which), but \(grade.reason)."
    }

    /// That nobody is accused of the buffers that match a filter; nil where somebody is, or might be. The totals are about
    /// others too.
    func reassurance(under filter: Filter) -> String? {
        switch verdict {
        case .suspect, .cannotSay: nil
        case .tooSmall, .noSuspect: "No suspects among the buffers that match \(filter.text)."
        }
    }

    /// Where the memory is, when it is nobody's fault.
    private var reassurance: String {
        let totals = snapshot.totals
        if totals.liveBuffers == 0 { return "there is no \(snapshot.liveNoun)" }
        var reachable = "no site holds more, or for longer, than its own history explains"
        if let unreachable = totals.unreachableBuffers {
            reachable =
                unreachable == 0
                ? snapshot.hasClock
                    ? "every live buffer is reachable" : "every allocation is a live ByteBuf's or in a thread's cache"
                : "only \(Format.count(unreachable)) of \(Format.count(totals.liveBuffers, of: snapshot.liveNoun))"
                    + " (\(Format.bytes(totals.unreachableBytes ?? 0))) are \(snapshot.hasClock ? "unreachable" : "without a ByteBuf")"
        }
        var byKind = [UInt64](repeating: 0, count: 256)
        for allocationGroup in snapshot.allocationGroups {
            byKind[Int(allocationGroup.ownerKind.rawValue)] &+= allocationGroup.liveBytes
        }
        guard let most = byKind.indices.max(by: { byKind[$0] < byKind[$1] }), byKind[most] > 0,
            let kind = OwnerKind(rawValue: UInt8(most))
        else { return reachable }
        let share = Format.ratio(byKind[most].share(of: totals.liveBytes))
        return reachable
            + "; \(share) of \(snapshot.liveBytesNoun) (\(Format.bytes(byKind[most]))) belong to \(kind.plural)"
    }

    private func quoted(_ name: SiteName) -> String {
        name.location.isEmpty ? "\"\(name.label)\"" : "\"\(name.label)\" (\(name.location))"
    }
}
