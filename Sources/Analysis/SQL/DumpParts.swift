public import DumpFormat

/// A dump in the parts in which its rows are gone through: block by block where the file is whole, else all at once.
public struct DumpParts {
    /// The small tables.
    public let tables: Snapshot
    public let count: Int
    /// Facts for the rows of one part.
    let facts: (Int) throws -> DumpFacts

    /// All of what was read, as one part.
    public init(_ snapshot: Snapshot) {
        tables = snapshot
        count = 1
        let facts = DumpFacts(snapshot)
        self.facts = { _ in facts }
    }

    /// Block by block, as the selection needs it; nil where a block of it is damaged.
    public init?(_ blocks: DumpBlocks, table: String, _ selection: DumpSelection) throws {
        guard blocks.isIntact(selection) else { return nil }
        tables = blocks.tables
        switch table {
        case "buffers":
            count = blocks.slotBlocks
            let kinds = try selection.edges || selection.reaches ? blocks.holderKinds() : nil
            let tables = blocks.tables
            facts = { part in
                var snapshot = tables
                snapshot.slots = try DumpBlockReader(blocks).slots(selection.slots, block: part)
                return DumpFacts(snapshot, firstRow: blocks.rows(of: part).lowerBound, holderKinds: kinds)
            }
        case "edges" where blocks.hasEdges:
            count = blocks.edgeBlocks
            let tables = blocks.tables
            facts = { part in
                var snapshot = tables
                snapshot.edges = try DumpBlockReader(blocks).edges(block: part)
                return DumpFacts(snapshot)
            }
        default: return nil
        }
    }
}

extension DumpBlocks {
    /// By row of all slots, the kinds of holder that reach it; nil where the dump has no edges.
    func holderKinds() throws -> [UInt16]? {
        guard hasEdges else { return nil }
        var kinds = [UInt16](repeating: 0, count: slotCount)
        let reader = DumpBlockReader(self)
        for block in 0..<edgeBlocks {
            let edges = try reader.reaches(block: block)
            for edge in 0..<edges.count where Int(edges.slotRow[edge]) < kinds.count {
                kinds[Int(edges.slotRow[edge])] |= HolderMasks.bit(edges.holderKind[edge])
            }
        }
        return kinds
    }

    /// A snapshot of these slots only, in this order, with the edges that lead to them.
    public func excerpt(_ rows: [Int]) throws -> Snapshot {
        var result = tables
        let reader = DumpBlockReader(self)
        result.slots = try reader.slots(Set(Snapshot.SlotColumns.Column.allCases), rows: rows)
        guard hasEdges else { return result }
        let places = Dictionary(rows.enumerated().map { ($1, UInt32($0)) }, uniquingKeysWith: { first, _ in first })
        var isWanted = [Bool](repeating: false, count: slotCount)
        for row in rows { isWanted[row] = true }
        var kept = Snapshot.EdgeColumns()
        for block in 0..<edgeBlocks {
            let edges = try reader.edges(block: block)
            for edge in 0..<edges.count where Int(edges.slotRow[edge]) < slotCount {
                guard isWanted[Int(edges.slotRow[edge])], let place = places[Int(edges.slotRow[edge])] else { continue }
                kept.holderOwner.append(edges.holderOwner[edge])
                kept.holderKind.append(edges.holderKind[edge])
                kept.slotRow.append(place)
                if !edges.referredBytes.isEmpty { kept.referredBytes.append(edges.referredBytes[edge]) }
            }
        }
        result.edges = kept
        return result
    }
}
