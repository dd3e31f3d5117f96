import DumpFormat

/// Where every byte of the counter is. The parts are counted apart from each other (buffers from the totals, the rest
/// from runs and chunks), so that they must add up; what they do not explain is the residue, and is printed.
struct ByteLedger: Equatable {
    /// What callers asked for.
    var requested: UInt64 = 0
    /// Rounding to size classes.
    var slack: UInt64 = 0
    /// Elements of part-used slabs that nobody has.
    var freeElements: UInt64 = 0
    /// Ends of slabs too short for an element.
    var slabTails: UInt64 = 0
    /// Kept back for allocations that cannot be refused.
    var reserve: UInt64 = 0
    /// Pages in no run.
    var freeRuns: UInt64 = 0
    /// Chunks of no arena, mapped for the next need.
    var cached: UInt64 = 0
    /// The ledger itself.
    var metadata: UInt64 = 0
    /// What dumps are put together in.
    var snapshotBuffer: UInt64 = 0
    /// Direct memory of a foreign program that is in no chunk.
    var unpooled: UInt64 = 0
    var counter: UInt64 = 0
    /// By chunk row: its bytes less all its parts.
    private(set) var chunkResidues: [Int64] = []

    /// Nil where the snapshot has no runs.
    init?(_ snapshot: Snapshot) {
        guard snapshot.runs != nil else { return nil }
        let totals = snapshot.totals
        requested = totals.requestedBytes
        slack = totals.liveBytes.less(totals.requestedBytes)
        metadata = totals.ledgerBytes
        snapshotBuffer = totals.snapshotBufferBytes
        // What has rows is among the live.
        unpooled = totals.unpooledBytes.less(snapshot.unpooledInRows)
        counter = totals.counterBytes
        for chunk in ChunkLedger.all(snapshot) {
            freeElements &+= chunk.freeElements
            slabTails &+= chunk.slabTails
            reserve &+= chunk.reserve
            freeRuns &+= chunk.freeRuns
            cached &+= chunk.cached
            chunkResidues.append(chunk.residue)
        }
    }

    var sum: UInt64 {
        [requested, slack, freeElements, slabTails, reserve, freeRuns, cached, metadata, snapshotBuffer].reduce(
            unpooled, &+)
    }
    var residue: Int64 { counter.change(from: sum) }

    private var parts: [(words: String, bytes: UInt64, field: String)] {
        [
            ("requested", requested, "ledger_requested_bytes"),
            ("internal fragmentation", slack, "ledger_internal_fragmentation_bytes"),
            ("free in slabs", freeElements, "free_element_bytes"), ("slab ends", slabTails, "slab_tail_bytes"),
            ("reserve", reserve, "reserve_bytes"), ("external fragmentation", freeRuns, "external_fragmentation_bytes"),
            ("cached chunks", cached, "cached_bytes"), ("ledger", metadata, "metadata_bytes"),
            ("snapshot buffer", snapshotBuffer, "ledger_snapshot_buffer_bytes"),
        ] + (unpooled > 0 ? [("unpooled", unpooled, "ledger_unpooled_bytes")] : [])
    }

    /// All parts, also those that are nothing, for programs.
    var fields: [Report.Field] {
        parts.map { Report.Field($0.field, .bytes($0.bytes)) } + [Report.Field("residue_bytes", .bytesChange(residue))]
    }

    var line: Report.Line {
        var phrase: Phrase = ""
        for part in parts where part.bytes > 0 {
            let piece: Phrase = "\(.text(part.words)) \(.bytes(part.bytes))"
            phrase = phrase.pieces.count > 1 ? "\(phrase) + \(piece)" : piece
        }
        let end: Phrase =
            residue == 0
            ? ": the counter, residue 0 B" : ", and a residue of \(.bytesChange(residue)) that nothing explains"
        return Report.Line("bytes", "\(phrase)\(end)")
    }
}

/// The same for one chunk or huge mapping.
struct ChunkLedger: Equatable {
    var bytes: UInt64 = 0
    var live: UInt64 = 0
    var freeElements: UInt64 = 0
    var slabTails: UInt64 = 0
    var reserve: UInt64 = 0
    var freeRuns: UInt64 = 0
    var cached: UInt64 = 0

    var residue: Int64 {
        bytes.change(from: [live, freeElements, slabTails, reserve, freeRuns, cached].reduce(0, &+))
    }

    static let columns: [Table.Column] = [
        .init("free_element_bytes"), .init("slab_tail_bytes"), .init("reserve_bytes"),
        .init("external_fragmentation_bytes"),
        .init("cached_bytes"), .init("residue_bytes"),
    ]

    var cells: [Value] {
        [
            .bytes(freeElements), .bytes(slabTails), .bytes(reserve), .bytes(freeRuns), .bytes(cached),
            .bytesChange(residue),
        ]
    }

    /// By chunk row. Without runs the parts of free memory are unknown, and all of it is residue.
    static func all(_ snapshot: Snapshot) -> [ChunkLedger] {
        let page = snapshot.totals.pageSize
        var ledgers = snapshot.chunks.map { chunk in
            var ledger = ChunkLedger()
            ledger.bytes = chunk.bytes
            ledger.live = chunk.liveBytes
            if chunk.kind == .cached { ledger.cached = chunk.bytes.less(chunk.liveBytes) }
            if chunk.kind == .chunk { ledger.freeRuns = UInt64(chunk.freePages) &* page }
            return ledger
        }
        guard let runs = snapshot.runs else { return ledgers }
        let numbers = ChunkNumbers(snapshot)
        for run in 0..<runs.count {
            guard let chunk = numbers.row(of: UInt64(runs.chunk[run])) else { continue }
            let bytes = UInt64(runs.pages[run]) &* page
            if runs.kind[run] == Snapshot.RunColumns.Kind.reserve.rawValue {
                ledgers[chunk].reserve &+= bytes
                continue
            }
            if runs.kind[run] == Snapshot.RunColumns.Kind.bump.rawValue {
                // The only run of its chunk: what it has beside its buffers is idle until the last of them is gone.
                ledgers[chunk].freeElements &+= bytes.less(snapshot.chunks[chunk].liveBytes)
                continue
            }
            let sizeClass = Int(runs.sizeClass[run])
            guard sizeClass < snapshot.sizeClasses.count else { continue }
            let element = snapshot.sizeClasses[sizeClass].bytes
            let elements = UInt64(runs.elements[run])
            ledgers[chunk].freeElements &+= elements.less(UInt64(runs.liveElements[run])) &* element
            ledgers[chunk].slabTails &+= bytes.less(elements &* element)
        }
        return ledgers
    }
}

extension ByteLedger {
    /// What `verify` adds to its checks; empty where the snapshot has no runs.
    static func checks(_ snapshot: Snapshot) -> [VerifyCheck] {
        guard let ledger = ByteLedger(snapshot) else { return [] }
        let wrong = zip(snapshot.chunks, ledger.chunkResidues).filter { $1 != 0 }
        let first = wrong.prefix(5).map { "chunk \($0.index) has a residue of \($1) bytes" }
        let more = wrong.count > first.count ? "; and \(wrong.count - first.count) more" : ""
        return [
            VerifyCheck(
                name: "every byte of the counter is accounted for", passed: ledger.residue == 0,
                detail: "\(ledger.sum) of \(ledger.counter) bytes, residue \(ledger.residue)"),
            VerifyCheck(
                name: "every byte of each chunk is accounted for", passed: wrong.isEmpty,
                detail: wrong.isEmpty
                    ? Format.count(UInt64(snapshot.chunks.count), of: "chunk") : first.joined(separator: "; ") + more),
        ]
    }
}
