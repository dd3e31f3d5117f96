internal import Ledger

/// The checks that look at every slot, all in one pass, block by block: a dump of any size needs the memory of what must be
/// compared across blocks, the set of serials and two bytes for each slot. References come first, then the slots, in the order
/// of their rows. Each thread checks blocks that follow each other, and the second's findings are added to the first's.
struct SlotChecks {
    private let snapshot: Snapshot
    private let layout: Layout
    private var sums: SlotAggregate
    private var targets = Findings("sites, owners and arenas of slots exist")
    private var sizes = Findings("requested <= capacity = size class")
    private var births = Findings("births and accesses are not in the future")
    private var places = Findings("each slot lies in a chunk")
    private var inRuns = Findings("each slot lies in a run of its size class")
    private var liveElements: [Int]
    /// Shared by the threads; what was there already is found by whichever comes second. Nil where there is no memory for it.
    private let serials: SerialSet?
    /// Why there is none.
    private let noSerials: String?
    private var twice: [UInt64] = []
    /// Beside those in `twice`.
    private var moreTwice = 0
    /// Of a million, which may be all that a file has, nobody reads more than the first.
    private static let mostTwice = 1 << 20
    private var addresses = AddressOrder()
    private var references: ReferenceChecks?
    /// The row that comes next.
    private var rows: Int
    private var count = 0

    /// `snapshot` has the small tables and the runs; `references` have been through all references.
    init(
        _ snapshot: Snapshot, _ layout: Layout, _ serials: Result<SerialSet, DumpError>,
        references: ReferenceChecks? = nil, firstRow: Int = 0
    ) {
        self.snapshot = snapshot
        self.layout = layout
        switch serials {
        case .success(let set):
            self.serials = set
            noSerials = nil
        case .failure(let error):
            self.serials = nil
            noSerials = error.message
        }
        self.references = references
        rows = firstRow
        sums = SlotAggregate(snapshot, references == nil ? .tables : [.tables, .reach])
        liveElements = [Int](repeating: 0, count: snapshot.runs?.count ?? 0)
        for (id, owner) in snapshot.owners.enumerated()
        where firstRow == 0 && Int(owner.parent) >= snapshot.owners.count {
            targets.add("owner \(id) names parent \(owner.parent) of \(snapshot.owners.count)")
        }
    }

    mutating func add(_ slots: Snapshot.SlotColumns) {
        sums.add(slots, reach: references?.add(slots, firstRow: rows))
        checkSerials(slots)
        addresses.add(slots, firstRow: rows)
        checkReferences(slots)
        checkSizes(slots)
        checkTimes(slots)
        checkChunks(slots)
        if snapshot.runs != nil, layout.refusal == nil { checkRuns(slots) }
        rows += slots.count
        count += slots.count
    }

    /// Adds the findings of the rows that follow.
    mutating func add(_ later: SlotChecks) {
        sums.add(later.sums)
        targets.add(later.targets)
        sizes.add(later.sizes)
        births.add(later.births)
        places.add(later.places)
        inRuns.add(later.inRuns)
        for run in liveElements.indices { liveElements[run] += later.liveElements[run] }
        let twiceTold = later.twice.prefix(Self.mostTwice - twice.count)
        twice += twiceTold
        moreTwice += later.moreTwice + later.twice.count - twiceTold.count
        addresses.add(later.addresses)
        if let more = later.references { references?.add(slotsOf: more) }
        rows = later.rows
        count += later.count
    }

    /// `unordered` gives addresses and capacities of all rows, which are asked for only where rows are not in the order of
    /// their addresses.
    func results<Failure: Error>(
        _ unordered: () throws(Failure) -> (addresses: [UInt64], capacities: [UInt64])
    ) throws(Failure) -> [VerifyCheck] {
        let overlaps = addresses.isInOrder ? addresses.findings : AddressOrder.overlaps(try unordered())
        let all = counted(count, "slot")
        let sums = SumChecks(tables: snapshot, sums: sums)
        var checks = sums.results
        checks += [
            targets.result(all), sizes.result(all), overlaps.result(all), unique(all),
            births.result(all),
        ]
        checks.append(places.result(all + " in " + counted(snapshot.chunks.count, "chunk")))
        if let runs = snapshot.runs {
            checks += [
                SnapshotInvariants.runOverlaps(snapshot, runs, layout),
                layout.refusal.map(inRuns.unchecked) ?? inRuns.result(all + " in " + counted(runs.count, "run")),
                elements(runs), SnapshotInvariants.freePages(snapshot, runs, layout),
            ]
        }
        if let references { checks.append(references.result) }
        if let unreachable = sums.unreachable { checks.append(unreachable) }
        return checks
    }

    // MARK: Row by row

    private mutating func checkReferences(_ slots: Snapshot.SlotColumns) {
        let (sites, owners, arenas) = (snapshot.sites.count, snapshot.owners, snapshot.arenas.count)
        for row in 0..<slots.count {
            if Int(slots.site[row]) >= sites || Int(slots.accessSite[row]) >= sites {
                for site in [slots.site[row], slots.accessSite[row]] where Int(site) >= sites {
                    targets.add("slot row \(rows + row) names site \(site) of \(sites)")
                }
            }
            let owner = Int(slots.owner[row])
            if owner >= owners.count {
                targets.add("slot row \(rows + row) names owner \(owner) of \(owners.count)")
            } else if owners[owner].kind == .free {
                targets.add("slot row \(rows + row) names owner \(owner), whose record is unused")
            }
            if Int(slots.arena[row]) >= arenas {
                targets.add("slot row \(rows + row) names arena \(slots.arena[row]) of \(arenas)")
            }
        }
    }

    private mutating func checkSerials(_ slots: Snapshot.SlotColumns) {
        guard let serials else { return }
        for serial in slots.serial where !serials.insert(serial) {
            if twice.count < Self.mostTwice { twice.append(serial) } else { moreTwice += 1 }
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
            if slots.accessTime[row] > now {
                births.add("slot row \(rows + row) was accessed at \(slots.accessTime[row]), after \(now)")
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
            if isHuge != chunk.isMapping {
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
        if let refusal = layout.refusal { return findings.unchecked(refusal) }
        for run in 0..<runs.count {
            findings.expect("live elements of run row \(run)", Int(runs.liveElements[run]), liveElements[run])
        }
        return findings.result(counted(runs.count, "run"))
    }

    private func unique(_ all: String) -> VerifyCheck {
        var findings = Findings("serial numbers are unique")
        if let noSerials { return findings.unchecked(noSerials) }
        for serial in twice.sorted() { findings.add("serial \(serial) is there twice") }
        findings.add(more: moreTwice)
        return findings.result(all)
    }

    static func hex(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }
}
