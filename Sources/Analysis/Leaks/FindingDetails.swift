import DumpFormat
import Ledger

extension Findings {
    /// What a reader must load for the details of suspects; without suspects the small tables are enough.
    static let detailsSelection = DumpSelection(
        slots: [.site, .accessSite, .owner, .capacity, .birth, .state], reaches: true)
    /// More suspects than a person reads are told without.
    private static let detailed = 8

    /// Reads the slot table once for all findings: exact births, owners, and how many outlived their site's others.
    mutating func addDetails(from snapshot: Snapshot, where filter: Filter?) {
        guard let slots = snapshot.slots, slots.hasWhole(Self.detailsSelection.slots), !findings.isEmpty else { return }
        let mask = filter.flatMap { $0.rows(in: snapshot) }
        let referrers = ReferrerMasks(snapshot)
        let now = snapshot.header.monotonicTime
        let count = min(findings.count, Self.detailed)
        var scans = findings[..<count].map { finding in
            let lifetimes = Lifetimes(snapshot.site(finding.site))
            return Scan(
                usual: lifetimes.count >= Diagnosis.histogramFloor ? lifetimes.bound(share: 0.999) : nil,
                owners: snapshot.owners.count)
        }
        // For most rows one look at their site's entry is all.
        var bySite = [[Int]](repeating: [], count: snapshot.sites.count)
        for index in 0..<count where Int(findings[index].site) < bySite.count {
            bySite[Int(findings[index].site)].append(index)
        }
        let hasFindings = bySite.map { !$0.isEmpty }
        for row in 0..<slots.count {
            let site = Int(slots.site[row])
            guard site < hasFindings.count, hasFindings[site], mask?[row] ?? true else { continue }
            for index in bySite[site] where slots.accessSite[row] == findings[index].access {
                if findings[index].kind == .unreachable {
                    guard let referrers, referrers.kinds[row] == 0, slots.state[row] == Snapshot.SlotColumns.live else {
                        continue
                    }
                }
                scans[index].add(
                    owner: Int(slots.owner[row]), bytes: slots.capacity[row], birth: slots.birth[row], now: now)
            }
        }
        for index in 0..<count where scans[index].oldest <= scans[index].newest {
            findings[index].oldestBirth = scans[index].oldest
            findings[index].newestBirth = scans[index].newest
            findings[index].details = scans[index].details(snapshot)
        }
    }

    private struct Scan {
        let usual: UInt64?
        var byOwner: [Amount]
        var oldest = UInt64.max
        var newest: UInt64 = 0
        var outlived: UInt64 = 0

        init(usual: UInt64?, owners: Int) {
            self.usual = usual
            byOwner = Array(repeating: Amount(), count: max(1, owners))
        }

        mutating func add(owner: Int, bytes: UInt64, birth: UInt64, now: UInt64) {
            byOwner[owner < byOwner.count ? owner : 0].add(bytes)
            oldest = min(oldest, birth)
            newest = max(newest, birth)
            if let usual, now.less(birth) > usual { outlived += 1 }
        }

        func details(_ snapshot: Snapshot) -> FindingDetails {
            let used = byOwner.indices.filter { byOwner[$0].buffers > 0 }
            var kinds: [OwnerKind: (owners: Int, bytes: UInt64)] = [:]
            var closed = 0
            for id in used where id < snapshot.owners.count {
                kinds[snapshot.owners[id].kind, default: (0, 0)].owners += 1
                kinds[snapshot.owners[id].kind, default: (0, 0)].bytes &+= byOwner[id].bytes
                if snapshot.owners[id].closedTime != 0 { closed += 1 }
            }
            let order = kinds.sorted { ($1.value.bytes, $0.key.rawValue) < ($0.value.bytes, $1.key.rawValue) }
            return FindingDetails(
                topOwners: topOwners(used, snapshot), ownerCount: used.count,
                ownerKinds: order.map { ($0.key, $0.value.owners) }, outlived: outlived, closedOwners: closed)
        }

        /// A client is one, whatever sessions it had.
        private func topOwners(_ used: [Int], _ snapshot: Snapshot) -> [(owner: UInt32, amount: Amount)] {
            let first = Clients.firstOwners(snapshot)
            var amounts: [UInt32: Amount] = [:]
            for id in used { amounts[id < first.count ? first[id] : UInt32(id), default: Amount()].add(byOwner[id]) }
            let order = amounts.sorted { ($1.value.bytes, $0.key) < ($0.value.bytes, $1.key) }
            return order.prefix(5).map { ($0.key, $0.value) }
        }
    }
}
