import DumpFormat
import Ledger
import SeededRandom

extension SeededGenerator {
    /// Exponentially distributed, roughly, with this mean.
    mutating func interval(mean: UInt64) -> UInt64 {
        let zeros = min(UInt64(next().leadingZeroBitCount), 20)
        return (mean * zeros + next() % (mean + 1)) / 2
    }
}

/// A made-up arena whose tables agree with each other as those of a real one do: buffers are laid out in slabs and
/// runs of chunks, and every total is the sum of its rows.
struct SyntheticArena {
    var seed: UInt64
    var slots = 300
    var owners = 40
    var sites = 12
    var arenas = 2
    /// Huge buffers, each in its own mapping.
    var huge = 1
    /// Of 1,000 buffers, so many that no referrer reaches.
    var unreachablePerMille: UInt64 = 30

    /// Mean time between the births of live buffers.
    var interval: UInt64 = 2_000
    /// Rows in the order of addresses, as a ledger has them, instead of the order of birth.
    var inAddressOrder = true

    private static let chunkSize: UInt64 = 16 << 20
    private static let pageSize: UInt64 = 8 << 10
    private static let pagesPerChunk = Int(chunkSize / pageSize)

    /// Four classes per doubling from 16 bytes to a chunk, the small ones in slabs of several pages.
    private static let classes: [Snapshot.SizeClass] = {
        var sizes: [UInt64] = [16, 32, 48, 64]
        var base: UInt64 = 64
        while base < chunkSize {
            for quarter in 1...4 as ClosedRange<UInt64> { sizes.append(base + base / 4 * quarter) }
            base *= 2
        }
        return sizes.filter { $0 <= chunkSize }.map { bytes in
            if bytes >= 28 << 10 {
                return Snapshot.SizeClass(
                    bytes: bytes, runPages: UInt32((bytes + pageSize - 1) / pageSize), elements: 1)
            }
            let pages: Int = (1...8).first { (UInt64($0) * pageSize) % bytes == 0 } ?? 4
            return Snapshot.SizeClass(
                bytes: bytes, runPages: UInt32(pages), elements: UInt32(UInt64(pages) * pageSize / bytes))
        }
    }()

    /// What is typical of one site: which sizes it asks for, how fast, for whom.
    private struct Habit {
        var sizes: ClosedRange<UInt64>
        var owners: Range<Int>
        var accessSite: UInt32
    }

    private struct OpenRun {
        var row: Int
        var used: Int
    }

    func make() -> Snapshot {
        var random = SeededGenerator(seed: seed)
        var snapshot = Snapshot(header: header(), totals: Snapshot.Totals())
        snapshot.sizeClasses = Self.classes
        snapshot.arenas = (0..<arenas).map { index in
            var arena = Snapshot.ArenaTotals()
            arena.name = "loop-\(index)"
            return arena
        }
        snapshot.owners = makeOwners()
        snapshot.sites = makeSites(&random)
        let habits = (0..<sites).map { index in
            let low = UInt64(16) << UInt64(index * 7 % 9)
            return Habit(
                sizes: low...(low + low / 2 * (UInt64(index) % 3)), owners: 2..<max(3, owners - index % 3),
                accessSite: UInt32((index * 5 + 1) % sites))
        }
        var columns = Snapshot.SlotColumns()
        var runs = Snapshot.RunColumns()
        var nextPage = [Int](repeating: Self.pagesPerChunk, count: arenas)
        var openChunk = [Int](repeating: 0, count: arenas)
        var openRuns: [UInt64: OpenRun] = [:]
        var clock = snapshot.header.startTime
        var nextIndex: UInt32 = 1
        var serial: UInt64 = 1000

        func addChunk(_ kind: Snapshot.Chunk.Kind, arena: Int, bytes: UInt64) {
            var chunk = Snapshot.Chunk()
            chunk.index = nextIndex
            chunk.kind = kind
            chunk.arena = UInt16(arena)
            chunk.bytes = bytes
            chunk.birth = clock
            nextIndex += UInt32((bytes + Self.chunkSize - 1) / Self.chunkSize)
            snapshot.chunks.append(chunk)
        }

        for row in 0..<slots {
            clock += random.interval(mean: interval)
            serial += 1 + (random.next() % 4 == 0 ? random.next() % 6 : 0)
            // Squared, so that few sites have most buffers.
            let pick = Double(random.next() >> 11) / Double(1 << 53)
            let site = 1 + Int(pick * pick * Double(sites - 1))
            let habit = habits[site]
            let owner = habit.owners.lowerBound + Int(random.next() % UInt64(habit.owners.count))
            let arena = owner % arenas
            let isHuge = row >= slots - huge
            let requested =
                isHuge
                ? Self.chunkSize * 2 + random.next() % 4096
                : habit.sizes.lowerBound + random.next() % (habit.sizes.upperBound - habit.sizes.lowerBound + 1)
            columns.serial.append(serial)
            columns.birth.append(clock)
            columns.requested.append(requested)
            columns.arena.append(UInt16(arena))
            columns.site.append(UInt32(site))
            columns.owner.append(UInt32(owner))
            let isAccessed = random.next() % 4 != 0
            columns.accessSite.append(isAccessed ? habit.accessSite : UInt32(site))
            columns.accessTime.append(isAccessed ? clock + random.interval(mean: 500) : clock)
            columns.state.append(random.next() % 500 == 0 ? 2 : 1)
            if isHuge {
                let bytes = (requested + Self.pageSize - 1) / Self.pageSize * Self.pageSize
                columns.address.append(UInt64(nextIndex) << 24)
                columns.capacity.append(bytes)
                columns.sizeClass.append(Snapshot.SlotColumns.hugeClass)
                addChunk(.huge, arena: arena, bytes: bytes)
                continue
            }
            let classIndex = Self.classes.firstIndex { $0.bytes >= requested }!
            let sizeClass = Self.classes[classIndex]
            let key = UInt64(arena) << 32 | UInt64(classIndex)
            if openRuns[key].map({ $0.used == Int(sizeClass.elements) }) ?? true {
                if nextPage[arena] + Int(sizeClass.runPages) > Self.pagesPerChunk {
                    openChunk[arena] = snapshot.chunks.count
                    nextPage[arena] = 0
                    addChunk(.chunk, arena: arena, bytes: Self.chunkSize)
                }
                openRuns[key] = OpenRun(row: runs.count, used: 0)
                runs.chunk.append(snapshot.chunks[openChunk[arena]].index)
                runs.firstPage.append(UInt16(nextPage[arena]))
                runs.pages.append(UInt16(sizeClass.runPages))
                runs.kind.append(sizeClass.elements > 1 ? 2 : 1)
                runs.sizeClass.append(UInt16(classIndex))
                runs.elements.append(UInt16(sizeClass.elements))
                runs.liveElements.append(0)
                nextPage[arena] += Int(sizeClass.runPages)
            }
            let run = openRuns[key]!
            openRuns[key]!.used += 1
            runs.liveElements[run.row] += 1
            let offset = UInt64(runs.firstPage[run.row]) * Self.pageSize + UInt64(run.used) * sizeClass.bytes
            columns.address.append(UInt64(runs.chunk[run.row]) << 24 | offset)
            columns.capacity.append(sizeClass.bytes)
            columns.sizeClass.append(UInt16(classIndex))
        }
        columns.count = slots
        if inAddressOrder { columns.sortByAddress() }
        addChunk(.cached, arena: 0, bytes: Self.chunkSize)
        snapshot.slots = columns
        snapshot.runs = runs
        snapshot.references = makeReferences(columns, &random)
        snapshot.events = makeEvents(&random)
        snapshot.freed = makeFreed(&random)
        snapshot.notes = [.init("Some sentence."), .init("")]
        Self.addUp(&snapshot, &random)
        return snapshot
    }

    private func header() -> Snapshot.Header {
        var header = Snapshot.Header()
        header.program = "arena-broker"
        header.programVersion = "1.0.0"
        header.pid = 4711
        header.host = "broker-ä1.example"
        header.wallTime = 1_790_000_000_000_000_000
        header.startTime = 5_000_000_000
        header.monotonicTime = 5_000_000_000 + 3600 * 1_000_000_000
        header.reason = "signal"
        header.configuration = "[arena]\nlimit = \"2 GiB\"\n"
        header.pauseNanoseconds = 4_200_000
        header.residentBytes = 2 << 30
        header.cgroupLimitBytes = 3 << 30
        header.cgroupCurrentBytes = 2 << 30
        header.threadCount = 7
        return header
    }

    private func makeOwners() -> [Snapshot.Owner] {
        (0..<owners).map { index in
            var owner = Snapshot.Owner()
            owner.kind = index == 0 ? .process : index == 1 ? .listener : .session
            owner.parent = index < 2 ? 0 : 1
            owner.name = index == 0 ? "arena-broker" : index == 1 ? "mqtt:1883" : "device-\(index)"
            owner.createdTime = 5_000_000_000 + UInt64(index) * 1_000_003
            owner.closedTime = index % 11 == 10 ? 3_000_000_000_000 : 0
            return owner
        }
    }

    private func makeSites(_ random: inout SeededGenerator) -> [Snapshot.Site] {
        (0..<sites).map { index in
            var site = Snapshot.Site()
            site.label = index == 0 ? "unknown" : "site \(index)"
            site.file = index == 0 ? "" : "Broker/Part\(index % 4).swift"
            site.line = UInt32(index * 17)
            site.function = index == 0 ? "" : "handle\(index)(_:)"
            site.lifetimes = (0..<56).map { index > 0 && $0 > 9 && $0 < 28 ? random.next() % 5000 : 0 }
            site.frees = site.lifetimes.reduce(0, +)
            site.allocations = site.frees
            return site
        }
    }

    private func makeReferences(_ slots: Snapshot.SlotColumns, _ random: inout SeededGenerator)
        -> Snapshot.ReferenceColumns
    {
        var references = Snapshot.ReferenceColumns()
        for row in 0..<slots.count where slots.state[row] == 1 {
            if random.next() % 1000 < unreachablePerMille { continue }
            for _ in 0...(random.next() % 10 == 0 ? 1 : 0) {
                references.referrerOwner.append(slots.owner[row])
                references.referrerKind.append(ReferrerKind.allCases[Int(random.next() % 8)].rawValue)
                references.slotRow.append(UInt32(row))
                let requested = UInt32(truncatingIfNeeded: slots.requested[row])
                references.referredBytes.append(random.next() % 8 == 0 ? requested / 3 : requested)
            }
        }
        return references
    }

    private func makeFreed(_ random: inout SeededGenerator) -> [Snapshot.Freed] {
        (0..<20).map { index in
            var freed = Snapshot.Freed()
            freed.serial = random.next() >> 16
            freed.birth = 6_000_000_000 + random.next() % 1_000_000_000
            freed.freedTime = 8_000_000_000 - UInt64(index) * 1000
            freed.address = random.next() % (16 << 20)
            freed.requested = random.next() % 5000
            freed.site = UInt32(random.next() % UInt64(sites))
            freed.releaseSite = UInt32(random.next() % UInt64(sites))
            freed.accessSite = freed.site
            freed.accessTime = freed.birth
            freed.owner = UInt32(random.next() % UInt64(owners))
            freed.arena = UInt16(index % 2)
            return freed
        }
    }

    private func makeEvents(_ random: inout SeededGenerator) -> [Snapshot.Event] {
        (0..<5).map { index in
            var event = Snapshot.Event()
            event.time = 6_000_000_000 + UInt64(index) * 1_000_000
            event.kind = index % 2 == 0 ? "level" : "dump"
            event.detail = "event \(index)"
            event.value = random.next() % 1000
            return event
        }
    }

    /// Sets every total to the sum of its rows.
    private static func addUp(_ snapshot: inout Snapshot, _ random: inout SeededGenerator) {
        struct Key: Hashable {
            let site: UInt32
            let accessSite: UInt32
            let kind: UInt8
        }
        let slots = snapshot.slots!
        let runs = snapshot.runs!
        let reachable = Set(snapshot.references!.slotRow)
        var chunkRows: [UInt32: Int] = [:]
        for (row, chunk) in snapshot.chunks.enumerated() { chunkRows[chunk.index] = row }
        var allocationGroups: [Key: Int] = [:]
        var totals = Snapshot.Totals()
        totals.unreachableBuffers = 0
        totals.unreachableBytes = 0
        for row in 0..<slots.count {
            let site = Int(slots.site[row])
            let owner = Int(slots.owner[row])
            let arena = Int(slots.arena[row])
            let chunk = chunkRows[UInt32(slots.address[row] >> 24)]!
            let capacity = slots.capacity[row]
            let requested = slots.requested[row]
            let kind = snapshot.owners[owner].kind
            let key = Key(site: slots.site[row], accessSite: slots.accessSite[row], kind: kind.rawValue)
            let allocationGroup = allocationGroups[key] ?? snapshot.allocationGroups.count
            if allocationGroups[key] == nil {
                allocationGroups[key] = allocationGroup
                var new = Snapshot.AllocationGroup()
                new.site = slots.site[row]
                new.accessSite = slots.accessSite[row]
                new.ownerKind = kind
                new.oldestBirth = .max
                snapshot.allocationGroups.append(new)
            }
            snapshot.allocationGroups[allocationGroup].liveBuffers += 1
            snapshot.allocationGroups[allocationGroup].liveBytes += capacity
            snapshot.allocationGroups[allocationGroup].requestedBytes += requested
            snapshot.allocationGroups[allocationGroup].oldestBirth = min(
                snapshot.allocationGroups[allocationGroup].oldestBirth, slots.birth[row])
            snapshot.allocationGroups[allocationGroup].newestBirth = max(
                snapshot.allocationGroups[allocationGroup].newestBirth, slots.birth[row])
            if slots.state[row] == 1, !reachable.contains(UInt32(row)) {
                snapshot.allocationGroups[allocationGroup].unreachableBuffers += 1
                snapshot.allocationGroups[allocationGroup].unreachableBytes += capacity
                totals.unreachableBuffers! += 1
                totals.unreachableBytes! += capacity
            }
            snapshot.sites[site].liveBuffers += 1
            snapshot.sites[site].liveBytes += capacity
            snapshot.sites[site].requestedBytes += requested
            snapshot.sites[site].allocations += 1
            snapshot.sites[site].allocatedBytes += requested
            snapshot.owners[owner].liveBuffers += 1
            snapshot.owners[owner].liveBytes += capacity
            snapshot.arenas[arena].liveBuffers += 1
            snapshot.arenas[arena].liveBytes += capacity
            snapshot.arenas[arena].requestedBytes += requested
            snapshot.arenas[arena].allocations += 1
            snapshot.chunks[chunk].liveBuffers += 1
            snapshot.chunks[chunk].liveBytes += capacity
            totals.liveBuffers += 1
            totals.liveBytes += capacity
            totals.requestedBytes += requested
        }
        for row in snapshot.chunks.indices where snapshot.chunks[row].kind != .huge {
            snapshot.chunks[row].freePages = UInt32(pagesPerChunk)
        }
        for run in 0..<runs.count {
            // Pages are handed out in order, so what is free is one run at the end.
            snapshot.chunks[chunkRows[runs.chunk[run]]!].freePages -= UInt32(runs.pages[run])
        }
        for row in snapshot.chunks.indices {
            snapshot.chunks[row].largestFreeRunPages = snapshot.chunks[row].freePages
            if snapshot.chunks[row].kind == .chunk { snapshot.arenas[Int(snapshot.chunks[row].arena)].chunkCount += 1 }
        }
        totals.chunkSize = chunkSize
        totals.pageSize = pageSize
        totals.limitBytes = 4 << 30
        totals.chunkCount = UInt64(snapshot.chunks.count { $0.kind != .huge })
        totals.chunkBytes = totals.chunkCount * chunkSize
        totals.hugeCount = UInt64(snapshot.chunks.count { $0.kind == .huge })
        totals.hugeBytes = snapshot.chunks.reduce(0) { $0 + ($1.kind == .huge ? $1.bytes : 0) }
        totals.ledgerBytes = 3 << 20
        totals.snapshotBufferBytes = 1 << 20
        totals.counterBytes = totals.chunkBytes + totals.hugeBytes + totals.ledgerBytes + totals.snapshotBufferBytes
        totals.peakCounterBytes = totals.counterBytes + 12345
        totals.freeBytes = totals.chunkBytes + totals.hugeBytes - totals.liveBytes
        totals.failedAllocations = 3
        snapshot.totals = totals
    }
}

/// Keeps what is written.
final class MemorySink: DumpSink {
    private(set) var bytes: [UInt8] = []

    func write(_ more: UnsafeRawBufferPointer) throws(DumpError) { bytes.append(contentsOf: more) }
}

extension Snapshot.SlotColumns {
    mutating func sortByAddress() {
        let order = (0..<count).sorted { address[$0] < address[$1] }
        func sort(_ column: some BulkColumn<Self>) {
            let values = self[keyPath: column.typed.values]
            self[keyPath: column.typed.values] = order.map { values[$0] }
        }
        for column in Self.columns { sort(column) }
    }
}
