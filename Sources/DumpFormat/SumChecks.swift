/// Compares what the tables of a file say of live slots with what its slots add up to.
struct SumChecks {
    let tables: Snapshot
    let sums: SlotAggregate

    var results: [VerifyCheck] { [totals, chunks, sites, owners, arenas, groups] }

    private var totals: VerifyCheck {
        var findings = Findings("totals = sums over slots")
        findings.expect("live", tables.totals.live, sums.total)
        return findings.result("\(sums.total)")
    }

    private var chunks: VerifyCheck {
        var findings = Findings("chunks = sums over slots")
        for (chunk, sum) in zip(tables.chunks, sums.chunkRows) {
            findings.expect("live buffers of chunk \(chunk.index)", chunk.liveBuffers, sum.buffers)
            findings.expect("live bytes of chunk \(chunk.index)", chunk.liveBytes, sum.bytes)
            if chunk.liveBytes > chunk.bytes {
                findings.add("chunk \(chunk.index) has \(chunk.liveBytes) live bytes of \(chunk.bytes)")
            }
        }
        return findings.result(counted(tables.chunks.count, "chunk"))
    }

    private var sites: VerifyCheck {
        var findings = Findings("sites = sums over slots")
        for (id, (site, sum)) in zip(tables.sites, sums.sites).enumerated() {
            findings.expect("site \(id) (\(site.label))", site.live, sum)
        }
        return findings.result(counted(tables.sites.count, "site"))
    }

    private var owners: VerifyCheck {
        var findings = Findings("owners = sums over slots")
        for (id, (owner, sum)) in zip(tables.owners, sums.owners).enumerated() {
            findings.expect("live buffers of owner \(id) (\(owner.name))", owner.liveBuffers, sum.buffers)
            findings.expect("live bytes of owner \(id) (\(owner.name))", owner.liveBytes, sum.bytes)
        }
        return findings.result(counted(tables.owners.count, "owner"))
    }

    private var arenas: VerifyCheck {
        var findings = Findings("arenas = sums over slots")
        var chunkCounts = [UInt64](repeating: 0, count: tables.arenas.count)
        for chunk in tables.chunks where chunk.kind == .chunk && Int(chunk.arena) < chunkCounts.count {
            chunkCounts[Int(chunk.arena)] += 1
        }
        for (id, (arena, sum)) in zip(tables.arenas, sums.arenas).enumerated() {
            findings.expect("arena \(id) (\(arena.name))", arena.live, sum)
            findings.expect("chunks of arena \(id)", arena.chunkCount, chunkCounts[id])
        }
        return findings.result(counted(tables.arenas.count, "arena"))
    }

    private var groups: VerifyCheck {
        var findings = Findings("allocation groups = sums over slots")
        matchGroups { allocationGroup, group in
            switch (allocationGroup, group) {
            case (let allocationGroup?, let group?):
                findings.expect("\(allocationGroup.key)", allocationGroup.live, group.live)
                findings.expect(
                    "oldest birth of \(allocationGroup.key)", allocationGroup.oldestBirth, group.oldestBirth)
                findings.expect(
                    "newest birth of \(allocationGroup.key)", allocationGroup.newestBirth, group.newestBirth)
            case (let allocationGroup?, nil): findings.add("\(allocationGroup.key) has no slots")
            case (nil, let group?): findings.add("\(group.key) is not in the table and has \(group.live)")
            case (nil, nil): break
            }
        }
        return findings.result(counted(tables.allocationGroups.count, "allocation group"))
    }

    /// In all, and by group; where nobody was asked there is nothing to compare.
    var unreachable: VerifyCheck? {
        guard sums.parts.contains(.reach) else { return nil }
        let sum = sums[.nobody]
        var findings = Findings("unreachable = live slots without a reference")
        if let stored = tables.totals.unreachableBuffers { findings.expect("unreachableBuffers", stored, sum.buffers) }
        if let stored = tables.totals.unreachableBytes { findings.expect("unreachableBytes", stored, sum.bytes) }
        if tables.totals.unreachableBuffers != nil {
            matchGroups { allocationGroup, group in
                guard let allocationGroup else { return }
                let sum = group?.unreachable ?? SlotAggregate.Sum()
                findings.expect(
                    "unreachable buffers of \(allocationGroup.key)", allocationGroup.unreachableBuffers, sum.buffers)
                findings.expect(
                    "unreachable bytes of \(allocationGroup.key)", allocationGroup.unreachableBytes, sum.bytes)
            }
        }
        return findings.result(counted(sum.buffers, "buffer") + ", " + counted(sum.bytes, "byte"))
    }

    /// Calls `body` with each row of the table and the group that it is about, in the order of the table, then with the groups
    /// that no row is about. A row that is there twice has no group the second time.
    private func matchGroups(_ body: (Snapshot.AllocationGroup?, SlotAggregate.Group?) -> Void) {
        var left = Dictionary(uniqueKeysWithValues: sums.groups.enumerated().map { ($1.key, $0) })
        for allocationGroup in tables.allocationGroups {
            body(allocationGroup, left.removeValue(forKey: allocationGroup.key).map { sums.groups[$0] })
        }
        for place in left.values.sorted() { body(nil, sums.groups[place]) }
    }
}

extension Snapshot.AllocationGroup {
    fileprivate var key: SlotAggregate.GroupKey {
        SlotAggregate.GroupKey(site: site, accessSite: accessSite, ownerKind: ownerKind)
    }

    fileprivate var live: SlotAggregate.Sum {
        SlotAggregate.Sum(buffers: liveBuffers, bytes: liveBytes, requested: requestedBytes)
    }
}

extension Snapshot.Totals {
    fileprivate var live: SlotAggregate.Sum {
        SlotAggregate.Sum(buffers: liveBuffers, bytes: liveBytes, requested: requestedBytes)
    }
}

extension Snapshot.Site {
    fileprivate var live: SlotAggregate.Sum {
        SlotAggregate.Sum(buffers: liveBuffers, bytes: liveBytes, requested: requestedBytes)
    }
}

extension Snapshot.ArenaTotals {
    fileprivate var live: SlotAggregate.Sum {
        SlotAggregate.Sum(buffers: liveBuffers, bytes: liveBytes, requested: requestedBytes)
    }
}
