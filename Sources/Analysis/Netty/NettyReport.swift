public import DumpFormat

/// What Netty's allocators keep, where, and what it waits for; and whose the direct memory is that is not Netty's.
extension Report {
    public static let nettySelection = ChunkQuestion().selection

    /// Nil where the snapshot is of no heap dump, or lacks the columns.
    public static func netty(of snapshot: Snapshot) -> Report? {
        guard snapshot.header.format == .nettyHeapDump else { return nil }
        var report = Report(command: "netty")
        report.mainTableName = "netty_chunks"
        report.add(nil, .lines(heapDumpHeadline(snapshot)))
        if !snapshot.nettyChunks.isEmpty {
            report.add("Why", .lines(AllocatorStory.all(snapshot).map { Line("", "\(.text($0.words))") }))
            report.add(nil, .table(chunkPlaces(snapshot)))
            if snapshot.nettyChunks.contains(where: { $0.kind != .pooled }) {
                report.add("Magazines", .table(magazines(snapshot)))
            }
            report.add("Chunks", .table(nettyChunks(snapshot)))
            if let study = ChunkStudy(snapshot, ChunkQuestion()) {
                report.add(nil, .table(pinTable(study.pinners, snapshot, "pinners", "Who pins them")))
            }
        }
        if !snapshot.directReferrers.isEmpty {
            report.add("Direct memory that java.nio.Bits counts", .table(directReferrers(snapshot)))
        }
        for note in snapshot.notes { report.add(nil, .paragraph("\(.text(note.text))")) }
        let sum = PlaceSum(snapshot.nettyChunks)
        report.data = [
            Field("chunk_count", .count(sum.chunks)), Field("chunk_bytes", .bytes(sum.bytes)),
            Field("live_buffers", .count(sum.liveBuffers)), Field("live_bytes", .bytes(sum.liveBytes)),
            Field("requested_bytes", .bytes(sum.requestedBytes)), Field("cached_bytes", .bytes(sum.cachedBytes)),
            Field("unreachable_bytes", .bytes(sum.unreachableBytes)), Field("idle_bytes", .bytes(sum.idleBytes)),
            Field("why", .text(AllocatorStory.all(snapshot).map(\.words).joined(separator: "\n"))),
            Field("notes", .text(snapshot.notes.map(\.text).joined(separator: "\n"))),
        ]
        return report
    }

    // MARK: Chunk by chunk

    /// Those with the most idle bytes first.
    private static func nettyChunks(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "netty_chunks",
            columns: [
                .init("chunk", "Chunk"), .init("allocator", "allocator", isOptional: true), .init("kind"),
                .init("segment_bytes"), .init("kind_in_words", "kind", for: .people, isOptional: true), .init("place"),
                .init("place_in_words", "where", for: .people), .init("thread", "thread", isOptional: true),
                .init("bytes", "bytes"), .init("live_buffers", "buffers"), .init("live_bytes", "live"),
                .init("requested_bytes"), .init("cached_buffers"), .init("cached_bytes", "cached", isOptional: true),
                .init("unreachable_buffers"), .init("unreachable_bytes", "no ByteBuf", isOptional: true),
                .init("idle_bytes", "idle"),
                .init("waits_for", "waits for"),
            ])
        let evidence = EvidenceGrade(snapshot, for: .unreachable)
        table.rows = snapshot.nettyChunks.sorted { ($1.idleBytes, $0.chunk) < ($0.idleBytes, $1.chunk) }.map { row in
            Table.Row([
                .number(UInt64(row.chunk)), .text(row.allocator), .text(kindName(row.kind)),
                row.segmentBytes > 0 ? .bytes(row.segmentBytes) : .blank, .text(row.kindInWords),
                .text(row.place.name), .text(row.place.words(isOwn: !row.thread.isEmpty)),
                row.thread.isEmpty ? .blank : .text(row.thread), .bytes(row.bytes), .count(row.liveBuffers),
                .bytes(row.liveBytes), .bytes(row.requestedBytes), .count(row.cachedBuffers), .bytes(row.cachedBytes),
                .count(row.unreachableBuffers), .bytes(row.unreachableBytes), .bytes(row.idleBytes),
                .text(row.waitsFor(evidence)),
            ])
        }
        return table
    }

    private static func kindName(_ kind: Snapshot.NettyChunk.Kind) -> String {
        switch kind {
        case .pooled: "pooled"
        case .sizeClass: "size-class"
        case .buddies: "buddies"
        case .bump: "bump"
        }
    }

    // MARK: Magazines

    private struct MagazineKey: Hashable {
        var allocator: String
        var thread: String
        var isKept: Bool
        var kind: Snapshot.NettyChunk.Kind
        var segmentBytes: UInt64
    }

    /// The adaptive allocator's magazines by whose they are and what they allocate, each with the chunks it has.
    private static func magazines(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "magazines",
            columns: [
                .init("allocator", "Allocator", isOptional: true), .init("owner", "magazines of"), .init("kind"),
                .init("segment_bytes"), .init("kind_in_words", "for", for: .people),
                .init("current_chunks", "current"), .init("next_chunks", "next"), .init("cached_chunks", "in caches"),
                .init("bytes", "bytes"), .init("live_buffers", "buffers"), .init("live_bytes", "live"),
                .init("requested_bytes"), .init("unreachable_bytes", "no ByteBuf", isOptional: true),
                .init("idle_bytes", "idle"),
            ])
        var groups: [MagazineKey: [Snapshot.NettyChunk]] = [:]
        for row in snapshot.nettyChunks where row.kind != .pooled {
            let key = MagazineKey(
                allocator: row.allocator, thread: row.thread, isKept: row.place != .buffersOnly, kind: row.kind,
                segmentBytes: row.segmentBytes)
            groups[key, default: []].append(row)
        }
        let sums = groups.mapValues { PlaceSum($0) }
        let keys = groups.keys.sorted { left, right in
            let (one, two) = (sums[left]?.idleBytes ?? 0, sums[right]?.idleBytes ?? 0)
            if one != two { return one > two }
            return (left.allocator, left.thread, left.kind.rawValue, left.segmentBytes)
                < (right.allocator, right.thread, right.kind.rawValue, right.segmentBytes)
        }
        table.rows = keys.compactMap { key in
            guard let rows = groups[key], let sum = sums[key], let first = rows.first else { return nil }
            func chunks(_ places: [Snapshot.NettyChunk.Place]) -> Value {
                .count(UInt64(rows.count { places.contains($0.place) }))
            }
            let owner = key.isKept ? (key.thread.isEmpty ? "all threads" : "thread \(key.thread)") : "nobody"
            return Table.Row([
                .text(key.allocator), .text(owner), .text(kindName(key.kind)),
                key.segmentBytes > 0 ? .bytes(key.segmentBytes) : .blank, .text(first.kindInWords), chunks([.current]),
                chunks([.nextInLine]), chunks([.cache, .centralQueue]), .bytes(sum.bytes), .count(sum.liveBuffers),
                .bytes(sum.liveBytes), .bytes(sum.requestedBytes), .bytes(sum.unreachableBytes), .bytes(sum.idleBytes),
            ])
        }
        return table
    }

    // MARK: The rest of direct memory

    private static func directReferrers(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "direct_referrers",
            columns: [
                .init("referrer", "Reachable from"), .init("kind"), .init("buffers", "buffers"),
                .init("bytes", "bytes"),
                .init("share", "share"),
            ])
        let all = snapshot.directReferrers.reduce(UInt64(0)) { $0 &+ $1.bytes }
        table.rows = snapshot.directReferrers.map { row in
            Table.Row([
                .text(row.words), .text(row.kind.name), row.kind == .unknown ? .unknown : .count(row.buffers),
                .bytes(row.bytes), .ratio(row.bytes.share(of: all)),
            ])
        }
        return table
    }
}

extension Snapshot.DirectReferrer {
    var words: String {
        switch kind {
        case .program: name
        case .netty: "Netty's chunks and unpooled buffers"
        case .jdk: "the JDK: \(name)"
        case .nobody: "no object: a stack, or garbage"
        case .collected: "nobody: the buffer was collected, its memory not yet"
        case .unknown: "not in the dump"
        }
    }
}

extension Snapshot.DirectReferrer.Kind {
    /// For programs.
    var name: String {
        switch self {
        case .program: "program"
        case .netty: "netty"
        case .jdk: "jdk"
        case .nobody: "nobody"
        case .collected: "collected"
        case .unknown: "unknown"
        }
    }
}
