public import DumpFormat
import Ledger

/// One screen: how full, with what, and whose fault. Reads only the small tables, and the runs for the byte ledger.
extension Report {
    /// What a reader should load; without runs, as in a torn dump, the summary goes without its byte ledger.
    public static let summarySelection = DumpSelection(runs: true)

    static let verdictTitle = "Verdict"

    /// With a filter, `snapshot` is narrowed to it.
    public static func summary(of snapshot: Snapshot, where filter: Filter? = nil) -> Report {
        var report = Report(command: "summary")
        report.mainTableName = "sites"
        for loop in snapshot.missingLoops { report.add(nil, .paragraph(loop.sentence(snapshot), .alarm)) }
        report.add(nil, .lines(headline(snapshot)))
        report.add(nil, .lines(memory(snapshot)))
        if !snapshot.nettyCopies.isEmpty { report.add(nil, .table(copies(snapshot))) }
        report.add("Chunks by use", .table(chunkUse(snapshot)))
        if !snapshot.nettyChunks.isEmpty {
            report.add(nil, .table(chunkPlaces(snapshot)))
            for story in AllocatorStory.all(snapshot) { report.add(nil, .paragraph("\(.text(story.words))")) }
        }
        report.add("Top sites", .table(topSites(snapshot)))
        if let events = recentEvents(snapshot) { report.add("Before the dump", .table(events)) }
        let diagnosis = Diagnosis(snapshot)
        let sentence = filter.flatMap { diagnosis.reassurance(under: $0) } ?? diagnosis.sentence
        report.add(missingLoops: snapshot)
        report.add(verdictTitle, .paragraph("\(.text(sentence), as: "verdict")", diagnosis.tone))
        for note in snapshot.notes { report.add(nil, .paragraph("\(.text(note.text))")) }
        report.data = data(snapshot, diagnosis) + diagnosis.grade.fields
        if !snapshot.missingLoops.isEmpty || snapshot.header.unjudgedBuffers > 0 {
            report.data += missingLoopData(snapshot.header)
        }
        if snapshot.header.format == .nettyHeapDump { report.data += heapDumpData(snapshot) }
        report.note(filter, snapshot)
        return report
    }

    /// What programs get beyond what the screen shows, and what it shows only sometimes.
    private static func data(_ snapshot: Snapshot, _ diagnosis: Diagnosis) -> [Field] {
        let totals = snapshot.totals
        let header = snapshot.header
        let suspect = diagnosis.suspect
        return [
            Field("reason", header.knownReason.map { .text($0) } ?? .unknown),
            Field("limit_bytes", totals.limitBytes > 0 ? .bytes(totals.limitBytes) : .unknown),
            Field("peak_counter_bytes", snapshot.bytesValue(totals.peakCounterBytes)),
            Field("over_limit_bytes", snapshot.bytesValue(totals.overLimitBytes)),
            Field("chunk_size", .bytes(totals.chunkSize)),
            Field("chunk_bytes", .bytes(totals.chunkBytes)),
            Field("huge_bytes", .bytes(totals.hugeBytes)),
            Field("ledger_bytes", .bytes(totals.ledgerBytes)),
            Field("snapshot_buffer_bytes", .bytes(totals.snapshotBufferBytes)),
            Field("huge_count", .count(totals.hugeCount)),
            Field("live_bytes", .bytes(totals.liveBytes)),
            Field("unreachable_buffers", totals.unreachableBuffers.map { .count($0) } ?? .unknown),
            Field("unreachable_bytes", totals.unreachableBytes.map { .bytes($0) } ?? .unknown),
            Field("failed_allocations", snapshot.countValue(totals.failedAllocations)),
            Field("cgroup_current_bytes", header.cgroupLimitBytes > 0 ? .bytes(header.cgroupCurrentBytes) : .unknown),
            Field("cgroup_limit_bytes", header.cgroupLimitBytes > 0 ? .bytes(header.cgroupLimitBytes) : .unknown),
            Field("thread_count", .count(header.threadCount)),
            Field("leak", .text(diagnosis.confidence)),
            Field("suspect_site", suspect.map { .site(snapshot.siteName($0.site)) } ?? .unknown),
            Field("suspect_last_access", suspect.map { .site(snapshot.siteName($0.access)) } ?? .unknown),
            Field("suspect_buffers", diagnosis.suspectAmount.map { .count($0.buffers) } ?? .unknown),
            Field("suspect_bytes", diagnosis.suspectAmount.map { .bytes($0.bytes) } ?? .unknown),
            Field("importance", diagnosis.suspectImportance.map { .text($0.rawValue) } ?? .unknown),
        ] + (ByteLedger(snapshot)?.fields ?? [])
    }

    // MARK: Who and when

    static func reasonInWords(_ reason: String) -> String {
        switch reason {
        case "signal": "on a signal"
        case "near-limit": "because memory came near the limit"
        case "allocation-failure": "because an allocation was refused"
        case "request": "on request"
        case "flight-recorder": "recovered from the flight recorder"
        case "": "for an unknown reason"
        default: "because of \(reason)"
        }
    }

    private static func headline(_ snapshot: Snapshot) -> [Line] {
        if snapshot.header.format == .nettyHeapDump { return heapDumpHeadline(snapshot) }
        let header = snapshot.header
        let program = [header.program, header.programVersion].filter { !$0.isEmpty }.joined(separator: " ")
        let name = program.isEmpty ? "unknown program" : program
        let host = header.host.isEmpty ? "unknown host" : header.host
        let process = Line(
            "",
            """
            \(.text(name)), pid \(.number(header.pid)) on \(.text(host)), \
            up \(.duration(snapshot.uptime), as: "uptime_ns")
            """)
        if let ending = snapshot.ending {
            let words: Phrase = """
                recovered from the flight recorder, as of \(.time(header.wallTime), as: "time"): \
                \(.text(ending), as: "ending")
                """
            return [process, Line("", words)]
        }
        return [
            process,
            header.pauseNanoseconds > 0
                ? Line(
                    "",
                    """
                    dumped \(.time(header.wallTime), as: "time") \(.text(reasonInWords(header.reason))), \
                    paused \(.duration(header.pauseNanoseconds), as: "pause_ns")
                    """)
                // Only the log knows how long it took: the header is written first.
                : Line(
                    "",
                    """
                    dumped \(.time(header.wallTime), as: "time") \(.text(reasonInWords(header.reason))), \
                    paused while it was written
                    """),
        ]
    }

    // MARK: How full

    private static func memory(_ snapshot: Snapshot) -> [Line] {
        let totals = snapshot.totals
        let mapped = totals.chunkBytes &+ totals.hugeBytes &+ snapshot.unpooledInRows
        let slack = totals.liveBytes.less(totals.requestedBytes)
        var lines = [
            Line("counter", snapshot.hasSeveralCounters ? severalCounters(snapshot) : counter(totals)),
            Line("", parts(snapshot)),
            Line(
                "of that",
                """
                in use \(.bytes(totals.requestedBytes), as: "requested_bytes") \
                (\(.ratio(totals.requestedBytes.share(of: mapped)))), \
                slack \(.bytes(slack), as: "internal_fragmentation_bytes") (\(.ratio(slack.share(of: mapped)))), \
                free \(.bytes(totals.freeBytes), as: "free_bytes") (\(.ratio(totals.freeBytes.share(of: mapped))))
                """),
        ]
        if let ledger = ByteLedger(snapshot) { lines.insert(ledger.line, at: 2) }
        if snapshot.header.format == .nettyHeapDump {
            lines += heapDumpMemory(snapshot)
        } else {
            lines += [Line("live", live(totals, snapshot.header)), Line("process", process(snapshot.header))]
        }
        if totals.overLimitBytes > 0 {
            let overLimit: Phrase = "\(.bytes(totals.overLimitBytes)) above the limit, for who cannot be refused"
            lines.insert(Line("", overLimit), at: 2)
        }
        if totals.failedAllocations > 0 {
            let refused: Phrase = "\(totals.failedAllocations, of: "allocation") since the start"
            lines.append(Line("refused", refused))
        }
        return lines
    }

    private static func counter(_ totals: Snapshot.Totals) -> Phrase {
        let counter: Phrase = "\(.bytes(totals.counterBytes), as: "counter_bytes", exact: true)"
        guard totals.limitBytes > 0 else { return "\(counter), no limit" }
        return """
            \(counter) of limit \(.count(totals.limitBytes)) (\(.bytes(totals.limitBytes))), \
            \(.ratio(totals.counterBytes.share(of: totals.limitBytes)))
            """
    }

    /// What adds up to the counter; parts of nothing are not mentioned.
    private static func parts(_ snapshot: Snapshot) -> Phrase {
        let totals = snapshot.totals
        var sum: Phrase = "\(totals.chunkCount, of: "chunk", as: "chunk_count")"
        if totals.chunkCount > 0 { sum = "\(sum) \(.text(snapshot.chunkSizes)) = \(.bytes(totals.chunkBytes))" }
        if totals.hugeBytes > 0 { sum = "\(sum) + \(.count(totals.hugeCount)) huge \(.bytes(totals.hugeBytes))" }
        if totals.ledgerBytes > 0 { sum = "\(sum) + ledger \(.bytes(totals.ledgerBytes))" }
        if totals.unpooledBytes > 0 { sum = "\(sum) + unpooled \(.bytes(totals.unpooledBytes))" }
        if snapshot.unreachableUnpooled > 0 {
            sum = "\(sum) (\(.bytes(snapshot.unreachableUnpooled)) of it without a ByteBuf)"
        }
        if totals.snapshotBufferBytes > 0 { sum = "\(sum) + snapshot buffer \(.bytes(totals.snapshotBufferBytes))" }
        return sum
    }

    private static func live(_ totals: Snapshot.Totals, _ header: Snapshot.Header) -> Phrase {
        guard let buffers = totals.unreachableBuffers, let bytes = totals.unreachableBytes else {
            return """
                \(totals.liveBuffers, of: "buffer", as: "live_buffers"); \
                reachable or unreachable is unknown: this dump has no references
                """
        }
        let reachable = totals.liveBuffers.less(buffers).less(header.unjudgedBuffers)
        let reachableBytes = totals.liveBytes.less(bytes).less(header.unjudgedBytes)
        let judged: Phrase = """
            \(totals.liveBuffers, of: "buffer", as: "live_buffers"): \
            reachable \(.count(reachable)) (\(.bytes(reachableBytes))), unreachable \(.count(buffers)) (\(.bytes(bytes)))
            """
        guard header.unjudgedBuffers > 0 else { return judged }
        return "\(judged), cannot be said \(.count(header.unjudgedBuffers)) (\(.bytes(header.unjudgedBytes)))"
    }

    private static func process(_ header: Snapshot.Header) -> Phrase {
        let resident: Phrase = "resident \(.bytes(header.residentBytes), as: "resident_bytes")"
        guard header.cgroupLimitBytes > 0 else { return "\(resident), no cgroup limit" }
        return """
            \(resident), cgroup \(.bytes(header.cgroupCurrentBytes)) of \(.bytes(header.cgroupLimitBytes)) \
            (\(.ratio(header.cgroupCurrentBytes.share(of: header.cgroupLimitBytes))))
            """
    }

    /// Netty's chunk lists, as bands that do not overlap. A cached chunk belongs to no arena and is empty.
    private static func chunkUse(_ snapshot: Snapshot) -> Table {
        let bands = ["0-25 %", "25-50 %", "50-75 %", "75-100 %", "100 %"]
        var counts = [UInt64](repeating: 0, count: bands.count)
        var cached: UInt64 = 0
        for chunk in snapshot.chunks {
            switch chunk.kind {
            case .huge, .unpooled: continue
            case .cached: cached += 1
            case .chunk:
                let use = chunk.liveBytes.share(of: chunk.bytes)
                counts[min(Int(min(use, 1) * 4), 4)] += 1
            }
        }
        if cached > 0 { counts.append(cached) }
        let total = counts.reduce(0, +)
        var table = Table(
            name: "chunk_use",
            columns: [
                .init("use", ""), .init("chunks", "chunks"), .init("share", "share"),
                .init("bar", "", for: .people, isOptional: true),
            ])
        table.rows = zip(bands + ["cached"], counts).map { band, count in
            let share = count.share(of: total)
            return Table.Row([.text(band), .count(count), .ratio(share), .bar(share)])
        }
        return table
    }
}
