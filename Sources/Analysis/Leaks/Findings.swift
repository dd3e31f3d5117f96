import DumpFormat
import Ledger

/// The suspects of one dump, or of several of one process.
///
/// The rules are `Diagnosis`'s; several dumps add growth. Growth alone accuses nobody whose buffers somebody holds: a
/// queue that grows is a slow consumer, and is reported as such (`growingReachable`), not as a leak.
struct Findings {
    /// Strongest evidence first.
    var findings: [Finding] = []
    /// Groups that grew in every dump and are held.
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
            var finding = Self.finding(kind, group, newest, diagnosis.grade.confidence(in: rule.evidence))
            finding.growth = growth?.growth(of: group)
            findings.append(finding)
        }
        guard let growth else { return }
        let liveOwners = Diagnosis.liveOwners(newest)
        for group in diagnosis.groups {
            guard !findings.contains(where: { $0.site == group.site && $0.access == group.access }),
                let grown = growth.growth(of: group), growth.isNotable(grown)
            else { continue }
            let isReachable =
                newest.totals.unreachableBuffers != nil
                ? !growth.unreachableGrew(group)
                : !newest.allocationGroups.contains {
                    $0.site == group.site && $0.accessSite == group.access && Diagnosis.isSuspicious($0, liveOwners)
                }
            if isReachable {
                growingReachable.append((group, grown))
            } else {
                var finding = Self.finding(.growth, group, newest, grown.dumps > 2 ? .likely : .possible)
                finding.growth = grown
                findings.append(finding)
            }
        }
    }

    private static func finding(
        _ kind: Finding.Kind, _ group: Diagnosis.Group, _ snapshot: Snapshot, _ confidence: Confidence
    ) -> Finding {
        let allocationGroups = snapshot.allocationGroups.filter {
            $0.site == group.site && $0.accessSite == group.access
        }
        let main = allocationGroups.max { weight($0, kind) < weight($1, kind) }
        let owner = main?.ownerKind ?? .free
        return Finding(
            kind: kind, confidence: confidence, site: group.site, access: group.access, ownerKind: owner,
            amount: kind == .unreachable
                ? Amount(buffers: group.unreachableBuffers, bytes: group.unreachableBytes)
                : Amount(buffers: group.liveBuffers, bytes: group.liveBytes),
            oldestBirth: group.oldestBirth, newestBirth: allocationGroups.map(\.newestBirth).max() ?? 0,
            fingerprint: Fingerprint.make(kind, group.site, group.access, owner, snapshot))
    }

    private static func weight(_ allocationGroup: Snapshot.AllocationGroup, _ kind: Finding.Kind) -> UInt64 {
        kind == .unreachable ? allocationGroup.unreachableBytes : allocationGroup.liveBytes
    }
}

/// Growth of groups over several snapshots.
private struct GroupGrowths {
    private let sites: SiteDirectory
    private let last: Int
    private let seconds: Double
    private let liveChange: Int64
    private var live: [UInt64: [Amount]] = [:]
    private var unreachable: [UInt64: [Amount]] = [:]

    /// Nil where the snapshots are not of one process.
    init?(_ snapshots: [Snapshot]) {
        let first = snapshots[0].header
        guard ProcessSameness(snapshots).isSame else { return nil }
        sites = SiteDirectory(snapshots)
        last = snapshots.count - 1
        seconds = Double(snapshots[last].header.wallTime.less(first.wallTime)) / 1e9
        liveChange = snapshots[last].totals.liveBytes.change(from: snapshots[0].totals.liveBytes)
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

    /// Nil unless it grew in every step.
    func growth(of group: Diagnosis.Group) -> GroupGrowth? {
        guard let series = live[key(group.site, group.access, last)], Difference.grewInEveryStep(series) else {
            return nil
        }
        let change = series[last].bytes.change(from: series[0].bytes)
        return GroupGrowth(
            dumps: last + 1, buffersChange: series[last].buffers.change(from: series[0].buffers), bytesChange: change,
            bytesPerSecond: seconds > 0 ? Double(change) / seconds : 0)
    }

    func isNotable(_ growth: GroupGrowth) -> Bool {
        growth.bytesChange >= Findings.growthFloor
            && Double(growth.bytesChange) >= Findings.growthShare * Double(max(0, liveChange))
    }

    func unreachableGrew(_ group: Diagnosis.Group) -> Bool {
        guard let series = unreachable[key(group.site, group.access, last)] else { return false }
        return Difference.grewInEveryStep(series)
            && series[last].bytes.change(from: series[0].bytes) >= Findings.growthFloor
    }
}
