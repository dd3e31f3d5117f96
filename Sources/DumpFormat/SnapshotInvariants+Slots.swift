internal import Ledger

// Where slots, runs and edges are, and what they refer to.

extension SnapshotInvariants {
    static func references(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("sites, owners and arenas of slots exist")
        for row in 0..<slots.count {
            for site in [slots.site[row], slots.touchSite[row]] where Int(site) >= snapshot.sites.count {
                findings.add("slot row \(row) names site \(site) of \(snapshot.sites.count)")
            }
            let owner = Int(slots.owner[row])
            if owner >= snapshot.owners.count {
                findings.add("slot row \(row) names owner \(owner) of \(snapshot.owners.count)")
            } else if snapshot.owners[owner].kind == .free {
                findings.add("slot row \(row) names owner \(owner), whose record is unused")
            }
            if Int(slots.arena[row]) >= snapshot.arenas.count {
                findings.add("slot row \(row) names arena \(slots.arena[row]) of \(snapshot.arenas.count)")
            }
        }
        for (id, owner) in snapshot.owners.enumerated() where Int(owner.parent) >= snapshot.owners.count {
            findings.add("owner \(id) names parent \(owner.parent) of \(snapshot.owners.count)")
        }
        return findings.result("\(slots.count) slots")
    }

    static func slotSizes(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("requested <= capacity = size class")
        for row in 0..<slots.count {
            if slots.requested[row] > slots.capacity[row] {
                findings.add("slot row \(row): requested \(slots.requested[row]) of \(slots.capacity[row])")
            }
            let sizeClass = slots.sizeClass[row]
            if sizeClass == Snapshot.SlotColumns.hugeClass { continue }
            guard Int(sizeClass) < snapshot.sizeClasses.count else {
                findings.add("slot row \(row) names size class \(sizeClass) of \(snapshot.sizeClasses.count)")
                continue
            }
            findings.expect(
                "capacity of slot row \(row)", slots.capacity[row], snapshot.sizeClasses[Int(sizeClass)].bytes)
        }
        return findings.result("\(slots.count) slots")
    }

    static func overlaps(_ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("no two slots overlap")
        let isSorted = (1..<max(1, slots.count)).allSatisfy { slots.address[$0 - 1] <= slots.address[$0] }
        let rows =
            isSorted ? Array(0..<slots.count) : (0..<slots.count).sorted { slots.address[$0] < slots.address[$1] }
        for (first, second) in zip(rows, rows.dropFirst()) {
            let end = slots.address[first].addingClamped(slots.capacity[first])
            if end > slots.address[second] {
                findings.add(
                    "slot row \(first) ends at \(hex(end)), behind the start of row \(second) at "
                        + hex(slots.address[second]))
            }
        }
        return findings.result("\(slots.count) slots")
    }

    static func serials(_ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("serial numbers are unique")
        let sorted = slots.serial.sorted()
        for (first, second) in zip(sorted, sorted.dropFirst()) where first == second {
            findings.add("serial \(first) is there twice")
        }
        return findings.result("\(slots.count) slots")
    }

    static func births(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> VerifyCheck {
        var findings = Findings("births and touches are not in the future")
        let now = snapshot.header.monotonicTime
        for row in 0..<slots.count {
            if slots.birth[row] > now { findings.add("slot row \(row) was born at \(slots.birth[row]), after \(now)") }
            if slots.touchTime[row] > now {
                findings.add("slot row \(row) was touched at \(slots.touchTime[row]), after \(now)")
            }
        }
        return findings.result("\(slots.count) slots")
    }

    static func slotChunks(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("each slot lies in a chunk")
        for row in 0..<slots.count {
            let address = slots.address[row]
            guard let index = layout.chunkRow(address) else {
                findings.add("slot row \(row) at \(hex(address)): there is no chunk \(address >> layout.shift)")
                continue
            }
            let chunk = snapshot.chunks[index]
            let end = (address & (1 << layout.shift - 1)).addingClamped(slots.capacity[row])
            if end > chunk.bytes { findings.add("slot row \(row) ends at \(end) in chunk \(chunk.index)") }
            if chunk.kind == .cached { findings.add("slot row \(row) is in chunk \(chunk.index), which is cached") }
            let isHuge = slots.sizeClass[row] == Snapshot.SlotColumns.hugeClass
            if isHuge != (chunk.kind == .huge) {
                findings.add("slot row \(row) has size class \(slots.sizeClass[row]) in a chunk of kind \(chunk.kind)")
            }
        }
        return findings.result("\(slots.count) slots in \(snapshot.chunks.count) chunks")
    }

    static func hex(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }
}

extension SnapshotInvariants {
    static func runOverlaps(
        _ snapshot: Snapshot, _ runs: Snapshot.RunColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("runs lie in chunks and do not overlap")
        for run in 0..<runs.count {
            let first = Int(runs.firstPage[run])
            let end = first + Int(runs.pages[run])
            guard let row = layout.chunkRows[UInt64(runs.chunk[run])], snapshot.chunks[row].kind == .chunk,
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
        return findings.result("\(runs.count) runs")
    }

    static func slotRuns(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ runs: Snapshot.RunColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("each slot lies in a run of its size class")
        for row in 0..<slots.count where slots.sizeClass[row] != Snapshot.SlotColumns.hugeClass {
            let address = slots.address[row]
            guard let run = layout.run(address) else {
                findings.add("slot row \(row) at \(hex(address)) lies in no run")
                continue
            }
            // Its buffers are of any size.
            if runs.kind[run] == Snapshot.RunColumns.Kind.bump.rawValue { continue }
            findings.expect(
                "size class of slot row \(row) in run row \(run)", slots.sizeClass[row], runs.sizeClass[run])
            let offset = address & (1 << layout.shift - 1)
            let inRun = offset - min(offset, UInt64(runs.firstPage[run]) * layout.pageSize)
            let size = max(1, slots.capacity[row])
            if inRun % size != 0 || inRun / size >= UInt64(runs.elements[run]) {
                findings.add("slot row \(row) is \(inRun) bytes into run row \(run): not an element of it")
            }
        }
        return findings.result("\(slots.count) slots in \(runs.count) runs")
    }

    static func runCounts(
        _ slots: Snapshot.SlotColumns, _ runs: Snapshot.RunColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("live elements of runs = slots in them")
        var counts = [Int](repeating: 0, count: runs.count)
        for row in 0..<slots.count where slots.sizeClass[row] != Snapshot.SlotColumns.hugeClass {
            if let run = layout.run(slots.address[row]) { counts[run] += 1 }
        }
        for run in 0..<runs.count {
            findings.expect("live elements of run row \(run)", Int(runs.liveElements[run]), counts[run])
        }
        return findings.result("\(runs.count) runs")
    }

    static func freePages(
        _ snapshot: Snapshot, _ runs: Snapshot.RunColumns, _ layout: Layout
    ) -> VerifyCheck {
        var findings = Findings("free pages = pages no run covers")
        for (row, chunk) in snapshot.chunks.enumerated() where chunk.kind != .huge {
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
        return findings.result("\(snapshot.chunks.count) chunks")
    }
}

extension SnapshotInvariants {
    static func edgeTargets(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ edges: Snapshot.EdgeColumns
    ) -> VerifyCheck {
        var findings = Findings("edges lead from owners to live slots")
        for edge in 0..<edges.count {
            let row = Int(edges.slotRow[edge])
            if row >= slots.count {
                findings.add("edge row \(edge) points to slot row \(row) of \(slots.count)")
            } else if slots.state[row] == 2 {
                findings.add("edge row \(edge) points to slot row \(row), which is freed (state \(slots.state[row]))")
            }
            if Int(edges.holderOwner[edge]) >= snapshot.owners.count {
                findings.add("edge row \(edge) names owner \(edges.holderOwner[edge]) of \(snapshot.owners.count)")
            }
        }
        return findings.result("\(edges.count) edges")
    }

    static func unheld(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ edges: Snapshot.EdgeColumns
    ) -> VerifyCheck {
        var findings = Findings("unheld = live slots without an edge")
        var isHeld = [Bool](repeating: false, count: slots.count)
        for row in edges.slotRow where Int(row) < slots.count { isHeld[Int(row)] = true }
        var buffers: UInt64 = 0
        var bytes: UInt64 = 0
        for row in 0..<slots.count where !isHeld[row] && slots.state[row] == 1 {
            buffers += 1
            bytes &+= slots.capacity[row]
        }
        if let stored = snapshot.totals.unheldBuffers { findings.expect("unheldBuffers", stored, buffers) }
        if let stored = snapshot.totals.unheldBytes { findings.expect("unheldBytes", stored, bytes) }
        if snapshot.totals.unheldBuffers != nil {
            let inRetainers = snapshot.retainers.reduce(UInt64(0)) { $0 &+ $1.unheldBuffers }
            findings.expect("unheld buffers of all retainers", inRetainers, buffers)
            let retainerBytes = snapshot.retainers.reduce(UInt64(0)) { $0 &+ $1.unheldBytes }
            findings.expect("unheld bytes of all retainers", retainerBytes, bytes)
        }
        return findings.result("\(buffers) buffers, \(bytes) bytes")
    }
}
