internal import Ledger

// What runs and chunks must obey; the slots in them are SlotChecks' business.

extension SnapshotInvariants {
    static func runOverlaps(
        _ snapshot: Snapshot, _ runs: Snapshot.RunColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("runs lie in chunks and do not overlap")
        if let refusal = layout.refusal { return findings.unchecked(refusal) }
        for run in 0..<runs.count {
            let first = Int(runs.firstPage[run])
            let end = first + Int(runs.pages[run])
            guard let row = layout.chunkRow(number: runs.chunk[run]), snapshot.chunks[row].kind == .chunk,
                end <= layout.pagesPerChunk
            else {
                findings.add("run row \(run): pages \(first)..<\(end) of chunk \(runs.chunk[run]) do not exist")
                continue
            }
            // Where runs overlap, the page map has kept the later one.
            for page in first..<end where layout.pages[row][page] != UInt32(run + 1) {
                findings.add(
                    "run rows \(run) and \(layout.pages[row][page] - 1) share page \(page) of chunk \(runs.chunk[run])")
                break
            }
        }
        return findings.result(counted(runs.count, "run"))
    }

    static func freePages(
        _ snapshot: Snapshot, _ runs: Snapshot.RunColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("free pages = pages no run covers")
        if let refusal = layout.refusal { return findings.unchecked(refusal) }
        for (row, chunk) in snapshot.chunks.enumerated() where !chunk.isMapping {
            var free = 0
            var current = 0
            var largest = 0
            let count = min(layout.pagesPerChunk, Int(clamping: chunk.bytes / layout.pageSize))
            let pages = layout.pages[row].prefix(count)
            if pages.count < count {
                (free, largest) = (count, count)
            } else {
                for page in pages {
                    current = page == 0 ? current + 1 : 0
                    free += page == 0 ? 1 : 0
                    largest = max(largest, current)
                }
            }
            findings.expect("free pages of chunk \(chunk.index)", Int(chunk.freePages), free)
            findings.expect("largest free run of chunk \(chunk.index)", Int(chunk.largestFreeRunPages), largest)
        }
        return findings.result(counted(snapshot.chunks.count, "chunk"))
    }
}
