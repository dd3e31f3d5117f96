/// The large tables of a whole dump, a block of rows at a time: what goes through all of them once, and keeps little,
/// needs the memory of a few blocks. Damaged files are `DumpReader`'s business, which says what is left of them.
public struct DumpBlocks: Sendable {
    /// Rows of every block but the last.
    public static let rowsPerBlock = BlockHeader.rowsPerBlock

    /// The small tables.
    public let tables: Snapshot
    public let slotCount: Int
    let input: DumpInput
    let index: FrameIndex

    /// Nil where the file is not a dump, or not whole as far as its directory tells: then `DumpReader` has the answer.
    public init?(path: String) throws(DumpError) {
        let input = try DumpInput(path: path)
        if try LedgerReader.recognises(input) { return nil }
        var decoder = FrameDecoder()
        do throws(DumpError) {
            try FileHeader.check(input, &decoder)
        } catch {
            return nil
        }
        let index = try FrameIndex(input, &decoder)
        guard index.problems.isEmpty, index.end != nil, index.contains(.slots) else { return nil }
        self.input = input
        self.index = index
        slotCount = index.rowCount(.slots)
        tables = try DumpReader.read(input, .tables, 2)
        guard tables.completeness.isComplete, hasAllBlocks(.runs), hasAllBlocks(.slots), hasAllBlocks(.references)
        else {
            return nil
        }
    }

    /// Whether each column of a table has all its rows, in blocks of the usual size: of a table without rows the one block that
    /// says so. A table that was not written has.
    private func hasAllBlocks(_ section: Section) -> Bool {
        guard index.contains(section) else { return index.wasWritten(section) == false }
        let rows = index.rowCount(section)
        return columns(section).allSatisfy { column in
            let entries = index.entries(section, column)
            let isRegular = entries.enumerated().allSatisfy {
                $0.element.firstRow == UInt64($0.offset * Self.rowsPerBlock)
            }
            let isAll = entries.reduce(0) { $0 + Int($1.rows) } == rows
            return isRegular && isAll && entries.count == max(1, Self.blocks(of: rows))
        }
    }

    /// Whether references are stored as differences from the slots they point to; not so in version 1.
    var hasRelativeReferences: Bool {
        !index.entries(.references, Snapshot.ReferenceColumns.Column.ownerStep.rawValue).isEmpty
    }

    /// The columns of a table in this file, as far as this version knows them.
    func columns(_ section: Section) -> [UInt16] {
        switch section {
        case .runs: Snapshot.RunColumns.Column.allCases.map(\.rawValue)
        case .slots: Snapshot.SlotColumns.Column.allCases.map(\.rawValue)
        case .references where !hasRelativeReferences:
            [Snapshot.ReferenceColumns.storedOwner.id.rawValue] + Self.reachColumns
        case .references: Self.numbers(Snapshot.ReferenceColumns.columns)
        default: []
        }
    }

    static let reachColumns = numbers(Snapshot.ReferenceColumns.reachColumns)

    private static func numbers<Table: BulkTable>(_ columns: [any BulkColumn<Table>]) -> [UInt16] {
        func number(_ column: some BulkColumn<Table>) -> UInt16 { column.typed.id.rawValue }
        return columns.map { number($0) }
    }

    public var slotBlocks: Int { Self.blocks(of: slotCount) }
    public var hasReferences: Bool { index.contains(.references) }
    /// Whether bytes of the buffers are in the file.
    public var hasPayloads: Bool { index.contains(.payloads) }
    public var referenceBlocks: Int { hasReferences ? Self.blocks(of: index.rowCount(.references)) : 0 }

    private static func blocks(of rows: Int) -> Int { rows / rowsPerBlock + (rows % rowsPerBlock == 0 ? 0 : 1) }

    /// The rows of a block of slots.
    public func rows(of block: Int) -> Range<Int> {
        block * Self.rowsPerBlock..<min(slotCount, (block + 1) * Self.rowsPerBlock)
    }

    /// Whether every frame of the selected columns is as it was written. A reader that must not stop in the middle asks
    /// first.
    public func isIntact(_ selection: DumpSelection, parallelism: Int = 2) -> Bool {
        var entries = selection.slots.flatMap { index.entries(.slots, $0.rawValue) }
        if selection.runs { for column in columns(.runs) { entries += index.entries(.runs, column) } }
        if selection.reaches, !selection.references {
            for column in Self.reachColumns { entries += index.entries(.references, column) }
        }
        if selection.references {
            for column in columns(.references) { entries += index.entries(.references, column) }
            if hasRelativeReferences {
                for column in DumpBlockReader.referenceBase { entries += index.entries(.slots, column.rawValue) }
            }
        }
        let queue = WorkQueue(entries.count)
        let (input, all) = (input, entries)
        let damaged = Flag()
        Workers.run(min(parallelism, max(1, all.count))) {
            var decoder = FrameDecoder()
            while !damaged.isSet, let next = queue.take() {
                do throws(FrameProblem) {
                    let block = try decoder.load(input, offset: all[next].offset, size: UInt64(all[next].size))
                    if block.firstRow != all[next].firstRow || block.rows != all[next].rows { damaged.set() }
                } catch {
                    damaged.set()
                }
            }
        }
        return !damaged.isSet
    }
}

/// Reads blocks; each thread has its own.
public final class DumpBlockReader {
    private let blocks: DumpBlocks
    private var decoder = FrameDecoder()
    /// What references are stored relative to, of the block of slots that they point to.
    private var base: (block: Int, slots: Snapshot.SlotColumns)?
    static let referenceBase: Set<Snapshot.SlotColumns.Column> = [.owner, .requested]

    public init(_ blocks: DumpBlocks) { self.blocks = blocks }

    /// Columns of one block of slots.
    public func slots(
        _ columns: Set<Snapshot.SlotColumns.Column>, block: Int
    ) throws(DumpError) -> Snapshot.SlotColumns {
        var slots = Snapshot.SlotColumns()
        slots.count = blocks.rows(of: block).count
        func read(_ column: some BulkColumn<Snapshot.SlotColumns>) throws(DumpError) {
            let column = column.typed
            guard columns.contains(column.id) else { return }
            var values = try load(.slots, column, block)
            if let reference = column.reference {
                // It comes before in the list: loaded already where it was asked for.
                var base = slots[keyPath: reference.values]
                if base.isEmpty { base = try load(.slots, reference, block) }
                for row in values.indices { values[row] &+= base[row] }
            }
            slots[keyPath: column.values] = values
        }
        for column in Snapshot.SlotColumns.columns { try read(column) }
        return slots
    }

    /// The given rows, in the order given.
    public func slots(
        _ columns: Set<Snapshot.SlotColumns.Column>, rows: [Int]
    ) throws(DumpError) -> Snapshot.SlotColumns {
        var result = Snapshot.SlotColumns()
        result.reserve(columns, rows.count)
        // A block at a time: the places in the result whose rows are in it.
        let places = rows.indices.sorted { rows[$0] < rows[$1] }
        var next = 0
        while next < places.count {
            let block = rows[places[next]] / DumpBlocks.rowsPerBlock
            let end = places[next...].firstIndex { rows[$0] / DumpBlocks.rowsPerBlock != block } ?? places.count
            let loaded = try slots(columns, block: block)
            result.set(places[next..<end].map { ($0, rows[$0] % DumpBlocks.rowsPerBlock) }, to: loaded)
            next = end
        }
        return result
    }

    public func references(block: Int) throws(DumpError) -> Snapshot.ReferenceColumns {
        var references = try reaches(block: block)
        guard blocks.hasRelativeReferences else {
            references.referrerOwner = try load(.references, Snapshot.ReferenceColumns.storedOwner, block)
            return references
        }
        references.referrerOwner = try load(.references, Snapshot.ReferenceColumns.ownerStep, block)
        references.referredBytes = try load(.references, Snapshot.ReferenceColumns.unreferredBytes, block)
        for reference in references.slotRow.indices {
            let row = Int(references.slotRow[reference])
            // One that leads nowhere is stored as it is.
            guard row < blocks.slotCount else {
                references.referredBytes[reference] = 0 &- references.referredBytes[reference]
                continue
            }
            // References are in the order of their slots, so that a block of slots is loaded once.
            let wanted = row / DumpBlocks.rowsPerBlock
            if base?.block != wanted { base = (wanted, try slots(Self.referenceBase, block: wanted)) }
            guard let base else { continue }
            let place = row % DumpBlocks.rowsPerBlock
            references.referrerOwner[reference] &+= base.slots.owner[place]
            references.referredBytes[reference] =
                UInt32(truncatingIfNeeded: base.slots.requested[place]) &- references.referredBytes[reference]
        }
        return references
    }

    /// Which referrers reach which slots, without what only whole references tell: `referrerOwner` stays empty.
    public func reaches(block: Int) throws(DumpError) -> Snapshot.ReferenceColumns {
        var references = Snapshot.ReferenceColumns()
        func read(_ column: some BulkColumn<Snapshot.ReferenceColumns>) throws(DumpError) {
            references[keyPath: column.typed.values] = try load(.references, column.typed, block)
        }
        for column in Snapshot.ReferenceColumns.reachColumns { try read(column) }
        return references
    }

    private func load<Table, Element>(
        _ section: Section, _ column: TypedColumn<Table, Element>, _ block: Int
    ) throws(DumpError) -> [Element] {
        let entry = blocks.index.entries(section, column.id.rawValue)[block]
        var problem: FrameProblem?
        let values = [Element](unsafeUninitializedCapacity: Int(entry.rows)) { buffer, count in
            do throws(FrameProblem) {
                try decoder.load(
                    blocks.input, entry, width: MemoryLayout<Element>.size,
                    to: UnsafeMutableRawPointer(buffer.baseAddress!))
                count = Int(entry.rows)
            } catch {
                problem = error
            }
        }
        if let problem { throw DumpError(.damaged, path: blocks.input.path, "\(entry.name): \(problem)") }
        return values
    }
}

extension Snapshot.SlotColumns {
    fileprivate mutating func reserve(_ columns: Set<Column>, _ rows: Int) {
        count = rows
        func reserve<ColumnType: BulkColumn<Self>>(_ column: ColumnType) {
            guard columns.contains(column.typed.id) else { return }
            self[keyPath: column.typed.values] = [ColumnType.Element](repeating: 0, count: rows)
        }
        for column in Self.columns { reserve(column) }
    }

    /// Sets rows to rows of another table. Columns that were not read stay empty.
    fileprivate mutating func set(_ rows: [(row: Int, other: Int)], to other: Self) {
        func copy<ColumnType: BulkColumn<Self>>(_ column: ColumnType) {
            let from = other[keyPath: column.typed.values]
            guard !from.isEmpty else { return }
            var values: [ColumnType.Element] = []
            swap(&values, &self[keyPath: column.typed.values])
            for (row, other) in rows { values[row] = from[other] }
            swap(&values, &self[keyPath: column.typed.values])
        }
        for column in Self.columns { copy(column) }
    }
}
