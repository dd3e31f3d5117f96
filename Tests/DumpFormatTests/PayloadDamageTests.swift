import Testing

@testable import DumpFormat

extension DumpParts {
    /// Adds a column before the end marker, in blocks of the usual size.
    fileprivate mutating func add(_ section: Section, column: UInt16, width: Int, _ values: [Int]) {
        for first in stride(from: 0, to: values.count, by: BlockHeader.rowsPerBlock) {
            let part = values[first..<min(values.count, first + BlockHeader.rowsPerBlock)]
            let header = BlockHeader(
                section: section.rawValue, column: column, width: UInt8(width), encoding: 0, rows: UInt32(part.count),
                firstRow: UInt64(first), payloadBytes: UInt32(part.count * width))
            var block = [UInt8](repeating: 0, count: BlockHeader.bytes)
            block.withUnsafeMutableBytes { header.store(to: $0.baseAddress!) }
            for value in part { block += HostileFrames.bytes(value, width) }
            contents.insert(block, at: contents.count - 1)
        }
    }

    /// Adds so many rows of payloads.
    fileprivate mutating func addPayloads(_ rows: Int) {
        add(.payloads, column: 1, width: 8, Array(0..<rows))
        add(.payloads, column: 2, width: 4, (0..<rows).map(PayloadDamageTests.length))
    }

    /// Makes a block one that nobody can decode.
    fileprivate mutating func damage(_ section: Section, column: UInt16, firstRow: UInt64) throws {
        let block = contents.indices.first {
            isBlock($0, section: section.rawValue, column: column, firstRow: firstRow)
        }
        changeHeader(try #require(block)) { $0.encoding = 200 }
    }
}

@Suite("payloads have a row for each slot, whatever the file has") struct PayloadDamageTests {
    fileprivate static func length(row: Int) -> Int { row % 5 + 1 }

    /// What is to be read of this many rows, for so many slots.
    private func lengths(_ rows: Int, slots: Int) -> [UInt32] {
        (0..<slots).map { $0 < rows ? UInt32(Self.length(row: $0)) : 0 }
    }

    @Test("more or fewer rows than slots, where rows of slots are left out", arguments: [3, 65_536, 69_999, 70_001])
    func otherLength(rows: Int) throws {
        var arena = SyntheticArena(seed: 12)
        arena.slots = 70_000
        var parts = try DumpParts(try encode(arena.make()))
        parts.addPayloads(rows)
        try parts.damage(.slots, column: Snapshot.SlotColumns.Column.birth.rawValue, firstRow: 65_536)
        let read = try DumpFormatTests.read(try parts.assemble())
        #expect(read.slots?.count == 65_536)
        #expect(read.payloads?.count == 65_536)
        #expect(read.payloads?.length == lengths(rows, slots: 65_536))
        #expect(
            read.completeness.problems.contains { $0.hasPrefix("payloads: \(rows) rows for 70000 slots") },
            "\(read.completeness.problems)")
    }

    @Test("more or fewer rows than slots, where all slots are there", arguments: [0, 1, 11, 13])
    func otherLengthOfWhole(rows: Int) throws {
        var parts = try DumpParts(try encode(DamageTests.small))
        let slots = try #require(DamageTests.small.slots).count
        parts.addPayloads(rows)
        let read = try DumpFormatTests.read(try parts.assemble())
        // Of none there is no block either.
        let expected: [UInt32]? = rows == 0 ? nil : lengths(rows, slots: slots)
        #expect(read.payloads?.length == expected)
        #expect(read.completeness.isComplete == (rows == 0))
    }

    @Test("a buffer of which nobody can say where its bytes are has none", arguments: [1, 2] as [UInt16])
    func lostColumn(column: UInt16) throws {
        var parts = try DumpParts(try encode(DamageTests.small))
        let slots = try #require(DamageTests.small.slots).count
        parts.addPayloads(slots)
        try parts.damage(.payloads, column: column, firstRow: 0)
        let read = try DumpFormatTests.read(try parts.assemble())
        #expect(read.payloads?.length == [UInt32](repeating: 0, count: slots))
        #expect(!read.completeness.isComplete)
    }
}
