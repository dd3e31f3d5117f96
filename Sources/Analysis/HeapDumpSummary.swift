import DumpFormat

// What the summary of a Netty heap dump says in other words than that of a dump of our own: there is no clock, no
// process, and what nobody holds is known for another reason.

extension Snapshot {
    /// Foreign heap dumps have no clock that births and ages could be on.
    var hasClock: Bool { header.format == .arenaDump }

    /// The time since `time`, where the dump can tell.
    func ageValue(_ time: UInt64) -> Value { hasClock ? .duration(age(time)) : .unknown }
}

extension Report {
    static func heapDumpHeadline(_ snapshot: Snapshot) -> [Line] {
        let header = snapshot.header
        let process: Phrase = header.pid > 0 ? ", pid \(.number(header.pid))" : ""
        return [
            Line("", "\(.text(header.program)) \(.text(header.programVersion))\(process)"),
            Line(
                "",
                "Java heap dump of \(.time(header.wallTime), as: "time"), \(.count(header.threadCount)) threads"),
        ]
    }

    static func heapDumpData(_ snapshot: Snapshot) -> [Field] {
        [
            Field("unpooled_bytes", .bytes(snapshot.totals.unpooledBytes)),
            Field("notes", .text(snapshot.notes.joined(separator: "\n"))),
        ]
    }

    /// `chunks = live + cached + without a ByteBuf + slack + free`, to the byte.
    static func heapDumpMemory(_ snapshot: Snapshot) -> [Line] {
        let totals = snapshot.totals
        let unheld = totals.unheldBytes ?? 0
        let byteBufs = totals.liveBuffers.less(totals.cachedBuffers).less(totals.unheldBuffers ?? 0)
        let byteBufBytes = totals.liveBytes.less(totals.cachedBytes).less(unheld)
        let freePages = snapshot.chunks.reduce(UInt64(0)) { $0 &+ UInt64($1.freePages) &* totals.pageSize }
        let shown = totals.hugeBytes > 0 ? "chunks and huge allocations" : "chunks"
        return [
            Line(
                "",
                """
                \(.text(shown)) = live \(.bytes(byteBufBytes), as: "byte_buf_bytes") \
                + cached \(.bytes(totals.cachedBytes), as: "thread_cache_bytes") + without a ByteBuf \(.bytes(unheld)) \
                + rest of slabs \(.bytes(totals.freeBytes.less(freePages)), as: "slab_rest_bytes") \
                + free \(.bytes(freePages), as: "free_page_bytes")
                """),
            Line(
                "allocated",
                """
                \(.count(totals.liveBuffers), ): \
                \(.count(byteBufs), as: "byte_bufs") by a live ByteBuf, \
                \(.count(totals.cachedBuffers), as: "thread_cache_buffers") in thread caches, \
                \(.count(totals.unheldBuffers ?? 0)) without a ByteBuf
                """),
        ]
    }
}

extension Diagnosis {
    /// The proof in Netty's words. The groups of one dump differ by size only, so all of them are one accusation.
    func heapDumpSentence(_ group: Group) -> String {
        let totals = snapshot.totals
        let buffers = totals.unheldBuffers ?? 0
        let bytes = totals.unheldBytes ?? 0
        let worst = snapshot.siteName(group.site).label
        return "\(Format.count(buffers)) of \(Format.count(totals.liveBuffers)) allocations (\(Format.bytes(bytes)), "
            + "\(Format.ratio(bytes.share(of: totals.liveBytes))) of allocated bytes) are in no thread cache, and no "
            + "ByteBuf object in the heap refers to them: nothing can release them any more, this is a leak. Most of "
            + "it: \(Format.count(group.unheldBuffers)) of \"\(worst)\" (\(Format.bytes(group.unheldBytes)))."
    }
}
