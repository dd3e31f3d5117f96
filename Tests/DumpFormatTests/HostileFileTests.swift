import Glibc
import Testing

@testable import DumpFormat

/// Frames with blocks that are stored as they are (RFC 8878, section 3.1.1), whose checksum is wrong.
enum HostileFrames {
    /// Magic, descriptor (4-byte content size, one segment, checksum), content size.
    static func header(_ contentBytes: Int) -> [UInt8] {
        [0x28, 0xB5, 0x2F, 0xFD, 0xA4] + bytes(contentBytes, 4)
    }

    static func blockHeader(_ size: Int, isLast: Bool) -> [UInt8] { bytes(size << 3 | (isLast ? 1 : 0), 3) }

    static func bytes(_ number: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }

    /// A frame of one block.
    static func frame(of content: [UInt8]) -> [UInt8] {
        header(content.count) + blockHeader(content.count, isLast: true) + content + [0, 0, 0, 0]
    }

    /// A frame whose blocks hold frame headers, each of which leads through all blocks that follow: wherever one begins to
    /// read, there is a frame to the end.
    static func chain(_ links: Int) -> [UInt8] {
        let size = header(0).count
        var file: [UInt8] = []
        for link in 0..<links { file += header(size * links) + blockHeader(size, isLast: link == links - 1) }
        return file + header(0) + [0, 0, 0, 0]
    }
}

@Suite("files that were made to hurt their reader")
struct HostileFileTests {
    private func index(_ bytes: [UInt8]) throws -> FrameIndex {
        var decoder = FrameDecoder()
        return try FrameIndex(DumpInput(bytes: bytes, path: "hostile"), &decoder)
    }

    /// A dump without the seek table at its end.
    private func torn(_ snapshot: Snapshot = DamageTests.small) throws -> [UInt8] {
        Array(try encode(snapshot).dropLast(9))
    }

    /// The frames of a dump that a search finds, and what that costs.
    private func search(behind bytes: [UInt8]) throws -> (index: FrameIndex, budget: RecoveryBudget) {
        let index = try index(bytes)
        return (index, try #require(index.recovery))
    }

    @Test("a chain of frames within frames is passed over as the one frame that it is, and what follows is found")
    func chain() throws {
        let dump = try torn()
        for links in [5_000, 20_000] {
            let (index, budget) = try search(behind: HostileFrames.chain(links) + dump)
            // Once through all headers, once through the content, and what is looked at of the dump.
            let once = UInt64(links) * (RecoveryBudget.blockBytes + 12)
            #expect(budget.spent < 2 * once + 8 * UInt64(dump.count) + (1 << 20), "\(links)")
            #expect(index.contains(.slots))
            #expect(index.problems.all.count == 2)
        }
    }

    @Test("where such a chain leads nowhere the search ends, and says where")
    func endlessChain() throws {
        for links in [5_000, 20_000] {
            let bytes = HostileFrames.chain(links) + [1, 2, 3, 4]
            let (index, budget) = try search(behind: bytes)
            // At most one frame more than the budget.
            #expect(budget.limit == UInt64(64 << 20 + 8 * bytes.count))
            #expect(budget.spent < budget.limit + 2 * UInt64(bytes.count))
            #expect(
                index.problems.all.contains {
                    $0.contains("of \(bytes.count), when \(budget.limit) bytes had been gone through")
                        && $0.contains("what comes after is not in the answer")
                }, "\(index.problems.all)")
        }
    }

    @Test("holes cost nothing, however long they are: neither to search nor where a seek table claims them")
    func holes() throws {
        let dump = try torn()
        let file = TemporaryFile(dump)
        truncate(file.path, 1 << 40)
        let descriptor = open(file.path, O_RDWR)
        defer { close(descriptor) }
        // A frame that the search must come to, far behind a hole.
        let far = HostileFrames.frame(of: [1, 2, 3])
        pwrite(descriptor, far, far.count, 1 << 39)
        // And the end of a seek table of four billion frames.
        let footer: [UInt8] = [0xFF, 0xFF, 0xFF, 0xFF, 0, 0xB1, 0xEA, 0x92, 0x8F]
        pwrite(descriptor, footer, footer.count, 1 << 40 - 9)
        let input = try DumpInput(path: file.path)
        #expect(try SeekTable.read(input) == nil)
        var decoder = FrameDecoder()
        let index = try FrameIndex(input, &decoder)
        #expect(try #require(index.recovery).spent < 1 << 20)
        #expect(index.contains(.slots))
        #expect(index.problems.all.contains { $0.hasPrefix("the frame at byte \(1 << 39)") }, "\(index.problems.all)")
    }

    @Test("honest damage costs what it costs: all frames broken, none of the budget is missed")
    func honestDamage() throws {
        var arena = SyntheticArena(seed: 8)
        arena.slots = 200_000
        let parts = try DumpParts(try encode(arena.make()))
        var offsets: [Int] = []
        var bytes = try parts.assemble { offsets = $0.map { Int($0.offset) } }
        for offset in offsets.dropFirst() { bytes[offset + 20] ^= 0x40 }
        let (index, budget) = try search(behind: Array(bytes.dropLast(9)))
        #expect(budget.spent < 5 * UInt64(bytes.count), "\(budget.spent) of \(bytes.count)")
        #expect(!index.problems.all.contains { $0.contains("search for frames ended") })
    }

    @Test("what looks like a frame inside of a damaged one is its content, and no part of the dump")
    func frameInPayload() throws {
        let parts = try DumpParts(try encode(DamageTests.small))
        let notes = DamageTests.small.notes.count
        // A note, as a client may publish it: what cannot be compressed is kept in a frame as it is.
        var note = DumpParts.block(section: Section.notes.rawValue, column: 1, payload: [0, 0, 0, 0])
        note.withUnsafeMutableBytes {
            BlockHeader(
                section: Section.notes.rawValue, column: 1, width: 4, encoding: 0, rows: 1, firstRow: UInt64(notes),
                payloadBytes: 4
            ).store(to: $0.baseAddress!)
        }
        var planted = parts
        planted.contents = [note]
        let file = DumpInput(bytes: try planted.assemble(), path: "planted")
        let size = try #require(try SeekTable.read(file))[0].compressedBytes
        let payload = DumpParts.block(section: 200, column: 1, payload: try file.bytes(at: 0, count: Int(size)))

        var place = 0
        var bytes = try parts.assemble { place = Int($0[20].offset) }
        bytes.insert(contentsOf: HostileFrames.frame(of: payload), at: place)
        let read = try DumpFormatTests.read(bytes)
        #expect(read.notes == DamageTests.small.notes)
        #expect(read.slots == DamageTests.small.slots)
        #expect(read.completeness.problems.contains { $0.hasPrefix("the frame at byte \(place): ") })
    }

    @Test("texts that are parts of each other are no texts: the bytes of all are those of the file")
    func overlappingTexts() throws {
        var parts = try DumpParts(try encode(DamageTests.small))
        let block = try #require(parts.block(Section.strings.rawValue, 1))
        let count = Int(BlockHeader(unchecked: parts.contents[block]).rows)
        let bytes = parts.contents.indices.filter {
            parts.isBlock($0, section: Section.stringBytes.rawValue, column: 1, firstRow: 0)
        }
        let total = UInt64(BlockHeader(unchecked: parts.contents[try #require(bytes.first)]).rows)
        // Ends that go to and fro: every second text would be all bytes.
        let ends = (0..<count).map { $0 % 2 == 0 ? total : 0 }
        parts.contents[block].replaceSubrange(
            BlockHeader.bytes..., with: ends.flatMap { HostileFrames.bytes(Int($0), 8) })
        parts.changeHeader(block) {
            $0.encoding = 0
            $0.payloadBytes = UInt32(8 * count)
        }
        let input = DumpInput(bytes: try parts.assemble(), path: "hostile")
        var decoder = FrameDecoder()
        let index = try FrameIndex(input, &decoder)
        let reader = ColumnReader(input, index, decoder, parallelism: 1)
        try reader.loadStrings()
        let read = (0..<count).reduce(0) { $0 + (reader.string(UInt32($1))?.utf8.count ?? 0) }
        #expect(read <= Int(total))
    }

    @Test("columns that fit one by one are refused where they do not fit together, before any is read")
    func memoryOfColumns() throws {
        let input = DumpInput(bytes: try encode(DamageTests.small), path: "hostile")
        var decoder = FrameDecoder()
        let index = try FrameIndex(input, &decoder)
        func columns(_ selection: DumpSelection, memory: UInt64) throws -> Snapshot.SlotColumns? {
            let reader = ColumnReader(input, index, FrameDecoder(), parallelism: 1, memory: memory)
            var snapshot = Snapshot(header: Snapshot.Header(), totals: Snapshot.Totals())
            var bulk = BulkSections(reader)
            try bulk.read(selection, to: &snapshot)
            return snapshot.slots
        }
        let slots = DumpSelection(slots: Set(Snapshot.SlotColumns.Column.allCases))
        // Six columns of 8 bytes, three of 4, two of 2 and one of 1.
        let all = UInt64(index.rowCount(.slots)) * 65
        #expect(try columns(slots, memory: all) == DamageTests.small.slots)
        for (selection, memory) in [(slots, all - 1), (DumpSelection.everything, all)] {
            let error = #expect(throws: DumpError.self) { _ = try columns(selection, memory: memory) }
            #expect(error?.kind == .tooLarge)
            #expect(error?.message.contains("the columns that were asked for") == true)
        }
    }

    @Test("so are small tables")
    func memoryOfTables() throws {
        let input = DumpInput(bytes: try encode(DamageTests.small), path: "hostile")
        var decoder = FrameDecoder()
        let index = try FrameIndex(input, &decoder)
        let classes = index.rowCount(.sizeClasses) * MemoryLayout<Snapshot.SizeClass>.stride
        let chunks = index.rowCount(.chunks) * MemoryLayout<Snapshot.Chunk>.stride
        let reader = ColumnReader(input, index, FrameDecoder(), parallelism: 1, memory: UInt64(classes + chunks - 1))
        #expect(try reader.table(Snapshot.SizeClass.self).rows == DamageTests.small.sizeClasses)
        let error = #expect(throws: DumpError.self) { _ = try reader.table(Snapshot.Chunk.self) }
        #expect(error?.kind == .tooLarge)
    }

    @Test("of a million problems some hundred are told, and how many there are")
    func manyProblems() throws {
        var problems = Problems()
        for number in 0..<1_000_000 { problems.append("\(number)") }
        #expect(problems.all.count == 501)
        #expect(problems.all.last == "999500 more of these")
    }
}
