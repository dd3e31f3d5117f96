/// What to read of a dump beside its small tables, which are always read.
public struct DumpSelection: Sendable, Equatable {
    public var slots: Set<Snapshot.SlotColumns.Column>
    public var runs: Bool
    /// All columns of the references: they are told from the owners and sizes of the slots, which takes four times the memory of
    /// `reaches`.
    public var references: Bool
    /// Of the references, which slots there are referrers of, and of what kinds; with `references` it says nothing new.
    public var reaches: Bool
    /// Which bytes of the slots' buffers there are; needs a column of the slots too.
    public var payloads: Bool

    public init(
        slots: Set<Snapshot.SlotColumns.Column> = [], runs: Bool = false, references: Bool = false,
        reaches: Bool = false,
        payloads: Bool = false
    ) {
        self.slots = slots
        self.runs = runs
        self.references = references
        self.reaches = reaches
        self.payloads = payloads
    }

    /// The small tables only: milliseconds, however many buffers there are.
    public static let tables = DumpSelection()
    public static let everything = DumpSelection(
        slots: Set(Snapshot.SlotColumns.Column.allCases), runs: true, references: true, payloads: true)
}

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
        try readBulk(&snapshot, selection, reader)

        let mandatory = Section.mandatory(version)
        var wanted = mandatory
        if selection.runs { wanted.append(.runs) }
        if !selection.slots.isEmpty { wanted.append(.slots) }
        if selection.references || selection.reaches { wanted.append(.references) }
        for section in wanted {
            if index.contains(section) {
                snapshot.completeness.sectionsRead.append(section.name)
            } else if mandatory.contains(section) || index.wasWritten(section) != false {
                snapshot.completeness.sectionsMissing.append(section.name)
            }
        }
        snapshot.completeness.problems = reader.problems.all
        return snapshot
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
        snapshot.sites = try reader.table(Snapshot.Site.self).rows
        try readLifetimes(&snapshot.sites, reader)
        snapshot.owners = try reader.table(Snapshot.Owner.self).rows
        // Nothing refers to these: rows that are not whole are left out.
        snapshot.allocationGroups = try wholeRows(of: Snapshot.AllocationGroup.self, reader)
        snapshot.chunks = try wholeRows(of: Snapshot.Chunk.self, reader)
        snapshot.events = try wholeRows(of: Snapshot.Event.self, reader)
        if version.major > 1 { snapshot.freed = try wholeRows(of: Snapshot.Freed.self, reader) }
        if reader.index.contains(.missingLoops) {
            snapshot.missingLoops = try wholeRows(of: Snapshot.MissingLoop.self, reader)
        }
        if reader.index.contains(.notes) { snapshot.notes = try wholeRows(of: Snapshot.Note.self, reader) }
        if reader.index.contains(.missingPremises) {
            snapshot.missingPremises = try wholeRows(of: Snapshot.MissingPremise.self, reader)
        }
        if reader.index.contains(.nettyCopies) {
            snapshot.nettyCopies = try wholeRows(of: Snapshot.NettyCopy.self, reader)
        }
        if reader.index.contains(.nettyChunks) {
            snapshot.nettyChunks = try wholeRows(of: Snapshot.NettyChunk.self, reader)
        }
        if reader.index.contains(.directReferrers) {
            snapshot.directReferrers = try wholeRows(of: Snapshot.DirectReferrer.self, reader)
        }
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

    private static func readBulk(
        _ snapshot: inout Snapshot, _ selection: DumpSelection, _ reader: ColumnReader
    ) throws(DumpError) {
        if selection.runs, reader.index.contains(.runs) {
            var bulk = BulkReader<Snapshot.RunColumns>(reader, .runs)
            try bulk.read()
            _ = bulk.leaveOutMissing()
            snapshot.runs = bulk.table
        }
        var keptSlots: RowFilter?
        if !selection.slots.isEmpty, reader.index.contains(.slots) {
            var bulk = BulkReader<Snapshot.SlotColumns>(reader, .slots)
            try bulk.read(selection.slots)
            keptSlots = bulk.leaveOutMissing()
            bulk.table.count = keptSlots?.keptCount ?? bulk.rows
            snapshot.slots = bulk.table
        }
        if selection.payloads, !selection.slots.isEmpty, reader.index.contains(.payloads) {
            var bulk = BulkReader<Snapshot.PayloadColumns>(reader, .payloads)
            try bulk.read()
            // Rows that cannot be read are 0 bytes long: they must stay the rows of the slots.
            keptSlots?.apply(to: &bulk.table)
            snapshot.payloads = bulk.table
        }
        if selection.references || selection.reaches, reader.index.contains(.references) {
            snapshot.references = try readReferences(snapshot.slots, keptSlots, isWhole: selection.references, reader)
        }
    }

    private static func readReferences(
        _ slots: Snapshot.SlotColumns?, _ keptSlots: RowFilter?, isWhole: Bool, _ reader: ColumnReader
    ) throws(DumpError) -> Snapshot.ReferenceColumns {
        let isRelative =
            isWhole && !reader.index.entries(.references, Snapshot.ReferenceColumns.Column.ownerStep.rawValue).isEmpty
        var bulk = BulkReader<Snapshot.ReferenceColumns>(reader, .references)
        for column in Snapshot.ReferenceColumns.reachColumns { try bulk.read(column) }
        if isWhole, !isRelative { try bulk.read(Snapshot.ReferenceColumns.storedOwner) }
        if isRelative {
            try bulk.read(Snapshot.ReferenceColumns.ownerStep)
            try bulk.read(Snapshot.ReferenceColumns.unreferredBytes)
            var references = Snapshot.ReferenceColumns()
            swap(&references, &bulk.table)
            defer { swap(&references, &bulk.table) }
            // What the slots' filter left out is needed by row: read again where it was not read whole.
            var owners = keptSlots == nil ? slots?.owner ?? [] : []
            var requested = keptSlots == nil ? slots?.requested ?? [] : []
            if owners.isEmpty { owners = try reader.slotColumn(.owner) }
            if requested.isEmpty { requested = try reader.slotColumn(.requested) }
            for reference in references.slotRow.indices {
                let row = Int(references.slotRow[reference])
                // One that leads nowhere is stored as it is.
                let isThere = row < owners.count && row < requested.count
                if isThere { references.referrerOwner[reference] &+= owners[row] }
                references.referredBytes[reference] =
                    (isThere ? UInt32(truncatingIfNeeded: requested[row]) : 0) &- references.referredBytes[reference]
            }
        }
        _ = bulk.leaveOutMissing()
        if let keptSlots { bulk.table.renumber(keptSlots, reader) }
        return bulk.table
    }
}

extension ColumnReader {
    /// A column of the slots, all rows; those that cannot be read are 0.
    fileprivate func slotColumn<T: FixedWidthInteger & UnsignedInteger>(
        _ column: Snapshot.SlotColumns.Column
    ) throws(DumpError) -> [T] {
        guard index.contains(.slots) else { return [] }
        return try self.column(.slots, column.rawValue, rows: index.rowCount(.slots), as: T.self).values
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

/// Reads the columns of one bulk table.
private struct BulkReader<Table: BulkTable> {
    private let reader: ColumnReader
    private let section: Section
    let rows: Int
    var table = Table()
    private var missing: [Range<Int>] = []

    init(_ reader: ColumnReader, _ section: Section) {
        self.reader = reader
        self.section = section
        rows = reader.index.rowCount(section)
    }

    /// Reads the selected columns; all where there is no selection.
    mutating func read(_ selection: Set<Table.Column>? = nil) throws(DumpError) {
        for column in Table.columns { try read(column, selection) }
    }

    mutating func read<Column: BulkColumn>(
        _ column: Column, _ selection: Set<Table.Column>? = nil
    ) throws(DumpError) where Column.Table == Table {
        let column = column.typed
        if let selection, !selection.contains(column.id) { return }
        var values = try load(column)
        if let reference = column.reference {
            // It comes before in the list: read already where it was asked for.
            var base = table[keyPath: reference.values]
            if base.isEmpty { base = try load(reference) }
            for row in values.indices { values[row] &+= base[row] }
        }
        table[keyPath: column.values] = values
    }

    private mutating func load<Element>(_ column: TypedColumn<Table, Element>) throws(DumpError) -> [Element] {
        let read = try reader.column(section, column.id.rawValue, rows: rows, as: Element.self)
        missing += read.missing
        return read.values
    }

    /// Leaves out the rows that are not whole. Returns which are kept; nil where all are whole.
    mutating func leaveOutMissing() -> RowFilter? {
        if missing.isEmpty { return nil }
        let filter = RowFilter(rows, leavingOut: missing)
        reader.note(filter, section)
        filter.apply(to: &table)
        return filter
    }
}

extension Snapshot.ReferenceColumns {
    /// Makes references refer to the rows of slots that were kept, and leaves out those whose slot was not.
    fileprivate mutating func renumber(_ slots: RowFilter, _ reader: ColumnReader) {
        let newRows = slots.newRows()
        var kept = Self()
        for reference in 0..<count {
            guard Int(slotRow[reference]) < newRows.count, let row = newRows[Int(slotRow[reference])] else { continue }
            if !referrerOwner.isEmpty { kept.referrerOwner.append(referrerOwner[reference]) }
            kept.referrerKind.append(referrerKind[reference])
            kept.slotRow.append(row)
            if !referredBytes.isEmpty { kept.referredBytes.append(referredBytes[reference]) }
        }
        if kept.count < count {
            reader.problems.append(
                "references: \(count - kept.count) of \(count) left out with the slots they point to")
        }
        self = kept
    }
}

/// Which rows of a table are whole in all columns that were asked for.
struct RowFilter {
    let count: Int
    /// In order, without overlaps.
    private let kept: [Range<Int>]
    let keptCount: Int

    init(_ count: Int, leavingOut missing: [Range<Int>]) {
        self.count = count
        var kept: [Range<Int>] = []
        var next = 0
        for range in missing.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if range.lowerBound > next { kept.append(next..<range.lowerBound) }
            next = max(next, range.upperBound)
        }
        if next < count { kept.append(next..<count) }
        self.kept = kept
        keptCount = kept.reduce(0) { $0 + $1.count }
    }

    func apply<T>(_ values: [T]) -> [T] {
        keptCount == count ? values : kept.flatMap { values[$0] }
    }

    /// Columns that were not read are empty, and stay so.
    func apply<Table: BulkTable>(to table: inout Table) {
        func apply(_ column: some BulkColumn<Table>) {
            let values = table[keyPath: column.typed.values]
            if !values.isEmpty { table[keyPath: column.typed.values] = self.apply(values) }
        }
        for column in Table.columns { apply(column) }
    }

    /// For each old row its new number, nil where it is left out.
    func newRows() -> [UInt32?] {
        var rows = [UInt32?](repeating: nil, count: count)
        var next: UInt32 = 0
        for range in kept {
            for row in range {
                rows[row] = next
                next += 1
            }
        }
        return rows
    }
}

extension ColumnReader {
    /// Says how many rows of a table are left out because a column of them cannot be read.
    func note(_ filter: RowFilter, _ section: Section) {
        if filter.keptCount < filter.count {
            problems.append("\(section.name): \(filter.count - filter.keptCount) of \(filter.count) rows left out")
        }
    }
}
