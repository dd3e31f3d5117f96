internal import HPROF

/// Who answers for an allocation of a chunk.
enum Claimant: Equatable {
    /// A live `PooledByteBuf`: index into `BufferTable.buffers`.
    case buffer(Int)
    /// An entry of a thread's cache: index into `BufferTable.caches`.
    case cache(Int)
    /// Nobody: no object in the heap could ever release it.
    case nobody
}

/// All objects that own allocations: live pooled buffers, and the entries of thread caches.
struct BufferTable {
    struct Buffer {
        var id: UInt64
        var chunk: UInt64
        var classIndex: Int
        /// Bytes asked for, and bytes the buffer may grow to in place.
        var length: UInt64
        /// The `PoolThreadCache` of the thread that allocated it; 0 where there is none.
        var cache: UInt64
        /// No root leads to it, and the dump lacks roots: whether it is lost cannot be said.
        var isUnjudged: Bool
    }

    struct ThreadCache {
        var id: UInt64
        /// The thread's name; nil where no thread in the dump has this cache any more.
        var thread: String?
    }

    /// What a copy of Netty has of direct memory that is in no chunk.
    struct Unpooled {
        /// Live unpooled `ByteBuf`s, and their capacities.
        var buffers = 0
        var bytes: UInt64 = 0
        /// Of them, those that `UnpooledByteBufAllocator`s count.
        var instrumentedBytes: UInt64 = 0
        /// What these allocators count as in use.
        var counted: UInt64 = 0
        /// Of their capacities, what the copy does not count: the program made it, or the JVM for it.
        var uncountedBytes: UInt64 = 0
        /// Of them, those that no root leads to in a dump that lacks roots: indices into `buffers`, and where their memory is.
        var unjudged: [(index: Int, bytes: UInt64, address: UInt64)] = []
        /// Memory that Netty's cleaners gave to others than `ByteBuf`s and chunks, such as the arrays of its native transports.
        var otherBytes: UInt64 = 0
    }

    private(set) var buffers: [Buffer] = []
    private(set) var caches: [ThreadCache] = []
    /// For each chunk object the claims on it, by the handle that Netty gave out.
    private(set) var claims: [UInt64: [(handle: Int64, by: Claimant)]] = [:]
    /// `ByteBuf`s of huge chunks, by chunk.
    private(set) var bufferOfChunk: [UInt64: Int] = [:]
    /// Live buffers of chunks of the adaptive allocator, by chunk.
    private(set) var adaptive: [UInt64: [(start: Int, bytes: Int, index: Int)]] = [:]
    /// Direct memory outside of chunks, by copy of Netty.
    private(set) var unpooled: [Unpooled]
    /// The `java.nio.ByteBuffer`s of direct memory that Netty's chunks and `ByteBuf`s have.
    private(set) var memories: Set<UInt64> = []

    /// Buffers that no root leads to: they count for nobody.
    private(set) var garbage = 0
    /// Buffers that no root leads to in a dump that lacks roots.
    private(set) var unjudged = 0
    private let liveness: Liveness
    private let memory: NettyMemory

    /// A buffer that is garbage holds nothing: nobody can release it.
    init(
        _ classes: NettyClasses, _ liveness: Liveness, _ copies: NettyCopies, _ threads: ThreadLocals,
        _ memory: NettyMemory
    ) {
        self.liveness = liveness
        self.memory = memory
        unpooled = Array(repeating: Unpooled(), count: max(1, copies.all.count))
        classes.forEachInstance(of: "netty/buffer/PooledByteBuf") { object in add(buffer: object) }
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$AdaptiveByteBuf") { object in
            add(adaptive: object)
        }
        if memory == .direct { addUnpooled(classes, copies) }
        classes.forEachInstance(of: "netty/buffer/PoolThreadCache") { object in
            add(cache: object, thread: threads.name(of: object.id))
        }
    }

    /// Unpooled `ByteBuf`s, what their allocators count, and what else of Netty has memory of its own.
    private mutating func addUnpooled(_ classes: NettyClasses, _ copies: NettyCopies) {
        // The memory of an adaptive allocator's chunk is in an unpooled buffer, which nobody else has.
        var delegates: Set<UInt64> = []
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$Chunk") { chunk in
            if let delegate = chunk.reference("delegate") { delegates.insert(delegate) }
        }
        classes.forEachInstance(of: "netty/buffer/PoolChunk") { chunk in
            for field in ["memory", "base"] { if let id = chunk.reference(field) { memories.insert(id) } }
        }
        classes.forEachInstance(of: "netty/buffer/UnpooledDirectByteBuf") { object in
            // A freed one has no memory any more.
            guard let memory = object.reference("buffer") else { return }
            memories.insert(memory)
            guard let capacity = object.integer("capacity"), 1...Int64(Int32.max) ~= capacity,
                !delegates.contains(object.id)
            else { return }
            let answer = judge(object)
            if answer == .garbage { return }
            let copy = copies.copy(of: object)
            if !Self.isCounted(object) {
                unpooled[copy].uncountedBytes += UInt64(capacity)
            } else if answer == .cannotSay, copies.all[copy].counting.losesWhatIsDropped {
                addUnjudged(object, UInt64(capacity), copy)
            }
            unpooled[copy].buffers += 1
            unpooled[copy].bytes += UInt64(capacity)
            if object.className?.contains("$Instrumented") == true {
                unpooled[copy].instrumentedBytes += UInt64(capacity)
            }
        }
        for family in NettyClasses.cleanables {
            classes.forEachInstance(of: family) { object in
                guard let memory = object.object("buffer"), !memories.contains(memory.id),
                    let capacity = memory.integer("capacity"), 1...Int64(Int32.max) ~= capacity,
                    liveness.answer(object) != .garbage
                else { return }
                unpooled[copies.copy(of: object)].otherBytes += UInt64(capacity)
            }
        }
        classes.forEachInstance(of: "netty/buffer/UnpooledByteBufAllocator") { allocator in
            let counted = allocator.object("metric")?.object("directCounter")?.counterValue ?? 0
            unpooled[copies.copy(of: allocator)].counted += UInt64(max(0, counted))
        }
    }

    /// Whether a copy that counts its memory counts that of this unpooled buffer. A `ByteBuffer` of the program's that it is
    /// wrapped around is not counted, nor is what a copy has the JVM make: small buffers beside a cleaner that is slow, and
    /// in 4.1 all that have the JVM's cleaner.
    private static func isCounted(_ buffer: HeapObject) -> Bool {
        if buffer.integer("doNotFree") == 1 { return false }
        guard buffer.has("cleanable") else { return buffer.className?.contains("NoCleaner") == true }
        return buffer.object("cleanable")?.className?.contains("netty/util/internal/PlatformDependent$") != true
    }

    private mutating func addUnjudged(_ buffer: HeapObject, _ bytes: UInt64, _ copy: Int) {
        guard let classIndex = buffer.classIndex else { return }
        let address = buffer.object("buffer")?.integer("address") ?? 0
        unpooled[copy].unjudged.append((buffers.count, bytes, UInt64(bitPattern: address)))
        buffers.append(
            Buffer(id: buffer.id, chunk: 0, classIndex: classIndex, length: bytes, cache: 0, isUnjudged: true))
    }

    private mutating func judge(_ buffer: HeapObject) -> Liveness.Answer {
        let answer = liveness.answer(buffer)
        switch answer {
        case .live: break
        case .garbage: garbage += 1
        case .cannotSay: unjudged += 1
        }
        return answer
    }

    private mutating func add(buffer: HeapObject) {
        guard let handle = buffer.integer("handle"), handle >= 0, buffer.reference("memory") != nil,
            let chunk = buffer.reference("chunk"), let classIndex = buffer.classIndex,
            isOnJavaHeap(buffer) == (memory == .javaHeap)
        else { return }
        let answer = judge(buffer)
        if answer == .garbage { return }
        claims[chunk, default: []].append((handle, .buffer(buffers.count)))
        bufferOfChunk[chunk] = buffers.count
        buffers.append(
            Buffer(
                id: buffer.id, chunk: chunk, classIndex: classIndex,
                length: UInt64(max(0, buffer.integer("length") ?? 0)), cache: buffer.reference("cache") ?? 0,
                isUnjudged: answer == .cannotSay))
    }

    private func isOnJavaHeap(_ buffer: HeapObject) -> Bool {
        if case .primitiveArray? = buffer.object("memory")?.kind { true } else { false }
    }

    /// One that was released has no chunk any more.
    private mutating func add(adaptive buffer: HeapObject) {
        guard let chunk = buffer.reference("chunk"), let classIndex = buffer.classIndex,
            // Its place was an adjustment before it was a start.
            let start = buffer.integer("startIndex") ?? buffer.integer("adjustment"), start >= 0,
            buffer.object("chunk").flatMap(AdaptiveChunk.memory) == memory
        else { return }
        let answer = judge(buffer)
        if answer == .garbage { return }
        bufferOfChunk[chunk] = buffers.count
        let length = max(0, buffer.integer("length") ?? 0)
        let place = (start: Int(start), bytes: Int(max(length, buffer.integer("maxFastCapacity") ?? 0)))
        adaptive[chunk, default: []].append((place.start, place.bytes, buffers.count))
        buffers.append(
            Buffer(
                id: buffer.id, chunk: chunk, classIndex: classIndex, length: UInt64(length), cache: 0,
                isUnjudged: answer == .cannotSay))
    }

    /// `smallSubPageDirectCaches[i].queue.buffer[j]` is an `Entry`. Which arrays there are depends on the version.
    private mutating func add(cache: HeapObject, thread: String?) {
        for name in ["tinySubPage", "smallSubPage", "normal"] {
            for kind in ["Direct", "Heap"] {
                for region in cache.object("\(name)\(kind)Caches")?.elements ?? [] {
                    for entry in Self.entries(of: region) {
                        guard let handle = entry.integer("handle"), handle >= 0, let chunk = entry.reference("chunk")
                        else { continue }
                        claims[chunk, default: []].append((handle, .cache(caches.count)))
                    }
                }
            }
        }
        caches.append(ThreadCache(id: cache.id, thread: thread))
    }

    /// What the summary says of garbage, which shows only where somebody frees it no more.
    func garbageNote(isInFigures: Bool) -> String? {
        guard garbage > 0 else { return nil }
        let who = "The dump holds garbage too: no GC root leads to \(garbage) of its ByteBufs that have direct memory. "
        return who
            + (isInFigures
                ? "Nobody can release them, and what they have counts as without a ByteBuf."
                : "The JVM frees what they have with them, so that it is not lost.")
    }

    private static func entries(of region: HeapObject) -> [HeapObject] {
        guard let buffer = region.object("queue")?.object("buffer") else { return [] }
        // Without Unsafe the queue keeps an AtomicReferenceArray.
        return (buffer.object("array") ?? buffer).elements
    }
}
