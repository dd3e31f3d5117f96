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
            let kinds = try selection.references || selection.reaches ? blocks.referrerKinds() : nil
            let tables = blocks.tables
            facts = { part in
                var snapshot = tables
                snapshot.slots = try DumpBlockReader(blocks).slots(selection.slots, block: part)
                return DumpFacts(snapshot, firstRow: blocks.rows(of: part).lowerBound, referrerKinds: kinds)
            }
        case "referrers" where blocks.hasReferences:
            count = blocks.referenceBlocks
            let tables = blocks.tables
            facts = { part in
                var snapshot = tables
                snapshot.references = try DumpBlockReader(blocks).references(block: part)
                return DumpFacts(snapshot)
            }
        default: return nil
        }
    }
}

extension DumpBlocks {
    /// By row of all slots, the kinds of referrer that reach it; nil where the dump has no references.
    func referrerKinds() throws -> [UInt16]? {
        guard hasReferences else { return nil }
        var kinds = [UInt16](repeating: 0, count: slotCount)
        let reader = DumpBlockReader(self)
        for block in 0..<referenceBlocks {
            let references = try reader.reaches(block: block)
            for reference in 0..<references.count where Int(references.slotRow[reference]) < kinds.count {
                kinds[Int(references.slotRow[reference])] |= ReferrerMasks.bit(references.referrerKind[reference])
            }
        }
        return kinds
    }

    /// A snapshot of these slots only, in this order, with the references that lead to them.
    public func excerpt(_ rows: [Int]) throws -> Snapshot {
        var result = tables
        let reader = DumpBlockReader(self)
        result.slots = try reader.slots(Set(Snapshot.SlotColumns.Column.allCases), rows: rows)
        guard hasReferences else { return result }
        let places = Dictionary(rows.enumerated().map { ($1, UInt32($0)) }, uniquingKeysWith: { first, _ in first })
        var isWanted = [Bool](repeating: false, count: slotCount)
        for row in rows { isWanted[row] = true }
        var kept = Snapshot.ReferenceColumns()
        for block in 0..<referenceBlocks {
            let references = try reader.references(block: block)
            for reference in 0..<references.count where Int(references.slotRow[reference]) < slotCount {
                guard isWanted[Int(references.slotRow[reference])],
                    let place = places[Int(references.slotRow[reference])]
                else { continue }
                kept.referrerOwner.append(references.referrerOwner[reference])
                kept.referrerKind.append(references.referrerKind[reference])
                kept.slotRow.append(place)
                if !references.referredBytes.isEmpty { kept.referredBytes.append(references.referredBytes[reference]) }
            }
        }
        result.references = kept
        return result
    }
}
