// The tables that can have millions of rows: their columns, and where a writer pulls them from.

/// A column of a bulk table; its raw value is its number in the file.
public protocol BulkColumn: RawRepresentable<UInt16>, CaseIterable, Hashable, Sendable {
    /// Bytes of one element: 1, 2, 4 or 8.
    var width: Int { get }
}

/// A bulk table that a writer reads block by block, so that a dump of any size needs the memory of one block.
public protocol ColumnSource<Column> {
    associatedtype Column: BulkColumn
    var count: Int { get }
    /// Stores the elements of `column` for `rows` to `values`: `rows.count` unsigned little-endian integers of
    /// `column.width` bytes. `values` is aligned to 64 bytes and exactly as large as that.
    func fill(_ column: Column, rows: Range<Int>, into values: UnsafeMutableRawBufferPointer)
}

public protocol RunSource: ColumnSource where Column == Snapshot.RunColumns.Column {}
public protocol SlotSource: ColumnSource where Column == Snapshot.SlotColumns.Column {
    /// What edges are stored relative to: the slot's owner, and the bytes that were asked for.
    func owner(ofRow row: Int) -> UInt32
    func requested(ofRow row: Int) -> UInt64
}

/// How a bulk column is written; any encoding is read.
protocol EncodedBulkColumn: BulkColumn {
    var encoding: ColumnEncoding { get }
    /// Elements are stored as their difference (modulo 2^64) from those of this column, if any, which has 64-bit
    /// elements too.
    var reference: Self? { get }
}

extension EncodedBulkColumn {
    var reference: Self? { nil }
}

extension Snapshot.RunColumns {
    public enum Column: UInt16, BulkColumn, EncodedBulkColumn {
        case chunk = 1, firstPage, pages, kind, sizeClass, elements, liveElements

        public var width: Int {
            switch self {
            case .chunk: 4
            case .firstPage, .pages, .sizeClass, .elements, .liveElements: 2
            case .kind: 1
            }
        }

        var encoding: ColumnEncoding {
            switch self {
            case .chunk, .firstPage: .deltaPlanes
            default: .planes
            }
        }
    }
}

extension Snapshot.SlotColumns.Column: BulkColumn, EncodedBulkColumn {
    public var width: Int {
        switch self {
        case .serial, .birth, .address, .requested, .capacity, .touchTime: 8
        case .site, .owner, .touchSite: 4
        case .sizeClass, .arena: 2
        case .state: 1
        }
    }

    var encoding: ColumnEncoding {
        switch self {
        case .serial, .birth, .address: .deltaPlanes
        default: .planes
        }
    }

    /// Most buffers are touched last soon after their birth.
    var reference: Self? { self == .touchTime ? .birth : nil }
}

extension Snapshot.EdgeColumns {
    /// As they are in a file. Mostly the holder is the buffer's owner and refers to all of it, so both are stored as
    /// their difference from that, and cost nothing.
    enum Column: UInt16, BulkColumn, EncodedBulkColumn {
        /// In version 1 only: the owner itself.
        case holderOwner = 1
        case holderKind, slotRow
        /// Holder's owner minus slot's owner.
        case ownerStep
        /// Bytes asked for minus bytes referred to.
        case unreferredBytes

        static var allCases: [Column] { [.holderKind, .slotRow, .ownerStep, .unreferredBytes] }

        var width: Int { self == .holderKind ? 1 : 4 }

        var encoding: ColumnEncoding { self == .slotRow || self == .holderOwner ? .deltaPlanes : .planes }
    }
}

extension Snapshot.PayloadColumns {
    public enum Column: UInt16, BulkColumn, EncodedBulkColumn {
        case start = 1, length

        public var width: Int { self == .start ? 8 : 4 }

        var encoding: ColumnEncoding { self == .start ? .deltaPlanes : .planes }
    }
}

// Tables in memory are sources too.

private func copy<T>(_ values: [T], _ rows: Range<Int>, to place: UnsafeMutableRawBufferPointer) {
    values.withUnsafeBytes { bytes in
        let stride = MemoryLayout<T>.stride
        place.copyMemory(
            from: UnsafeRawBufferPointer(rebasing: bytes[rows.lowerBound * stride..<rows.upperBound * stride]))
    }
}

extension Snapshot.RunColumns: RunSource {
    public func fill(_ column: Column, rows: Range<Int>, into values: UnsafeMutableRawBufferPointer) {
        switch column {
        case .chunk: copy(chunk, rows, to: values)
        case .firstPage: copy(firstPage, rows, to: values)
        case .pages: copy(pages, rows, to: values)
        case .kind: copy(kind, rows, to: values)
        case .sizeClass: copy(sizeClass, rows, to: values)
        case .elements: copy(elements, rows, to: values)
        case .liveElements: copy(liveElements, rows, to: values)
        }
    }
}

extension Snapshot.SlotColumns: SlotSource {
    public func fill(_ column: Column, rows: Range<Int>, into values: UnsafeMutableRawBufferPointer) {
        switch column {
        case .serial: copy(serial, rows, to: values)
        case .birth: copy(birth, rows, to: values)
        case .address: copy(address, rows, to: values)
        case .requested: copy(requested, rows, to: values)
        case .capacity: copy(capacity, rows, to: values)
        case .sizeClass: copy(sizeClass, rows, to: values)
        case .arena: copy(arena, rows, to: values)
        case .site: copy(site, rows, to: values)
        case .owner: copy(owner, rows, to: values)
        case .touchSite: copy(touchSite, rows, to: values)
        case .touchTime: copy(touchTime, rows, to: values)
        case .state: copy(state, rows, to: values)
        }
    }
}

extension Snapshot.SlotColumns {
    public func owner(ofRow row: Int) -> UInt32 { owner[row] }
    public func requested(ofRow row: Int) -> UInt64 { requested[row] }
}

/// Edges as they are stored: relative to the slots they point to.
struct StoredEdges: ColumnSource {
    private let edges: Snapshot.EdgeColumns
    private let slots: any SlotSource

    init(_ edges: Snapshot.EdgeColumns, _ slots: any SlotSource) {
        self.edges = edges
        self.slots = slots
    }

    var count: Int { edges.count }

    func fill(_ column: Snapshot.EdgeColumns.Column, rows: Range<Int>, into values: UnsafeMutableRawBufferPointer) {
        switch column {
        case .holderKind: copy(edges.holderKind, rows, to: values)
        case .slotRow: copy(edges.slotRow, rows, to: values)
        case .holderOwner: copy(edges.holderOwner, rows, to: values)
        case .ownerStep: fillDifferences(slots, column, rows, values)
        case .unreferredBytes: fillDifferences(slots, column, rows, values)
        }
    }

    private func fillDifferences(
        _ slots: some SlotSource, _ column: Snapshot.EdgeColumns.Column, _ rows: Range<Int>,
        _ values: UnsafeMutableRawBufferPointer
    ) {
        let target = values.bindMemory(to: UInt32.self)
        for (index, row) in rows.enumerated() {
            let slot = Int(edges.slotRow[row])
            // An edge that leads nowhere is stored as it is, for `verify` to find.
            let isThere = slot < slots.count
            if column == .ownerStep {
                target[index] = (edges.holderOwner[row] &- (isThere ? slots.owner(ofRow: slot) : 0)).littleEndian
            } else {
                let requested = isThere ? UInt32(truncatingIfNeeded: slots.requested(ofRow: slot)) : 0
                // What is unknown is taken to be all.
                let referred = edges.referredBytes.isEmpty ? requested : edges.referredBytes[row]
                target[index] = (requested &- referred).littleEndian
            }
        }
    }
}
