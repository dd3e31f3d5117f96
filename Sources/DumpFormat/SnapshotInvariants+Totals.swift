internal import Ledger

// Totals, and the table of chunks.

extension SnapshotInvariants {
    static func counter(_ snapshot: Snapshot) -> VerifyCheck {
        let totals = snapshot.totals
        let sum =
            totals.chunkBytes &+ totals.hugeBytes &+ totals.ledgerBytes &+ totals.snapshotBufferBytes
            &+ totals.unpooledBytes
        let unpooled = totals.unpooledBytes > 0 ? " + unpooled" : ""
        var findings = Findings("counter = chunks + huge + ledger + snapshot buffer\(unpooled)")
        findings.expect("the counter", totals.counterBytes, sum)
        if totals.peakCounterBytes < totals.counterBytes {
            findings.add("the peak \(totals.peakCounterBytes) is below the counter \(totals.counterBytes)")
        }
        return findings.result("\(totals.counterBytes) bytes")
    }

    static func chunkBytes(_ snapshot: Snapshot) -> VerifyCheck {
        let totals = snapshot.totals
        var findings = Findings("chunk bytes = chunks x chunk size")
        if hasEqualChunks(snapshot) {
            findings.expect("chunkBytes", totals.chunkBytes, totals.chunkCount &* totals.chunkSize)
        } else {
            let sum = snapshot.chunks.filter { !$0.isMapping }.reduce(UInt64(0)) { $0 &+ $1.bytes }
            findings.expect("chunkBytes", totals.chunkBytes, sum)
        }
        return findings.result("\(totals.chunkCount) x \(totals.chunkSize) bytes")
    }

    /// Foreign allocators may have chunks of several sizes; ours never.
    static func hasEqualChunks(_ snapshot: Snapshot) -> Bool {
        snapshot.header.format == .arenaDump
            || snapshot.chunks.allSatisfy { $0.isMapping || $0.bytes == snapshot.totals.chunkSize }
    }

    static func liveAndFree(_ snapshot: Snapshot) -> VerifyCheck {
        let totals = snapshot.totals
        let unpooled = snapshot.unpooledInRows
        var findings = Findings("live + free = chunks + huge" + (unpooled > 0 ? " + unpooled rows" : ""))
        findings.expect(
            "live + free", totals.liveBytes &+ totals.freeBytes, totals.chunkBytes &+ totals.hugeBytes &+ unpooled)
        return findings.result("\(totals.liveBytes) + \(totals.freeBytes) bytes")
    }

    static func unpooledRows(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("unpooled rows <= unpooled")
        if snapshot.unpooledInRows > snapshot.totals.unpooledBytes {
            findings.add("\(snapshot.unpooledInRows) bytes in rows, \(snapshot.totals.unpooledBytes) in all")
        }
        return findings.result("\(snapshot.unpooledInRows) bytes")
    }

    static func chunkTable(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("totals = table of chunks")
        let huge = snapshot.chunks.filter { $0.kind == .huge }
        findings.expect("chunkCount", snapshot.totals.chunkCount, UInt64(snapshot.chunks.count { !$0.isMapping }))
        findings.expect("hugeCount", snapshot.totals.hugeCount, UInt64(huge.count))
        findings.expect("hugeBytes", snapshot.totals.hugeBytes, huge.reduce(0) { $0 &+ $1.bytes })
        let isEqual = hasEqualChunks(snapshot)
        for chunk in snapshot.chunks where !chunk.isMapping && isEqual {
            findings.expect("bytes of chunk \(chunk.index)", chunk.bytes, snapshot.totals.chunkSize)
        }
        var seen: Set<UInt32> = []
        for chunk in snapshot.chunks where !seen.insert(chunk.index).inserted {
            findings.add("chunk \(chunk.index) is there twice")
        }
        return findings.result(counted(snapshot.chunks.count, "chunk"))
    }
}
