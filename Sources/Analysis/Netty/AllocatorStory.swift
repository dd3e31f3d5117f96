import DumpFormat

/// Why an allocator of Netty's has many times the memory that its live ByteBufs asked for, in sentences.
struct AllocatorStory {
    let allocator: String
    let rows: [Snapshot.NettyChunk]
    /// What it is worth that no `ByteBuf` refers to something.
    let evidence: EvidenceGrade

    /// One for each allocator that has chunks, the largest first.
    static func all(_ snapshot: Snapshot) -> [AllocatorStory] {
        let evidence = EvidenceGrade(snapshot, for: .unreachable)
        return Dictionary(grouping: snapshot.nettyChunks, by: \.allocator)
            .map { AllocatorStory(allocator: $0.key, rows: $0.value, evidence: evidence) }
            .sorted { ($1.sum.bytes, $0.allocator) < ($0.sum.bytes, $1.allocator) }
    }

    var sum: PlaceSum { PlaceSum(rows) }

    var words: String {
        let sum = sum
        let what =
            sum.liveBuffers == 0
            ? "without a live ByteBuf."
            : "for \(Format.bytes(sum.requestedBytes)) that \(Format.count(sum.liveBuffers, of: "live ByteBuf")) asked for"
                + (sum.requestedBytes > 0 ? ", \(Self.times(sum.bytes, sum.requestedBytes))." : ".")
        let head =
            "\(allocator): \(Format.count(sum.chunks, of: "chunk")) of \(Format.bytes(sum.bytes)) \(what)"
        return ([head] + (rows.first?.kind == .pooled ? pooled : adaptive)).joined(separator: " ")
    }

    static func times(_ many: UInt64, _ few: UInt64) -> String {
        let ratio = many.share(of: few)
        return ratio < 10 ? "\((ratio * 10).rounded() / 10) times" : "\(Format.count(UInt64(min(ratio, 1e15)))) times"
    }

    private func part(_ bytes: UInt64) -> String {
        "\(Format.bytes(bytes)) (\(Format.ratio(bytes.share(of: sum.bytes))))"
    }

    // MARK: Adaptive

    private var adaptive: [String] {
        var parts: [(bytes: UInt64, words: String)] = []
        let caches = PlaceSum(rows.filter { $0.place == .cache || $0.place == .centralQueue })
        if caches.idleBytes > 0 {
            let own = PlaceSum(rows.filter { $0.place == .cache && !$0.thread.isEmpty })
            var words =
                "\(part(caches.idleBytes)) is free in \(Format.count(caches.chunks, of: "chunk")) that caches keep for the "
                + "next need"
            if own.chunks > 0 {
                words +=
                    ", \(Format.bytes(own.idleBytes)) of it in caches of \(Format.count(UInt64(own.threads.count), of: "thread")), "
                    + "which no other thread uses"
            }
            parts.append((caches.idleBytes, words))
        }
        let magazines = PlaceSum(rows.filter { $0.place == .current || $0.place == .nextInLine })
        if magazines.idleBytes > 0 {
            let own = PlaceSum(rows.filter { ($0.place == .current || $0.place == .nextInLine) && !$0.thread.isEmpty })
            var words =
                "\(part(magazines.idleBytes)) is free in \(Format.count(magazines.chunks, of: "chunk")) that magazines "
                + "allocate from"
            if own.chunks > 0 {
                words += ", \(own.chunks) of them the own of \(Format.count(UInt64(own.threads.count), of: "thread"))"
                if rows.contains(where: { $0.kind == .sizeClass }) {
                    words += ": a thread keeps one for each size that it has used"
                }
            }
            parts.append((magazines.idleBytes, words))
        }
        let pinned = PlaceSum(rows.filter { $0.place == .buffersOnly })
        if pinned.idleBytes > 0 {
            let who =
                pinned.liveBuffers > 0
                ? Format.count(pinned.liveBuffers, of: "live ByteBuf") : "buffers without a ByteBuf"
            parts.append(
                (
                    pinned.idleBytes,
                    "\(part(pinned.idleBytes)) is free in \(Format.count(pinned.chunks, of: "chunk")) that only \(who) "
                        + "(\(Format.bytes(pinned.liveBytes))) keep: nothing is allocated from them any more, and each goes "
                        + "back with its last buffer"
                ))
        }
        let unreachable = sum.unreachableBytes
        if unreachable > 0 {
            let words = evidence.level == .proved ? "lost: nothing can release it" : "of no ByteBuf in the dump"
            parts.append((unreachable, "\(part(unreachable)) is \(words)"))
        }
        let slack = sum.liveBytes > sum.requestedBytes ? sum.liveBytes - sum.requestedBytes : 0
        if slack > 0 { parts.append((slack, "\(part(slack)) is rounding of live ByteBufs")) }
        return parts.sorted { $0.bytes > $1.bytes }.map { $0.words + "." }
    }

    // MARK: Pooled

    /// A chunk that so little is used of is pinned for little.
    static let little = 0.05

    private var pooled: [String] {
        var sentences: [String] = []
        let waiting = Dictionary(grouping: rows.filter { !$0.isEmpty }, by: { $0.waitsFor(evidence) }).map {
            ($0.key, PlaceSum($0.value))
        }
        .sorted { ($1.1.bytes, $0.0) < ($0.1.bytes, $1.0) }
        for (what, sum) in waiting {
            sentences.append(
                "\(Format.count(sum.chunks, of: "chunk")) (\(Format.bytes(sum.bytes))) \(sum.chunks == 1 ? "waits" : "wait") "
                    + "for \(what)\(Self.amounts(sum)).")
        }
        let pinned = rows.filter { !$0.isEmpty && $0.pinnedBytes.share(of: $0.bytes) < Self.little }
        if !pinned.isEmpty {
            let sum = PlaceSum(pinned)
            let few = pinned.reduce(UInt64(0)) { $0 &+ $1.pinnedBytes }
            sentences.append(
                "\(sum.chunks == UInt64(rows.count { !$0.isEmpty }) ? "All" : "Of them \(sum.chunks)") are pinned by less than "
                    + "\(Format.ratio(Self.little)) of their bytes: \(Format.bytes(few)) keep \(Format.bytes(sum.bytes))."
            )
        }
        let empty = rows.filter(\.isEmpty)
        if !empty.isEmpty {
            let stay = empty.count { $0.place == .qInit }
            let slabs = empty.count { $0.emptySlabs > 0 && $0.place != .qInit }
            var words = "\(Format.count(UInt64(empty.count), of: "chunk")) (\(Format.bytes(PlaceSum(empty).bytes))) "
            words += empty.count == 1 ? "is empty" : "are empty"
            if stay > 0 {
                words += ", \(stay == empty.count ? "" : "\(stay) of them ")in qInit, from where no chunk goes back"
            }
            if slabs > 0 {
                words +=
                    ", \(slabs == empty.count ? "" : "\(slabs) of them ")with an empty slab, which an arena keeps for that size"
            }
            sentences.append(words + ".")
        }
        return sentences
    }

    private static func amounts(_ sum: PlaceSum) -> String {
        var parts: [String] = []
        if sum.liveBuffers > 0 {
            parts.append("\(Format.count(sum.liveBuffers, of: "live ByteBuf")), \(Format.bytes(sum.liveBytes))")
        }
        if sum.cachedBuffers > 0 {
            parts.append("\(Format.count(sum.cachedBuffers)) in thread caches, \(Format.bytes(sum.cachedBytes))")
        }
        if sum.unreachableBuffers > 0 {
            parts.append(
                "\(Format.count(sum.unreachableBuffers)) without a ByteBuf, \(Format.bytes(sum.unreachableBytes))")
        }
        return parts.isEmpty ? "" : ": " + parts.joined(separator: "; ")
    }
}
