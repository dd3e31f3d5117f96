/// Reads the sections with the large tables. Rows are left out where one of their values cannot be read; payloads and references
/// go with the slots that they are of.
struct BulkSections {
    private let reader: ColumnReader
    /// Which slots are whole; nil where all are, or none have been read.
    private var keptSlots: RowFilter?

    init(_ reader: ColumnReader) { self.reader = reader }

    mutating func read(_ selection: DumpSelection, to snapshot: inout Snapshot) throws(DumpError) {
        try reader.keep(bytes: bytes(of: selection), "the columns that were asked for")
        if selection.runs, has(.runs) { snapshot.runs = try readRuns() }
        if !selection.slots.isEmpty, has(.slots) { snapshot.slots = try readSlots(selection.slots) }
        if selection.payloads, !selection.slots.isEmpty, has(.payloads) { snapshot.payloads = try readPayloads() }
        if selection.references || selection.reaches, has(.references) {
            snapshot.references = try readReferences(snapshot.slots, isWhole: selection.references)
        }
    }

    private func has(_ section: Section) -> Bool { reader.index.contains(section) }

    /// What all selected columns take in memory.
    private func bytes(of selection: DumpSelection) -> UInt64 {
        var bytes: UInt64 = 0
        if selection.runs { bytes += rows(.runs) * Self.width(Snapshot.RunColumns.columns) }
        bytes += rows(.slots) * Self.width(Snapshot.SlotColumns.columns, selection.slots)
        if selection.payloads, !selection.slots.isEmpty, has(.payloads) {
            // They are made as many as there are slots.
            bytes += max(rows(.payloads), rows(.slots)) * Self.width(Snapshot.PayloadColumns.columns)
        }
        if selection.references {
            bytes += rows(.references) * Self.width(Snapshot.ReferenceColumns.columns)
            // Read for them where they were not asked for.
            let base = DumpBlockReader.referenceBase.subtracting(selection.slots)
            bytes += rows(.slots) * Self.width(Snapshot.SlotColumns.columns, base)
        } else if selection.reaches {
            bytes += rows(.references) * Self.width(Snapshot.ReferenceColumns.reachColumns)
        }
        return bytes
    }

    private func rows(_ section: Section) -> UInt64 { UInt64(reader.index.rowCount(section)) }

    /// Bytes of a row; of all columns where there is no selection.
    private static func width<Table: BulkTable>(
        _ columns: [any BulkColumn<Table>], _ selection: Set<Table.Column>? = nil
    ) -> UInt64 {
        func size<ColumnType: BulkColumn<Table>>(_ column: ColumnType) -> UInt64 {
            if let selection, !selection.contains(column.typed.id) { return 0 }
            return UInt64(MemoryLayout<ColumnType.Element>.size)
        }
        var sum: UInt64 = 0
        for column in columns { sum += size(column) }
        return sum
    }

    private func readRuns() throws(DumpError) -> Snapshot.RunColumns {
        var bulk = BulkReader<Snapshot.RunColumns>(reader, .runs)
        try bulk.read()
        _ = bulk.leaveOutMissing()
        return bulk.table
    }

    private mutating func readSlots(
        _ columns: Set<Snapshot.SlotColumns.Column>
    ) throws(DumpError) -> Snapshot.SlotColumns {
        var bulk = BulkReader<Snapshot.SlotColumns>(reader, .slots)
        try bulk.read(columns)
        keptSlots = bulk.leaveOutMissing()
        bulk.table.count = keptSlots?.keptCount ?? bulk.rows
        return bulk.table
    }

    private func readPayloads() throws(DumpError) -> Snapshot.PayloadColumns {
        var bulk = BulkReader<Snapshot.PayloadColumns>(reader, .payloads)
        try bulk.read()
        // Rows that cannot be read are 0 bytes long: they must stay the rows of the slots.
        for range in bulk.missing { for row in range { bulk.table.length[row] = 0 } }
        let slots = keptSlots?.count ?? reader.index.rowCount(.slots)
        if bulk.rows != slots {
            reader.problems.append("payloads: \(bulk.rows) rows for \(slots) slots; of the others there are no bytes")
            bulk.table.resize(to: slots)
        }
        keptSlots?.apply(to: &bulk.table)
        return bulk.table
    }

    /// - Parameter isWhole: with all columns; else only what reaches which slot.
    private func readReferences(_ slots: Snapshot.SlotColumns?, isWhole: Bool) throws(DumpError)
        -> Snapshot.ReferenceColumns
    {
        let isRelative =
            isWhole && !reader.index.entries(.references, Snapshot.ReferenceColumns.Column.ownerStep.rawValue).isEmpty
        var bulk = BulkReader<Snapshot.ReferenceColumns>(reader, .references)
        for column in Snapshot.ReferenceColumns.reachColumns { try bulk.read(column) }
        if isWhole, !isRelative { try bulk.read(Snapshot.ReferenceColumns.storedOwner) }
        if isRelative {
            try bulk.read(Snapshot.ReferenceColumns.ownerStep)
            try bulk.read(Snapshot.ReferenceColumns.unreferredBytes)
            // What the slots' filter left out is needed by row: read again where it was not read whole.
            var owners = keptSlots == nil ? slots?.owner ?? [] : []
            var requested = keptSlots == nil ? slots?.requested ?? [] : []
            if owners.isEmpty { owners = try reader.slotColumn(.owner) }
            if requested.isEmpty { requested = try reader.slotColumn(.requested) }
            bulk.table.resolve(owners, requested)
        }
        _ = bulk.leaveOutMissing()
        if let keptSlots { bulk.table.renumber(keptSlots, reader) }
        return bulk.table
    }
}

extension Snapshot.PayloadColumns {
    /// Makes it have so many rows: those that are added are 0 bytes long.
    fileprivate mutating func resize(to rows: Int) {
        let added = max(0, rows - count)
        start = Array(start.prefix(rows)) + [UInt64](repeating: 0, count: added)
        length = Array(length.prefix(rows)) + [UInt32](repeating: 0, count: added)
    }
}

extension Snapshot.ReferenceColumns {
    /// Makes references that are stored relative to their slots absolute.
    ///
    /// - Parameters:
    ///   - owners: of all slots, by row; so are `requested`, their bytes.
    fileprivate mutating func resolve(_ owners: [UInt32], _ requested: [UInt64]) {
        for reference in slotRow.indices {
            let row = Int(slotRow[reference])
            // One that leads nowhere is stored as it is.
            let isThere = row < owners.count && row < requested.count
            if isThere { referrerOwner[reference] &+= owners[row] }
            referredBytes[reference] =
                (isThere ? UInt32(truncatingIfNeeded: requested[row]) : 0) &- referredBytes[reference]
        }
    }

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

extension ColumnReader {
    /// A column of the slots, all rows; those that cannot be read are 0.
    fileprivate func slotColumn<T: FixedWidthInteger & UnsignedInteger>(
        _ column: Snapshot.SlotColumns.Column
    ) throws(DumpError) -> [T] {
        guard index.contains(.slots) else { return [] }
        return try self.column(.slots, column.rawValue, rows: index.rowCount(.slots), as: T.self).values
    }
}

/// Reads the columns of one bulk table.
private struct BulkReader<Table: BulkTable> {
    private let reader: ColumnReader
    private let section: Section
    let rows: Int
    var table = Table()
    /// Rows that are not whole in all columns that were read.
    private(set) var missing: [Range<Int>] = []

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
