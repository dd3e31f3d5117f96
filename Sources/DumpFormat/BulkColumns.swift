// The tables that can have millions of rows: their columns, and where a writer pulls them from.

/// A table that can have millions of rows, in memory: an array for each column. Columns that were not asked for are empty.
public protocol BulkTable: Sendable {
    /// The numbers of the columns in a file.
    associatedtype Column: RawRepresentable<UInt16>, CaseIterable, Hashable, Sendable

    init()

    /// Each column once. Whatever does something for every column goes through this list.
    static var columns: [any BulkColumn<Self>] { get }
}

/// A ``TypedColumn`` of some type of elements, for lists of columns. Who goes through one opens it:
///
///     func read(_ column: some BulkColumn<Table>) { table[keyPath: column.typed.values] = ... }
///     for column in Table.columns { read(column) }
public protocol BulkColumn<Table>: Sendable {
    associatedtype Table: BulkTable
    associatedtype Element: FixedWidthInteger & UnsignedInteger & Sendable
    var typed: TypedColumn<Table, Element> { get }
}

/// One column of a bulk table: its number, where its values are in memory, and how they are written. The type of its
/// elements is their width; there is no other word on it.
public struct TypedColumn<Table: BulkTable, Element: FixedWidthInteger & UnsignedInteger & Sendable>: BulkColumn {
    public let id: Table.Column
    public let values: any WritableKeyPath<Table, [Element]> & Sendable
    /// How it is written; any encoding is read.
    let encoding: ColumnEncoding
    private let base: (id: Table.Column, values: any WritableKeyPath<Table, [Element]> & Sendable)?

    /// - Parameter base: elements are stored as their difference (modulo 2^64) from those of this column.
    init(
        _ id: Table.Column, _ values: any WritableKeyPath<Table, [Element]> & Sendable, _ encoding: ColumnEncoding,
        base: (id: Table.Column, values: any WritableKeyPath<Table, [Element]> & Sendable)? = nil
    ) {
        (self.id, self.values, self.encoding, self.base) = (id, values, encoding, base)
    }

    public var typed: Self { self }

    /// The column that elements are stored relative to, if any.
    var reference: Self? { base.map { Self($0.id, $0.values, encoding) } }
}

extension BulkTable {
    /// The column that a path leads to.
    static func column<Element>(_ values: WritableKeyPath<Self, [Element]>) -> TypedColumn<Self, Element> {
        for case let column as TypedColumn<Self, Element> in columns where column.values == values { return column }
        preconditionFailure("\(values) is in no list of columns")
    }
}

/// A bulk table that a writer reads block by block, so that a dump of any size needs the memory of one block.
public protocol ColumnSource<Table> {
    associatedtype Table: BulkTable
    var count: Int { get }
    /// Stores the elements of `column` for `rows` to `values`, which has room for exactly those.
    func fill<Element>(
        _ column: TypedColumn<Table, Element>, rows: Range<Int>, into values: UnsafeMutableBufferPointer<Element>)
}

public protocol RunSource: ColumnSource where Table == Snapshot.RunColumns {}
public protocol SlotSource: ColumnSource where Table == Snapshot.SlotColumns {
    /// What references are stored relative to: the slot's owner, and the bytes that were asked for.
    func owner(ofRow row: Int) -> UInt32
    func requested(ofRow row: Int) -> UInt64
}

extension ColumnSource {
    /// The values of some rows of a column.
    public func values<Element: FixedWidthInteger & UnsignedInteger & Sendable>(
        _ column: WritableKeyPath<Table, [Element]>, rows: Range<Int>
    ) -> [Element] {
        values(Table.column(column), rows: rows)
    }

    func values<Element>(_ column: TypedColumn<Table, Element>, rows: Range<Int>) -> [Element] {
        [Element](unsafeUninitializedCapacity: rows.count) { buffer, count in
            fill(column, rows: rows, into: UnsafeMutableBufferPointer(rebasing: buffer[..<rows.count]))
            count = rows.count
        }
    }
}

/// What a source has computed for a column of one type, for a caller that knows the type by the column only. The two are
/// the same, or the source's list is wrong, which must not become a store past the end of a buffer.
func sameType<Element, Value>(
    _ values: UnsafeMutableBufferPointer<Element>, count: Int
) -> UnsafeMutableBufferPointer<Value> {
    guard values.count == count, let values = values as? UnsafeMutableBufferPointer<Value> else {
        preconditionFailure("\(count) elements of \(Value.self) do not fit \(values.count) of \(Element.self)")
    }
    return values
}

extension Snapshot.RunColumns: BulkTable {
    public enum Column: UInt16, CaseIterable, Sendable {
        case chunk = 1, firstPage, pages, kind, sizeClass, elements, liveElements
    }

    public static let columns: [any BulkColumn<Self>] = [
        TypedColumn(.chunk, \Self.chunk, .deltaPlanes),
        TypedColumn(.firstPage, \Self.firstPage, .deltaPlanes),
        TypedColumn(.pages, \Self.pages, .planes),
        TypedColumn(.kind, \Self.kind, .planes),
        TypedColumn(.sizeClass, \Self.sizeClass, .planes),
        TypedColumn(.elements, \Self.elements, .planes),
        TypedColumn(.liveElements, \Self.liveElements, .planes),
    ]
}

extension Snapshot.SlotColumns: BulkTable {
    public static let columns: [any BulkColumn<Self>] = [
        TypedColumn(.serial, \Self.serial, .deltaPlanes),
        TypedColumn(.birth, \Self.birth, .deltaPlanes),
        TypedColumn(.address, \Self.address, .deltaPlanes),
        TypedColumn(.requested, \Self.requested, .planes),
        TypedColumn(.capacity, \Self.capacity, .planes),
        TypedColumn(.sizeClass, \Self.sizeClass, .planes),
        TypedColumn(.arena, \Self.arena, .planes),
        TypedColumn(.site, \Self.site, .planes),
        TypedColumn(.owner, \Self.owner, .planes),
        TypedColumn(.accessSite, \Self.accessSite, .planes),
        // Most buffers are accessed last soon after their birth.
        TypedColumn(.accessTime, \Self.accessTime, .planes, base: (.birth, \Self.birth)),
        TypedColumn(.state, \Self.state, .planes),
    ]
}

extension Snapshot.ReferenceColumns: BulkTable {
    /// As they are in a file. Mostly the referrer is the buffer's owner and refers to all of it, so both are stored as
    /// their difference from that, and cost nothing.
    public enum Column: UInt16, CaseIterable, Sendable {
        /// In version 1 only: the owner itself.
        case referrerOwner = 1
        case referrerKind, slotRow
        /// Referrer's owner minus slot's owner.
        case ownerStep
        /// Bytes asked for minus bytes referred to.
        case unreferredBytes
    }

    /// In version 1.
    static let storedOwner = TypedColumn(.referrerOwner, \Self.referrerOwner, .deltaPlanes)
    static let ownerStep = TypedColumn(.ownerStep, \Self.referrerOwner, .planes)
    static let unreferredBytes = TypedColumn(.unreferredBytes, \Self.referredBytes, .planes)
    /// What tells which slots have referrers.
    static let reachColumns: [any BulkColumn<Self>] = [
        TypedColumn(.referrerKind, \Self.referrerKind, .planes), TypedColumn(.slotRow, \Self.slotRow, .deltaPlanes),
    ]
    public static let columns: [any BulkColumn<Self>] = reachColumns + [ownerStep, unreferredBytes]
}

extension Snapshot.PayloadColumns: BulkTable {
    public enum Column: UInt16, CaseIterable, Sendable {
        case start = 1, length
    }

    public static let columns: [any BulkColumn<Self>] = [
        TypedColumn(.start, \Self.start, .deltaPlanes), TypedColumn(.length, \Self.length, .planes),
    ]
}

// Tables in memory are sources too.

extension ColumnSource where Table == Self {
    public func fill<Element>(
        _ column: TypedColumn<Table, Element>, rows: Range<Int>, into values: UnsafeMutableBufferPointer<Element>
    ) {
        precondition(values.count == rows.count)
        _ = values.update(fromContentsOf: self[keyPath: column.values][rows])
    }
}

extension Snapshot.RunColumns: RunSource {}

extension Snapshot.SlotColumns: SlotSource {
    public func owner(ofRow row: Int) -> UInt32 { owner[row] }
    public func requested(ofRow row: Int) -> UInt64 { requested[row] }
}

/// References as they are stored: relative to the slots they point to.
struct StoredReferences: ColumnSource {
    private let references: Snapshot.ReferenceColumns
    private let slots: any SlotSource

    init(_ references: Snapshot.ReferenceColumns, _ slots: any SlotSource) {
        self.references = references
        self.slots = slots
    }

    var count: Int { references.count }

    func fill<Element>(
        _ column: TypedColumn<Snapshot.ReferenceColumns, Element>, rows: Range<Int>,
        into values: UnsafeMutableBufferPointer<Element>
    ) {
        switch column.id {
        case .referrerKind, .slotRow, .referrerOwner:
            precondition(values.count == rows.count)
            _ = values.update(fromContentsOf: references[keyPath: column.values][rows])
        case .ownerStep, .unreferredBytes: fillDifferences(slots, column.id, rows, sameType(values, count: rows.count))
        }
    }

    private func fillDifferences(
        _ slots: some SlotSource, _ column: Snapshot.ReferenceColumns.Column, _ rows: Range<Int>,
        _ target: UnsafeMutableBufferPointer<UInt32>
    ) {
        for (index, row) in rows.enumerated() {
            let slot = Int(references.slotRow[row])
            // A reference that leads nowhere is stored as it is, for `verify` to find.
            let isThere = slot < slots.count
            if column == .ownerStep {
                target[index] = references.referrerOwner[row] &- (isThere ? slots.owner(ofRow: slot) : 0)
            } else {
                let requested = isThere ? UInt32(truncatingIfNeeded: slots.requested(ofRow: slot)) : 0
                // What is unknown is taken to be all.
                let referred = references.referredBytes.isEmpty ? requested : references.referredBytes[row]
                target[index] = requested &- referred
            }
        }
    }
}
