public import DumpFormat

/// A snapshot in which only some buffers count as live: what questions that read only the small tables answer under a
/// filter. Counters, limits and the totals stay those of the whole.
extension Snapshot {
    /// What a reader must load to narrow to `filter`.
    public static func narrowingSelection(_ filter: Filter) -> DumpSelection {
        DumpSelection(slots: [.site, .accessSite, .owner, .capacity, .requested, .birth, .state], reaches: true)
            .union(filter.selection)
    }

    /// Sites, owners and allocation groups counted anew over the buffers that `filter` lets through; nil where the snapshot
    /// lacks what that needs.
    public func narrowed(to filter: Filter) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.narrowingSelection(filter).slots), let mask = filter.rows(in: self) else {
            return nil
        }
        return narrowed(to: mask, slots, reach)
    }

    /// What `narrowed(by:)` needs, beside the columns of `filter`.
    static let countedSelection = DumpSelection(slots: [.site, .accessSite, .owner, .capacity, .requested, .birth])

    /// Which buffers a filter lets through, and what reaches each of all: what is kept of one reading for the next.
    public struct Narrowing {
        /// What the first reading must load, and the second.
        public static func selection(_ filter: Filter) -> DumpSelection {
            DumpSelection(slots: [.state], reaches: true).union(filter.selection)
        }
        public static let countedSelection = Snapshot.countedSelection

        let mask: RowMask
        let reach: [Reach]?

        /// Nil where the snapshot lacks what the filter asks about.
        public init?(_ filter: Filter, _ snapshot: Snapshot) {
            guard let mask = filter.rows(in: snapshot) else { return nil }
            self.mask = mask
            reach = snapshot.reach
        }
    }

    /// As `narrowed(to:)`, where the filter's columns were read before, and are gone: nil where the rows are others.
    public func narrowed(by narrowing: Narrowing) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.countedSelection.slots), slots.count == narrowing.mask.isIn.count else {
            return nil
        }
        return narrowed(to: narrowing.mask, slots, narrowing.reach)
    }

    /// As `narrowed`; the slot table has only those buffers then, and live memory is only theirs: for comparisons.
    public func reduced(to filter: Filter) -> Snapshot? {
        guard let slots, slots.hasWhole(Self.narrowingSelection(filter).slots), let mask = filter.rows(in: self) else {
            return nil
        }
        var result = narrowed(to: mask, slots, reach, .totals)
        result.slots = slots.rows(in: mask)
        (result.references, result.runs) = (nil, nil)
        if totals.unreachableBuffers == nil || references == nil {
            (result.totals.unreachableBuffers, result.totals.unreachableBytes) = (nil, nil)
        }
        return result
    }

    /// By row of the slots; nil without references.
    private var reach: [Reach]? {
        guard let references, let slots, slots.hasWhole([.state]) else { return nil }
        return references.reach(slots.state)
    }

    /// - Parameter more: parts beside sites, owners and allocation groups.
    private func narrowed(
        to mask: RowMask, _ slots: SlotColumns, _ reach: [Reach]?, _ more: SlotAggregate.Parts = []
    ) -> Snapshot {
        var parts: SlotAggregate.Parts = [.sites, .owners, .groups]
        parts.formUnion(more)
        if reach != nil { parts.insert(.reach) }
        var sums = SlotAggregate(self, parts)
        sums.add(slots, reach: reach, where: mask.isIn)
        var result = self
        sums.store(to: &result)
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

extension Report {
    /// Says first which buffers the answer counts; `snapshot` is narrowed to them. Shares stay those of all live memory.
    public mutating func note(_ filter: Filter?, _ snapshot: Snapshot) {
        guard let filter else { return }
        var count = GroupCount()
        for allocationGroup in snapshot.allocationGroups {
            count.buffers &+= allocationGroup.liveBuffers
            count.bytes &+= allocationGroup.liveBytes
        }
        sections.insert(Section(title: nil, body: .lines([Self.matched(count, snapshot, filter)])), at: 0)
        data += Self.filterFields(filter)
    }
}
