/// A small table of the model as columns of integers: how each field is written and read back, in one line each.
/// The lists of columns are in Tables.swift.
protocol TableRow {
    static var section: Section { get }
    static var columns: [TableColumn<Self>] { get }
    static var blank: Self { get }
}

/// One field of a row, as one column of the file.
struct TableColumn<Row> {
    let id: UInt16
    let name: String
    let encode: ([Row], inout StringTable) -> EncodedColumn
    /// Fills the field in all rows and returns the ranges of rows it could not be read for.
    let decode: (inout [Row], ColumnReader, _ section: Section) throws(DumpError) -> [Range<Int>]
    /// Whether a row has nothing in the field. With it, the column is only written where some row has something.
    var isBlank: ((Row) -> Bool)?

    /// A column that dumps of ours do without.
    func leftOut(where isBlank: @escaping (Row) -> Bool) -> TableColumn {
        var column = self
        column.isBlank = isBlank
        return column
    }

    static func number<T: FixedWidthInteger & UnsignedInteger>(
        _ id: UInt16, _ name: String, _ field: WritableKeyPath<Row, T>, _ encoding: ColumnEncoding = .planes
    ) -> TableColumn {
        TableColumn(
            id: id, name: name,
            encode: { rows, _ in EncodedColumn(rows.map { $0[keyPath: field].littleEndian }, encoding) },
            decode: { (rows, reader, section) throws(DumpError) in
                let column = try reader.column(section, id, rows: rows.count, as: T.self)
                rows.set(field) { column.values[$0] }
                return column.missing
            })
    }

    /// A field of another type, stored as its raw value.
    static func kind<Kind: RawRepresentable<UInt8>>(
        _ id: UInt16, _ name: String, _ field: WritableKeyPath<Row, Kind>, unknown: Kind
    ) -> TableColumn {
        TableColumn(
            id: id, name: name,
            encode: { rows, _ in EncodedColumn(rows.map { $0[keyPath: field].rawValue }, .planes) },
            decode: { (rows, reader, section) throws(DumpError) in
                let column = try reader.column(section, id, rows: rows.count, as: UInt8.self)
                rows.set(field) { Kind(rawValue: column.values[$0]) ?? unknown }
                return column.missing
            })
    }

    /// Text is a row number in the table of strings.
    static func string(_ id: UInt16, _ name: String, _ field: WritableKeyPath<Row, String>) -> TableColumn {
        TableColumn(
            id: id, name: name,
            encode: { rows, strings in EncodedColumn(rows.map { strings.id(of: $0[keyPath: field]) }, .planes) },
            decode: { (rows, reader, section) throws(DumpError) in
                let column = try reader.column(section, id, rows: rows.count, as: UInt32.self)
                var unknown = 0
                rows.set(field) { row in
                    if let text = reader.string(column.values[row]) { return text }
                    unknown += 1
                    return nil
                }
                if unknown > 0 {
                    reader.problems.append("\(section.name).\(name): the text of \(unknown) row(s) cannot be read")
                }
                return column.missing
            })
    }
}

extension Array {
    /// Sets one field of every row for which there is a value. A stored field is stored to where it lies in the row:
    /// going through the key path for each row would be most of the time of a read with many owners.
    fileprivate mutating func set<T>(_ field: WritableKeyPath<Element, T>, _ value: (Int) -> T?) {
        guard let offset = MemoryLayout<Element>.offset(of: field) else {
            for row in indices {
                if let value = value(row) { self[row][keyPath: field] = value }
            }
            return
        }
        withUnsafeMutableBytes { bytes in
            for row in 0..<bytes.count / MemoryLayout<Element>.stride {
                guard let value = value(row) else { continue }
                let place = bytes.baseAddress! + row * MemoryLayout<Element>.stride + offset
                place.assumingMemoryBound(to: T.self).pointee = value
            }
        }
    }
}

/// A whole column of a small table, in memory, little-endian.
struct EncodedColumn {
    let width: Int
    let count: Int
    let encoding: ColumnEncoding
    let bytes: [UInt8]

    init<T: FixedWidthInteger>(_ values: [T], _ encoding: ColumnEncoding) {
        width = MemoryLayout<T>.size
        count = values.count
        self.encoding = encoding
        bytes = values.withUnsafeBytes { Array($0) }
    }
}

/// Every text of a dump, once.
struct StringTable {
    private var ids: [String: UInt32] = [:]
    private(set) var ends: [UInt64] = []
    private(set) var bytes: [UInt8] = []

    mutating func id(of text: String) -> UInt32 {
        if let known = ids[text] { return known }
        let id = UInt32(ends.count)
        ids[text] = id
        bytes.append(contentsOf: text.utf8)
        ends.append(UInt64(bytes.count))
        return id
    }
}

/// The words for sections and columns in messages.
enum SchemaNames {
    static func column(section: UInt16, column: UInt16) -> String {
        guard let known = Section(rawValue: section) else { return "section \(section), column \(column)," }
        return "\(known.name).\(name(known, column) ?? "column \(column)")"
    }

    private static func name(_ section: Section, _ column: UInt16) -> String? {
        func name<Row>(_ columns: [TableColumn<Row>]) -> String? { columns.first { $0.id == column }?.name }
        return switch section {
        case .header: name(Snapshot.Header.columns)
        case .totals: name(Snapshot.Totals.columns)
        case .sizeClasses: name(Snapshot.SizeClass.columns)
        case .arenas: name(Snapshot.ArenaTotals.columns)
        case .sites: name(Snapshot.Site.columns)
        case .owners: name(Snapshot.Owner.columns)
        case .allocationGroups: name(Snapshot.AllocationGroup.columns)
        case .chunks: name(Snapshot.Chunk.columns)
        case .events: name(Snapshot.Event.columns)
        case .freed: name(Snapshot.Freed.columns)
        case .notes: name(Snapshot.Note.columns)
        case .missingLoops: name(Snapshot.MissingLoop.columns)
        case .missingPremises: name(Snapshot.MissingPremise.columns)
        case .nettyCopies: name(Snapshot.NettyCopy.columns)
        case .nettyChunks: name(Snapshot.NettyChunk.columns)
        case .directReferrers: name(Snapshot.DirectReferrer.columns)
        case .runs: Snapshot.RunColumns.Column(rawValue: column).map { "\($0)" }
        case .slots: Snapshot.SlotColumns.Column(rawValue: column).map { "\($0)" }
        case .references: Snapshot.ReferenceColumns.Column(rawValue: column).map { "\($0)" }
        case .payloads: Snapshot.PayloadColumns.Column(rawValue: column).map { "\($0)" }
        case .stringBytes, .payloadBytes: column == 1 ? "byte" : nil
        case .strings: column == 1 ? "end" : nil
        case .lifetimes: column == 1 ? "count" : nil
        case .file, .end, .directory: "block"
        }
    }
}
