/// Reads dumps and flight recorders' files, whole or damaged.
public enum DumpReader {
    /// Reads the small tables and the selected columns of the dump, or of the flight recorder's file, at `path`.
    ///
    /// A torn or damaged file gives what is intact of it, and `completeness` says what is not. Throws where no answer
    /// is possible: the file is not a dump, is of a newer version, or its header or totals cannot be read.
    public static func read(
        path: String, _ selection: DumpSelection = .tables, parallelism: Int = 2, progress: DumpProgress? = nil
    ) throws(DumpError) -> Snapshot {
        try read(DumpInput(path: path), selection, parallelism, progress)
    }

    /// The same for a dump in memory; `name` is what errors call it.
    public static func read(
        bytes: [UInt8], name: String, _ selection: DumpSelection = .tables, parallelism: Int = 2
    ) throws(DumpError) -> Snapshot {
        try read(DumpInput(bytes: bytes, path: name), selection, parallelism)
    }

    /// The header of a dump, which may still be being written or be torn: nothing behind its first sections is looked at.
    package static func header(
        of name: String, in directory: HeldDirectory
    ) throws(DumpError) -> Snapshot.Header {
        let input = try DumpInput(name, in: directory)
        var decoder = FrameDecoder()
        try FileHeader.check(input, &decoder)
        let index = try FrameIndex(input, &decoder, upTo: .strings)
        let reader = ColumnReader(input, index, decoder, parallelism: 1)
        try reader.loadStrings()
        return try onlyRow(of: Snapshot.Header.self, reader)
    }

    static func read(
        _ input: DumpInput, _ selection: DumpSelection, _ parallelism: Int, _ progress: DumpProgress? = nil
    ) throws(DumpError) -> Snapshot {
        if try LedgerReader.recognises(input) { return try LedgerReader.read(input, selection) }
        var decoder = FrameDecoder()
        let version = try FileHeader.check(input, &decoder)
        let index = try FrameIndex(input, &decoder)
        progress?.expect(index.bytes(of: selection))
        let reader = ColumnReader(input, index, decoder, parallelism: max(1, parallelism), progress)
        var snapshot = try readTables(reader, version)
        var bulk = BulkSections(reader)
        try bulk.read(selection, to: &snapshot)
        note(selection, version, index, in: &snapshot.completeness)
        snapshot.completeness.problems = reader.problems.all
        return snapshot
    }

    /// Says which of the sections that were asked for the file has.
    private static func note(
        _ selection: DumpSelection, _ version: FileHeader.Version, _ index: FrameIndex,
        in completeness: inout Snapshot.Completeness
    ) {
        let mandatory = Section.mandatory(version)
        for section in mandatory + selection.sections {
            if index.contains(section) {
                completeness.sectionsRead.append(section.name)
            } else if mandatory.contains(section) || index.wasWritten(section) != false {
                completeness.sectionsMissing.append(section.name)
            }
        }
    }

    private static func readTables(
        _ reader: ColumnReader, _ version: FileHeader.Version
    ) throws(DumpError) -> Snapshot {
        try reader.loadStrings()
        var snapshot = Snapshot(
            header: try onlyRow(of: Snapshot.Header.self, reader), totals: try onlyRow(of: Snapshot.Totals.self, reader)
        )
        // These are referred to by row number: their rows stay where they are, and unreadable fields are empty.
        snapshot.sizeClasses = try reader.table(Snapshot.SizeClass.self).rows
        snapshot.arenas = try reader.table(Snapshot.ArenaTotals.self).rows
        // Each has the buckets that it says, and no more than these.
        let buckets = UInt64(Snapshot.Site.maximumBuckets * MemoryLayout<UInt64>.stride)
        try reader.keep(bytes: UInt64(reader.index.rowCount(.sites)) * buckets, "the lifetimes of sites")
        snapshot.sites = try reader.table(Snapshot.Site.self).rows
        try readLifetimes(&snapshot.sites, reader)
        snapshot.owners = try reader.table(Snapshot.Owner.self).rows
        // Nothing refers to these: rows that are not whole are left out. Sections that a file need not have have no rows then.
        snapshot.allocationGroups = try wholeRows(of: Snapshot.AllocationGroup.self, reader)
        snapshot.chunks = try wholeRows(of: Snapshot.Chunk.self, reader)
        snapshot.events = try wholeRows(of: Snapshot.Event.self, reader)
        if version.major > 1 { snapshot.freed = try wholeRows(of: Snapshot.Freed.self, reader) }
        snapshot.missingLoops = try wholeRows(of: Snapshot.MissingLoop.self, reader)
        snapshot.notes = try wholeRows(of: Snapshot.Note.self, reader)
        snapshot.missingPremises = try wholeRows(of: Snapshot.MissingPremise.self, reader)
        snapshot.nettyCopies = try wholeRows(of: Snapshot.NettyCopy.self, reader)
        snapshot.nettyChunks = try wholeRows(of: Snapshot.NettyChunk.self, reader)
        snapshot.directReferrers = try wholeRows(of: Snapshot.DirectReferrer.self, reader)
        return snapshot
    }

    /// The header and the totals: without either, there is no answer.
    private static func onlyRow<Row: TableRow>(of _: Row.Type, _ reader: ColumnReader) throws(DumpError) -> Row {
        // A damaged count could say a million: then the first of them is no better than none.
        let table = reader.index.rowCount(Row.section) == 1 ? try reader.table(Row.self) : (rows: [], missing: [])
        guard let row = table.rows.first, table.missing.isEmpty else {
            let detail = reader.problems.all.map { "\n  \($0)" }.joined()
            throw DumpError(
                .damaged, path: reader.input.path,
                "the dump's \(Row.section.name) cannot be read, so no answer is possible; take another dump\(detail)")
        }
        return row
    }

    private static func wholeRows<Row: TableRow>(of _: Row.Type, _ reader: ColumnReader) throws(DumpError) -> [Row] {
        let table = try reader.table(Row.self)
        let kept = RowFilter(table.rows.count, leavingOut: table.missing)
        reader.note(kept, Row.section)
        return kept.apply(table.rows)
    }

    private static func readLifetimes(_ sites: inout [Snapshot.Site], _ reader: ColumnReader) throws(DumpError) {
        guard reader.index.contains(.lifetimes) else { return }
        let bytes = UInt64(reader.index.rowCount(.lifetimes)) * UInt64(MemoryLayout<UInt64>.stride)
        try reader.keep(bytes: bytes, "section \(Section.lifetimes.name)")
        let counts = try reader.column(
            .lifetimes, 1, rows: reader.index.rowCount(.lifetimes), as: UInt64.self
        ).values
        var next = 0
        for site in sites.indices {
            let end = next + sites[site].lifetimes.count
            guard end <= counts.count else {
                reader.problems.append("lifetimes: \(counts.count) rows are too few for the sites from \(site) on")
                return
            }
            sites[site].lifetimes = Array(counts[next..<end])
            next = end
        }
    }
}

extension DumpReader {
    /// The bytes of one buffer that a dump has; empty where it has none, nil where they cannot be read.
    ///
    /// - Parameter row: of the snapshot that was read from the same file, with its payloads.
    public static func payload(
        path: String, _ snapshot: Snapshot, row: Int
    ) throws(DumpError) -> [UInt8]? {
        guard let payloads = snapshot.payloads, row < payloads.count, payloads.length[row] > 0 else { return [] }
        let input = try DumpInput(path: path)
        var decoder = FrameDecoder()
        try FileHeader.check(input, &decoder)
        let index = try FrameIndex(input, &decoder)
        let start = payloads.start[row]
        let end = start.addingClamped(UInt64(payloads.length[row]))
        var bytes: [UInt8] = []
        for entry in index.entries(.payloadBytes, 1) where entry.firstRow < end && entry.endRow > start {
            let block = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(entry.rows), alignment: 64)
            defer { block.deallocate() }
            do throws(FrameProblem) {
                try decoder.load(input, entry, width: 1, to: block.baseAddress!)
            } catch {
                return nil
            }
            let from = max(start, entry.firstRow) - entry.firstRow
            bytes += block[Int(from)..<Int(min(end, entry.endRow) - entry.firstRow)]
        }
        return bytes.count == Int(payloads.length[row]) ? bytes : nil
    }
}
