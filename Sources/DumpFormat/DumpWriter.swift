/// Writes one dump to a sink: small tables first, bulk later, an end marker, a directory and a seek table last.
///
/// Bulk rows are pulled from their sources block by block; beside the small tables, the writer's memory is a few
/// blocks. What DumpReader.swift reads is written here in the same order.
public struct DumpWriter<Sink: DumpSink>: ~Copyable {
    /// 3 is zstd's own default.
    public static var defaultLevel: Int32 { 3 }

    private var sink: Sink
    private var compressor: ZstdCompressor
    private var values = ByteStore(capacity: BlockHeader.rowsPerBlock * 8)
    private var references = ByteStore(capacity: BlockHeader.rowsPerBlock * 8)
    private var block = ByteStore(capacity: BlockHeader.bytes + BlockHeader.rowsPerBlock * 8)
    private var output = ByteStore(capacity: 2 << 20)
    /// Bytes of the frames before those in `output`.
    private var flushedBytes: UInt64 = 0
    private var directory: [DirectoryEntry] = []
    private var sections: [EndMarker.Section] = []

    /// Output is handed to the sink in pieces of about this size.
    private static var flushBytes: Int { 1 << 20 }

    public init(sink: Sink, level: Int32 = Self.defaultLevel) {
        self.sink = sink
        compressor = ZstdCompressor(level: level)
    }

    /// Writes a snapshot that is wholly in memory; bulk tables that are nil are left out of the dump.
    public consuming func write(_ snapshot: Snapshot) throws(DumpError) {
        if let slots = snapshot.slots, let missing = slots.firstIncompleteColumn {
            throw DumpError(
                .invalidSnapshot, path: "",
                "writing a dump: column `\(missing)` of the slots has not \(slots.count) rows; read all columns first")
        }
        try write(snapshot, runs: snapshot.runs, slots: snapshot.slots, references: snapshot.references)
    }

    /// Writes the small tables of `tables` and the bulk tables of the sources, each left out where it is nil;
    /// payloads need the slots they are about. `tables.runs`, `.slots`, `.references` and `.payloads` are ignored.
    public consuming func write(
        _ tables: Snapshot, runs: (any RunSource)?, slots: (any SlotSource)?, references: Snapshot.ReferenceColumns?,
        payloads: LedgerSnapshot.Payloads? = nil
    ) throws(DumpError) {
        try writeFileHeader()
        try writeTables(tables)
        if let runs { try writeBulk(.runs, runs) }
        if let slots { try writeBulk(.slots, slots) }
        if let references { try writeBulk(.references, StoredReferences(references, slots ?? Snapshot.SlotColumns())) }
        if let payloads {
            try writeBulk(.payloads, payloads)
            try writeBulk(.payloadBytes, LedgerSnapshot.PayloadBytes(payloads))
        }
        try finish()
    }

    private mutating func finish() throws(DumpError) {
        try writeRecords(.end, EndMarker.encode(sections), width: EndMarker.recordBytes, count: sections.count)
        let entries = directory
        try writeRecords(
            .directory, DirectoryEntry.encode(entries), width: DirectoryEntry.recordBytes, count: entries.count)
        let table = SeekTable.encode(directory.map { .init(compressedBytes: $0.size, contentBytes: $0.contentBytes) })
        table.withUnsafeBytes { bytes in
            output.tail(bytes.count).copyMemory(from: bytes)
            output.count += bytes.count
        }
        try flush()
    }

    /// Writes the small tables of `tables`, and the bulk tables of `blocks` frame by frame as they are in their file: only
    /// columns that this version knows, so that nothing comes along unseen.
    public consuming func write(_ tables: Snapshot, bulkOf blocks: DumpBlocks) throws(DumpError) {
        try writeFileHeader()
        try writeTables(tables)
        for section in [Section.runs, .slots, .references] where blocks.index.contains(section) {
            try copyBulk(section, blocks)
        }
        try finish()
    }

    private mutating func copyBulk(_ section: Section, _ blocks: DumpBlocks) throws(DumpError) {
        let columns = blocks.columns(section).map { blocks.index.entries(section, $0) }
        for block in columns[0].indices {
            for entries in columns {
                var entry = entries[block]
                let bytes = try blocks.input.bytes(at: entry.offset, count: Int(entry.size))
                guard bytes.count == Int(entry.size) else {
                    throw DumpError(.damaged, path: blocks.input.path, "\(entry.name): the file was cut off meanwhile")
                }
                entry.offset = flushedBytes + UInt64(output.count)
                bytes.withUnsafeBytes { output.tail(bytes.count).copyMemory(from: $0) }
                output.count += bytes.count
                directory.append(entry)
                if output.count >= Self.flushBytes { try flush() }
            }
        }
        let rows = UInt64(blocks.index.rowCount(section))
        sections.append(.init(section: section.rawValue, columns: UInt16(columns.count), rows: rows))
    }

    private mutating func writeFileHeader() throws(DumpError) {
        var bytes = FileHeader.magic
        for word in [FileHeader.current.major, FileHeader.current.minor, 0, 0] {
            bytes.append(UInt8(word & 0xFF))
            bytes.append(UInt8(word >> 8))
        }
        try writeRecords(.file, bytes, width: FileHeader.bytes, count: 1)
    }

    private mutating func writeTables(_ tables: Snapshot) throws(DumpError) {
        var strings = StringTable()
        let header = encode([tables.header], &strings)
        let totals = encode([tables.totals], &strings)
        var rest = [
            encode(tables.sizeClasses, &strings), encode(tables.arenas, &strings), encode(tables.sites, &strings),
            EncodedTable(
                section: .lifetimes,
                columns: [
                    (
                        1,
                        EncodedColumn(
                            tables.sites.flatMap { $0.lifetimes.prefix(Snapshot.Site.maximumBuckets) }, .planes)
                    )
                ]),
            encode(tables.owners, &strings), encode(tables.allocationGroups, &strings), encode(tables.chunks, &strings),
            encode(tables.events, &strings), encode(tables.freed, &strings),
        ]
        if !tables.notes.isEmpty { rest.append(encode(tables.notes, &strings)) }
        if !tables.missingLoops.isEmpty { rest.append(encode(tables.missingLoops, &strings)) }
        if !tables.missingPremises.isEmpty { rest.append(encode(tables.missingPremises, &strings)) }
        if !tables.nettyCopies.isEmpty { rest.append(encode(tables.nettyCopies, &strings)) }
        if !tables.nettyChunks.isEmpty { rest.append(encode(tables.nettyChunks, &strings)) }
        if !tables.directReferrers.isEmpty { rest.append(encode(tables.directReferrers, &strings)) }
        try writeTable(header)
        try writeTable(totals)
        try writeTable(EncodedTable(section: .stringBytes, columns: [(1, EncodedColumn(strings.bytes, .raw))]))
        try writeTable(EncodedTable(section: .strings, columns: [(1, EncodedColumn(strings.ends, .deltaPlanes))]))
        for table in rest { try writeTable(table) }
    }

    private struct EncodedTable {
        let section: Section
        let columns: [(id: UInt16, column: EncodedColumn)]
    }

    private func encode<Row: TableRow>(_ rows: [Row], _ strings: inout StringTable) -> EncodedTable {
        let columns = Row.columns.filter { column in
            guard let isBlank = column.isBlank else { return true }
            return !rows.allSatisfy(isBlank)
        }
        return EncodedTable(section: Row.section, columns: columns.map { ($0.id, $0.encode(rows, &strings)) })
    }

    private mutating func writeTable(_ table: EncodedTable) throws(DumpError) {
        let rows = table.columns[0].column.count
        for (id, column) in table.columns {
            for range in blocks(of: rows) {
                let bytes = values.reset(range.count * column.width)
                column.bytes.withUnsafeBytes { all in
                    let slice = all[range.lowerBound * column.width..<range.upperBound * column.width]
                    bytes.copyMemory(from: UnsafeRawBufferPointer(rebasing: slice))
                }
                try writeBlock(table.section, id, range, width: column.width, column.encoding)
            }
        }
        sections.append(
            .init(section: table.section.rawValue, columns: UInt16(table.columns.count), rows: UInt64(rows)))
    }

    /// Row-major: a torn file has whole rows, and all but its last blocks of them.
    private mutating func writeBulk<Source: ColumnSource>(
        _ section: Section, _ source: Source
    ) throws(DumpError) {
        let rows = source.count
        for range in blocks(of: rows) {
            for column in Source.Table.columns { try writeBlock(section, source, column, range) }
        }
        let columns = UInt16(Source.Table.columns.count)
        sections.append(.init(section: section.rawValue, columns: columns, rows: UInt64(rows)))
    }

    private mutating func writeBlock<Source: ColumnSource, Column: BulkColumn>(
        _ section: Section, _ source: Source, _ column: Column, _ rows: Range<Int>
    ) throws(DumpError) where Column.Table == Source.Table {
        let column = column.typed
        let stored = values.reset(rows.count, of: Column.Element.self)
        source.fill(column, rows: rows, into: stored)
        if let reference = column.reference {
            let base = references.reset(rows.count, of: Column.Element.self)
            source.fill(reference, rows: rows, into: base)
            for row in 0..<rows.count { stored[row] &-= base[row] }
        }
        try writeBlock(
            section, column.id.rawValue, rows, width: MemoryLayout<Column.Element>.size, column.encoding)
    }

    /// An empty table has one block without rows, so that it can be told from a lost one.
    private func blocks(of rows: Int) -> [Range<Int>] {
        if rows == 0 { return [0..<0] }
        return stride(from: 0, to: rows, by: BlockHeader.rowsPerBlock).map {
            $0..<min(rows, $0 + BlockHeader.rowsPerBlock)
        }
    }

    /// Encodes and compresses what is in `values`.
    private mutating func writeBlock(
        _ section: Section, _ column: UInt16, _ rows: Range<Int>, width: Int, _ encoding: ColumnEncoding
    ) throws(DumpError) {
        let content = block.reset(BlockHeader.bytes + rows.count * width)
        let payload = encoding.encode(
            values.base, rows: rows.count, width: width, to: content.baseAddress! + BlockHeader.bytes)
        try writeFrame(
            BlockHeader(
                section: section.rawValue, column: column, width: UInt8(width),
                encoding: encoding.effective(width: width).rawValue, rows: UInt32(rows.count),
                firstRow: UInt64(rows.lowerBound), payloadBytes: UInt32(payload)))
    }

    private mutating func writeRecords(
        _ section: Section, _ bytes: [UInt8], width: Int, count: Int
    ) throws(DumpError) {
        let content = block.reset(BlockHeader.bytes + bytes.count)
        bytes.withUnsafeBytes {
            UnsafeMutableRawBufferPointer(rebasing: content[BlockHeader.bytes...]).copyMemory(from: $0)
        }
        try writeFrame(
            BlockHeader(
                section: section.rawValue, column: 0, width: UInt8(width), encoding: ColumnEncoding.raw.rawValue,
                rows: UInt32(count), firstRow: 0, payloadBytes: UInt32(bytes.count)))
    }

    /// Compresses the block whose payload is in place behind the header.
    private mutating func writeFrame(_ header: BlockHeader) throws(DumpError) {
        header.store(to: block.base)
        block.count = BlockHeader.bytes + Int(header.payloadBytes)
        let offset = flushedBytes + UInt64(output.count)
        let size: Int
        do throws(FrameProblem) {
            size = try compressor.compress(block.bytes, to: &output)
        } catch {
            throw DumpError(.io, path: "", "compressing \(header.name): \(error)")
        }
        directory.append(
            DirectoryEntry(
                section: header.section, column: header.column, rows: header.rows, firstRow: header.firstRow,
                offset: offset, size: UInt32(size), contentBytes: UInt32(block.count)))
        if output.count >= Self.flushBytes { try flush() }
    }

    private mutating func flush() throws(DumpError) {
        try sink.write(output.bytes)
        flushedBytes += UInt64(output.count)
        output.count = 0
    }
}

extension Snapshot.SlotColumns {
    /// A column that was not read, or not filled.
    fileprivate var firstIncompleteColumn: Column? {
        func isIncomplete(_ column: some BulkColumn<Self>) -> Column? {
            self[keyPath: column.typed.values].count == count ? nil : column.typed.id
        }
        for column in Self.columns { if let id = isIncomplete(column) { return id } }
        return nil
    }
}
