internal import DumpFormat
internal import HPROF
internal import Ledger

/// Turns what was found of Netty into the analyzer's one model.
///
/// - Every allocation that a chunk's bookkeeping holds is a slot. Its *serial* is the address of its memory, which does
///   not move while it is in use, so that two dumps of a process can be compared; a later buffer may get the same one.
/// - A live `ByteBuf` and an entry of a thread's cache are references to their slots. What has none is *unreachable*.
/// - Owners are the threads, for what they cache, the objects that hold buffers, and the arenas, for what nobody does.
/// - There is no clock: all times are 0.
struct SnapshotBuilder {
    private let heap: Heap
    private let table: BufferTable
    private let arenas: Arenas
    private let askers: [UInt64: String]
    private let referrers: [Int: String]?
    private let copies: NettyCopies
    private let accounts: CopyAccounts
    private(set) var snapshot: Snapshot
    private var sites = SiteTable()
    private var sizes = SizeTable()
    private var slots = Snapshot.SlotColumns()
    private var runs = Snapshot.RunColumns()
    private var references = Snapshot.ReferenceColumns()
    private var ownerIDs: [String: UInt32] = [:]
    /// By arena of the snapshot.
    private var copyOfArena: [Int] = []
    /// By copy.
    private var unpooledArenas: [Int: Int] = [:]
    /// Of allocations that nobody has, those in no chunk.
    private(set) var lostMappings: UInt64 = 0

    /// `askers` names, by object, the classes that asked for those buffers that the leak detector follows; `referrers`
    /// names who holds the buffers of those indices in `table.buffers`; nil where nobody looked.
    init(
        _ heap: Heap, _ table: BufferTable, _ arenas: Arenas, _ copies: NettyCopies, askers: [UInt64: String],
        referrers: [Int: String]?, header: Snapshot.Header, _ memory: NettyMemory
    ) {
        self.copies = copies
        accounts = CopyAccounts(copies, arenas, table, memory)
        self.askers = askers
        self.heap = heap
        self.table = table
        self.arenas = arenas
        self.referrers = referrers
        snapshot = Snapshot(header: header, totals: .init())
        var root = Snapshot.Owner()
        root.kind = .process
        root.name = header.program
        snapshot.owners = [root]
        snapshot.arenas = arenas.arenas.map { arena in
            var totals = Snapshot.ArenaTotals()
            totals.name = arena.name
            totals.allocations = arena.allocations
            totals.frees = arena.deallocations
            return totals
        }
        copyOfArena = arenas.arenas.map(\.copy)
        snapshot.nettyCopies = accounts.rows
        snapshot.missingPremises = accounts.missing
        snapshot.notes = accounts.notes.map { Snapshot.Note($0) }
    }

    /// Chunks of one size are the rule with pooled allocators; those of adaptive ones differ. The addresses of slots leave
    /// room for the largest. `memory` is what the JVM itself counts, where that is the question.
    mutating func build(_ memory: DirectMemory?) -> Snapshot {
        let largest = arenas.chunks.map(\.bytes).max() ?? Self.usualChunk
        snapshot.totals.chunkSize = largest > 1 << 62 ? largest : Self.powerOfTwo(atLeast: largest)
        snapshot.totals.pageSize = UInt64(arenas.chunks.map(\.contents.pageSize).min() ?? 8192)
        var index: UInt32 = 0
        for chunk in arenas.chunks.sorted(by: { ($0.arena, $0.address, $0.id) < ($1.arena, $1.address, $1.id) }) {
            add(chunk, index)
            index += 1
        }
        for huge in arenas.huge {
            let claimant = table.bufferOfChunk[huge.id].map { Claimant.buffer($0) } ?? .nobody
            let serial = huge.address > 0 ? huge.address : huge.id << 20
            addMapping(.huge, &index, huge.bytes, arena: huge.arena, serial: serial, claimant, lostAs: "huge")
        }
        for dropped in accounts.lost {
            let serial = arenas.arenas[dropped.arena].id << 20
            addMapping(.huge, &index, dropped.bytes, arena: dropped.arena, serial: serial, .nobody, lostAs: "huge")
        }
        for (copy, bytes) in accounts.lostUnpooled.enumerated() where bytes > 0 {
            // Addresses of memory, which are the serials of others, are never as high.
            addMapping(
                .unpooled, &index, bytes, arena: arenaOfUnpooled(copy), serial: 1 << 62 + UInt64(copy), .nobody,
                lostAs: "unpooled")
        }
        addUnjudgedUnpooled(&index)
        snapshot.sites = sites.sites
        snapshot.sizeClasses = sizes.sizes
        addUp()
        finishTotals(memory)
        snapshot.runs = runs
        snapshot.slots = slots
        snapshot.references = references
        return snapshot
    }

    // MARK: Chunks

    private mutating func add(_ chunk: Arenas.Chunk, _ index: UInt32) {
        let contents = chunk.contents
        // Where allocators differ in it, the smallest page is that of the snapshot.
        let scale = contents.pageSize / max(1, Int(snapshot.totals.pageSize))
        var row = Snapshot.Chunk()
        row.index = index
        row.arena = UInt16(clamping: chunk.arena)
        row.bytes = chunk.bytes
        let free = contents.free
        row.freePages = UInt32(free.pages * scale)
        row.largestFreeRunPages = UInt32(free.longest * scale)
        var runClasses: [UInt16] = []
        for run in contents.runs {
            let bytes = UInt64(run.elementBytes ?? run.pages * contents.pageSize)
            let sizeClass = sizes.sizeClass(bytes: bytes, pages: run.pages * scale, elements: run.elements)
            runClasses.append(sizeClass)
            runs.chunk.append(index)
            runs.firstPage.append(UInt16(clamping: run.firstPage * scale))
            runs.pages.append(UInt16(clamping: run.pages * scale))
            let kind: Snapshot.RunColumns.Kind = run.isBump ? .bump : run.elementBytes == nil ? .buffer : .slab
            runs.kind.append(kind.rawValue)
            runs.sizeClass.append(sizeClass)
            runs.elements.append(UInt16(clamping: run.elements))
            runs.liveElements.append(UInt16(clamping: run.liveElements))
        }
        let shift = UInt64(max(1, snapshot.totals.chunkSize))
        for allocation in contents.allocations {
            let run = contents.runs[allocation.run]
            let sizeClass =
                run.isBump
                ? sizes.sizeClass(bytes: UInt64(allocation.bytes), pages: 0, elements: 1) : runClasses[allocation.run]
            addSlot(
                Slot(
                    serial: (chunk.address > 0 ? chunk.address : chunk.id << 20) &+ UInt64(allocation.offset),
                    address: UInt64(index) * shift + UInt64(allocation.offset), bytes: UInt64(allocation.bytes),
                    sizeClass: sizeClass, arena: chunk.arena, claimant: allocation.claimant,
                    lostAs: run.isBump
                        ? "in bump chunks"
                        : run.mayBeSeveral
                            ? "runs" : "\(run.elementBytes == nil ? "runs" : "elements") of \(allocation.bytes) B"))
        }
        snapshot.arenas[chunk.arena].chunkCount += 1
        snapshot.chunks.append(row)
        snapshot.nettyChunks.append(Snapshot.NettyChunk(chunk, index, arenas, table))
    }

    private static func powerOfTwo(atLeast bytes: UInt64) -> UInt64 {
        bytes < 2 ? bytes : 1 << UInt64(64 - (bytes - 1).leadingZeroBitCount)
    }

    /// Of a dump without chunks, so that each mapping has its place among the addresses.
    private static let usualChunk: UInt64 = 16 << 20

    /// Memory that is in no chunk, and all of one buffer or of nobody.
    private mutating func addMapping(
        _ kind: Snapshot.Chunk.Kind, _ index: inout UInt32, _ bytes: UInt64, arena: Int, serial: UInt64,
        _ claimant: Claimant, lostAs: String
    ) {
        let stride = max(1, snapshot.totals.chunkSize)
        if claimant == .nobody { lostMappings += 1 }
        var row = Snapshot.Chunk()
        row.index = index
        row.kind = kind
        row.arena = UInt16(clamping: arena)
        row.bytes = bytes
        snapshot.chunks.append(row)
        addSlot(
            Slot(
                serial: serial, address: UInt64(index) * stride, bytes: bytes,
                sizeClass: Snapshot.SlotColumns.hugeClass, arena: arena, claimant: claimant, lostAs: lostAs))
        let places = index.addingReportingOverflow(UInt32(clamping: (bytes + stride - 1) / stride))
        index = places.overflow ? .max : places.partialValue
        if kind == .huge {
            snapshot.totals.hugeCount += 1
            snapshot.totals.hugeBytes += bytes
        }
    }

    /// Live unpooled `ByteBuf`s are no rows; those that may be lost as well are.
    private mutating func addUnjudgedUnpooled(_ index: inout UInt32) {
        for (copy, unpooled) in table.unpooled.enumerated() {
            for buffer in unpooled.unjudged {
                let serial = buffer.address > 0 ? buffer.address : table.buffers[buffer.index].id << 20
                addMapping(
                    .unpooled, &index, buffer.bytes, arena: arenaOfUnpooled(copy), serial: serial,
                    .buffer(buffer.index),
                    lostAs: "unpooled")
            }
        }
    }

    /// No arena has unpooled memory: it gets one of its own, by the name of the copy where there are several.
    private mutating func arenaOfUnpooled(_ copy: Int) -> Int {
        if let known = unpooledArenas[copy] { return known }
        defer { unpooledArenas[copy] = snapshot.arenas.count - 1 }
        var totals = Snapshot.ArenaTotals()
        totals.name = copies.all.count > 1 ? "\(copies.all[copy].name) unpooled memory" : "unpooled memory"
        snapshot.arenas.append(totals)
        copyOfArena.append(copy)
        return snapshot.arenas.count - 1
    }

    // MARK: Slots

    private struct Slot {
        var serial: UInt64
        var address: UInt64
        var bytes: UInt64
        var sizeClass: UInt16
        var arena: Int
        var claimant: Claimant
        /// What to call it where nobody claims it.
        var lostAs: String
    }

    private mutating func addSlot(_ slot: Slot) {
        let site: UInt32
        let owner: UInt32
        var requested = slot.bytes
        var state: UInt8 = 1
        switch slot.claimant {
        case .buffer(let index):
            let buffer = table.buffers[index]
            let name = heap.classes[buffer.classIndex].name
            requested = min(buffer.length, slot.bytes)
            let label = askers[buffer.id].map { "asked for by \($0)" } ?? NettyClasses.shortName(name)
            site = sites.site(label, detail: NettyClasses.javaName(name))
            owner = ownerOfBuffer(index, buffer, slot.arena)
            addReference(owner, buffer.isUnjudged ? .unrooted : .heapObject)
            if buffer.isUnjudged {
                snapshot.header.unjudgedBuffers += 1
                snapshot.header.unjudgedBytes += slot.bytes
            }
        case .cache(let index):
            state = 3
            site = sites.site("freed, kept by a thread cache")
            owner = ownerOfCache(index, slot.arena)
            addReference(owner, .threadCache)
            snapshot.totals.cachedBuffers += 1
            snapshot.totals.cachedBytes += slot.bytes
        case .nobody:
            let copy = copyOfArena[slot.arena]
            let ofWhich = copies.all.count > 1 ? ", of \(copies.all[copy].name)" : ""
            site = sites.site("no ByteBuf refers to it: \(slot.lostAs)\(ofWhich)")
            owner = self.owner(.arena, snapshot.arenas[slot.arena].name)
            // What is in no chunk is in the copy's account already.
            if slot.sizeClass != Snapshot.SlotColumns.hugeClass {
                snapshot.nettyCopies[copy].unreachableBytes += slot.bytes
            }
        }
        slots.count += 1
        slots.serial.append(slot.serial)
        slots.birth.append(0)
        slots.address.append(slot.address)
        slots.requested.append(requested)
        slots.capacity.append(slot.bytes)
        slots.sizeClass.append(slot.sizeClass)
        slots.arena.append(UInt16(clamping: slot.arena))
        slots.site.append(site)
        slots.owner.append(owner)
        slots.accessSite.append(0)
        slots.accessTime.append(0)
        slots.state.append(state)
    }

    private mutating func addReference(_ owner: UInt32, _ kind: ReferrerKind) {
        references.referrerOwner.append(owner)
        references.referrerKind.append(kind.rawValue)
        references.slotRow.append(UInt32(clamping: slots.count))
    }

    // MARK: Owners

    private mutating func owner(_ kind: OwnerKind, _ name: String) -> UInt32 {
        let key = "\(kind.rawValue) \(name)"
        if let id = ownerIDs[key] { return id }
        var owner = Snapshot.Owner()
        owner.kind = kind
        owner.name = name
        snapshot.owners.append(owner)
        let id = UInt32(snapshot.owners.count - 1)
        ownerIDs[key] = id
        return id
    }

    /// Who holds it, or else the thread that allocated it.
    private mutating func ownerOfBuffer(_ index: Int, _ buffer: BufferTable.Buffer, _ arena: Int) -> UInt32 {
        guard let referrers else { return owner(.component, "objects of the program") }
        if let referrer = referrers[index] { return owner(.component, referrer) }
        guard let cache = table.caches.firstIndex(where: { $0.id == buffer.cache }) else {
            return owner(.arena, snapshot.arenas[arena].name)
        }
        return ownerOfCache(cache, arena)
    }

    private mutating func ownerOfCache(_ cache: Int, _ arena: Int) -> UInt32 {
        owner(.thread, table.caches[cache].thread ?? "that ended, its cache is still there")
    }

    // MARK: Totals

    /// What the tables say of the slots.
    private mutating func addUp() {
        var sums = SlotAggregate(snapshot, [.tables, .reach])
        sums.add(slots, reach: references.reach(slots.state))
        sums.store(to: &snapshot)
        snapshot.allocationGroups.sort {
            ($1.liveBytes, $0.site, $0.ownerKind.rawValue) < ($0.liveBytes, $1.site, $1.ownerKind.rawValue)
        }
    }

    private mutating func finishTotals(_ memory: DirectMemory?) {
        let chunkBytes = arenas.chunks.reduce(0) { $0 + $1.bytes }
        snapshot.totals.chunkCount = UInt64(arenas.chunks.count)
        snapshot.totals.chunkBytes = chunkBytes
        let pooled = chunkBytes + snapshot.totals.hugeBytes
        let mapped = pooled + snapshot.unpooledInRows
        snapshot.totals.freeBytes = mapped - min(mapped, snapshot.totals.liveBytes)
        snapshot.totals.unpooledBytes = snapshot.nettyCopies.reduce(0) { $0 + $1.unpooledBytes }
        if let memory { addJava(memory, pooled) }
        snapshot.totals.counterBytes = pooled + snapshot.totals.unpooledBytes
        // Of several limits none is that of the whole.
        let limits = snapshot.nettyCopies.map(\.limitBytes).filter { $0 > 0 }
        snapshot.totals.limitBytes = limits.count == 1 ? limits[0] : 0
        snapshot.totals.peakCounterBytes = snapshot.totals.counterBytes
    }

    /// Where Netty leaves the counting to the JVM, that has a row of its own; with one Netty it is the counter.
    private mutating func addJava(_ memory: DirectMemory, _ pooled: UInt64) {
        guard let counter = memory.counter,
            snapshot.nettyCopies.contains(where: { $0.counting == .none && $0.fate == .collected })
        else { return }
        if snapshot.nettyCopies.count == 1 {
            guard counter >= pooled else { return }
            snapshot.totals.unpooledBytes = counter - pooled
            snapshot.notes.append(
                Snapshot.Note(
                    "The counter is that of java.nio.Bits instead, which counts all direct buffers of the process."))
        }
        var row = Snapshot.NettyCopy()
        row.name = "java.nio.Bits"
        row.counting = .jvm
        row.fate = .collected
        row.counterBytes = counter
        row.limitBytes = memory.limit ?? 0
        snapshot.nettyCopies.append(row)
    }
}
