import DumpFormat

/// What several chunks of Netty's allocators come to.
struct PlaceSum {
    var chunks: UInt64 = 0
    var bytes: UInt64 = 0
    var liveBuffers: UInt64 = 0
    var liveBytes: UInt64 = 0
    var requestedBytes: UInt64 = 0
    var cachedBuffers: UInt64 = 0
    var cachedBytes: UInt64 = 0
    var unreachableBuffers: UInt64 = 0
    var unreachableBytes: UInt64 = 0
    var idleBytes: UInt64 = 0
    /// Threads whose own they are.
    var threads: Set<String> = []

    init() {}

    init(_ rows: some Sequence<Snapshot.NettyChunk>) { for row in rows { add(row) } }

    mutating func add(_ row: Snapshot.NettyChunk) {
        chunks &+= 1
        bytes &+= row.bytes
        liveBuffers &+= row.liveBuffers
        liveBytes &+= row.liveBytes
        requestedBytes &+= row.requestedBytes
        cachedBuffers &+= row.cachedBuffers
        cachedBytes &+= row.cachedBytes
        unreachableBuffers &+= row.unreachableBuffers
        unreachableBytes &+= row.unreachableBytes
        idleBytes &+= row.idleBytes
        if !row.thread.isEmpty { threads.insert(row.thread) }
    }
}

extension Snapshot.NettyChunk {
    var isEmpty: Bool { liveBuffers == 0 && cachedBuffers == 0 && unreachableBuffers == 0 }

    /// What somebody has in it, so that it cannot go back.
    var pinnedBytes: UInt64 { liveBytes &+ cachedBytes &+ unreachableBytes }

    /// What must happen before it goes back, in words that follow "waits for".
    func waitsFor(_ evidence: EvidenceGrade) -> String {
        var what: [String] = []
        if liveBuffers > 0 { what.append("live ByteBufs") }
        if cachedBuffers > 0 { what.append("thread caches") }
        if unreachableBuffers > 0 {
            what.append(
                evidence.level == .proved
                    ? "memory that nothing can release" : "memory that no ByteBuf of the dump refers to")
        }
        if what.isEmpty {
            return emptySlabs > 0 && place != .qInit
                ? "the next buffer of the size of its empty slab" : place.keepsEmpty
        }
        return what.count < 3 ? what.joined(separator: " and ") : "\(what[0]), \(what[1]) and \(what[2])"
    }

    var kindInWords: String {
        switch kind {
        case .pooled: "pages"
        case .sizeClass: "segments of \(Format.bytes(segmentBytes))"
        case .buddies: "buddies"
        case .bump: "bump"
        }
    }
}

extension Snapshot.NettyChunk.Place {
    /// For programs.
    var name: String {
        switch self {
        case .unknown: "unknown"
        case .current: "current"
        case .nextInLine: "next-in-line"
        case .cache: "cache"
        case .centralQueue: "central-queue"
        case .buffersOnly: "buffers-only"
        case .qInit: "qInit"
        case .q000: "q000"
        case .q025: "q025"
        case .q050: "q050"
        case .q075: "q075"
        case .q100: "q100"
        }
    }

    /// `isOwn`: of a thread's own.
    func words(isOwn: Bool) -> String {
        switch self {
        case .unknown: "unknown"
        case .current: isOwn ? "current chunk of a thread's magazine" : "current chunk of a shared magazine"
        case .nextInLine: isOwn ? "next in line of a thread's magazine" : "next in line of a shared magazine"
        case .cache: isOwn ? "chunk cache of a thread" : "shared chunk cache"
        case .centralQueue: "central queue"
        case .buffersOnly: "kept by its buffers alone"
        case .qInit: "qInit (under 25 %, stays when empty)"
        case .q000: "q000 (1 to 50 %)"
        case .q025: "q025 (25 to 75 %)"
        case .q050: "q050 (50 to 100 %)"
        case .q075: "q075 (75 to 100 %)"
        case .q100: "q100 (100 %)"
        }
    }

    /// What an empty chunk there waits for.
    var keepsEmpty: String {
        switch self {
        case .qInit: "nothing: in qInit it stays"
        case .current, .nextInLine: "its magazine's next allocation"
        case .cache, .centralQueue: "the next need of a chunk"
        default: "nothing that is in the dump"
        }
    }

    /// In the order of tables.
    static let order: [Self] = [
        .current, .nextInLine, .cache, .centralQueue, .buffersOnly, .qInit, .q000, .q025, .q050, .q075, .q100, .unknown,
    ]
}

extension Report {
    private struct PlaceKey: Hashable {
        var allocator: String
        var place: Snapshot.NettyChunk.Place
        var isOwn: Bool
    }

    /// Where each allocator's chunks are: one row for each place.
    static func chunkPlaces(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "chunk_places",
            columns: [
                .init("allocator", "Where chunks are"), .init("place"), .init("place_in_words", "", for: .people),
                .init("owned"), .init("threads", "threads", isOptional: true), .init("chunks", "chunks"),
                .init("bytes", "bytes"), .init("live_buffers", "buffers", isOptional: true),
                .init("live_bytes", "live"), .init("requested_bytes"), .init("cached_buffers"),
                .init("cached_bytes", "cached", isOptional: true), .init("unreachable_buffers"),
                .init("unreachable_bytes", "no ByteBuf", isOptional: true), .init("idle_bytes", "idle"),
            ])
        var sums: [PlaceKey: PlaceSum] = [:]
        for row in snapshot.nettyChunks {
            let key = PlaceKey(allocator: row.allocator, place: row.place, isOwn: !row.thread.isEmpty)
            sums[key, default: PlaceSum()].add(row)
        }
        let order = Dictionary(uniqueKeysWithValues: zip(Snapshot.NettyChunk.Place.order, 0...))
        let keys = sums.keys.sorted { left, right in
            if left.allocator != right.allocator { return left.allocator < right.allocator }
            let (one, two) = (order[left.place] ?? 0, order[right.place] ?? 0)
            return one != two ? one < two : left.isOwn && !right.isOwn
        }
        table.rows = keys.compactMap { key in
            guard let sum = sums[key] else { return nil }
            return Table.Row([
                .text(key.allocator), .text(key.place.name), .text(key.place.words(isOwn: key.isOwn)), .flag(key.isOwn),
                key.isOwn ? .count(UInt64(sum.threads.count)) : .blank, .count(sum.chunks), .bytes(sum.bytes),
                .count(sum.liveBuffers), .bytes(sum.liveBytes), .bytes(sum.requestedBytes), .count(sum.cachedBuffers),
                .bytes(sum.cachedBytes), .count(sum.unreachableBuffers), .bytes(sum.unreachableBytes),
                .bytes(sum.idleBytes),
            ])
        }
        return table
    }
}
