public import DumpFormat

/// What `chunks` is asked beside the dump.
public struct ChunkQuestion: Sendable {
    /// Who pins chunks is counted by this.
    public var pinners: Grouping = .owner
    /// Only chunks with such buffers, and only who has them.
    public var filter: Filter?
    /// What if these were freed?
    public var ifFreed: Filter?
    /// Would a request of this many bytes be served?
    public var request: UInt64?
    /// Buffers at least this old are long-lived.
    public var oldAge: UInt64 = 600_000_000_000
    /// How many to choose greedily.
    public var best = 5

    public init() {}

    public var selection: DumpSelection {
        DumpSelection(slots: ChunkRows.columns.union([.site, .birth]), runs: true)
            .union(PinnedForLittle.selection).union(pinners.selection).union(ifFreed?.selection).union(
                filter?.selection)
    }
}

/// Why chunks do not go back to the operating system, and what would make them.
extension Report {
    /// Nil where the snapshot lacks the columns.
    public static func chunks(of snapshot: Snapshot, _ question: ChunkQuestion = ChunkQuestion()) -> Report? {
        ChunkStudy(snapshot, question).map { chunks($0, snapshot) }
    }

    /// The same of what was found out before; the snapshot's slots are not needed any more.
    public static func chunks(_ study: ChunkStudy, _ snapshot: Snapshot) -> Report {
        let question = study.question
        var report = Report(command: "chunks")
        report.mainTableName = "chunks"
        if let filter = question.filter {
            report.add(nil, .lines([matched(study.matched, snapshot, filter)]))
        }
        report.add(nil, .lines(overview(snapshot, study.free)))
        if let filter = question.ifFreed, let answer = study.ifFreed {
            report.add("If \(filter.text) were freed", .paragraph(words(answer, snapshot)))
        }
        if let request = question.request {
            let fit = RequestFit(request, snapshot, study.free)
            report.add("A request of \(Format.bytes(request))", .paragraph(fit.words, fit.tone))
            report.data.append(Field("request_bytes", .bytes(request)))
            report.data.append(Field("request_fits", .flag(fit.fits)))
        }
        report.add("Chunks", .table(chunkTable(snapshot, study)))
        let title = "By \(question.pinners.rawValue)"
        report.add(nil, .table(pinTable(study.pinners, snapshot, "pinners", title)))
        if question.pinners != .site {
            report.add(nil, .table(pinTable(study.sites, snapshot, "sites", "By site")))
        }
        study.pinnedForLittle.add(to: &report, snapshot)
        report.add(
            "Releasing these, one after the other (greedy: another choice may return more)",
            .table(bestTable(study.pinners, snapshot, question)))
        report.add(nil, .paragraph(study.mixing.words))
        if !study.mixing.sites.isEmpty { report.add(nil, .table(study.mixing.table(snapshot))) }
        if snapshot.runs != nil { report.add(nil, .table(freeTable(study.free, snapshot))) }
        report.data += [
            Field("strays", .count(UInt64(study.strays))), Field("pinned_by", .text(question.pinners.rawValue)),
            Field("filter", question.filter.map { .text($0.text) } ?? .unknown),
            Field("if_freed", question.ifFreed.map { .text($0.text) } ?? .unknown),
        ]
        return report
    }

    /// The least number of chunks that live memory needs, however it is arranged.
    static func compactionBound(_ snapshot: Snapshot) -> (chunks: UInt64, live: UInt64) {
        let live = snapshot.chunks.filter { !$0.isMapping }.reduce(0) { $0 &+ $1.liveBytes }
        let size = max(1, snapshot.totals.chunkSize)
        return (live / size + (live % size == 0 ? 0 : 1), live)
    }

    private static func overview(_ snapshot: Snapshot, _ free: FreeRuns) -> [Line] {
        let totals = snapshot.totals
        let bound = compactionBound(snapshot)
        let spare = totals.chunkCount.less(bound.chunks)
        var lines = [
            Line(
                "mapped",
                """
                \(totals.chunkCount, of: "chunk", as: "chunk_count") \(.text(snapshot.chunkSizes)) = \
                \(.bytes(totals.chunkBytes), as: "chunk_bytes"), \(.count(totals.hugeCount), as: "huge_count") huge \
                \(.bytes(totals.hugeBytes), as: "huge_bytes")
                """),
            Line(
                "at least",
                """
                \(bound.chunks, of: "chunk", as: "compaction_chunks") for \(.bytes(bound.live)) live: packed \
                perfectly, \(spare, of: "chunk", as: "compaction_spare_chunks") \
                (\(.bytes(min(spare &* totals.chunkSize, totals.chunkBytes)))) would go back
                """),
        ]
        let cached = snapshot.chunks.count { $0.kind == .cached }
        var reserve = 0
        var empty = 0
        for (index, chunk) in snapshot.chunks.enumerated() where chunk.kind == .chunk && chunk.liveBuffers == 0 {
            if free.holdsReserve[index] { reserve += 1 } else { empty += 1 }
        }
        let kept = UInt64(cached + reserve + empty)
        if kept > 0 {
            lines.append(
                Line(
                    "empty",
                    """
                    \(kept, of: "chunk", as: "empty_chunks") \(kept, one: "is", many: "are") empty, but the policy \
                    keeps \(kept, one: "it", many: "them"): \
                    \(.count(UInt64(cached)), as: "cached_chunks") cached for the next need, \
                    \(.count(UInt64(reserve)), as: "reserve_chunks") with an arena's reserve, \
                    \(.count(UInt64(empty)), as: "retained_chunks") still with their arena
                    """))
        }
        if snapshot.runs != nil {
            let place = free.largestChunk.map { "in chunk \(snapshot.chunks[$0].index)" } ?? "there is none"
            lines.append(
                Line(
                    "free run",
                    """
                    the largest is \(.bytes(UInt64(free.largest) &* totals.pageSize), as: "largest_free_run_bytes"), \
                    \(.text(place))
                    """))
        }
        if totals.failedAllocations > 0 {
            lines.append(
                Line("refused", "\(totals.failedAllocations, of: "allocation", as: "failed_allocations") so far"))
        }
        return lines
    }

    private static func words(_ answer: WhatIf, _ snapshot: Snapshot) -> Phrase {
        let leverage = answer.bytes.share(of: answer.freed.bytes)
        var words: Phrase = """
            \(answer.freed.buffers, of: "buffer", as: "freed_buffers") \
            (\(.bytes(answer.freed.bytes), as: "freed_bytes")) would be freed: \
            \(answer.chunks, of: "chunk", as: "returned_chunks") would go back
            """
        if answer.huge > 0 { words = "\(words) and \(answer.huge, of: "huge mapping", as: "returned_huge")" }
        words = "\(words), \(.bytes(answer.bytes), as: "returned_bytes")"
        if answer.bytes > 0 {
            words = "\(words): \(.text(Format.ratio(leverage))) of what is freed"
        }
        words = """
            \(words). \(answer.partly, of: "chunk", as: "partly_freed_chunks") would lose buffers and stay for the \
            others.
            """
        if answer.kept > 0 {
            words = """
                \(words) \(.count(answer.kept), as: "emptied_and_kept_chunks") would be empty and stay for an arena's \
                reserve.
                """
        }
        return words
    }
}
