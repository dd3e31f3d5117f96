extension SlotAggregate {
    /// Sets what the tables say of live slots to what was added up; tables of other parts stay as they are.
    ///
    /// - Parameter tables: those that this was made by.
    public func store(to tables: inout Snapshot) {
        if parts.contains(.totals) { storeTotals(to: &tables.totals) }
        if parts.contains(.arenas) {
            for (row, sum) in arenas.enumerated() {
                tables.arenas[row].liveBuffers = sum.buffers
                tables.arenas[row].liveBytes = sum.bytes
                tables.arenas[row].requestedBytes = sum.requested
            }
        }
        if parts.contains(.sites) {
            for (row, sum) in sites.enumerated() {
                tables.sites[row].liveBuffers = sum.buffers
                tables.sites[row].liveBytes = sum.bytes
                tables.sites[row].requestedBytes = sum.requested
            }
        }
        if parts.contains(.owners) {
            for (row, sum) in owners.enumerated() {
                (tables.owners[row].liveBuffers, tables.owners[row].liveBytes) = (sum.buffers, sum.bytes)
            }
        }
        if parts.contains(.chunks) {
            for (row, sum) in chunkRows.enumerated() {
                (tables.chunks[row].liveBuffers, tables.chunks[row].liveBytes) = (sum.buffers, sum.bytes)
            }
        }
        if parts.contains(.groups) { tables.allocationGroups = groups.map(Snapshot.AllocationGroup.init) }
    }

    private func storeTotals(to totals: inout Snapshot.Totals) {
        (totals.liveBuffers, totals.liveBytes, totals.requestedBytes) = (total.buffers, total.bytes, total.requested)
        guard parts.contains(.reach) else { return }
        (totals.unreachableBuffers, totals.unreachableBytes) = (self[.nobody].buffers, self[.nobody].bytes)
    }
}

extension Snapshot.AllocationGroup {
    init(_ group: SlotAggregate.Group) {
        (site, accessSite, ownerKind) = (group.key.site, group.key.accessSite, group.key.ownerKind)
        liveBuffers = group.live.buffers
        liveBytes = group.live.bytes
        requestedBytes = group.live.requested
        unreachableBuffers = group.unreachable.buffers
        unreachableBytes = group.unreachable.bytes
        oldestBirth = group.oldestBirth
        newestBirth = group.newestBirth
    }
}
