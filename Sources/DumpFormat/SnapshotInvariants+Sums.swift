internal import Ledger

// Totals, and tables whose rows are sums over slots.

extension SnapshotInvariants {
    static func counter(_ snapshot: Snapshot) -> VerifyCheck {
        let totals = snapshot.totals
        let sum =
            totals.chunkBytes &+ totals.hugeBytes &+ totals.ledgerBytes &+ totals.stagingBytes &+ totals.unpooledBytes
        let unpooled = totals.unpooledBytes > 0 ? " + unpooled" : ""
        var findings = Findings("counter = chunks + huge + ledger + staging\(unpooled)")
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
            let sum = snapshot.chunks.filter { $0.kind != .huge }.reduce(UInt64(0)) { $0 &+ $1.bytes }
            findings.expect("chunkBytes", totals.chunkBytes, sum)
        }
        return findings.result("\(totals.chunkCount) x \(totals.chunkSize) bytes")
    }

    /// Foreign allocators may have chunks of several sizes; ours never.
    static func hasEqualChunks(_ snapshot: Snapshot) -> Bool {
        snapshot.header.format == .arenaDump
            || snapshot.chunks.allSatisfy { $0.kind == .huge || $0.bytes == snapshot.totals.chunkSize }
    }

    static func liveAndFree(_ snapshot: Snapshot) -> VerifyCheck {
        let totals = snapshot.totals
        var findings = Findings("live + free = chunks + huge")
        findings.expect("live + free", totals.liveBytes &+ totals.freeBytes, totals.chunkBytes &+ totals.hugeBytes)
        return findings.result("\(totals.liveBytes) + \(totals.freeBytes) bytes")
    }

    static func chunkTable(_ snapshot: Snapshot) -> VerifyCheck {
        var findings = Findings("totals = table of chunks")
        let huge = snapshot.chunks.filter { $0.kind == .huge }
        findings.expect("chunkCount", snapshot.totals.chunkCount, UInt64(snapshot.chunks.count - huge.count))
        findings.expect("hugeCount", snapshot.totals.hugeCount, UInt64(huge.count))
        findings.expect("hugeBytes", snapshot.totals.hugeBytes, huge.reduce(0) { $0 &+ $1.bytes })
        let isEqual = hasEqualChunks(snapshot)
        for chunk in snapshot.chunks where chunk.kind != .huge && isEqual {
            findings.expect("bytes of chunk \(chunk.index)", chunk.bytes, snapshot.totals.chunkSize)
        }
        var seen: Set<UInt32> = []
        for chunk in snapshot.chunks where !seen.insert(chunk.index).inserted {
            findings.add("chunk \(chunk.index) is there twice")
        }
        return findings.result("\(snapshot.chunks.count) chunks")
    }

    static func totalSums(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("totals = sums over slots")
        var sums = Sums()
        for row in 0..<slots.count { sums.add(slots, row) }
        let totals = snapshot.totals
        findings.expect(
            "live", Sums(buffers: totals.liveBuffers, bytes: totals.liveBytes, requested: totals.requestedBytes), sums)
        return findings.result("\(sums)")
    }
}

extension SnapshotInvariants {
    /// Adds slots up by the number that `key` gives for each.
    static func sums(
        _ slots: Snapshot.SlotColumns, count: Int, by key: (Int) -> Int?
    ) -> [Sums] {
        var sums = [Sums](repeating: Sums(), count: count)
        for row in 0..<slots.count {
            if let index = key(row), index < count { sums[index].add(slots, row) }
        }
        return sums
    }

    static func chunkSums(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("chunks = sums over slots")
        let sums = sums(slots, count: snapshot.chunks.count) { layout.chunkRow(slots.address[$0]) }
        for (chunk, sum) in zip(snapshot.chunks, sums) {
            findings.expect("live buffers of chunk \(chunk.index)", chunk.liveBuffers, sum.buffers)
            findings.expect("live bytes of chunk \(chunk.index)", chunk.liveBytes, sum.bytes)
            if chunk.liveBytes > chunk.bytes {
                findings.add("chunk \(chunk.index) has \(chunk.liveBytes) live bytes of \(chunk.bytes)")
            }
        }
        return findings.result("\(sums.count) chunks")
    }

    static func siteSums(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("sites = sums over slots")
        let sums = sums(slots, count: snapshot.sites.count) { Int(slots.site[$0]) }
        for (id, (site, sum)) in zip(snapshot.sites, sums).enumerated() {
            let stored = Sums(buffers: site.liveBuffers, bytes: site.liveBytes, requested: site.requestedBytes)
            findings.expect("site \(id) (\(site.label))", stored, sum)
        }
        return findings.result("\(sums.count) sites")
    }

    static func ownerSums(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("owners = sums over slots")
        let sums = sums(slots, count: snapshot.owners.count) { Int(slots.owner[$0]) }
        for (id, (owner, sum)) in zip(snapshot.owners, sums).enumerated() {
            findings.expect("live buffers of owner \(id) (\(owner.name))", owner.liveBuffers, sum.buffers)
            findings.expect("live bytes of owner \(id) (\(owner.name))", owner.liveBytes, sum.bytes)
        }
        return findings.result("\(sums.count) owners")
    }

    static func arenaSums(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("arenas = sums over slots")
        let sums = sums(slots, count: snapshot.arenas.count) { Int(slots.arena[$0]) }
        for (id, (arena, sum)) in zip(snapshot.arenas, sums).enumerated() {
            let stored = Sums(buffers: arena.liveBuffers, bytes: arena.liveBytes, requested: arena.requestedBytes)
            findings.expect("arena \(id) (\(arena.name))", stored, sum)
            let chunks = snapshot.chunks.count { $0.kind == .chunk && Int($0.arena) == id }
            findings.expect("chunks of arena \(id)", arena.chunkCount, UInt64(chunks))
        }
        return findings.result("\(sums.count) arenas")
    }

    private struct RetainerKey: Hashable, CustomStringConvertible {
        let site: UInt32
        let touchSite: UInt32
        let ownerKind: OwnerKind

        var description: String { "retainer (site \(site), touched by \(touchSite), \(ownerKind.name))" }
    }

    static func retainerSums(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("retainers = sums over slots")
        var expected: [RetainerKey: (sum: Sums, births: ClosedRange<UInt64>)] = [:]
        for row in 0..<slots.count {
            guard Int(slots.owner[row]) < snapshot.owners.count else { continue }
            let kind = snapshot.owners[Int(slots.owner[row])].kind
            let key = RetainerKey(site: slots.site[row], touchSite: slots.touchSite[row], ownerKind: kind)
            let birth = slots.birth[row]
            var entry = expected[key] ?? (Sums(), birth...birth)
            entry.sum.add(slots, row)
            entry.births = min(entry.births.lowerBound, birth)...max(entry.births.upperBound, birth)
            expected[key] = entry
        }
        for retainer in snapshot.retainers {
            let key = RetainerKey(site: retainer.site, touchSite: retainer.touchSite, ownerKind: retainer.ownerKind)
            guard let found = expected.removeValue(forKey: key) else {
                findings.add("\(key) has no slots")
                continue
            }
            let stored = Sums(
                buffers: retainer.liveBuffers, bytes: retainer.liveBytes, requested: retainer.requestedBytes)
            findings.expect("\(key)", stored, found.sum)
            findings.expect("oldest birth of \(key)", retainer.oldestBirth, found.births.lowerBound)
            findings.expect("newest birth of \(key)", retainer.newestBirth, found.births.upperBound)
        }
        for (key, found) in expected { findings.add("\(key) is not in the table and has \(found.sum)") }
        return findings.result("\(snapshot.retainers.count) retainers")
    }
}
