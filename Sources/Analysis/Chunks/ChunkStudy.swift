public import DumpFormat

/// All that `chunks` needs to know of the slots, found out in one go: then their columns, most of the memory, may be let
/// go of before the answer's tables are made.
public struct ChunkStudy {
    /// Groups of buffers, and what they pin.
    struct Pinners {
        private(set) var groups: SlotGroups
        let pins: ChunkPins
        /// By group: whether it has buffers that match the filter.
        let isShown: [Bool]

        fileprivate init(
            _ groups: SlotGroups, _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ rows: ChunkRows,
            _ mask: RowMask?, stays: [Bool]
        ) {
            pins = ChunkPins(snapshot, slots, rows, groups, stays: stays)
            var isShown = [Bool](repeating: mask == nil, count: groups.count)
            if let mask { for row in groups.group.indices where mask[row] { isShown[Int(groups.group[row])] = true } }
            self.isShown = isShown
            self.groups = groups
            self.groups.forgetRows()
        }
    }

    let question: ChunkQuestion
    let free: FreeRuns
    let pinners: Pinners
    let sites: Pinners
    /// What the filter matches; all where there is none.
    let matched: GroupCount
    let ifFreed: WhatIf?
    /// By chunk row: whether it has buffers that match the filter, and its picture.
    let isShown: [Bool]
    let maps: [String]
    let mixing: LifetimeMixing
    let pinnedForLittle: PinnedForLittle
    /// Buffers in no chunk, as only a damaged dump has them.
    let strays: Int

    /// Nil where the snapshot lacks the columns.
    public init?(_ snapshot: Snapshot, _ question: ChunkQuestion) {
        guard let slots = snapshot.slots, slots.hasWhole(question.selection.slots),
            let groups = SlotGroups(question.pinners, snapshot), let sites = SlotGroups(.site, snapshot)
        else { return nil }
        var mask: RowMask?
        if let filter = question.filter {
            guard let rows = filter.rows(in: snapshot) else { return nil }
            mask = rows
        }
        let rows = ChunkRows(snapshot, slots)
        let free = FreeRuns(snapshot)
        var matched = GroupCount()
        for row in slots.capacity.indices where mask?[row] ?? true {
            matched.buffers &+= 1
            matched.bytes &+= slots.capacity[row]
        }
        var ifFreed: WhatIf?
        if let filter = question.ifFreed {
            guard let freed = filter.rows(in: snapshot) else { return nil }
            ifFreed = WhatIf(snapshot, slots, rows, freeing: freed, stays: free.holdsReserve)
        }
        self.question = question
        self.free = free
        self.matched = matched
        self.ifFreed = ifFreed
        pinners = Pinners(groups, snapshot, slots, rows, mask, stays: free.holdsReserve)
        self.sites = Pinners(sites, snapshot, slots, rows, mask, stays: free.holdsReserve)
        isShown = snapshot.chunks.indices.map { chunk in
            guard let mask else { return true }
            var found = false
            rows.forEachRow(of: chunk) { if mask[$0] { found = true } }
            return found
        }
        maps = snapshot.chunks.indices.map { Report.map($0, snapshot, slots, rows) }
        mixing = LifetimeMixing(snapshot, slots, rows, oldAge: question.oldAge)
        pinnedForLittle = PinnedForLittle(snapshot)
        strays = rows.strays
    }
}
