import Analysis
import ArgumentParser
import DumpFormat
import NettyHeap

extension DumpPath {
    /// The small tables, or under a filter what they would be if only those buffers lived.
    static func readNarrowed(
        _ path: String, _ filter: Filter?, _ selection: DumpSelection = .tables, referrers: Bool = true,
        memory: NettyMemory = .direct
    ) throws -> Snapshot {
        guard let filter else { return try read(path, selection, referrers: referrers, memory: memory) }
        if let narrowed = try readNarrowedInTwo(path, filter, selection, memory) { return narrowed }
        let wanted = Snapshot.narrowingSelection(filter).union(selection)
        let whole = try read(path, wanted, memory: memory)
        return try Report.required(whole.narrowed(to: filter), from: path, whole)
    }

    /// The columns that the filter asks about are read first, and gone before those that are counted come: half of the
    /// memory. Nil where the file is not whole, since each reading could leave out other rows.
    private static func readNarrowedInTwo(
        _ path: String, _ filter: Filter, _ selection: DumpSelection, _ memory: NettyMemory
    ) throws -> Snapshot? {
        func narrowing() throws -> Snapshot.Narrowing? {
            let snapshot = try read(path, Snapshot.Narrowing.selection(filter), memory: memory)
            return snapshot.completeness.isComplete ? Snapshot.Narrowing(filter, snapshot) : nil
        }
        guard let narrowing = try narrowing() else { return nil }
        let snapshot = try read(path, Snapshot.Narrowing.countedSelection.union(selection), memory: memory)
        return snapshot.completeness.isComplete ? snapshot.narrowed(by: narrowing) : nil
    }

    /// What a comparison reads, under a filter only of the buffers that match.
    static func readReduced(_ path: String, _ filter: Filter?) throws -> Snapshot {
        let snapshot = try read(path, Difference.selection(filter))
        guard let filter else { return snapshot }
        return try Report.required(snapshot.reduced(to: filter), from: path, snapshot)
    }
}
