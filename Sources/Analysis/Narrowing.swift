public import DumpFormat
import Ledger

/// A snapshot in which only some buffers count as live: what questions that read only the small tables answer under a
/// filter. Counters, limits and the totals stay those of the whole.
extension Snapshot {
    /// What a reader must load to narrow to `filter`.
    public static func narrowingSelection(_ filter: Filter) -> DumpSelection {
        DumpSelection(slots: [.site, .touchSite, .owner, .capacity, .requested, .birth, .state], reaches: true)
            .union(filter.selection)
    }

    /// Sites, owners and retainers counted anew over the buffers that `filter` lets through; nil where the snapshot
    /// lacks what that needs.
    public func narrowed(to filter: Filter) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.narrowingSelection(filter).slots), let mask = filter.rows(in: self) else {
            return nil
        }
        return narrowed(to: mask, slots, isUnheld: slotsWithoutEdge())
    }

    /// What `narrowed(by:)` needs, beside the columns of `filter`.
    static let countedSelection = DumpSelection(slots: [.site, .touchSite, .owner, .capacity, .requested, .birth])

    /// Which buffers a filter lets through, and which of all are unheld: what is kept of one reading for the next.
    public struct Narrowing {
        /// What the first reading must load, and the second.
        public static func selection(_ filter: Filter) -> DumpSelection {
            DumpSelection(slots: [.state], reaches: true).union(filter.selection)
        }
        public static let countedSelection = Snapshot.countedSelection

        let mask: RowMask
        let isUnheld: [Bool]?

        /// Nil where the snapshot lacks what the filter asks about.
        public init?(_ filter: Filter, _ snapshot: Snapshot) {
            guard let mask = filter.rows(in: snapshot) else { return nil }
            self.mask = mask
            isUnheld = snapshot.slotsWithoutEdge()
        }
    }

    /// As `narrowed(to:)`, where the filter's columns were read before, and are gone: nil where the rows are others.
    public func narrowed(by narrowing: Narrowing) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.countedSelection.slots), slots.count == narrowing.mask.isIn.count else {
            return nil
        }
        return narrowed(to: narrowing.mask, slots, isUnheld: narrowing.isUnheld)
    }

    /// As `narrowed`; the slot table has only those buffers then, and live memory is only theirs: for comparisons.
    public func reduced(to filter: Filter) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.narrowingSelection(filter).slots), let mask = filter.rows(in: self) else {
            return nil
        }
        var result = narrowed(to: mask, slots, isUnheld: slotsWithoutEdge())
        result.slots = slots.rows(in: mask)
        (result.edges, result.runs) = (nil, nil)
        func sum(_ field: KeyPath<Retainer, UInt64>) -> UInt64 {
            result.retainers.reduce(0) { $0 &+ $1[keyPath: field] }
        }
        (result.totals.liveBuffers, result.totals.liveBytes) = (sum(\.liveBuffers), sum(\.liveBytes))
        result.totals.requestedBytes = sum(\.requestedBytes)
        if totals.unheldBuffers != nil {
            (result.totals.unheldBuffers, result.totals.unheldBytes) = (sum(\.unheldBuffers), sum(\.unheldBytes))
        }
        return result
    }

    private func narrowed(to mask: RowMask, _ slots: SlotColumns, isUnheld: [Bool]?) -> Snapshot {
        var result = self
        for id in result.sites.indices {
            (result.sites[id].liveBuffers, result.sites[id].liveBytes, result.sites[id].requestedBytes) = (0, 0, 0)
        }
        for id in result.owners.indices { (result.owners[id].liveBuffers, result.owners[id].liveBytes) = (0, 0) }
        result.retainers = []
        var retainerRows = RetainerRows(sites: sites.count)
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
            let index = retainerRows.index(of: key, next: result.retainers.count)
            if index == result.retainers.count {
                var retainer = Retainer()
                retainer.site = key.site
                retainer.touchSite = key.touch
                retainer.ownerKind = kind
                retainer.oldestBirth = .max
                result.retainers.append(retainer)
            }
            result.retainers[index].add(slots, row, isUnheld: isUnheld?[row] ?? false)
        }
        return result
    }
}

extension Snapshot.SlotColumns {
    /// Of the columns that were read, the rows a mask lets through.
    fileprivate func rows(in mask: RowMask) -> Self {
        var result = Self()
        result.count = mask.count
        func keep(_ column: some BulkColumn<Self>) {
            let values = self[keyPath: column.typed.values]
            result[keyPath: column.typed.values] = values.indices.compactMap { mask[$0] ? values[$0] : nil }
        }
        for column in Self.columns { keep(column) }
        return result
    }
}

private struct RetainerKey: Hashable {
    var site: UInt32
    var touch: UInt32
    var kind: OwnerKind
}

/// Which retainer a buffer belongs to. With as many sites as programs have, that is an array indexed by the key: hashing
/// millions of rows would take most of the time.
private struct RetainerRows {
    private static let kinds = 16
    private static let densest = 1 << 22
    private let sites: Int
    /// Retainer plus one, by key; empty where there are too many keys.
    private var dense: [Int32]
    private var sparse: [RetainerKey: Int] = [:]

    init(sites: Int) {
        self.sites = sites
        let (squared, overflow) = sites.multipliedReportingOverflow(by: sites)
        let isDense = !overflow && squared <= Self.densest / Self.kinds
        dense = Array(repeating: 0, count: isDense ? squared * Self.kinds : 0)
    }

    /// The retainer of `key`, which becomes `next` if there is none.
    mutating func index(of key: RetainerKey, next: Int) -> Int {
        let kind = Int(key.kind.rawValue)
        guard !dense.isEmpty, Int(key.site) < sites, Int(key.touch) < sites, kind < Self.kinds else {
            if let known = sparse[key] { return known }
            sparse[key] = next
            return next
        }
        let place = (Int(key.site) * sites + Int(key.touch)) * Self.kinds + kind
        if dense[place] > 0 { return Int(dense[place]) - 1 }
        dense[place] = Int32(next + 1)
        return next
    }
}

extension Snapshot.Retainer {
    fileprivate mutating func add(_ slots: Snapshot.SlotColumns, _ row: Int, isUnheld: Bool) {
        liveBuffers &+= 1
        liveBytes &+= slots.capacity[row]
        requestedBytes &+= slots.requested[row]
        oldestBirth = min(oldestBirth, slots.birth[row])
        newestBirth = max(newestBirth, slots.birth[row])
        if isUnheld {
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
