internal import DumpFormat
internal import HPROF

/// A chunk of Netty 4.2's adaptive allocator. There are three kinds, told apart by their fields; one has a tree of buddies.
///
/// A chunk of one *size class* has `segmentSize`, and a list of the segments that are free. What is neither free nor a
/// live `ByteBuf`'s is lost.
///
/// A *bump* chunk hands out what follows, up to `allocatedBytes`, and takes nothing back before its reference count is
/// zero: one reference for each buffer, and one of the magazine or the queue that has the chunk. What was released lies
/// idle until then.
///
///     0          startIndex                     allocatedBytes      capacity
///     | released | a live buffer | released or lost |    free       |
///
/// Where it has more references than buffers and keepers, those buffers are lost. Which of the released bytes were theirs
/// the chunk does not say, and it makes no difference: none of them can be used again, because the count never gets to
/// zero.
struct AdaptiveChunk {
    let capacity: Int
    let address: UInt64
    /// Index of the allocator it belongs to; nil where the dump does not tell.
    let allocator: UInt64?
    private(set) var contents: ChunkContents
    /// References that no buffer and no keeper has: lost buffers of a bump chunk.
    private(set) var lostReferences: UInt64 = 0
    /// How memory is handed out of it, and of a size class the bytes of a segment.
    private(set) var kind = Snapshot.NettyChunk.Kind.bump
    private(set) var segmentBytes: UInt64 = 0
    /// Whether it served one request that was too large for pooled chunks.
    let isOneOff: Bool

    /// Where the chunk's memory is; nil for one that has none any more, and for the mark of a freed magazine.
    static func memory(of chunk: HeapObject) -> NettyMemory? {
        guard let delegate = chunk.object("delegate") else { return nil }
        if delegate.has("array") { return (delegate.object("array")?.count ?? 0) > 0 ? .javaHeap : nil }
        return delegate.reference("buffer") == nil ? nil : .direct
    }

    init?(_ chunk: HeapObject, _ buffers: [(start: Int, bytes: Int, index: Int)], keepers: Int, pageSize: Int) {
        guard let capacity = chunk.integer("capacity"), capacity > 0 else { return nil }
        self.capacity = Int(capacity)
        let delegate = chunk.object("delegate")
        let address = delegate?.integer("memoryAddress") ?? delegate?.object("buffer")?.integer("address") ?? 0
        self.address = UInt64(bitPattern: address)
        allocator = Self.allocator(of: chunk)
        isOneOff = chunk.integer("pooled") == 0
        contents = ChunkContents(pageSize: pageSize, pages: (Int(capacity) + pageSize - 1) / pageSize)
        if let segment = chunk.integer("segmentSize"), segment > 0, segment <= capacity {
            guard let free = Self.freeSegments(chunk) else { return nil }
            (kind, segmentBytes) = (.sizeClass, UInt64(segment))
            addSegments(Int(segment), free, buffers)
        } else if let tree = chunk.object("buddies")?.integers {
            let known = Self.buddies(chunk, tree, capacity: Int(capacity), pageSize: pageSize, buffers)
            guard let known else { return nil }
            kind = .buddies
            contents = known
        } else {
            let references = Self.references(chunk)
            let live = UInt64(buffers.count + keepers)
            if let references, references > live { lostReferences = references - live }
            if let references, references < live {
                contents.problems.append("\(references) references, of \(buffers.count) buffers and \(keepers) keepers")
            }
            addBump(Int(chunk.integer("allocatedBytes") ?? 0), isKept: keepers > 0, buffers)
        }
    }

    /// Netty's allocator object; a chunk names it itself, or its magazine does.
    private static func allocator(of chunk: HeapObject) -> UInt64? {
        if let allocator = chunk.reference("allocator") { return allocator }
        guard let magazine = chunk.object("magazine") else { return nil }
        return magazine.reference("parent") ?? magazine.object("group")?.reference("allocator")
    }

    /// An even count is twice the number of references, an odd one none. Newer versions keep it in an object.
    static func references(_ chunk: HeapObject) -> UInt64? {
        guard let raw = chunk.integer("refCnt") ?? chunk.object("refCnt")?.integer("value") else { return nil }
        return raw & 1 == 1 ? 0 : UInt64(UInt32(truncatingIfNeeded: raw) >> 1)
    }

    // MARK: Size classes

    /// Offsets of free segments: a queue any thread may put them into, and in later versions also the owner's stack.
    private static func freeSegments(_ chunk: HeapObject) -> Set<Int>? {
        guard let queue = chunk.object("freeList") ?? chunk.object("externalFreeList") else { return nil }
        var free = Set((queued(queue) ?? []).map { Int($0) })
        if let own = chunk.object("localFreeList"), let stack = own.object("stack")?.integers {
            let count = Int(clamping: (own.integer("top") ?? -1) &+ 1)
            for offset in stack.prefix(max(0, count)) { free.insert(Int(offset)) }
        }
        return free
    }

    /// What is in an `MpscIntQueue`, the oldest first.
    static func queued(_ queue: HeapObject) -> [Int64]? {
        guard let slots = queue.object("array")?.integers, let mask = queue.integer("mask"),
            let first = queue.integer("consumerIndex"), let end = queue.integer("producerIndex"), !slots.isEmpty
        else { return nil }
        return (0..<min(max(0, end &- first), Int64(slots.count))).compactMap { place in
            let slot = Int(truncatingIfNeeded: (first &+ place) & mask)
            return slots.indices.contains(slot) ? slots[slot] : nil
        }
    }

    private mutating func addSegments(
        _ segment: Int, _ free: Set<Int>, _ buffers: [(start: Int, bytes: Int, index: Int)]
    ) {
        var claims: [Int: Int] = [:]
        for buffer in buffers { claims[buffer.start] = buffer.index }
        let count = capacity / segment
        var run = ChunkContents.Run(firstPage: 0, pages: contents.pages, elementBytes: segment, elements: count)
        for element in 0..<count {
            let offset = element * segment
            if free.contains(offset) {
                if claims[offset] != nil {
                    contents.problems.append("the segment at \(offset) is free and has a buffer")
                }
                continue
            }
            run.liveElements += 1
            let claimant = claims[offset].map { Claimant.buffer($0) } ?? .nobody
            contents.allocations.append(.init(offset: offset, bytes: segment, run: 0, claimant: claimant))
        }
        contents.runs = [run]
    }

    // MARK: Bump

    private mutating func addBump(
        _ allocated: Int, isKept: Bool, _ buffers: [(start: Int, bytes: Int, index: Int)]
    ) {
        let end = min(max(0, allocated), capacity)
        let covered = isKept ? end : capacity
        var run = ChunkContents.Run(
            firstPage: 0, pages: (covered + contents.pageSize - 1) / contents.pageSize, elementBytes: covered)
        run.isBump = true
        run.mayBeSeveral = true
        var next = 0
        func gap(to start: Int) {
            guard start > next, lostReferences > 0 else { return }
            contents.allocations.append(.init(offset: next, bytes: start - next, run: 0, claimant: .nobody))
        }
        for buffer in buffers.sorted(by: { $0.start < $1.start }) {
            guard buffer.start >= next, buffer.bytes > 0, buffer.start + buffer.bytes <= capacity else {
                contents.problems.append("the buffer at \(buffer.start) overlaps another or leaves the chunk")
                continue
            }
            gap(to: buffer.start)
            contents.allocations.append(
                .init(offset: buffer.start, bytes: buffer.bytes, run: 0, claimant: .buffer(buffer.index)))
            next = buffer.start + buffer.bytes
        }
        gap(to: end)
        run.liveElements = contents.allocations.count
        run.elements = run.liveElements
        contents.runs = run.pages > 0 ? [run] : []
    }
}
