import DumpFormat

extension Report {
    /// Each chunk, those that few bytes pin first; under a mask only those with such buffers.
    static func chunkTable(_ snapshot: Snapshot, _ study: ChunkStudy) -> Table {
        let (groups, pins, sitePins) = (study.pinners.groups, study.pinners.pins, study.sites.pins)
        var table = Table(
            name: "chunks",
            columns: [
                .init("shown", "Chunk", for: .people), .init("chunk"), .init("kind"),
                .init("map", "from first byte to last"), .init("use", "use"), .init("live_buffers", "buffers"),
                .init("live_bytes", "pinned by"), .init("lever", "leverage", for: .people), .init("leverage"),
                .init("pinner_count", "\(groups.grouping.noun)"),
                .init("largest_pinner", "most of it", isOptional: true),
                .init("largest_free_run_bytes", "free run", isOptional: true),
                .init("arena", "arena", isOptional: true), .init("site_count"), .init("largest_site"),
                .init("chunk_bytes"), .init("age_ns"), .init("why"),
            ] + ChunkLedger.columns)
        let ledgers = ChunkLedger.all(snapshot)
        let order = snapshot.chunks.indices.filter { study.isShown[$0] }.sorted { left, right in
            let (left, right) = (snapshot.chunks[left], snapshot.chunks[right])
            // Empty ones last: nothing pins them.
            return (left.liveBytes == 0 ? 1 : 0, left.liveBytes, left.index)
                < (right.liveBytes == 0 ? 1 : 0, right.liveBytes, right.index)
        }
        table.rows = order.map { index in
            let chunk = snapshot.chunks[index]
            let isEmpty = chunk.liveBuffers == 0
            let leverage = chunk.bytes.share(of: chunk.liveBytes)
            let kind = "\(chunk.kind)"
            let why =
                !isEmpty
                ? "live buffers"
                : chunk.kind == .cached
                    ? "empty, but the policy keeps it: cached" : "empty, but the policy keeps it: its arena has it"
            return Table.Row(
                [
                    .text("\(chunk.index)"), .number(UInt64(chunk.index)), .text(kind),
                    .text(study.maps[index]), .ratio(chunk.liveBytes.share(of: chunk.bytes)),
                    .count(chunk.liveBuffers), .bytes(chunk.liveBytes),
                    isEmpty ? .blank : .text("x" + oneDecimal(leverage)),
                    isEmpty ? .unknown : .ratio(leverage), .number(UInt64(pins.groups(of: index).count)),
                    pins.largest[index].map { groups.name(Int($0), snapshot) }.map(plain)
                        ?? .text(chunk.kind == .cached ? "empty, cached" : "empty, kept"),
                    .bytes(UInt64(chunk.largestFreeRunPages) &* snapshot.totals.pageSize),
                    .text(chunk.kind == .cached ? "none" : snapshot.arenaName(Int(chunk.arena))),
                    .count(UInt64(sitePins.groups(of: index).count)),
                    sitePins.largest[index].map { .text(snapshot.siteName($0).label) } ?? .unknown,
                    .bytes(chunk.bytes), snapshot.ageValue(chunk.birth), .text(why),
                ] + ledgers[index].cells)
        }
        return table
    }

    /// A site's place in the code is too long for a cell.
    private static func plain(_ value: Value) -> Value {
        if case .site(let site) = value { .text(site.label) } else { value }
    }

    private static func oneDecimal(_ number: Double) -> String {
        number < 100 ? "\((number * 10).rounded() / 10)" : Format.count(UInt64(min(number, 1e15)))
    }

    static let mapCells = 24

    /// The chunk from its first byte to its last in 24 cells, darker where more is live.
    static func map(
        _ chunk: Int, _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ rows: ChunkRows
    ) -> String {
        // Within what is real, so that a damaged size cannot overflow.
        let bytes = min(max(snapshot.chunks[chunk].bytes, UInt64(mapCells)), 1 << 48)
        let cell = bytes / UInt64(mapCells) + (bytes % UInt64(mapCells) == 0 ? 0 : 1)
        let start = UInt64(snapshot.chunks[chunk].index) << snapshot.chunkShift
        var live = [UInt64](repeating: 0, count: mapCells)
        rows.forEachRow(of: chunk) { row in
            var from = slots.address[row].less(start)
            let end = min(from.addingReportingOverflow(slots.capacity[row]).partialValue, bytes)
            while from < end {
                let index = Int(from / cell)
                let next = min(end, UInt64(index + 1) * cell)
                live[index] &+= next - from
                from = next
            }
        }
        return String(live.map { Array("·░▒▓█")[$0 == 0 ? 0 : min(4, 1 + Int(min($0, cell) * 4 / (cell + 1)))] })
    }

    /// Who pins most chunk bytes, which is not who has most bytes.
    static func pinTable(
        _ pinners: ChunkStudy.Pinners, _ snapshot: Snapshot, _ name: String, _ title: String
    ) -> Table {
        let (pins, groups) = (pinners.pins, pinners.groups)
        var table = Table(
            name: name,
            columns: [
                .init("name", title), .init("id"), .init("live_buffers", "buffers"), .init("live_bytes", "bytes"),
                .init("exclusive_chunks", "chunks alone"), .init("exclusive_bytes", "alone"),
                .init("shared_chunks", "with others"), .init("shared_bytes"), .init("pinned_bytes"),
                .init("amplified", "pins per byte", for: .people, isOptional: true), .init("amplification"),
            ])
        let order = pins.pinned.indices.filter { pinners.isShown[$0] && pins.pinned[$0].live.buffers > 0 }.sorted {
            left, right in
            let (one, two) = (pins.pinned[left], pins.pinned[right])
            return (two.exclusiveBytes, two.chunkBytes, left) < (one.exclusiveBytes, one.chunkBytes, right)
        }
        table.rows = order.map { group in
            let pinned = pins.pinned[group]
            return Table.Row([
                groups.name(group, snapshot), .number(UInt64(group)), .count(pinned.live.buffers),
                .bytes(pinned.live.bytes), .count(pinned.exclusiveChunks), .bytes(pinned.exclusiveBytes),
                // Several may pin one chunk together: a sum of these would be nonsense.
                .number(pinned.sharedChunks), .bytes(pinned.sharedBytes), .bytes(pinned.chunkBytes),
                .text("x" + oneDecimal(pinned.chunkBytes.share(of: pinned.live.bytes))),
                .ratio(pinned.chunkBytes.share(of: pinned.live.bytes)),
            ])
        }
        return table
    }

    static func bestTable(
        _ pinners: ChunkStudy.Pinners, _ snapshot: Snapshot, _ question: ChunkQuestion
    ) -> Table {
        let (pins, groups) = (pinners.pins, pinners.groups)
        var table = Table(
            name: "best",
            columns: [
                .init("name", "Release"), .init("id"), .init("bytes_freed", "frees"),
                .init("chunks_returned", "chunks back so far"), .init("bytes_returned", "bytes back so far"),
                .init("method"),
            ])
        table.rows = pins.best(question.best).map { choice in
            let group = Int(choice.group)
            return Table.Row([
                groups.name(group, snapshot), .number(UInt64(choice.group)), .bytes(pins.pinned[group].live.bytes),
                .count(choice.chunks), .bytes(choice.bytes), .text("greedy"),
            ])
        }
        if table.rows.isEmpty {
            let words = "no \(question.best) \(groups.grouping.noun) together return a chunk"
            table.rows = [Table.Row([.text(words), .blank, .blank, .blank, .blank, .blank], for: .people)]
        }
        return table
    }

    static func freeTable(_ free: FreeRuns, _ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "free_runs",
            columns: [
                .init("length", "Free runs"), .init("from_bytes"), .init("runs", "runs"), .init("bytes", "bytes"),
            ])
        let page = snapshot.totals.pageSize
        table.rows = free.byLength.map { from, count, pages in
            let least = UInt64(from) &* page
            let words =
                from >= free.pagesPerChunk
                ? "whole chunks" : "\(Format.bytes(least)) to under \(Format.bytes(2 &* least))"
            return Table.Row([.text(words), .bytes(least), .count(count), .bytes(pages &* page)])
        }
        return table
    }
}
