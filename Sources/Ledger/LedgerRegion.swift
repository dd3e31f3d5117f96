import Glibc

/// The tables of the ledger.
public enum LedgerTable: Int, CaseIterable, Sendable {
    case arenas, sites, siteCounters, owners, chunks, pageBits, pageMap, slabs, slots, slotBlocks, freed

    var stride: Int {
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
        }
    }

    /// Whether a snapshot needs it: the rest is the allocator's own working state, or follows from the others.
    var isCopied: Bool { self != .slotBlocks }
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
    public var stagingBytes: UInt64
    public var overdraftBytes: UInt64
    public var failedAllocations: UInt64

    public static let magic: UInt64 = 0x5245_4744_454c_5241  // "ARLEDGER", little-endian
    public static let version: UInt32 = 1
    static let tablesOffset = 512
    public static let size = 4096
}

/// Where one table lies: `groups` blocks of `rowsPerGroup` records; in each, the first `rows` are in use.
@frozen public struct LedgerTableDescriptor: Sendable {
    public var offset: UInt64
    public var stride: UInt64
    public var groups: UInt64
    public var rowsPerGroup: UInt64
    public var rows: UInt64
    public var reserved: UInt64
}

/// A view of a ledger in memory: the live one, a copy made at a safepoint, or a mapped file.
///
/// Unsafe to hold beyond the memory it looks at. `validate` must have passed before a file's tables are read.
public struct LedgerImage: @unchecked Sendable {
    public let base: UnsafeMutableRawPointer
    public let byteCount: Int

    public init(base: UnsafeMutableRawPointer, byteCount: Int) {
        self.base = base
        self.byteCount = byteCount
    }

    public var header: UnsafeMutablePointer<LedgerHeader> { base.assumingMemoryBound(to: LedgerHeader.self) }

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
        let descriptor = descriptor(table).pointee
        return base + Int(descriptor.offset) + (group * Int(descriptor.rowsPerGroup) + row) * Int(descriptor.stride)
    }

    public func rows(_ table: LedgerTable) -> Int { Int(descriptor(table).pointee.rows) }
    public func groups(_ table: LedgerTable) -> Int { Int(descriptor(table).pointee.groups) }

    /// Bytes a copy of the rows in use takes.
    public var copySize: Int {
        var total = LedgerHeader.size
        for table in LedgerTable.allCases where table.isCopied {
            let descriptor = descriptor(table).pointee
            total += Int(descriptor.groups * descriptor.rows * descriptor.stride)
        }
        return total
    }
}

/// The mapped region a live ledger is in: all tables at their full capacity as address space, of which the operating
/// system backs only what is touched.
public struct LedgerRegion: ~Copyable {
    public let image: LedgerImage

    /// Reserves the address space. `capacity` gives (groups, rows per group) for each table.
    ///
    /// - Throws: the errno of `mmap`.
    public init(capacity: (LedgerTable) -> (groups: Int, rows: Int)) throws(LedgerMapError) {
        checkRecordLayouts()
        var offset = LedgerHeader.size
        var descriptors: [LedgerTableDescriptor] = []
        for table in LedgerTable.allCases {
            let (groups, rows) = capacity(table)
            descriptors.append(
                LedgerTableDescriptor(
                    offset: UInt64(offset), stride: UInt64(table.stride), groups: UInt64(groups),
                    rowsPerGroup: UInt64(rows), rows: 0, reserved: 0))
            offset += (groups * rows * table.stride + 4095) & ~4095
        }
        let memory = mmap(nil, offset, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let memory, memory != MAP_FAILED else { throw LedgerMapError(byteCount: offset, code: errno) }
        image = LedgerImage(base: memory, byteCount: offset)
        image.header.pointee.magic = LedgerHeader.magic
        image.header.pointee.version = LedgerHeader.version
        image.header.pointee.tableCount = UInt32(LedgerTable.allCases.count)
        image.header.pointee.byteCount = UInt64(offset)
        image.header.pointee.pid = UInt64(getpid())
        for (table, descriptor) in zip(LedgerTable.allCases, descriptors) {
            image.descriptor(table).pointee = descriptor
        }
    }

    deinit {
        munmap(image.base, image.byteCount)
    }
}

/// The ledger's address space could not be had.
public struct LedgerMapError: Error, CustomStringConvertible {
    public let byteCount: Int
    /// The platform's errno.
    public let code: Int32

    public var description: String {
        "cannot reserve \(byteCount) bytes of address space for the ledger: \(String(cString: strerror(code)))"
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
