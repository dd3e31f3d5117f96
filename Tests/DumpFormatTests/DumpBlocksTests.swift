import Testing

@testable import DumpFormat

@Suite("dumps block by block") struct DumpBlocksTests {
    private static let bulk: [Section] = [.runs, .slots, .references]

    /// An arena without a buffer: its large tables have no rows.
    private static let empty: Snapshot = {
        var arena = SyntheticArena(seed: 4)
        arena.slots = 0
        return arena.make()
    }()

    private func opened(_ bytes: [UInt8]) throws -> DumpBlocks? {
        let file = TemporaryFile(bytes)
        return try withExtendedLifetime(file) { try DumpBlocks(path: file.path) }
    }

    @Test("tables without rows have a block in each column, and are copied as they are")
    func noRows() throws {
        let blocks = try #require(try opened(try encode(Self.empty)))
        #expect(blocks.slotBlocks == 0 && blocks.referenceBlocks == 0)
        let sink = MemorySink()
        try DumpWriter(sink: sink).write(blocks.tables, bulkOf: blocks)
        let copy = try DumpFormatTests.read(sink.bytes)
        #expect(copy.completeness.isComplete, "\(copy.completeness)")
        expectSame(copy, Self.empty)
        #expect(verify(sink.bytes).passed)
    }

    @Test("a column without any block is no column, even of a table without rows", arguments: [0, 300])
    func noBlock(slots: Int) throws {
        var arena = SyntheticArena(seed: 4)
        arena.slots = slots
        let parts = try DumpParts(try encode(arena.make()))
        let columns = parts.contents.indices.filter { index in
            Self.bulk.contains { $0.rawValue == BlockHeader(unchecked: parts.contents[index]).section }
        }
        #expect(columns.count == 7 + 12 + 4)
        for column in columns {
            var damaged = parts
            damaged.contents.remove(at: column)
            let bytes = try damaged.assemble()
            let name = BlockHeader(unchecked: parts.contents[column]).name
            #expect(try opened(bytes) == nil, "\(name)")
            // Who reads it otherwise says what is missing.
            #expect(try !DumpFormatTests.read(bytes).completeness.isComplete, "\(name)")
            #expect(!verify(bytes).passed, "\(name)")
        }
    }
}
