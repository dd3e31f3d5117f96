import Glibc
import Ledger
import SeededRandom
import Testing

@testable import DumpFormat

/// A recorder's file that says of its tables whatever it likes.
struct HostileLedger {
    var descriptors = [LedgerTableDescriptor](
        repeating: LedgerTableDescriptor(offset: 0, stride: 0, groups: 0, rowsPerGroup: 0, rows: 0),
        count: LedgerTable.allCases.count)
    /// Stored to the file; all else is a hole.
    var pieces: [(offset: Int, bytes: [UInt8])] = []
    var size = LedgerHeader.size

    /// As many rows as there are from a place on.
    mutating func claim(_ table: LedgerTable, at offset: Int, rows: UInt64, groups: UInt64 = 1) {
        descriptors[table.rawValue] = LedgerTableDescriptor(
            offset: UInt64(offset), stride: UInt64(table.stride), groups: groups, rowsPerGroup: rows, rows: rows)
    }

    /// Rows behind all that there is, on pages of their own.
    ///
    /// - Returns: where.
    mutating func place(_ table: LedgerTable, rows: Int) -> Int {
        let offset = size
        claim(table, at: offset, rows: UInt64(rows))
        size += (rows * table.stride + 4095) & ~4095
        return offset
    }

    mutating func store<Record>(_ record: Record, at offset: Int) {
        pieces.append((offset, withUnsafeBytes(of: record) { Array($0) }))
    }

    func write() -> TemporaryFile {
        let file = TemporaryFile()
        truncate(file.path, off_t(size))
        let descriptor = open(file.path, O_WRONLY)
        defer { close(descriptor) }
        var page = [UInt8](repeating: 0, count: LedgerHeader.size)
        page.withUnsafeMutableBytes { page in
            page.storeBytes(of: LedgerHeader.magic, as: UInt64.self)
            page.storeBytes(of: LedgerHeader.version, toByteOffset: 8, as: UInt32.self)
            page.storeBytes(of: UInt32(LedgerTable.allCases.count), toByteOffset: 12, as: UInt32.self)
            page.storeBytes(of: UInt64(size), toByteOffset: 16, as: UInt64.self)
            for (index, table) in descriptors.enumerated() {
                let place = LedgerHeader.tablesOffset + index * MemoryLayout<LedgerTableDescriptor>.stride
                page.storeBytes(of: table, toByteOffset: place, as: LedgerTableDescriptor.self)
            }
        }
        for piece in [(0, page)] + pieces { pwrite(descriptor, piece.1, piece.1.count, off_t(piece.0)) }
        return file
    }

    /// Bytes that the file has on the disk, and bytes of memory that its tables were given.
    func costs() throws -> (file: Int, memory: Int, problems: [String]) {
        let file = write()
        return try withExtendedLifetime(file) {
            var status = stat()
            stat(file.path, &status)
            let contents = try LedgerFileContents(DumpInput(path: file.path))
            return (Int(status.st_blocks) * 512, contents.image.byteCount, contents.problems)
        }
    }
}

@Suite("recorder's files that were made to hurt their reader")
struct HostileLedgerTests {
    private static let most = 64 << 20

    @Test("no byte of the file is of two tables")
    func overlaps() throws {
        var ledger = HostileLedger()
        let bytes = [UInt8](repeating: 0, count: 1 << 20)
        ledger.size += bytes.count
        ledger.pieces = [(LedgerHeader.size, bytes)]
        for table in LedgerTable.allCases {
            ledger.claim(table, at: LedgerHeader.size, rows: UInt64(bytes.count / table.stride), groups: 1)
        }
        let (_, memory, problems) = try ledger.costs()
        #expect(memory <= ledger.size, "\(memory)")
        // The first has it, and one is the allocator's own.
        #expect(problems.count { $0.contains("left out, since it would have bytes") } == LedgerTable.allCases.count - 2)
    }

    @Test("groups of a table that is there for each arena may not lie within another table either")
    func overlappingGroups() throws {
        var ledger = HostileLedger()
        ledger.size += 1 << 20
        ledger.pieces = [(LedgerHeader.size, [UInt8](repeating: 1, count: 1 << 20))]
        ledger.claim(.freed, at: LedgerHeader.size, rows: 16, groups: 64)
        ledger.claim(.events, at: LedgerHeader.size + 32 * 16 * LedgerTable.freed.stride, rows: 4)
        let (_, memory, problems) = try ledger.costs()
        #expect(memory == LedgerHeader.size + 64 * 16 * LedgerTable.freed.stride)
        #expect(problems.contains { $0.hasPrefix("events: left out") }, "\(problems)")
    }

    @Test("rows are what the file has on the disk, whatever is claimed of holes")
    func holes() throws {
        var ledger = HostileLedger()
        let part = 512 << 20
        for (index, table) in [LedgerTable.owners, .slots, .slabs, .pageMap].enumerated() {
            let offset = LedgerHeader.size + index * part
            ledger.claim(table, at: offset, rows: 1 << 40)
            ledger.descriptors[table.rawValue].rows = UInt64(part / table.stride)
            // Not even where the last row is there.
            ledger.pieces.append((offset + part - 4096, [UInt8](repeating: 1, count: 4096)))
        }
        ledger.size += 4 * part
        let (file, memory, problems) = try ledger.costs()
        #expect(file <= 128 << 10)
        #expect(memory <= 2 * file + Self.most, "\(memory)")
        #expect(problems.count { $0.contains("left out, since of the") } == 4, "\(problems)")
    }

    @Test("holes within rows that are in use are rows of zeros, as they always were")
    func honestHoles() throws {
        var ledger = HostileLedger()
        let rows = 100_000
        ledger.claim(.slots, at: LedgerHeader.size, rows: UInt64(rows))
        ledger.size += rows * MemoryLayout<SlotRecord>.stride
        var slot = SlotRecord()
        (slot.state, slot.requested, slot.serial) = (SlotRecord.State.live.rawValue, 100, 7)
        ledger.store(slot, at: LedgerHeader.size)
        slot.serial = 8
        ledger.store(slot, at: ledger.size - MemoryLayout<SlotRecord>.stride)
        let file = ledger.write()
        let read = try withExtendedLifetime(file) { try DumpReader.read(path: file.path, .everything) }
        #expect(read.slots?.serial == [7, 8])
        #expect(read.totals.liveBuffers == 2)
        #expect(
            !read.completeness.problems.contains { $0.contains("left out, since") }, "\(read.completeness.problems)")
    }

    @Test("a slab that every page is said to be of has its elements once, and no more than slabs have")
    func repeatedSlab() throws {
        var ledger = HostileLedger()
        let slots = ledger.place(.slots, rows: 60_000)
        var slot = SlotRecord()
        (slot.state, slot.requested) = (SlotRecord.State.live.rawValue, 100)
        for row in 0..<60_000 {
            slot.serial = UInt64(row)
            ledger.store(slot, at: slots + row * MemoryLayout<SlotRecord>.stride)
        }
        var slab = SlabRecord()
        (slab.elements, slab.pages) = (60_000, 0)
        ledger.store(slab, at: ledger.place(.slabs, rows: 1))
        var chunk = ChunkRecord()
        chunk.state = ChunkRecord.State.chunk.rawValue
        ledger.store(chunk, at: ledger.place(.chunks, rows: 1))
        let map = ledger.place(.pageMap, rows: 1)
        for page in 0..<SizeClasses.pagesPerChunk {
            ledger.store(PageEntry(rawValue: PageEntry.Kind.slab.rawValue << 30), at: map + 4 * page)
        }
        let file = ledger.write()
        let contents = try withExtendedLifetime(file) { try LedgerFileContents(DumpInput(path: file.path)) }
        let found = LedgerSnapshot(contents.image, references: nil).slots
        #expect(found.count == 60_000)
        #expect(found.strays == 60_000 - SizeClasses.maximumSlabElements)
    }

    @Test("slots that name what is not there are counted as the reader of a dump counts them")
    func namesOfNothing() throws {
        var ledger = HostileLedger()
        for table in [LedgerTable.arenas, .sites, .owners] {
            let rows = ledger.place(table, rows: 2)
            ledger.pieces.append((rows, [UInt8](repeating: 0, count: 2 * table.stride)))
        }
        let slots = ledger.place(.slots, rows: 300)
        var random = SeededGenerator(seed: 3)
        for row in 0..<300 {
            var slot = SlotRecord()
            slot.state = SlotRecord.State.live.rawValue
            slot.serial = UInt64(row)
            slot.site = UInt32(random.next() % 4)
            slot.accessSite = UInt32(truncatingIfNeeded: random.next())
            slot.owner = UInt32(truncatingIfNeeded: random.next() % 2 == 0 ? random.next() : random.next() % 3)
            slot.arena = UInt8(random.next() % 4)
            slot.address = random.next()
            slot.sizeClass = UInt16(truncatingIfNeeded: random.next())
            slot.requested = random.next()
            ledger.store(slot, at: slots + row * MemoryLayout<SlotRecord>.stride)
        }
        let file = ledger.write()
        let read = try withExtendedLifetime(file) { try DumpReader.read(path: file.path, .everything) }
        let checks = SnapshotInvariants.check(read).filter { $0.name.hasSuffix("= sums over slots") }
        #expect(checks.count == 6)
        #expect(checks.filter { !$0.passed } == [])
        #expect(read.sites[0].liveBuffers > 100 && read.sites[1].liveBuffers > 30)
        #expect(read.sites.reduce(0) { $0 + $1.liveBuffers } == 300)
        #expect(read.owners.reduce(0) { $0 + $1.liveBuffers } == 300)
        #expect(read.arenas.reduce(0) { $0 + $1.liveBuffers } < 300)
        #expect(read.totals.liveBuffers == 300)
    }
}
