import DumpFormat

/// Consecutive free pages in chunks: what a request that needs a run can be served from.
struct FreeRuns {
    /// By length in pages, how many; the index is the length.
    private(set) var counts: [UInt64]
    /// By chunk row: whether it holds an arena's reserve.
    private(set) var holdsReserve: [Bool]
    /// By class: elements that are free in part-used slabs.
    private(set) var freeElements: [UInt64]
    private(set) var largest = 0
    private(set) var largestChunk: Int?
    let pagesPerChunk: Int

    init(_ snapshot: Snapshot) {
        pagesPerChunk = Int(min(snapshot.totals.chunkSize / max(1, snapshot.totals.pageSize), 1 << 16))
        counts = Array(repeating: 0, count: pagesPerChunk + 1)
        holdsReserve = Array(repeating: false, count: snapshot.chunks.count)
        freeElements = Array(repeating: 0, count: snapshot.sizeClasses.count)
        guard let runs = snapshot.runs else { return }
        let numbers = ChunkNumbers(snapshot)
        var used = [[(first: Int, end: Int)]](repeating: [], count: snapshot.chunks.count)
        for run in 0..<runs.count {
            guard let chunk = numbers.row(of: UInt64(runs.chunk[run])) else { continue }
            used[chunk].append((Int(runs.firstPage[run]), Int(runs.firstPage[run]) + Int(runs.pages[run])))
            if runs.kind[run] == Snapshot.RunColumns.Kind.reserve.rawValue { holdsReserve[chunk] = true }
            let sizeClass = Int(runs.sizeClass[run])
            if runs.kind[run] == Snapshot.RunColumns.Kind.slab.rawValue, sizeClass < freeElements.count {
                freeElements[sizeClass] &+= UInt64(runs.elements[run]).less(UInt64(runs.liveElements[run]))
            }
        }
        for (index, chunk) in snapshot.chunks.enumerated() where chunk.kind == .chunk {
            var next = 0
            for run in used[index].sorted(by: { $0.first < $1.first }) {
                count(next, run.first, index)
                next = max(next, run.end)
            }
            let pages = Int(clamping: chunk.bytes / max(1, snapshot.totals.pageSize))
            count(next, min(pages, pagesPerChunk), index)
        }
    }

    private mutating func count(_ first: Int, _ end: Int, _ chunk: Int) {
        let pages = end - first
        guard pages > 0, pages < counts.count else { return }
        counts[pages] += 1
        if pages > largest { (largest, largestChunk) = (pages, chunk) }
    }

    /// Runs by length, doubling: the lower end in pages, how many, and their pages together.
    var byLength: [(from: Int, count: UInt64, pages: UInt64)] {
        var result: [(from: Int, count: UInt64, pages: UInt64)] = []
        var from = 1
        while from <= pagesPerChunk {
            let range = from..<min(2 * from, pagesPerChunk + 1)
            let runs = range.reduce(0) { $0 + counts[$1] }
            if runs > 0 { result.append((from, runs, range.reduce(0) { $0 + counts[$1] * UInt64($1) })) }
            from *= 2
        }
        return result
    }
}
