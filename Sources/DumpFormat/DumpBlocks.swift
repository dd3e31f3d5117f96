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
        guard tables.completeness.isComplete, hasAllBlocks(.runs), hasAllBlocks(.slots), hasAllBlocks(.edges) else {
            return nil
        }
    }

    /// Whether each column of a table has all its rows, in blocks of the usual size. A table that was not written has.
    private func hasAllBlocks(_ section: Section) -> Bool {
        guard index.contains(section) else { return index.wasWritten(section) == false }
        let rows = index.rowCount(section)
        return columns(section).allSatisfy { column in
            let entries = index.entries(section, column)
            let isRegular = entries.enumerated().allSatisfy {
                $0.element.firstRow == UInt64($0.offset * Self.rowsPerBlock)
            }
            return isRegular && entries.reduce(0) { $0 + Int($1.rows) } == rows
        }
    }

    /// Whether edges are stored as differences from the slots they point to; not so in version 1.
    var hasRelativeEdges: Bool { !index.entries(.edges, Snapshot.EdgeColumns.Column.ownerStep.rawValue).isEmpty }

    /// What of the edges tells which slots have holders.
    static let reachColumns = [Snapshot.EdgeColumns.Column.holderKind, .slotRow].map(\.rawValue)

    /// The columns of a table in this file, as far as this version knows them.
    func columns(_ section: Section) -> [UInt16] {
        switch section {
        case .runs: Snapshot.RunColumns.Column.allCases.map(\.rawValue)
        case .slots: Snapshot.SlotColumns.Column.allCases.map(\.rawValue)
        case .edges where !hasRelativeEdges:
            [Snapshot.EdgeColumns.Column.holderOwner, .holderKind, .slotRow].map(\.rawValue)
        case .edges: Snapshot.EdgeColumns.Column.allCases.map(\.rawValue)
        default: []
        }
    }

    public var slotBlocks: Int { Self.blocks(of: slotCount) }
    public var hasEdges: Bool { index.contains(.edges) }
    /// Whether bytes of the buffers are in the file.
    public var hasPayloads: Bool { index.contains(.payloads) }
    public var edgeBlocks: Int { hasEdges ? Self.blocks(of: index.rowCount(.edges)) : 0 }

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
        if selection.reaches, !selection.edges {
            for column in Self.reachColumns { entries += index.entries(.edges, column) }
        }
        if selection.edges {
            for column in columns(.edges) { entries += index.entries(.edges, column) }
            if hasRelativeEdges {
                for column in DumpBlockReader.edgeBase { entries += index.entries(.slots, column.rawValue) }
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
    /// What edges are stored relative to, of the block of slots that they point to.
    private var base: (block: Int, slots: Snapshot.SlotColumns)?
    static let edgeBase: Set<Snapshot.SlotColumns.Column> = [.owner, .requested]

    public init(_ blocks: DumpBlocks) { self.blocks = blocks }

    /// Columns of one block of slots.
    public func slots(
        _ columns: Set<Snapshot.SlotColumns.Column>, block: Int
    ) throws(DumpError) -> Snapshot.SlotColumns {
        var slots = Snapshot.SlotColumns()
        slots.count = blocks.rows(of: block).count
        for column in columns {
            switch column {
            case .serial: slots.serial = try load(.slots, column.rawValue, block)
            case .birth: slots.birth = try load(.slots, column.rawValue, block)
            case .address: slots.address = try load(.slots, column.rawValue, block)
            case .requested: slots.requested = try load(.slots, column.rawValue, block)
            case .capacity: slots.capacity = try load(.slots, column.rawValue, block)
            case .sizeClass: slots.sizeClass = try load(.slots, column.rawValue, block)
            case .arena: slots.arena = try load(.slots, column.rawValue, block)
            case .site: slots.site = try load(.slots, column.rawValue, block)
            case .owner: slots.owner = try load(.slots, column.rawValue, block)
            case .touchSite: slots.touchSite = try load(.slots, column.rawValue, block)
            case .touchTime: slots.touchTime = try load(.slots, column.rawValue, block)
            case .state: slots.state = try load(.slots, column.rawValue, block)
            }
        }
        if columns.contains(.touchTime) {
            let births: [UInt64] =
                slots.birth.isEmpty
                ? try load(.slots, Snapshot.SlotColumns.Column.birth.rawValue, block) : slots.birth
            for row in slots.touchTime.indices { slots.touchTime[row] &+= births[row] }
        }
        return slots
    }

    /// The given rows, in the order given.
    public func slots(
        _ columns: Set<Snapshot.SlotColumns.Column>, rows: [Int]
    ) throws(DumpError) -> Snapshot.SlotColumns {
        var result = Snapshot.SlotColumns()
        result.reserve(columns, rows.count)
        var loaded: (block: Int, slots: Snapshot.SlotColumns)?
        for place in rows.indices.sorted(by: { rows[$0] < rows[$1] }) {
            let block = rows[place] / DumpBlocks.rowsPerBlock
            if loaded?.block != block { loaded = (block, try slots(columns, block: block)) }
            if let loaded { result.set(place, to: loaded.slots, rows[place] % DumpBlocks.rowsPerBlock) }
        }
        return result
    }

    public func edges(block: Int) throws(DumpError) -> Snapshot.EdgeColumns {
        typealias Column = Snapshot.EdgeColumns.Column
        var edges = Snapshot.EdgeColumns()
        edges.holderKind = try load(.edges, Column.holderKind.rawValue, block)
        edges.slotRow = try load(.edges, Column.slotRow.rawValue, block)
        guard blocks.hasRelativeEdges else {
            edges.holderOwner = try load(.edges, Column.holderOwner.rawValue, block)
            return edges
        }
        edges.holderOwner = try load(.edges, Column.ownerStep.rawValue, block)
        edges.referredBytes = try load(.edges, Column.unreferredBytes.rawValue, block)
        for edge in edges.slotRow.indices {
            let row = Int(edges.slotRow[edge])
            // One that leads nowhere is stored as it is.
            guard row < blocks.slotCount else {
                edges.referredBytes[edge] = 0 &- edges.referredBytes[edge]
                continue
            }
            // Edges are in the order of their slots, so that a block of slots is loaded once.
            let wanted = row / DumpBlocks.rowsPerBlock
            if base?.block != wanted { base = (wanted, try slots(Self.edgeBase, block: wanted)) }
            guard let base else { continue }
            let place = row % DumpBlocks.rowsPerBlock
            edges.holderOwner[edge] &+= base.slots.owner[place]
            edges.referredBytes[edge] =
                UInt32(truncatingIfNeeded: base.slots.requested[place]) &- edges.referredBytes[edge]
        }
        return edges
    }

    /// Which holders reach which slots, without what only whole edges tell: `holderOwner` stays empty.
    public func reaches(block: Int) throws(DumpError) -> Snapshot.EdgeColumns {
        typealias Column = Snapshot.EdgeColumns.Column
        var edges = Snapshot.EdgeColumns()
        edges.holderKind = try load(.edges, Column.holderKind.rawValue, block)
        edges.slotRow = try load(.edges, Column.slotRow.rawValue, block)
        return edges
    }

    private func load<T: FixedWidthInteger & UnsignedInteger>(
        _ section: Section, _ column: UInt16, _ block: Int
    ) throws(DumpError) -> [T] {
        let entry = blocks.index.entries(section, column)[block]
        var problem: FrameProblem?
        let values = [T](unsafeUninitializedCapacity: Int(entry.rows)) { buffer, count in
            do throws(FrameProblem) {
                try decoder.load(
                    blocks.input, entry, width: MemoryLayout<T>.size, to: UnsafeMutableRawPointer(buffer.baseAddress!))
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
        func zeros<T: FixedWidthInteger>(_ column: Column, _: T.Type) -> [T] {
            columns.contains(column) ? [T](repeating: 0, count: rows) : []
        }
        serial = zeros(.serial, UInt64.self)
        birth = zeros(.birth, UInt64.self)
        address = zeros(.address, UInt64.self)
        requested = zeros(.requested, UInt64.self)
        capacity = zeros(.capacity, UInt64.self)
        sizeClass = zeros(.sizeClass, UInt16.self)
        arena = zeros(.arena, UInt16.self)
        site = zeros(.site, UInt32.self)
        owner = zeros(.owner, UInt32.self)
        touchSite = zeros(.touchSite, UInt32.self)
        touchTime = zeros(.touchTime, UInt64.self)
        state = zeros(.state, UInt8.self)
    }

    /// Columns that were not read stay empty.
    fileprivate mutating func set(_ row: Int, to other: Self, _ otherRow: Int) {
        func copy<T>(_ column: inout [T], _ from: [T]) { if !column.isEmpty { column[row] = from[otherRow] } }
        copy(&serial, other.serial)
        copy(&birth, other.birth)
        copy(&address, other.address)
        copy(&requested, other.requested)
        copy(&capacity, other.capacity)
        copy(&sizeClass, other.sizeClass)
        copy(&arena, other.arena)
        copy(&site, other.site)
        copy(&owner, other.owner)
        copy(&touchSite, other.touchSite)
        copy(&touchTime, other.touchTime)
        copy(&state, other.state)
    }
}
