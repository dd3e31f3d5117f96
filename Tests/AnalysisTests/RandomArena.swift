import DumpFormat
import Ledger
import SeededRandom

/// Small arenas whose tables agree with each other, different each time, for tests against brute force: chunks of
/// eight pages with slabs, single buffers, reserves and holes, huge mappings, any owner tree, any references.
struct RandomArena {
    static let pageSize: UInt64 = 8_192
    static let pages = 8
    static let chunkSize = pageSize * UInt64(pages)
    /// Classes 0 to 2 are cut from slabs of one page, the others are runs.
    static let classes: [UInt64] = [1_024, 1_536, 4_096, 8_192, 16_384, 32_768]

    var snapshot = Fixture.empty()
    private var slots = Snapshot.SlotColumns()
    private var runs = Snapshot.RunColumns()
    private var references = Snapshot.ReferenceColumns()

    static func make(_ random: inout SeededGenerator, hasReferences: Bool = true) -> Snapshot {
        var arena = RandomArena()
        arena.snapshot.totals.chunkSize = chunkSize
        arena.snapshot.totals.pageSize = pageSize
        arena.snapshot.sizeClasses = classes.map { bytes in
            let isSlab = bytes < pageSize
            return Snapshot.SizeClass(
                bytes: bytes, runPages: UInt32(isSlab ? 1 : bytes / pageSize),
                elements: UInt32(isSlab ? pageSize / bytes : 1))
        }
        arena.snapshot.arenas = ["loop-0", "loop-1"].map { name in
            var totals = Snapshot.ArenaTotals()
            totals.name = name
            return totals
        }
        let kinds: [OwnerKind] = [.connection, .session, .inflight, .offlineQueue, .retained]
        for index in 0..<Int.random(in: 0..<10, using: &random) {
            var owner = Fixture.owner(
                kinds.randomElement(using: &random)!, "o\(index)",
                parent: .random(in: 0..<UInt32(arena.snapshot.owners.count), using: &random))
            owner.closedTime = .random(in: 0..<4, using: &random) == 0 ? 10 * Fixture.second : 0
            arena.snapshot.owners.append(owner)
        }
        for index in 0..<UInt32.random(in: 1..<7, using: &random) { arena.addChunk(index * 2, &random) }
        if hasReferences { arena.addReferences(&random) }
        return arena.finished(hasReferences: hasReferences)
    }

    private mutating func addChunk(_ index: UInt32, _ random: inout SeededGenerator) {
        var chunk = Snapshot.Chunk()
        chunk.index = index
        chunk.arena = .random(in: 0..<2, using: &random)
        chunk.bytes = Self.chunkSize
        switch Int.random(in: 0..<8, using: &random) {
        case 0:
            chunk.kind = .cached
            chunk.freePages = UInt32(Self.pages)
            chunk.largestFreeRunPages = chunk.freePages
        case 1:
            chunk.kind = .huge
            chunk.bytes = 2 * Self.chunkSize
            addSlot(
                UInt64(index) * Self.chunkSize, chunk.bytes, Snapshot.SlotColumns.hugeClass, chunk.arena, &random)
        default:
            fill(&chunk, &random)
        }
        snapshot.chunks.append(chunk)
    }

    private mutating func fill(_ chunk: inout Snapshot.Chunk, _ random: inout SeededGenerator) {
        let emptiness = Int.random(in: 0..<4, using: &random)
        var page = 0
        var free = 0
        while page < Self.pages {
            let sizeClass = Int.random(in: 0..<Self.classes.count, using: &random)
            let pages = Int(max(1, Self.classes[sizeClass] / Self.pageSize))
            if Int.random(in: 0..<4, using: &random) < emptiness || page + pages > Self.pages {
                page += 1
                free += 1
                chunk.freePages += 1
                chunk.largestFreeRunPages = max(chunk.largestFreeRunPages, UInt32(free))
                continue
            }
            free = 0
            addRun(chunk, page, pages, sizeClass, &random)
            page += pages
        }
    }

    private mutating func addRun(
        _ chunk: Snapshot.Chunk, _ page: Int, _ pages: Int, _ sizeClass: Int, _ random: inout SeededGenerator
    ) {
        let bytes = Self.classes[sizeClass]
        let isReserve = Int.random(in: 0..<12, using: &random) == 0
        let elements = isReserve ? 0 : Int(UInt64(pages) * Self.pageSize / bytes)
        var live = 0
        for element in 0..<elements {
            // A run of one buffer is there only while the buffer is, a slab while any of its buffers is.
            guard elements == 1 || element == 0 || Bool.random(using: &random) else { continue }
            live += 1
            addSlot(
                UInt64(chunk.index) * Self.chunkSize + UInt64(page) * Self.pageSize + UInt64(element) * bytes, bytes,
                UInt16(sizeClass), chunk.arena, &random)
        }
        runs.chunk.append(chunk.index)
        runs.firstPage.append(UInt16(page))
        runs.pages.append(UInt16(pages))
        let kind: Snapshot.RunColumns.Kind = isReserve ? .reserve : elements == 1 ? .buffer : .slab
        runs.kind.append(kind.rawValue)
        runs.sizeClass.append(UInt16(sizeClass))
        runs.elements.append(UInt16(elements))
        runs.liveElements.append(UInt16(live))
    }

    private mutating func addSlot(
        _ address: UInt64, _ capacity: UInt64, _ sizeClass: UInt16, _ arena: UInt16, _ random: inout SeededGenerator
    ) {
        let now = snapshot.header.monotonicTime
        let age = UInt64.random(in: 0..<(2 * 3_600 * Fixture.second), using: &random)
        slots.serial.append(UInt64(slots.count) * 256 + 7)
        slots.birth.append(now - age)
        slots.accessTime.append(now - age + .random(in: 0...age, using: &random))
        slots.address.append(address)
        slots.requested.append(.random(in: 1...capacity, using: &random))
        slots.capacity.append(capacity)
        slots.sizeClass.append(sizeClass)
        slots.arena.append(arena)
        slots.site.append(.random(in: 0..<Fixture.siteCount, using: &random))
        slots.accessSite.append(.random(in: 0..<Fixture.siteCount, using: &random))
        slots.owner.append(.random(in: 0..<UInt32(snapshot.owners.count), using: &random))
        slots.state.append(Int.random(in: 0..<8, using: &random) == 0 ? 2 : 1)
        slots.count += 1
    }

    private mutating func addReferences(_ random: inout SeededGenerator) {
        for row in 0..<slots.count where slots.state[row] == 1 {
            for _ in 0..<Int.random(in: 0..<4, using: &random) {
                references.referrerOwner.append(.random(in: 0..<UInt32(snapshot.owners.count), using: &random))
                references.referrerKind.append(ReferrerKind.allCases.randomElement(using: &random)!.rawValue)
                references.slotRow.append(UInt32(row))
            }
        }
    }

    private consuming func finished(hasReferences: Bool) -> Snapshot {
        var reachable = [Bool](repeating: false, count: slots.count)
        for row in references.slotRow { reachable[Int(row)] = true }
        var totals = snapshot.totals
        var unreachable = (buffers: UInt64(0), bytes: UInt64(0))
        for row in 0..<slots.count {
            let capacity = slots.capacity[row]
            totals.liveBuffers += 1
            totals.liveBytes += capacity
            totals.requestedBytes += slots.requested[row]
            if !reachable[row], slots.state[row] == 1 {
                unreachable = (unreachable.buffers + 1, unreachable.bytes + capacity)
            }
            let chunk = snapshot.chunks.firstIndex { UInt64($0.index) == slots.address[row] / Self.chunkSize }!
            snapshot.chunks[chunk].liveBuffers += 1
            snapshot.chunks[chunk].liveBytes += capacity
            snapshot.owners[Int(slots.owner[row])].liveBuffers += 1
            snapshot.owners[Int(slots.owner[row])].liveBytes += capacity
            snapshot.sites[Int(slots.site[row])].liveBuffers += 1
            snapshot.sites[Int(slots.site[row])].liveBytes += capacity
            snapshot.sites[Int(slots.site[row])].requestedBytes += slots.requested[row]
        }
        if hasReferences {
            (totals.unreachableBuffers, totals.unreachableBytes) = (unreachable.buffers, unreachable.bytes)
        }
        for chunk in snapshot.chunks {
            if chunk.kind == .huge {
                totals.hugeCount += 1
                totals.hugeBytes += chunk.bytes
            } else {
                totals.chunkCount += 1
                totals.chunkBytes += chunk.bytes
            }
        }
        totals.freeBytes = totals.chunkBytes + totals.hugeBytes - totals.liveBytes
        totals.counterBytes = totals.chunkBytes + totals.hugeBytes + totals.ledgerBytes
        snapshot.totals = totals
        snapshot.slots = slots
        snapshot.runs = runs
        snapshot.references = hasReferences ? references : nil
        return snapshot
    }
}
