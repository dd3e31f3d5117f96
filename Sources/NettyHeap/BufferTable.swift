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

    private(set) var buffers: [Buffer] = []
    private(set) var caches: [ThreadCache] = []
    /// For each chunk object the claims on it, by the handle that Netty gave out.
    private(set) var claims: [UInt64: [(handle: Int64, by: Claimant)]] = [:]
    /// `ByteBuf`s of huge chunks, by chunk.
    private(set) var bufferOfChunk: [UInt64: Int] = [:]
    /// Live buffers of chunks of the adaptive allocator, by chunk.
    private(set) var adaptive: [UInt64: [(start: Int, bytes: Int, index: Int)]] = [:]
    /// Capacities of live unpooled direct buffers.
    private(set) var unpooledBuffers = 0
    private(set) var unpooledBytes: UInt64 = 0
    /// What the unpooled allocators count as direct memory in use.
    private(set) var unpooledCounted: UInt64 = 0

    /// Buffers that no root leads to: they count for nobody.
    private(set) var garbage = 0
    /// Buffers that no root leads to in a dump that lacks roots.
    private(set) var unjudged = 0
    private let liveness: Liveness

    /// A buffer that is garbage holds nothing: nobody can release it.
    init(_ classes: NettyClasses, _ liveness: Liveness) {
        self.liveness = liveness
        classes.forEachInstance(of: "netty/buffer/PooledByteBuf") { object in add(buffer: object) }
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$AdaptiveByteBuf") { object in
            add(adaptive: object)
        }
        // The memory of an adaptive allocator's chunk is in such a buffer, which nobody else has.
        var delegates: Set<UInt64> = []
        classes.forEachInstance(of: "netty/buffer/AdaptivePoolingAllocator$Chunk") { chunk in
            if let delegate = chunk.reference("delegate") { delegates.insert(delegate) }
        }
        classes.forEachInstance(of: "netty/buffer/UnpooledDirectByteBuf") { object in
            // A freed one has no memory any more.
            guard object.reference("buffer") != nil, let capacity = object.integer("capacity"), capacity > 0,
                !delegates.contains(object.id), judge(object) != .garbage
            else { return }
            unpooledBuffers += 1
            unpooledBytes += UInt64(capacity)
        }
        classes.forEachInstance(of: "netty/buffer/UnpooledByteBufAllocator") { allocator in
            let counted = allocator.object("metric")?.object("directCounter")?.counterValue ?? 0
            unpooledCounted += UInt64(max(0, counted))
        }
        let threads = ThreadLocals(classes)
        classes.forEachInstance(of: "netty/buffer/PoolThreadCache") { object in
            add(cache: object, thread: threads.name(of: object.id))
        }
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
            let chunk = buffer.reference("chunk"), let classIndex = buffer.classIndex
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

    /// One that was released has no chunk any more.
    private mutating func add(adaptive buffer: HeapObject) {
        guard let chunk = buffer.reference("chunk"), let classIndex = buffer.classIndex,
            // Its place was an adjustment before it was a start.
            let start = buffer.integer("startIndex") ?? buffer.integer("adjustment"), start >= 0
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

    var garbageNote: String? {
        garbage == 0
            ? nil
            : "The dump holds garbage too: no GC root leads to \(garbage) of its ByteBufs that have memory. Nobody can "
                + "release them, and what they have counts as without a ByteBuf."
    }

    /// Unpooled memory that was lost leaves no object, only a difference.
    var unpooledNote: String? {
        guard unpooledCounted > unpooledBytes else { return nil }
        return "Unpooled allocators count \(unpooledCounted) bytes of direct memory; \(unpooledBuffers) live unpooled "
            + "ByteBufs have \(unpooledBytes). No ByteBuf refers to the other \(unpooledCounted - unpooledBytes) bytes."
    }

    private static func entries(of region: HeapObject) -> [HeapObject] {
        guard let buffer = region.object("queue")?.object("buffer") else { return [] }
        // Without Unsafe the queue keeps an AtomicReferenceArray.
        return (buffer.object("array") ?? buffer).elements
    }
}

/// Which thread has which thread-local value: Netty's own map, in a field of its threads or in a plain `ThreadLocal`.
private struct ThreadLocals {
    private var names: [UInt64: String] = [:]

    init(_ classes: NettyClasses) {
        classes.forEachInstance(of: "java/lang/Thread") { thread in
            let name = Self.name(of: thread)
            if let map = thread.object("threadLocalMap") { add(map, name) }
            for entry in thread.object("threadLocals")?.object("table")?.elements ?? [] {
                if let map = entry.object("value"), map.has("indexedVariables") { add(map, name) }
            }
        }
    }

    private mutating func add(_ map: HeapObject, _ name: String) {
        for value in map.object("indexedVariables")?.references ?? [] where value != 0 { names[value] = name }
    }

    private static func name(of thread: HeapObject) -> String {
        // JDK 8 before update 60 kept the name as characters.
        guard let name = thread.object("name") else { return "" }
        return name.text ?? String(decoding: name.integers.map { UInt16(truncatingIfNeeded: $0) }, as: UTF16.self)
    }

    func name(of value: UInt64) -> String? { names[value] }
}
