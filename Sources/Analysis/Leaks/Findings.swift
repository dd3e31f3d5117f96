import DumpFormat
import Ledger

/// The suspects of one dump, or of several of one process.
///
/// The rules are `Diagnosis`'s; several dumps add growth. Growth alone accuses nobody whose buffers somebody holds: a
/// queue that grows is a slow consumer, and is reported as such (`growingReachable`), not as a leak, also where buffers of the
/// same place are lost.
struct Findings {
    /// Strongest evidence first.
    var findings: [Finding] = []
    /// Groups whose reachable buffers grew in every dump, those that grew most first.
    var growingReachable: [(group: Diagnosis.Group, growth: GroupGrowth)] = []
    let diagnosis: Diagnosis
    let newest: Snapshot

    /// Of all growth, and in absolute terms: less is the ordinary coming and going.
    static let growthShare = 0.1
    static let growthFloor: Int64 = 1 << 20

    /// Snapshots of one process in the order they were taken.
    init(_ snapshots: [Snapshot]) {
        let newest = snapshots[snapshots.count - 1]
        self.newest = newest
        diagnosis = Diagnosis(newest)
        // Of the part of a heap dump that could be read, nothing can be said that needs the rest.
        if snapshots.contains(where: { EvidenceGrade($0, for: .lost).level == .cannotSay }) { return }
        let growth = snapshots.count > 1 ? GroupGrowths(snapshots) : nil
        for (group, rule) in diagnosis.suspects {
            let kind: Finding.Kind =
                switch rule.evidence {
                case .unreachable: .unreachable
                case .survivors: .survivors
                case .share: .share
                }
            var finding = makeFinding(kind, group, rule.evidence, diagnosis.grade.confidence(in: rule.evidence))
            // Of the buffers that the finding is about.
            finding.growth = growth?.growth(of: group, kind == .unreachable ? .unreachable : .live)
            findings.append(finding)
        }
        if let growth { addGrowth(growth) }
    }

    /// What grew in every dump: suspects where nothing tells who holds it, and a backlog where somebody does.
    private mutating func addGrowth(_ growth: GroupGrowths) {
        let liveOwners = Diagnosis.liveOwners(newest)
        for group in diagnosis.groups {
            if newest.totals.unreachableBuffers != nil {
                if let grown = growth.growth(of: group, .reachable), grown.bytesChange >= Self.growthFloor {
                    growingReachable.append((group, grown))
                }
                continue
            }
            guard !findings.contains(where: { $0.site == group.site && $0.access == group.access }),
                let grown = growth.growth(of: group, .live), growth.isNotable(grown)
            else { continue }
            let isSuspicious = newest.allocationGroups.contains {
                $0.site == group.site && $0.accessSite == group.access && Diagnosis.isSuspicious($0, liveOwners)
            }
            if isSuspicious {
                var finding = makeFinding(.growth, group, .survivors, grown.dumps > 2 ? .likely : .possible)
                finding.growth = grown
                findings.append(finding)
            } else {
                growingReachable.append((group, grown))
            }
        }
        growingReachable.sort { $0.growth.bytesChange > $1.growth.bytesChange }
    }

    private func makeFinding(
        _ kind: Finding.Kind, _ group: Diagnosis.Group, _ evidence: Diagnosis.Evidence, _ confidence: Confidence
    ) -> Finding {
        let allocationGroups = newest.allocationGroups.filter { $0.site == group.site && $0.accessSite == group.access }
        let main = allocationGroups.max { Self.weight($0, kind) < Self.weight($1, kind) }
        return Finding(
            kind: kind, confidence: confidence, importance: diagnosis.importance(of: group, evidence),
            site: group.site, access: group.access, ownerKind: main?.ownerKind ?? .free, amount: group.amount(evidence),
            oldestBirth: group.oldestBirth, newestBirth: allocationGroups.map(\.newestBirth).max() ?? 0,
            fingerprint: Fingerprint.make(kind, group.site, group.access, newest))
    }

    private static func weight(_ allocationGroup: Snapshot.AllocationGroup, _ kind: Finding.Kind) -> UInt64 {
        kind == .unreachable ? allocationGroup.unreachableBytes : allocationGroup.liveBytes
    }
}

/// Growth of groups over several snapshots.
private struct GroupGrowths {
    /// Which buffers of a group.
    enum Part { case live, reachable, unreachable }

    private let sites: SiteDirectory
    private let last: Int
    private let snapshots: [Snapshot]
    private let liveChange: Int64
    /// Whether all dumps say who holds each buffer.
    private let areJudged: Bool
    private var live: [UInt64: [Amount]] = [:]
    private var unreachable: [UInt64: [Amount]] = [:]

    /// Nil where the snapshots are not of one process.
    init?(_ snapshots: [Snapshot]) {
        guard ProcessSameness(snapshots).isSame else { return nil }
        self.snapshots = snapshots
        sites = SiteDirectory(snapshots)
        last = snapshots.count - 1
        liveChange = snapshots[last].totals.liveBytes.change(from: snapshots[0].totals.liveBytes)
        areJudged = snapshots.allSatisfy { $0.totals.unreachableBuffers != nil }
        let none = [Amount](repeating: Amount(), count: snapshots.count)
        for (index, snapshot) in snapshots.enumerated() {
            for allocationGroup in snapshot.allocationGroups {
                let key = self.key(allocationGroup.site, allocationGroup.accessSite, index)
                live[key, default: none][index].add(
                    Amount(buffers: allocationGroup.liveBuffers, bytes: allocationGroup.liveBytes))
                unreachable[key, default: none][index].add(
                    Amount(buffers: allocationGroup.unreachableBuffers, bytes: allocationGroup.unreachableBytes))
            }
        }
    }

    private func key(_ site: UInt32, _ access: UInt32, _ snapshot: Int) -> UInt64 {
        SlotDifference.pairKey(sites.entry(site, in: snapshot), sites.entry(access, in: snapshot))
    }

    /// Nil where a dump does not say which of the buffers these are.
    private func series(of group: Diagnosis.Group, _ part: Part) -> [Amount]? {
        let key = self.key(group.site, group.access, last)
        guard let live = self.live[key], let unreachable = self.unreachable[key] else { return nil }
        switch part {
        case .live: return live
        case .unreachable: return areJudged ? unreachable : nil
        case .reachable:
            if !areJudged { return group.unreachableBuffers == 0 ? live : nil }
            return zip(live, unreachable).map {
                Amount(buffers: $0.buffers.less($1.buffers), bytes: $0.bytes.less($1.bytes))
            }
        }
    }

    /// Nil unless it grew in every step.
    func growth(of group: Diagnosis.Group, _ part: Part) -> GroupGrowth? {
        guard let series = self.series(of: group, part), Difference.grewInEveryStep(series) else { return nil }
        let change = series[last].bytes.change(from: series[0].bytes)
        return GroupGrowth(
            dumps: last + 1, first: series[0], last: series[last],
            bytesPerSecond: Growth.bytesPerSecond(change, from: snapshots[0], to: snapshots[last]))
    }

    func isNotable(_ growth: GroupGrowth) -> Bool {
        growth.bytesChange >= Findings.growthFloor
            && Double(growth.bytesChange) >= Findings.growthShare * Double(max(0, liveChange))
    }
}
