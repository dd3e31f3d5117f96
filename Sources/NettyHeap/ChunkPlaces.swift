internal import DumpFormat
internal import HPROF

/// Where the adaptive allocator has its chunks: with the magazines, which allocate from one and have another in line, and in
/// what keeps chunks to be used again. Each of these has one reference to its chunk; what else a chunk has are its buffers'.
///
/// What keeps chunks has changed with nearly every version:
///
///     up to 4.2.2    AdaptivePoolingAllocator.centralQueue, of all magazines
///     4.2.3          MagazineGroup.chunkReuseQueue, of a size class; a thread's own groups are thread-local
///     later          MagazineGroup.chunkCache: a queue, or for buddies a skip list
///     4.2.16         the same: a ring of a thread's, or a queue and a list behind it
///     after that     Magazine.chunkCache, and lists whose links are in the chunks
///
/// So it is not looked for by name: what the fields of a magazine, a group or the allocator lead to, through collections
/// and Netty's own caches of chunks, is kept there.
struct ChunkPlaces {
    struct Place: Equatable {
        var kind: Snapshot.NettyChunk.Place
        /// Empty where threads share it.
        var thread: String
    }

    private var places: [UInt64: [Place]] = [:]
    /// Whether there was more to walk through than a dump can sensibly have.
    private(set) var isIncomplete = false

    private let chunkClasses: Set<Int>
    private let isWhole: Bool
    private var seen: Set<UInt64> = []
    private static let maximumSeen = 1 << 20
    static let endedThread = "that ended"

    init(_ classes: NettyClasses, _ threads: ThreadLocals) {
        isWhole = classes.heap.problems.isEmpty
        chunkClasses = classes.family("netty/buffer/AdaptivePoolingAllocator$Chunk")
        // Before there were groups, the allocator had the shared magazines, and a thread's own was nobody's after its end.
        var shared: Set<UInt64> = []
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator") { allocator in
            shared.formUnion(allocator.object("magazines")?.references ?? [])
        }
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$MagazineGroup") { group in
            walk(from: group, .init(kind: .cache, thread: Self.thread(ofGroup: group, threads)))
        }
        for family in ["Magazine", "AbstractMagazine", "SizeClassMagazine", "BuddyMagazine"] {
            classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$\(family)") { magazine in
                let thread = Self.thread(ofMagazine: magazine, threads, shared)
                add(magazine.reference("current"), .init(kind: .current, thread: thread))
                add(magazine.reference("nextInLine"), .init(kind: .nextInLine, thread: thread))
                let current = [magazine.reference("current"), magazine.reference("nextInLine")].compactMap { $0 }
                walk(from: magazine, .init(kind: .cache, thread: thread), except: current)
            }
        }
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator") { allocator in
            let kind: Snapshot.NettyChunk.Place = allocator.has("centralQueue") ? .centralQueue : .cache
            walk(from: allocator, .init(kind: kind, thread: ""))
        }
    }

    /// How many references to a chunk magazines and caches have.
    func count(of chunk: UInt64) -> Int { places[chunk]?.count ?? 0 }

    /// Where a chunk is. One that nobody keeps is with its buffers alone, if the file is whole: else who keeps it may be in the
    /// part that is missing.
    func place(of chunk: UInt64) -> Place {
        places[chunk]?.first ?? Place(kind: isWhole && !isIncomplete ? .buffersOnly : .unknown, thread: "")
    }

    private mutating func add(_ chunk: UInt64?, _ place: Place) {
        if let chunk { places[chunk, default: []].append(place) }
    }

    // MARK: Whose

    /// Empty for one that threads share.
    private static func thread(ofGroup group: HeapObject, _ threads: ThreadLocals) -> String {
        if let owner = group.object("ownerThread") { return ThreadLocals.name(of: owner) }
        if let name = threads.name(of: group.id) { return name }
        return group.reference("threadLocalMagazine") == nil ? "" : endedThread
    }

    private static func thread(
        ofMagazine magazine: HeapObject, _ threads: ThreadLocals, _ shared: Set<UInt64>
    ) -> String {
        if let owner = magazine.object("ownerThread") { return ThreadLocals.name(of: owner) }
        if let name = threads.name(of: magazine.id) { return name }
        if magazine.has("group") {
            guard let group = magazine.object("group"), group.reference("threadLocalMagazine") == magazine.id else {
                return ""
            }
            return thread(ofGroup: group, threads)
        }
        return magazine.has("ownerThread") || shared.contains(magazine.id) ? "" : endedThread
    }

    // MARK: What keeps chunks

    /// Adds the chunks that the fields of `keeper` lead to, other than through another keeper. Nothing is walked twice.
    private mutating func walk(from keeper: HeapObject, _ place: Place, except: [UInt64] = []) {
        var open = keeper.fieldReferences.filter { !except.contains($0) }
        while let id = open.popLast() {
            guard !seen.contains(id), let object = keeper.heapObject(id) else { continue }
            let isChunk = object.classIndex.map(chunkClasses.contains) ?? false
            guard isChunk || Self.isPassage(object) else { continue }
            // An array of millions is nobody's cache of chunks.
            guard seen.count < Self.maximumSeen, object.count < Self.maximumSeen, open.count < Self.maximumSeen else {
                isIncomplete = true
                return
            }
            seen.insert(id)
            if isChunk {
                add(id, place)
                open += ["nextInQueue", "nextInCache"].compactMap(object.reference)
            } else {
                open += object.fieldReferences + object.references.filter { $0 != 0 }
            }
        }
    }

    /// Collections, and what Netty keeps chunks in. Neither threads nor locks, and no other part of an allocator.
    private static func isPassage(_ object: HeapObject) -> Bool {
        guard let name = object.className else {
            if case .objectArray = object.kind { return true }
            return false
        }
        if name.contains("netty/buffer/") {
            return ["ChunkCache", "ChunkQueue"].contains { name.contains($0) }
        }
        if name.contains("jctools/") || name.contains("netty/util/concurrent/ConcurrentSkipList") { return true }
        return name.hasPrefix("java/util/") && !name.hasPrefix("java/util/concurrent/locks/")
    }
}

extension Snapshot.NettyChunk {
    /// Where the chunk is, and what of it whoever has.
    init(_ chunk: Arenas.Chunk, _ index: UInt32, _ arenas: Arenas, _ table: BufferTable) {
        self.init()
        self.chunk = index
        allocator = arenas.arenas[chunk.arena].allocator
        kind = chunk.kind
        segmentBytes = chunk.segmentBytes
        place = chunk.place.kind
        thread = chunk.place.thread
        bytes = chunk.bytes
        for allocation in chunk.contents.allocations {
            let size = UInt64(allocation.bytes)
            switch allocation.claimant {
            case .buffer(let buffer):
                liveBuffers += 1
                liveBytes += size
                requestedBytes += min(table.buffers[buffer].length, size)
            case .cache:
                cachedBuffers += 1
                cachedBytes += size
            case .nobody:
                unreachableBuffers += 1
                unreachableBytes += size
            }
        }
        if kind == .pooled {
            emptySlabs = UInt64(chunk.contents.runs.count { $0.elementBytes != nil && $0.liveElements == 0 })
        }
        let used = liveBytes + cachedBytes + unreachableBytes
        idleBytes = bytes - min(bytes, used)
    }
}
