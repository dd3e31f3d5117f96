public import DumpFormat
import Ledger

/// A snapshot in which only some buffers count as live: what questions that read only the small tables answer under a
/// filter. Counters, limits and the totals stay those of the whole.
extension Snapshot {
    /// What a reader must load to narrow to `filter`.
    public static func narrowingSelection(_ filter: Filter) -> DumpSelection {
        DumpSelection(slots: [.site, .touchSite, .owner, .capacity, .requested, .birth, .state], edges: true)
            .union(filter.selection)
    }

    /// Sites, owners and retainers counted anew over the buffers that `filter` lets through; nil where the snapshot
    /// lacks what that needs.
    public func narrowed(to filter: Filter) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.narrowingSelection(filter).slots), let mask = filter.rows(in: self) else {
            return nil
        }
        let holders = HolderMasks(self)
        var result = self
        for id in result.sites.indices {
            (result.sites[id].liveBuffers, result.sites[id].liveBytes, result.sites[id].requestedBytes) = (0, 0, 0)
        }
        for id in result.owners.indices { (result.owners[id].liveBuffers, result.owners[id].liveBytes) = (0, 0) }
        result.retainers = []
        var rows: [RetainerKey: Int] = [:]
        var last: (key: RetainerKey, index: Int)?
        for row in 0..<slots.count where mask[row] {
            let capacity = slots.capacity[row]
            let owner = Int(slots.owner[row]) < owners.count ? Int(slots.owner[row]) : 0
            let kind = owner < owners.count ? owners[owner].kind : .free
            if owner < owners.count {
                result.owners[owner].liveBuffers &+= 1
                result.owners[owner].liveBytes &+= capacity
            }
            if Int(slots.site[row]) < sites.count {
                let site = Int(slots.site[row])
                result.sites[site].liveBuffers &+= 1
                result.sites[site].liveBytes &+= capacity
                result.sites[site].requestedBytes &+= slots.requested[row]
            }
            let key = RetainerKey(site: slots.site[row], touch: slots.touchSite[row], kind: kind)
            // Neighbours are alike.
            let index: Int
            if let last, last.key == key {
                index = last.index
            } else {
                index = rows[key] ?? result.retainers.count
                last = (key, index)
            }
            if index == result.retainers.count {
                rows[key] = index
                var retainer = Retainer()
                retainer.site = key.site
                retainer.touchSite = key.touch
                retainer.ownerKind = kind
                retainer.oldestBirth = .max
                result.retainers.append(retainer)
            }
            result.retainers[index].add(slots, row, isUnheld: holders.map { $0.kinds[row] == 0 } ?? false)
        }
        return result
    }

    private struct RetainerKey: Hashable {
        var site: UInt32
        var touch: UInt32
        var kind: OwnerKind
    }
}

extension Snapshot.Retainer {
    fileprivate mutating func add(_ slots: Snapshot.SlotColumns, _ row: Int, isUnheld: Bool) {
        liveBuffers &+= 1
        liveBytes &+= slots.capacity[row]
        requestedBytes &+= slots.requested[row]
        oldestBirth = min(oldestBirth, slots.birth[row])
        newestBirth = max(newestBirth, slots.birth[row])
        if isUnheld, slots.state[row] == Snapshot.SlotColumns.live {
            unheldBuffers &+= 1
            unheldBytes &+= slots.capacity[row]
        }
    }
}

extension Report {
    /// Says first which buffers the answer counts; `snapshot` is narrowed to them. Shares stay those of all live memory.
    public mutating func note(_ filter: Filter?, _ snapshot: Snapshot) {
        guard let filter else { return }
        var count = GroupCount()
        for retainer in snapshot.retainers {
            count.buffers &+= retainer.liveBuffers
            count.bytes &+= retainer.liveBytes
        }
        sections.insert(Section(title: nil, body: .lines([Self.matched(count, snapshot, filter)])), at: 0)
        data += Self.filterFields(filter)
    }
}
