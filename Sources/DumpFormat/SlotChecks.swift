internal import Ledger

/// The checks that look at every slot, all in one pass, block by block: a dump of any size needs the memory of what
/// must be compared across blocks, 33 bytes a slot. Edges come first, then the slots, in the order of their rows.
struct SlotChecks {
    private let snapshot: Snapshot
    private let layout: Layout
    private var sums: SlotSums
    private var references = Findings("sites, owners and arenas of slots exist")
    private var sizes = Findings("requested <= capacity = size class")
    private var births = Findings("births and touches are not in the future")
    private var places = Findings("each slot lies in a chunk")
    private var inRuns = Findings("each slot lies in a run of its size class")
    private var liveElements: [Int]
    private var serials: [UInt64] = []
    private var addresses: [UInt64] = []
    private var capacities: [UInt64] = []
    private var edges: EdgeChecks?
    private var rows = 0

    /// `snapshot` has the small tables and the runs.
    init(_ snapshot: Snapshot, slotCount: Int) {
        self.snapshot = snapshot
        layout = Layout(snapshot)
        sums = SlotSums(snapshot)
        liveElements = [Int](repeating: 0, count: snapshot.runs?.count ?? 0)
        serials.reserveCapacity(slotCount)
        addresses.reserveCapacity(slotCount)
        capacities.reserveCapacity(slotCount)
        for (id, owner) in snapshot.owners.enumerated() where Int(owner.parent) >= snapshot.owners.count {
            references.add("owner \(id) names parent \(owner.parent) of \(snapshot.owners.count)")
        }
    }

    mutating func add(_ block: Snapshot.EdgeColumns, slotCount: Int) {
        if edges == nil { edges = EdgeChecks(slotCount: slotCount) }
        edges?.add(block, owners: snapshot.owners.count)
    }

    mutating func add(_ slots: Snapshot.SlotColumns) {
        sums.add(slots, layout)
        serials.append(contentsOf: slots.serial)
        addresses.append(contentsOf: slots.address)
        capacities.append(contentsOf: slots.capacity)
        edges?.add(slots, firstRow: rows)
        checkReferences(slots)
        checkSizes(slots)
        checkTimes(slots)
        checkChunks(slots)
        if snapshot.runs != nil { checkRuns(slots) }
        rows += slots.count
    }

    consuming func results() -> [VerifyCheck] {
        let counted = "\(rows) slots"
        var checks = sums.results(snapshot)
        checks += [
            references.result(counted), sizes.result(counted), overlaps(), Self.unique(serials), births.result(counted),
        ]
        checks.append(places.result("\(rows) slots in \(snapshot.chunks.count) chunks"))
        if let runs = snapshot.runs {
            checks += [
                SnapshotInvariants.runOverlaps(snapshot, runs, layout),
                inRuns.result("\(rows) slots in \(runs.count) runs"),
                elements(runs), SnapshotInvariants.freePages(snapshot, runs, layout),
            ]
        }
        if let edges { checks += edges.results(snapshot) }
        return checks
    }

    // MARK: Row by row

    private mutating func checkReferences(_ slots: Snapshot.SlotColumns) {
        let (sites, owners, arenas) = (snapshot.sites.count, snapshot.owners, snapshot.arenas.count)
        for row in 0..<slots.count {
            if Int(slots.site[row]) >= sites || Int(slots.touchSite[row]) >= sites {
                for site in [slots.site[row], slots.touchSite[row]] where Int(site) >= sites {
                    references.add("slot row \(rows + row) names site \(site) of \(sites)")
                }
            }
            let owner = Int(slots.owner[row])
            if owner >= owners.count {
                references.add("slot row \(rows + row) names owner \(owner) of \(owners.count)")
            } else if owners[owner].kind == .free {
                references.add("slot row \(rows + row) names owner \(owner), whose record is unused")
            }
            if Int(slots.arena[row]) >= arenas {
                references.add("slot row \(rows + row) names arena \(slots.arena[row]) of \(arenas)")
            }
        }
    }

    private mutating func checkSizes(_ slots: Snapshot.SlotColumns) {
        let classes = snapshot.sizeClasses
        for row in 0..<slots.count {
            if slots.requested[row] > slots.capacity[row] {
                sizes.add("slot row \(rows + row): requested \(slots.requested[row]) of \(slots.capacity[row])")
            }
            let sizeClass = slots.sizeClass[row]
            if sizeClass == Snapshot.SlotColumns.hugeClass { continue }
            guard Int(sizeClass) < classes.count else {
                sizes.add("slot row \(rows + row) names size class \(sizeClass) of \(classes.count)")
                continue
            }
            sizes.expect("capacity of slot row \(rows + row)", slots.capacity[row], classes[Int(sizeClass)].bytes)
        }
    }

    private mutating func checkTimes(_ slots: Snapshot.SlotColumns) {
        let now = snapshot.header.monotonicTime
        for row in 0..<slots.count {
            if slots.birth[row] > now {
                births.add("slot row \(rows + row) was born at \(slots.birth[row]), after \(now)")
            }
            if slots.touchTime[row] > now {
                births.add("slot row \(rows + row) was touched at \(slots.touchTime[row]), after \(now)")
            }
        }
    }

    private mutating func checkChunks(_ slots: Snapshot.SlotColumns) {
        for row in 0..<slots.count {
            let address = slots.address[row]
            guard let index = layout.chunkRow(address) else {
                places.add(
                    "slot row \(rows + row) at \(Self.hex(address)): there is no chunk \(address >> layout.shift)")
                continue
            }
            let chunk = snapshot.chunks[index]
            let end = (address & (1 << layout.shift - 1)).addingClamped(slots.capacity[row])
            if end > chunk.bytes { places.add("slot row \(rows + row) ends at \(end) in chunk \(chunk.index)") }
            if chunk.kind == .cached {
                places.add("slot row \(rows + row) is in chunk \(chunk.index), which is cached")
            }
            let isHuge = slots.sizeClass[row] == Snapshot.SlotColumns.hugeClass
            if isHuge != (chunk.kind == .huge) {
                places.add(
                    "slot row \(rows + row) has size class \(slots.sizeClass[row]) in a chunk of kind \(chunk.kind)")
            }
        }
    }

    private mutating func checkRuns(_ slots: Snapshot.SlotColumns) {
        guard let runs = snapshot.runs else { return }
        for row in 0..<slots.count where slots.sizeClass[row] != Snapshot.SlotColumns.hugeClass {
            let address = slots.address[row]
            guard let run = layout.run(address) else {
                inRuns.add("slot row \(rows + row) at \(Self.hex(address)) lies in no run")
                continue
            }
            liveElements[run] += 1
            // Its buffers are of any size.
            if runs.kind[run] == Snapshot.RunColumns.Kind.bump.rawValue { continue }
            inRuns.expect(
                "size class of slot row \(rows + row) in run row \(run)", slots.sizeClass[row], runs.sizeClass[run])
            let offset = address & (1 << layout.shift - 1)
            let inRun = offset - min(offset, UInt64(runs.firstPage[run]) * layout.pageSize)
            let size = max(1, slots.capacity[row])
            if inRun % size != 0 || inRun / size >= UInt64(runs.elements[run]) {
                inRuns.add("slot row \(rows + row) is \(inRun) bytes into run row \(run): not an element of it")
            }
        }
    }

    // MARK: Across rows

    private func elements(_ runs: Snapshot.RunColumns) -> VerifyCheck {
        var findings = Findings("live elements of runs = slots in them")
        for run in 0..<runs.count {
            findings.expect("live elements of run row \(run)", Int(runs.liveElements[run]), liveElements[run])
        }
        return findings.result("\(runs.count) runs")
    }

    private func overlaps() -> VerifyCheck {
        var findings = Findings("no two slots overlap")
        func compare(_ first: Int, _ second: Int) {
            let end = addresses[first].addingClamped(capacities[first])
            if end > addresses[second] {
                findings.add(
                    "slot row \(first) ends at \(Self.hex(end)), behind the start of row \(second) at "
                        + Self.hex(addresses[second]))
            }
        }
        if addresses.indices.dropFirst().allSatisfy({ addresses[$0 - 1] <= addresses[$0] }) {
            for row in addresses.indices.dropFirst() { compare(row - 1, row) }
        } else {
            let order = addresses.indices.map { UInt32(truncatingIfNeeded: $0) }
                .sorted { addresses[Int($0)] < addresses[Int($1)] }
            for place in order.indices.dropFirst() { compare(Int(order[place - 1]), Int(order[place])) }
        }
        return findings.result("\(rows) slots")
    }

    private static func unique(_ serials: [UInt64]) -> VerifyCheck {
        var findings = Findings("serial numbers are unique")
        var sorted = serials
        RadixSort.sort(&sorted)
        for place in sorted.indices.dropFirst() where sorted[place - 1] == sorted[place] {
            findings.add("serial \(sorted[place]) is there twice")
        }
        return findings.result("\(serials.count) slots")
    }

    static func hex(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }
}

/// What edges say of slots, and which slots none speaks of.
struct EdgeChecks {
    private var targets = Findings("edges lead from owners to live slots")
    private var isHeld: [Bool]
    private var count = 0
    private var unheld = Sums()

    init(slotCount: Int) { isHeld = [Bool](repeating: false, count: slotCount) }

    mutating func add(_ edges: Snapshot.EdgeColumns, owners: Int) {
        for edge in 0..<edges.count {
            let row = Int(edges.slotRow[edge])
            if row < isHeld.count {
                isHeld[row] = true
            } else {
                targets.add("edge row \(count + edge) points to slot row \(row) of \(isHeld.count)")
            }
            if Int(edges.holderOwner[edge]) >= owners {
                targets.add("edge row \(count + edge) names owner \(edges.holderOwner[edge]) of \(owners)")
            }
        }
        count += edges.count
    }

    mutating func add(_ slots: Snapshot.SlotColumns, firstRow: Int) {
        for row in 0..<slots.count {
            let held = isHeld[firstRow + row]
            if held, slots.state[row] == 2 {
                targets.add("an edge points to slot row \(firstRow + row), which is freed (state 2)")
            } else if !held, slots.state[row] == 1 {
                unheld.add(slots, row)
            }
        }
    }

    func results(_ snapshot: Snapshot) -> [VerifyCheck] {
        var findings = Findings("unheld = live slots without an edge")
        if let stored = snapshot.totals.unheldBuffers { findings.expect("unheldBuffers", stored, unheld.buffers) }
        if let stored = snapshot.totals.unheldBytes { findings.expect("unheldBytes", stored, unheld.bytes) }
        if snapshot.totals.unheldBuffers != nil {
            let inRetainers = snapshot.retainers.reduce(UInt64(0)) { $0 &+ $1.unheldBuffers }
            findings.expect("unheld buffers of all retainers", inRetainers, unheld.buffers)
            let retainerBytes = snapshot.retainers.reduce(UInt64(0)) { $0 &+ $1.unheldBytes }
            findings.expect("unheld bytes of all retainers", retainerBytes, unheld.bytes)
        }
        return [targets.result("\(count) edges"), findings.result("\(unheld.buffers) buffers, \(unheld.bytes) bytes")]
    }
}

/// Least-significant-digit radix sort: linear, and only over the digits in which the numbers differ.
enum RadixSort {
    static func sort(_ numbers: inout [UInt64]) {
        guard let first = numbers.first else { return }
        let digitBits: UInt64 = 11
        let mask: UInt64 = 1 << digitBits - 1
        let varying = numbers.reduce(0) { $0 | ($1 ^ first) }
        var scratch = numbers
        var shift: UInt64 = 0
        while shift < 64 {
            defer { shift += digitBits }
            guard varying >> shift & mask != 0 else { continue }
            var starts = [Int](repeating: 0, count: Int(mask) + 2)
            for number in numbers { starts[Int(number >> shift & mask) + 1] += 1 }
            for digit in 1..<starts.count { starts[digit] += starts[digit - 1] }
            for number in numbers {
                let digit = Int(number >> shift & mask)
                scratch[starts[digit]] = number
                starts[digit] += 1
            }
            swap(&numbers, &scratch)
        }
    }
}
