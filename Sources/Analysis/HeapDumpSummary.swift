import DumpFormat

// What the summary of a Netty heap dump says in other words than that of a dump of our own: there is no clock, no
// process, and what nobody holds is known for another reason.

extension Snapshot {
    /// Foreign heap dumps have no clock that births and ages could be on.
    var hasClock: Bool { header.format == .arenaDump }

    /// What `totals.liveBuffers` counts. In a heap dump that is what the allocator has not got back: also what threads cache, and
    /// what is lost.
    var liveNoun: String { hasClock ? "live buffer" : "allocation" }
    var liveBytesNoun: String { hasClock ? "live bytes" : "allocated bytes" }

    /// `x 16 MiB`, or where chunks differ in size, `of 128 KiB to 1 MiB`.
    var chunkSizes: String {
        let sizes = chunks.lazy.filter { !$0.isMapping }.map(\.bytes)
        guard header.format == .nettyHeapDump, let least = sizes.min(), let most = sizes.max(), least < most else {
            return "x \(Format.bytes(totals.chunkSize))"
        }
        return "of \(Format.bytes(least)) to \(Format.bytes(most))"
    }

    /// The time since `time`, where the dump can tell.
    func ageValue(_ time: UInt64) -> Value { hasClock ? .duration(age(time)) : .unknown }

    /// The moment `time` by the wall clock, where the dump can tell.
    func momentValue(_ time: UInt64) -> Value { hasClock ? .time(wallTime(time)) : .unknown }
}

extension Report {
    static func heapDumpHeadline(_ snapshot: Snapshot) -> [Line] {
        let header = snapshot.header
        let process: Phrase = header.pid > 0 ? ", pid \(.number(header.pid))" : ""
        return [
            Line("", "\(.text(header.program)) \(.text(header.programVersion))\(process)"),
            Line(
                "",
                "Java heap dump of \(.time(header.wallTime), as: "time"), \(header.threadCount, of: "thread")"),
        ]
    }

    static func heapDumpData(_ snapshot: Snapshot) -> [Field] {
        [
            Field("live_buffers", .count(snapshot.totals.liveBuffers)),
            Field("unpooled_bytes", .bytes(snapshot.totals.unpooledBytes)),
            Field("unpooled_unreachable_bytes", .bytes(snapshot.unreachableUnpooled)),
            Field("use", snapshot.fullestCopy?.use.map { .ratio($0) } ?? .unknown),
            Field("fullest_copy", snapshot.fullestCopy.map { .text($0.name) } ?? .unknown),
            Field("notes", .text(snapshot.notes.map(\.text).joined(separator: "\n"))),
        ]
    }

    /// `chunks = live + cached + without a ByteBuf + slack + free`, to the byte.
    static func heapDumpMemory(_ snapshot: Snapshot) -> [Line] {
        let totals = snapshot.totals
        let unreachable = totals.unreachableBytes ?? 0
        let unjudged = snapshot.header.unjudgedBuffers
        let byteBufs = totals.liveBuffers.less(totals.cachedBuffers).less(totals.unreachableBuffers ?? 0).less(unjudged)
        let byteBufBytes = totals.liveBytes.less(totals.cachedBytes).less(unreachable)
        let unjudgedPart: Phrase =
            unjudged == 0
            ? ""
            : """
            , \(.count(unjudged)) by a ByteBuf that no root leads to \
            (\(.bytes(snapshot.header.unjudgedBytes)), cannot be said)
            """
        let freePages = snapshot.chunks.reduce(UInt64(0)) { $0 &+ UInt64($1.freePages) &* totals.pageSize }
        let others =
            (totals.hugeBytes > 0 ? ["huge allocations"] : [])
            + (snapshot.unreachableUnpooled > 0 ? ["lost unpooled memory"] : [])
            + (snapshot.unreachableUnpooled < snapshot.unpooledInRows ? ["unpooled memory that no root leads to"] : [])
        let shown = (["chunks"] + others).joined(separator: others.count > 1 ? ", " : " and ")
        return [
            Line(
                "",
                """
                \(.text(shown)) = live \(.bytes(byteBufBytes), as: "byte_buf_bytes") \
                + cached \(.bytes(totals.cachedBytes), as: "thread_cache_bytes") + without a ByteBuf \(.bytes(unreachable)) \
                + rest of slabs \(.bytes(totals.freeBytes.less(freePages)), as: "slab_rest_bytes") \
                + free \(.bytes(freePages), as: "free_page_bytes")
                """),
            Line(
                "allocated",
                """
                \(.count(totals.liveBuffers), ): \
                \(.count(byteBufs), as: "byte_bufs") by a live ByteBuf, \
                \(.count(totals.cachedBuffers), as: "thread_cache_buffers") in thread caches, \
                \(.count(totals.unreachableBuffers ?? 0)) without a ByteBuf\(unjudgedPart)
                """),
        ]
    }
}

extension Report {
    /// Answers about ages are unknown in a dump without a clock, and conditions on them match nothing: both are said.
    static func addClockNote(to report: inout Report, _ snapshot: Snapshot, _ filter: Filter?) {
        guard !snapshot.hasClock else { return }
        let asked = filter?.selection.slots.isDisjoint(with: [.birth, .accessTime]) == false
        report.add(
            nil,
            .paragraph(
                asked
                    ? "A heap dump has no clock: the filter asks for an age or a time, which no buffer in it has."
                    : "A heap dump has no clock: when a buffer was allocated is not in it, so all ages are unknown.",
                asked ? .warning : .plain))
    }

    static func heapDumpKind(_ site: SiteName, _ snapshot: Snapshot) -> Phrase {
        "\(.text(site.label), as: "site"); where and when it was allocated is not in a heap dump"
    }
}

extension FindingStory {
    var heapDumpHeadline: String {
        "\(verdict): \(site.label)"
    }

    /// No place and no time, because the dump has neither; instead what Netty's leak detector knows, and how to make it
    /// know more.
    var heapDumpParagraph: String {
        let share = Format.ratio(finding.amount.bytes.share(of: snapshot.totals.liveBytes))
        var parts = [
            "\(Format.count(finding.amount.buffers)) \(finding.amount.buffers == 1 ? "allocation" : "allocations"), \(Format.bytes(finding.amount.bytes)), \(share) of "
                + "allocated bytes\(finding.importance.inWords)."
        ]
        if let growth = finding.growth {
            parts.append("They grew in every one of \(growth.dumps) dumps, \(growth.inWords("allocation")).")
        }
        parts.append(owners)
        if finding.kind == .unreachable {
            parts.append(
                "Evidence (\(finding.confidence.word)): the chunks' own books have them allocated, or of what is in no chunk the "
                    + "counters do; they are in no thread's cache, and no ByteBuf object in the heap refers to them, so nobody "
                    + "can release them any more\(reservation).")
        } else {
            parts.append(
                "Evidence (\(finding.confidence.word)): they only grow, and objects of the program hold them.")
        }
        parts.append("A heap dump does not say where or when they were allocated.")
        let detector = snapshot.notes.map(\.text).filter { $0.hasPrefix("Netty's leak detector") }.prefix(2)
        parts += detector
        parts.append(
            detector.isEmpty
                ? "Next: let Netty's leak detector find the place: run with -Dio.netty.leakDetection.level=paranoid in a "
                    + "test, or advanced in production, and read its LEAK lines in the log, or those of the next dump "
                    + "(summary); a second dump shows whether it still grows (diff)."
                : "Next: read the code that the leak detector names: some way out of it neither passes the buffer on nor "
                    + "releases it; -Dio.netty.leakDetection.level=advanced also records who had it last.")
        parts.append("Fingerprint \(finding.fingerprint).")
        return parts.filter { !$0.isEmpty }.joined(separator: " ")
    }
}

extension Diagnosis {
    /// Lost memory of all sizes is one accusation. Where it is so little that threads may have been in the middle of
    /// allocating it, the `EvidenceGrade` says so.
    static func heapDumpSuspects(_ groups: [Group]) -> [(group: Group, rule: Rule)] {
        groups.filter { $0.unreachableBytes > 0 }.sorted { $0.unreachableBytes > $1.unreachableBytes }.map {
            ($0, unreachableRule)
        }
    }

    /// Of a group whose size matters only as a part of what is lost in all.
    func heapDumpImportance(of amount: Amount) -> Importance {
        let totals = snapshot.totals
        let lost = Amount(buffers: totals.unreachableBuffers ?? 0, bytes: totals.unreachableBytes ?? 0)
        return amount.bytes.share(of: lost.bytes) >= Importance.shareFloor
            ? Importance(of: lost, beside: totals) : .minor
    }

    /// The proof in Netty's words. The groups of one dump differ by size only, so all of them are one accusation.
    func heapDumpSentence(_ group: Group) -> String {
        let totals = snapshot.totals
        let buffers = totals.unreachableBuffers ?? 0
        let bytes = totals.unreachableBytes ?? 0
        let worst = snapshot.siteName(group.site).label
        let (are, them) = buffers == 1 ? ("is", "it") : ("are", "them")
        return
            "\(Format.count(buffers)) of \(Format.count(totals.liveBuffers, of: "allocation")) (\(Format.bytes(bytes)), "
            + "\(Format.ratio(bytes.share(of: totals.liveBytes))) of allocated bytes) \(are) in no thread cache, and no "
            + "ByteBuf object in the heap refers to \(them): nothing can release \(them) any more, \(leakInWords). Most of "
            + "it: \(Format.count(group.unreachableBuffers)) of \"\(worst)\" (\(Format.bytes(group.unreachableBytes)))."
    }
}

extension Snapshot {
    /// What no `ByteBuf` has of unpooled memory. Its other rows are `ByteBuf`s of which a dump without all roots cannot say
    /// whether anybody has them.
    var unreachableUnpooled: UInt64 {
        guard header.unjudgedBuffers > 0 else { return unpooledInRows }
        return allocationGroups.reduce(0) { sum, allocationGroup in
            site(allocationGroup.site).label.hasPrefix("no ByteBuf refers to it: unpooled")
                ? sum &+ allocationGroup.unreachableBytes : sum
        }
    }
}
