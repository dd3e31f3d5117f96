import Glibc
import Synchronization

/// The tables of the ledger.
public enum LedgerTable: Int, CaseIterable, Sendable {
    case arenas, sites, siteCounters, owners, chunks, pageBits, pageMap, slabs, slots, slotBlocks, freed, events

    /// Bytes of one record, with the text or buckets behind it.
    public var stride: Int {
        switch self {
        case .arenas: ArenaRecord.stride
        case .sites: SiteRecord.stride
        case .siteCounters: SiteCounters.stride
        case .owners: OwnerRecord.stride
        case .chunks: MemoryLayout<ChunkRecord>.stride
        case .pageBits: SizeClasses.pagesPerChunk / 8
        case .pageMap: SizeClasses.pagesPerChunk * MemoryLayout<UInt32>.stride
        case .slabs: MemoryLayout<SlabRecord>.stride
        case .slots: MemoryLayout<SlotRecord>.stride
        case .slotBlocks: MemoryLayout<SlotBlockRecord>.stride
        case .freed: MemoryLayout<FreedRecord>.stride
        case .events: EventRecord.stride
        }
    }

    /// Whether each arena has a group of its rows of its own. Only such tables have more than one group.
    public var isPerArena: Bool { self == .siteCounters || self == .freed }

    /// Whether a snapshot needs it: the rest is the allocator's own working state, or follows from the others.
    public var isCopied: Bool { self != .slotBlocks }
}

/// The first page of a ledger. All words are read and written atomically while the arena lives.
@frozen public struct LedgerHeader: Sendable {
    public var magic: UInt64
    public var version: UInt32
    public var tableCount: UInt32
    public var byteCount: UInt64
    public var pid: UInt64
    /// Nanoseconds since 1970-01-01 UTC, and the ledger clock, when the arena was made.
    public var startWallTime: UInt64
    public var startTime: UInt64
    /// The same two, of this state: set when it is copied.
    public var wallTime: UInt64
    public var monotonicTime: UInt64
    public var limitBytes: UInt64
    public var counterBytes: UInt64
    public var peakCounterBytes: UInt64
    public var chunkCount: UInt64
    public var chunkBytes: UInt64
    public var hugeCount: UInt64
    public var hugeBytes: UInt64
    public var ledgerBytes: UInt64
    public var snapshotBufferBytes: UInt64
    public var overLimitBytes: UInt64
    public var failedAllocations: UInt64

    public static let magic: UInt64 = 0x5245_4744_454c_5241  // "ARLEDGER", little-endian
    public static let version: UInt32 = 1
    public static let tablesOffset = 512
    public static let size = 4096
}

/// Where one table lies: `groups` blocks of `rowsPerGroup` records, one for each arena or one in all; in each, the first
/// `rows` are in use.
@frozen public struct LedgerTableDescriptor: Sendable {
    public var offset: UInt64
    public var stride: UInt64
    public var groups: UInt64
    public var rowsPerGroup: UInt64
    public var rows: UInt64
    /// In a flight recorder's file, 1 + the first row that could not be recorded because the file system was full;
    /// 0 where all are there. Rows of all groups are counted through.
    public var lostFrom: UInt64

    /// Its words that change while a ledger is in use, by their place in it.
    public enum Count: Int, Sendable {
        case groups = 2
        case rows = 4
        case lostFrom = 5
    }

    public init(offset: UInt64, stride: UInt64, groups: UInt64, rowsPerGroup: UInt64, rows: UInt64) {
        self.offset = offset
        self.stride = stride
        self.groups = groups
        self.rowsPerGroup = rowsPerGroup
        self.rows = rows
        lostFrom = 0
    }
}

/// A view of a ledger in memory: the live one, a copy made at a safepoint, or one made of a file.
///
/// Unsafe to hold beyond the memory it looks at. The header and the descriptors are trusted: a file is never looked at
/// through this where it lies, its reader checks them and copies the rows that are there.
public struct LedgerImage: @unchecked Sendable {
    public let base: UnsafeMutableRawPointer
    public let byteCount: Int

    public init(base: UnsafeMutableRawPointer, byteCount: Int) {
        self.base = base
        self.byteCount = byteCount
    }

    public var header: UnsafeMutablePointer<LedgerHeader> { base.assumingMemoryBound(to: LedgerHeader.self) }

    /// Of a ledger that is in use, only what does not change is read from here: the rest is ``rows(_:)``, ``groups(_:)`` and
    /// ``lostFrom(_:)``.
    public func descriptor(_ table: LedgerTable) -> UnsafeMutablePointer<LedgerTableDescriptor> {
        (base + LedgerHeader.tablesOffset).assumingMemoryBound(to: LedgerTableDescriptor.self) + table.rawValue
    }

    /// Start of a table's first record.
    public func start(_ table: LedgerTable) -> UnsafeMutableRawPointer {
        base + Int(descriptor(table).pointee.offset)
    }

    public func records<Record>(_ table: LedgerTable, of _: Record.Type) -> UnsafeMutablePointer<Record> {
        start(table).assumingMemoryBound(to: Record.self)
    }

    /// Record `row` of `group`, for tables whose records carry text or buckets behind them.
    public func record(_ table: LedgerTable, _ row: Int, group: Int = 0) -> UnsafeMutableRawPointer {
        let descriptor = descriptor(table)
        return base + Int(descriptor.pointee.offset)
            + (group * Int(descriptor.pointee.rowsPerGroup) + row) * Int(descriptor.pointee.stride)
    }

    // What changes while others read it.

    public func rows(_ table: LedgerTable) -> Int { Int(count(.rows, of: table)) }
    public func groups(_ table: LedgerTable) -> Int { Int(count(.groups, of: table)) }
    public func lostFrom(_ table: LedgerTable) -> UInt64 { count(.lostFrom, of: table) }

    /// Whoever reads a count finds the rows it speaks of as they were when it was set.
    public func set(_ count: LedgerTableDescriptor.Count, of table: LedgerTable, to value: Int) {
        word(count, table).pointee.store(UInt64(value), ordering: .releasing)
    }

    private func count(_ count: LedgerTableDescriptor.Count, of table: LedgerTable) -> UInt64 {
        word(count, table).pointee.load(ordering: .acquiring)
    }

    private func word(
        _ count: LedgerTableDescriptor.Count, _ table: LedgerTable
    ) -> UnsafeMutablePointer<Atomic<UInt64>> {
        UnsafeMutableRawPointer(descriptor(table)).assumingMemoryBound(to: Atomic<UInt64>.self) + count.rawValue
    }

    /// Bytes a copy of the rows in use takes.
    public var copySize: Int {
        var total = LedgerHeader.size
        for table in LedgerTable.allCases where table.isCopied {
            total += groups(table) * rows(table) * Int(descriptor(table).pointee.stride)
        }
        return total
    }
}

/// What dumps take of the buffers themselves, when they are told to: the first bytes of each.
///
/// Either a copy made at a safepoint, of `stride` bytes for each slot, or the arena's memory where it lies, while the
/// loops stand still. Unsafe to hold beyond that memory.
public struct PayloadImage: @unchecked Sendable {
    private let base: UnsafeRawPointer
    /// Nil where the buffers are looked at in place.
    private let stride: Int?
    /// Bytes of each buffer, at most.
    public let prefixBytes: Int
    /// Of the buffers of these arenas, which go on, there is nothing.
    public var without = ArenaSet()

    /// A copy: slot `i` has its prefix at `i * prefixBytes`.
    public init(copy: UnsafeRawPointer, prefixBytes: Int) {
        (base, stride, self.prefixBytes) = (copy, prefixBytes, prefixBytes)
    }

    /// The arena's address range.
    public init(range: UnsafeRawPointer, prefixBytes: Int) {
        (base, stride, self.prefixBytes) = (range, nil, prefixBytes)
    }

    /// Bytes there are of a live slot's buffer.
    public func count(_ record: SlotRecord) -> Int {
        guard record.state == SlotRecord.State.live.rawValue, !without.contains(record.arena) else { return 0 }
        return Int(min(record.requested, UInt64(prefixBytes)))
    }

    /// Where they are.
    public func start(_ slot: Int, _ record: SlotRecord) -> UnsafeRawPointer {
        if let stride { return base + slot * stride }
        return base + Int(record.address)
    }
}

/// The mapped region a live ledger is in: all tables at their full capacity as address space, of which the operating
/// system backs only what is touched. Memory of the process alone, or a flight recorder's file.
///
/// A class, since two have it: who puts rows into use, under a lock, and who looks after the file, which takes as long as a
/// disk takes.
public final class LedgerRegion: Sendable {
    public let image: LedgerImage
    private let file: LedgerFile?

    /// Reserves the address space.
    ///
    /// - Parameters:
    ///   - arenas: as many as there may be.
    ///   - rows: as many as a table may have; of one that is per arena, for each.
    /// - Throws: the errno of `mmap`, or what is wrong with the recorder's file.
    public init(
        recorder: FlightRecorder? = nil, arenas: Int, rows: (LedgerTable) -> Int
    ) throws(LedgerMapError) {
        checkRecordLayouts()
        let textBytes = recorder == nil ? 0 : FlightRecord.textCapacity
        var offset = LedgerHeader.size + textBytes
        var descriptors: [LedgerTableDescriptor] = []
        var wholeBytes: [Int] = []
        for table in LedgerTable.allCases {
            let (groups, rows) = (table.isPerArena ? arenas : 1, rows(table))
            descriptors.append(
                LedgerTableDescriptor(
                    offset: UInt64(offset), stride: UInt64(table.stride), groups: UInt64(groups),
                    rowsPerGroup: UInt64(rows), rows: 0))
            wholeBytes.append((groups * rows * table.stride + 4095) & ~4095)
            offset += wholeBytes.last!
        }
        var file: LedgerFile?
        let image: LedgerImage
        if let recorder {
            let made = try LedgerFile.create(
                path: recorder.path, byteCount: offset, headBytes: LedgerHeader.size + textBytes)
            image = LedgerImage(base: try made.map(offset), byteCount: offset)
            file = made
        } else {
            let memory = mmap(nil, offset, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
            guard let memory, memory != MAP_FAILED else { throw LedgerMapError(byteCount: offset, code: errno) }
            image = LedgerImage(base: memory, byteCount: offset)
        }
        image.header.pointee.magic = LedgerHeader.magic
        image.header.pointee.version = LedgerHeader.version
        image.header.pointee.tableCount = UInt32(LedgerTable.allCases.count)
        image.header.pointee.byteCount = UInt64(offset)
        image.header.pointee.pid = UInt64(getpid())
        for (table, descriptor) in zip(LedgerTable.allCases, descriptors) {
            image.descriptor(table).pointee = descriptor
        }
        recorder?.describe(image)
        do throws(LedgerMapError) { try file?.adopt(image, wholeBytes: wholeBytes) } catch {
            file?.discard()
            munmap(image.base, image.byteCount)
            throw error
        }
        self.image = image
        self.file = file
    }

    /// Makes sure that the first `byteCount` bytes of a table can be stored to: to be called before rows come into use.
    /// Not for tables that are per arena, and not from two threads at once.
    public func back(_ table: LedgerTable, byteCount: Int) {
        precondition(!table.isPerArena, "\(table) comes into use by arena")
        file?.back(table, group: 0, byteCount: byteCount)
    }

    /// Puts arena `index` into use, the next after those that are: its group of every table that is per arena can be
    /// stored to from now on, all rows of it. Not from two threads at once.
    public func addArena(_ index: Int) {
        for table in LedgerTable.allCases where table.isPerArena {
            let descriptor = image.descriptor(table)
            file?.back(
                table, group: index, byteCount: Int(descriptor.pointee.rowsPerGroup * descriptor.pointee.stride))
            image.set(.groups, of: table, to: index + 1)
        }
    }

    /// Bytes of a table, from its first row on, that can be stored to whatever becomes of the recorder's file system;
    /// `.max` where that is all of it.
    public func backedBytes(_ table: LedgerTable) -> Int { file?.backedBytes(table) ?? .max }

    /// The recorder's file, as long as the ledger is in it.
    package var fileDescriptor: Int32? { file?.mapped }

    /// Makes a file that the parts can be moved to; nil where that cannot be.
    package func makeNextFile(_ parts: [LedgerFilePart]) -> Int32? { file?.makeNext(parts) }

    package func dropNextFile() { file?.dropNext() }

    // Not while another thread puts rows into use:

    /// The region, and what of it is in that file.
    package var fileParts: [LedgerFilePart] { file?.parts ?? [] }

    /// Makes room in the next file for what has come into use since it was made.
    package func extendNextFile() -> Bool { file?.extendNext(fileParts) ?? false }

    /// The parts are in the next file, which takes the name of the one before; false where it cannot.
    package func takeNextFile() -> Bool { file?.takeNext() ?? false }

    /// The parts are in memory of the process's own.
    package func leaveFile() { file?.leave() }

    deinit {
        munmap(image.base, image.byteCount)
    }
}

/// The ledger's address space, or its file, could not be had.
public struct LedgerMapError: Error, CustomStringConvertible {
    public let byteCount: Int
    /// The platform's errno.
    public let code: Int32
    /// What is wrong with the flight recorder's file; nil where there is none.
    public var problem: String?

    public var description: String {
        problem
            ?? "cannot reserve \(byteCount) bytes of address space for the ledger: \(String(cString: strerror(code)))"
    }
}

/// Fixed-size text fields of ledger records.
public enum LedgerText {
    /// Writes `text` into a field of `capacity` bytes, cut at a character boundary, padded with zeros.
    public static func write(_ text: String, to field: UnsafeMutableRawPointer, capacity: Int) {
        var text = text
        field.initializeMemory(as: UInt8.self, repeating: 0, count: capacity)
        text.withUTF8 { utf8 in
            var count = min(utf8.count, capacity)
            while count > 0, count < utf8.count, utf8[count] & 0xc0 == 0x80 { count -= 1 }
            if count > 0 { field.copyMemory(from: utf8.baseAddress!, byteCount: count) }
        }
    }

    /// Reads a field; bytes that are no UTF-8 are repaired.
    public static func read(_ field: UnsafeRawPointer, capacity: Int) -> String {
        let bytes = UnsafeRawBufferPointer(start: field, count: capacity)
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
