// The two blocks whose payload is records instead of a column.

/// Where one frame is and what it holds: one record of the directory block, in the order of the file.
///
///      0         2        4      8           16       24     28              32
///     +---------+--------+------+-----------+--------+------+---------------+
///     | section | column | rows | first row | offset | size | content bytes |
///     | u16     | u16    | u32  | u64       | u64    | u32  | u32           |
///     +---------+--------+------+-----------+--------+------+---------------+
struct DirectoryEntry: Equatable {
    static let recordBytes = 32

    var section: UInt16
    var column: UInt16
    var rows: UInt32
    var firstRow: UInt64
    /// Of the frame, from the start of the file.
    var offset: UInt64
    /// Of the frame as it is in the file.
    var size: UInt32
    var contentBytes: UInt32

    var endRow: UInt64 { firstRow.addingClamped(UInt64(rows)) }
    var name: String { BlockHeader.name(section: section, column: column, rows: firstRow..<endRow) }

    static func encode(_ entries: [DirectoryEntry]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: entries.count * recordBytes)
        bytes.withUnsafeMutableBytes { all in
            for (index, entry) in entries.enumerated() {
                let place = all.baseAddress! + index * recordBytes
                place.storeBytes(of: entry.section.littleEndian, toByteOffset: 0, as: UInt16.self)
                place.storeBytes(of: entry.column.littleEndian, toByteOffset: 2, as: UInt16.self)
                place.storeBytes(of: entry.rows.littleEndian, toByteOffset: 4, as: UInt32.self)
                place.storeBytes(of: entry.firstRow.littleEndian, toByteOffset: 8, as: UInt64.self)
                place.storeBytes(of: entry.offset.littleEndian, toByteOffset: 16, as: UInt64.self)
                place.storeBytes(of: entry.size.littleEndian, toByteOffset: 24, as: UInt32.self)
                place.storeBytes(of: entry.contentBytes.littleEndian, toByteOffset: 28, as: UInt32.self)
            }
        }
        return bytes
    }

    static func decode(_ payload: UnsafeRawBufferPointer) -> [DirectoryEntry] {
        (0..<payload.count / recordBytes).map { index in
            func load<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
                T(littleEndian: payload.loadUnaligned(fromByteOffset: index * recordBytes + offset, as: T.self))
            }
            return DirectoryEntry(
                section: load(0, UInt16.self), column: load(2, UInt16.self), rows: load(4, UInt32.self),
                firstRow: load(8, UInt64.self), offset: load(16, UInt64.self), size: load(24, UInt32.self),
                contentBytes: load(28, UInt32.self))
        }
    }
}

/// The end marker: one record per section that the file has.
///
///      0         2         4          8      16
///     +---------+---------+----------+------+
///     | section | columns | reserved | rows |
///     | u16     | u16     | u32 = 0  | u64  |
///     +---------+---------+----------+------+
enum EndMarker {
    static let recordBytes = 16

    struct Section: Equatable {
        var section: UInt16
        var columns: UInt16
        var rows: UInt64
    }

    static func encode(_ sections: [Section]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: sections.count * recordBytes)
        bytes.withUnsafeMutableBytes { all in
            for (index, section) in sections.enumerated() {
                let place = all.baseAddress! + index * recordBytes
                place.storeBytes(of: section.section.littleEndian, toByteOffset: 0, as: UInt16.self)
                place.storeBytes(of: section.columns.littleEndian, toByteOffset: 2, as: UInt16.self)
                place.storeBytes(of: section.rows.littleEndian, toByteOffset: 8, as: UInt64.self)
            }
        }
        return bytes
    }

    static func decode(_ payload: UnsafeRawBufferPointer) -> [Section] {
        (0..<payload.count / recordBytes).map { index in
            func load<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
                T(littleEndian: payload.loadUnaligned(fromByteOffset: index * recordBytes + offset, as: T.self))
            }
            return Section(section: load(0, UInt16.self), columns: load(2, UInt16.self), rows: load(8, UInt64.self))
        }
    }
}
