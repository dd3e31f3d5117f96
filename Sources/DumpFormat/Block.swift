// A dump is a sequence of blocks, each alone in one zstd frame. docs/dump-format.md specifies what is here.

/// The tables of a dump. Raw values are written to dumps: only ever add.
enum Section: UInt16, CaseIterable {
    /// The first block: magic and version.
    case file = 0
    case header = 1
    case totals = 2
    case stringBytes = 3
    case strings = 4
    case sizeClasses = 5
    case arenas = 6
    case sites = 7
    case lifetimes = 8
    case owners = 9
    case allocationGroups = 10
    case chunks = 11
    case events = 12
    /// Since 2.0.
    case freed = 13
    /// Only in copies of foreign heap dumps that have any.
    case notes = 14
    /// Only where loops did not come to the safepoint, since 2.1.
    case missingLoops = 15
    /// Only in copies of foreign heap dumps that lack a premise, since 2.3.
    case missingPremises = 16
    /// Only in copies of foreign heap dumps, since 2.3.
    case nettyCopies = 17
    /// Only in copies of foreign heap dumps, since 2.4.
    case nettyChunks = 18
    case directReferrers = 19
    case runs = 32
    case slots = 33
    case references = 34
    /// Only where payloads were asked for, since 2.0.
    case payloads = 35
    case payloadBytes = 36
    /// The row counts of all sections: the file was written to its end.
    case end = 0xFFFE
    /// Where each frame is.
    case directory = 0xFFFF

    var name: String { "\(self)" }

    /// The sections every dump has, whatever it leaves out.
    static func mandatory(_ version: FileHeader.Version = FileHeader.current) -> [Section] {
        let first: [Section] = [
            .header, .totals, .stringBytes, .strings, .sizeClasses, .arenas, .sites, .lifetimes, .owners,
            .allocationGroups,
            .chunks, .events,
        ]
        return version.major == 1 ? first : first + [.freed]
    }
}

/// The fixed start of a decompressed block. All numbers are little-endian.
///
///      0       4         6        8       9          10         12      16          24              28         32
///     +-------+---------+--------+-------+----------+----------+-------+-----------+---------------+----------+
///     | ABLK  | section | column | width | encoding | reserved | rows  | first row | payload bytes | reserved |
///     | 4     | u16     | u16    | u8    | u8       | u16 = 0  | u32   | u64       | u32           | u32 = 0  |
///     +-------+---------+--------+-------+----------+----------+-------+-----------+---------------+----------+
///
/// `width` is the bytes of one element; the payload follows at once and ends the frame.
struct BlockHeader: Equatable {
    static let magic: UInt32 = 0x4B4C_4241
    static let bytes = 32
    /// Rows of every block of a column but its last. Divides every `firstRow`.
    static let rowsPerBlock = 65_536

    var section: UInt16
    var column: UInt16
    var width: UInt8
    var encoding: UInt8
    var rows: UInt32
    var firstRow: UInt64
    var payloadBytes: UInt32

    func store(to place: UnsafeMutableRawPointer) {
        place.storeBytes(of: Self.magic.littleEndian, toByteOffset: 0, as: UInt32.self)
        place.storeBytes(of: section.littleEndian, toByteOffset: 4, as: UInt16.self)
        place.storeBytes(of: column.littleEndian, toByteOffset: 6, as: UInt16.self)
        place.storeBytes(of: width, toByteOffset: 8, as: UInt8.self)
        place.storeBytes(of: encoding, toByteOffset: 9, as: UInt8.self)
        place.storeBytes(of: 0, toByteOffset: 10, as: UInt16.self)
        place.storeBytes(of: rows.littleEndian, toByteOffset: 12, as: UInt32.self)
        place.storeBytes(of: firstRow.littleEndian, toByteOffset: 16, as: UInt64.self)
        place.storeBytes(of: payloadBytes.littleEndian, toByteOffset: 24, as: UInt32.self)
        place.storeBytes(of: 0, toByteOffset: 28, as: UInt32.self)
    }
}

extension BlockHeader {
    init(_ content: UnsafeRawBufferPointer) throws(FrameProblem) {
        guard content.count >= Self.bytes else { throw .notABlock("\(content.count) bytes are too few") }
        func load<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
            T(littleEndian: content.loadUnaligned(fromByteOffset: offset, as: T.self))
        }
        guard load(0, UInt32.self) == Self.magic else { throw .notABlock("its magic is wrong") }
        section = load(4, UInt16.self)
        column = load(6, UInt16.self)
        width = load(8, UInt8.self)
        encoding = load(9, UInt8.self)
        rows = load(12, UInt32.self)
        firstRow = load(16, UInt64.self)
        payloadBytes = load(24, UInt32.self)
        guard Int(payloadBytes) == content.count - Self.bytes else {
            throw .notABlock("it declares \(payloadBytes) payload bytes and has \(content.count - Self.bytes)")
        }
    }

    /// What users see: `slots.birth rows 65536..<131072`.
    var name: String {
        Self.name(section: section, column: column, rows: firstRow..<(firstRow.addingClamped(UInt64(rows))))
    }

    static func name(section: UInt16, column: UInt16, rows: Range<UInt64>) -> String {
        "\(SchemaNames.column(section: section, column: column)) rows \(rows)"
    }
}

extension UInt64 {
    func addingClamped(_ other: UInt64) -> UInt64 {
        let (sum, overflow) = addingReportingOverflow(other)
        return overflow ? .max : sum
    }
}

/// The payload of the first block.
///
///      0          8               10              12         16
///     +----------+---------------+---------------+----------+
///     | ARENADMP | major version | minor version | reserved |
///     | 8        | u16           | u16           | u32 = 0  |
///     +----------+---------------+---------------+----------+
enum FileHeader {
    static let magic = Array("ARENADMP".utf8)
    static let bytes = 16
    static let current = Version(major: 2, minor: 4)
    /// The oldest major version that is still read.
    static let oldestMajor: UInt16 = 1

    struct Version: Equatable {
        var major: UInt16
        var minor: UInt16
    }
}
