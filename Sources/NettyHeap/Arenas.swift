internal import DumpFormat
internal import HPROF

/// Every allocator's arenas and the chunks in their lists, and the huge allocations beside them.
struct Arenas {
    struct Arena {
        var id: UInt64
        var name: String
        /// Arenas of one allocator have the same.
        var allocator: String
        /// Those of chunks; huge ones are counted apart, and what a thread cache serves is not counted again.
        var allocations: UInt64 = 0
        var deallocations: UInt64 = 0
        /// Bytes of huge allocations by the arena's own count; nil where this version has none.
        var activeHugeBytes: UInt64?
        var hugeAllocations: UInt64 = 0
        /// Of an adaptive allocator: bytes of all its chunks by its own count; nil where this version has none.
        var registeredBytes: UInt64?
        var isAdaptive = false
        /// Index of the copy of Netty it is of.
        var copy = 0
        /// Nil where it has no chunk to tell by.
        var era: Era?
    }

    struct Chunk {
        var id: UInt64
        /// Index into `arenas`.
        var arena: Int
        var bytes: UInt64
        /// What the chunk itself says is free; nil where this version does not.
        var freeBytes: UInt64?
        /// What the chunk itself says is in use by buffers (4.1.60 and later, where it is tracked).
        var pinnedBytes: UInt64?
        /// Address of its memory, the same in every dump of a process; 0 where the dump does not tell.
        var address: UInt64
        var contents: ChunkContents
        var kind = Snapshot.NettyChunk.Kind.pooled
        var segmentBytes: UInt64 = 0
        var place: ChunkPlaces.Place
        /// Of an adaptive allocator's chunk: references nobody has, that is, buffers that are lost in it.
        var lostReferences: UInt64 = 0
    }

    struct Huge {
        var id: UInt64
        var arena: Int
        var bytes: UInt64
        var address: UInt64
    }

    /// How chunks keep their books, which changed twice.
    enum Era: String {
        case buddyTrees = "4.1, buddy trees (up to 4.1.51)"
        case runs = "4.1.52 or later, runs"
        case adaptive = "4.1 or later, adaptive"
    }

    /// Of the memory that was asked for; chunks of the other are counted in `otherChunks`.
    private(set) var arenas: [Arena] = []
    private(set) var chunks: [Chunk] = []
    private(set) var huge: [Huge] = []
    private(set) var otherChunks = 0
    private(set) var otherBytes: UInt64 = 0
    private(set) var allocators = 0
    private(set) var problems: [String] = []

    /// From the fullest to the emptiest; names as in `PoolArena`.
    private static let lists: [(name: String, place: Snapshot.NettyChunk.Place)] = [
        ("q100", .q100), ("q075", .q075), ("q050", .q050), ("q025", .q025), ("q000", .q000), ("qInit", .qInit),
    ]
    private let copies: NettyCopies
    private let memory: NettyMemory

    /// How the chunks of a copy keep their books; nil where it has none.
    func era(ofCopy copy: Int) -> Era? { arenas.last { $0.copy == copy && $0.era != nil }?.era }

    init(
        _ classes: NettyClasses, _ table: BufferTable, _ copies: NettyCopies, _ threads: ThreadLocals,
        _ memory: NettyMemory
    ) {
        self.copies = copies
        self.memory = memory
        var found: [HeapObject] = []
        classes.forEachInstance(of: "netty/buffer/PooledByteBufAllocator") { found.append($0) }
        allocators = found.count
        var arenaOf: [UInt64: Int] = [:]
        for (number, allocator) in found.enumerated() {
            let copy = copies.copy(of: allocator)
            let prefix = prefix(copy, found.count > 1 ? "allocator \(number) " : "")
            let direct = allocator.object("directArenas")?.elements ?? []
            let onHeap = allocator.object("heapArenas")?.elements ?? []
            for (index, arena) in (memory == .direct ? direct : onHeap).enumerated() {
                arenaOf[arena.id] = arenas.count
                let name = "\(prefix)\(memory == .direct ? "direct" : "heap") arena \(index)"
                arenas.append(Self.arena(arena, name, of: "\(prefix)pooled arenas", copy))
                readChunks(arena, arenas.count - 1, table)
            }
            for arena in memory == .direct ? onHeap : direct {
                forEachChunk(arena) { chunk, _ in
                    otherChunks += 1
                    otherBytes += UInt64(max(0, chunk.integer("chunkSize") ?? 0))
                }
            }
        }
        classes.forEachInstance(of: "netty/buffer/PoolChunk") { chunk in
            // A freed one that some recycled ByteBuf still refers to has no buffer any more.
            guard chunk.integer("unpooled") == 1, let arena = chunk.reference("arena").flatMap({ arenaOf[$0] }),
                let bytes = chunk.integer("chunkSize"), bytes > 0, table.bufferOfChunk[chunk.id] != nil
            else { return }
            huge.append(Huge(id: chunk.id, arena: arena, bytes: UInt64(bytes), address: Self.address(chunk)))
        }
        readAdaptive(classes, table, threads)
    }

    /// With several copies, the package comes first.
    private func prefix(_ copy: Int, _ allocator: String) -> String {
        copies.all.count > 1 ? "\(copies.all[copy].name) \(allocator)" : allocator
    }

    // MARK: Adaptive

    private mutating func readAdaptive(_ classes: NettyClasses, _ table: BufferTable, _ threads: ThreadLocals) {
        var arenaOf: [UInt64: Int] = [:]
        var found: [HeapObject] = []
        classes.forEachInstance(of: "netty/buffer/AdaptiveByteBufAllocator") { found.append($0) }
        let first = arenas.count
        for (number, owner) in found.enumerated() {
            guard let allocator = owner.object(memory == .direct ? "direct" : "heap") else { continue }
            arenaOf[allocator.id] = arenas.count
            let copy = copies.copy(of: owner)
            let name = prefix(copy, "adaptive allocator" + (found.count > 1 ? " \(number)" : ""))
            var arena = Arena(id: allocator.id, name: name, allocator: name)
            arena.isAdaptive = true
            arena.copy = copy
            let registered = allocator.object("chunkRegistry")?.object("totalCapacity")?.counterValue
            arena.registeredBytes = registered.map { UInt64(max(0, $0)) }
            arenas.append(arena)
        }
        guard first < arenas.count else { return }
        let places = ChunkPlaces(classes, threads)
        if places.isIncomplete {
            problems.append("where the chunks of the adaptive allocator are could not all be found")
        }
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$Chunk") { object in
            guard let found = AdaptiveChunk.memory(of: object) else { return }
            if found != memory {
                otherChunks += 1
                otherBytes += UInt64(max(0, object.integer("capacity") ?? 0))
                return
            }
            let buffers = table.adaptive[object.id] ?? []
            guard
                let chunk = AdaptiveChunk(
                    object, buffers, keepers: places.count(of: object.id), pageSize: Self.adaptivePageSize)
            else {
                problems.append("the chunk at object 0x\(String(object.id, radix: 16)) cannot be read")
                return
            }
            let arena = chunk.allocator.flatMap { arenaOf[$0] } ?? first
            arenas[arena].era = .adaptive
            // Pages would not fit one that is no multiple of them, and it has one buffer anyhow.
            if chunk.isOneOff {
                huge.append(Huge(id: object.id, arena: arena, bytes: UInt64(chunk.capacity), address: chunk.address))
                return
            }
            chunks.append(
                Chunk(
                    id: object.id, arena: arena, bytes: UInt64(chunk.capacity), freeBytes: nil, pinnedBytes: nil,
                    address: chunk.address, contents: chunk.contents, kind: chunk.kind,
                    segmentBytes: chunk.segmentBytes,
                    place: places.place(of: object.id), lostReferences: chunk.lostReferences))
        }
    }

    /// Chunks are multiples of 128 KiB, or 32 segments of a size class; both are multiples of this.
    private static let adaptivePageSize = 4096

    private static func arena(_ arena: HeapObject, _ name: String, of allocator: String, _ copy: Int) -> Arena {
        func count(_ names: [String]) -> UInt64 {
            names.reduce(0) { sum, name in
                let value = arena.integer(name) ?? arena.object(name)?.counterValue ?? 0
                return sum &+ UInt64(max(0, value))
            }
        }
        let active = arena.object("activeBytesHuge")?.counterValue
        let hugeFreed = count(["deallocationsHuge"])
        let hugeMade = count(["allocationsHuge"])
        return Arena(
            id: arena.id, name: name, allocator: allocator,
            allocations: count(["allocationsTiny", "allocationsSmall", "allocationsNormal"]),
            deallocations: count(["deallocationsTiny", "deallocationsSmall", "deallocationsNormal"]),
            activeHugeBytes: active.map { UInt64(max(0, $0)) },
            hugeAllocations: hugeMade > hugeFreed ? hugeMade - hugeFreed : 0, copy: copy)
    }

    /// The chunks in the lists of an arena. A list that a damaged dump bends to a circle is walked once.
    private func forEachChunk(_ arena: HeapObject, _ visit: (HeapObject, Snapshot.NettyChunk.Place) -> Void) {
        var seen: Set<UInt64> = []
        for list in Self.lists {
            var next = arena.object(list.name)?.object("head")
            while let chunk = next, seen.insert(chunk.id).inserted {
                visit(chunk, list.place)
                next = chunk.object("next")
            }
        }
    }

    // MARK: Pooled

    private mutating func readChunks(_ arena: HeapObject, _ index: Int, _ table: BufferTable) {
        var found: [(HeapObject, Snapshot.NettyChunk.Place)] = []
        forEachChunk(arena) { found.append(($0, $1)) }
        for (chunk, place) in found {
            let claims = table.claims[chunk.id] ?? []
            let isTree = chunk.has("memoryMap")
            arenas[index].era = isTree ? .buddyTrees : .runs
            let contents = isTree ? BuddyChunk.read(chunk, claims) : RunChunk.read(chunk, claims)
            let bytes = UInt64(max(0, chunk.integer("chunkSize") ?? 0))
            guard let contents, bytes > 0 else {
                problems.append("the chunk at object 0x\(String(chunk.id, radix: 16)) cannot be read")
                continue
            }
            let free = chunk.integer("freeBytes").map { UInt64(max(0, $0)) }
            let pinned = chunk.integer("pinnedBytes") ?? chunk.object("pinnedBytes")?.counterValue
            chunks.append(
                Chunk(
                    id: chunk.id, arena: index, bytes: bytes, freeBytes: free,
                    pinnedBytes: pinned.map { UInt64(max(0, $0)) }, address: Self.address(chunk), contents: contents,
                    place: .init(kind: place, thread: "")))
        }
    }

    /// Of the chunk's `java.nio.DirectByteBuffer`.
    private static func address(_ chunk: HeapObject) -> UInt64 {
        UInt64(bitPattern: chunk.object("memory")?.integer("address") ?? 0)
    }
}
