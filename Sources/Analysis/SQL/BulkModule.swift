import DumpFormat
import SQLite
import CSQLite

/// A large table of a dump as SQLite sees it without a copy: a virtual table over the columns that were read.
///
/// Ten million rows would take SQLite ten seconds to take in; like this it asks for the cells it needs. Two questions are
/// answered faster than by looking at each row: the row of a number, as joins on `buffer` ask, and rows in the order of
/// one column, as GROUP BY and ORDER BY do. https://www.sqlite.org/vtab.html
final class BulkModule {
    let table: DumpTable
    private(set) var cells: [(Int) -> Cell] = []
    /// The same for columns of numbers only.
    private(set) var numbers: [DumpTable.Numbers?] = []
    private(set) var count = 0
    /// By column, the texts that its numbers stand for, as C has them: SQLite must not copy one for each row.
    let words: BulkScan.Words

    init(_ table: DumpTable) {
        self.table = table
        words = BulkScan.Words(table.columns.map(\.words))
    }

    /// From here on it has rows. Columns that were not read are null.
    func fill(_ facts: DumpFacts, columns: Set<String>?) {
        cells = table.columns.map { column in
            columns?.contains(column.name) ?? true ? column.cells(facts) : { _ in .null }
        }
        numbers = table.columns.map { column in
            columns?.contains(column.name) ?? true ? column.numbers?(facts) : nil
        }
        count = table.rowCount(facts)
    }

    /// Forgets its rows.
    func empty() { (cells, numbers, count) = ([], [], 0) }

    /// Makes it known to a connection, which keeps it as long as it lives.
    func register(_ database: Database) throws {
        let code = sqlite3_create_module_v2(
            database.connection, "dump_\(table.name)", Self.methods, Unmanaged.passRetained(self).toOpaque()
        ) { Unmanaged<BulkModule>.fromOpaque($0!).release() }
        try database.expect(code)
    }

    /// As a source of rows for the table of its name.
    var createSource: String { "CREATE VIRTUAL TABLE temp.rows_of_\(table.name) USING dump_\(table.name)" }
    var copyStatement: String { "INSERT INTO main.\(table.name) SELECT * FROM temp.rows_of_\(table.name)" }

    var createStatement: String { "CREATE VIRTUAL TABLE \(table.name) USING dump_\(table.name)" }

    // MARK: Plans

    private func plan(_ info: UnsafeMutablePointer<sqlite3_index_info>) {
        let rows = Double(max(1, count))
        for index in 0..<Int(info.pointee.nConstraint) {
            let constraint = info.pointee.aConstraint[index]
            guard constraint.usable != 0, constraint.op == UInt8(SQLITE_INDEX_CONSTRAINT_EQ),
                isRowNumber(Int(constraint.iColumn))
            else { continue }
            info.pointee.aConstraintUsage[index].argvIndex = 1
            info.pointee.idxNum = BulkScan.Plan.row.number
            info.pointee.idxFlags = SQLITE_INDEX_SCAN_UNIQUE
            info.pointee.estimatedCost = 1
            info.pointee.estimatedRows = 1
            return
        }
        info.pointee.estimatedCost = rows
        info.pointee.estimatedRows = Int64(rows)
        guard info.pointee.nOrderBy == 1, let order = info.pointee.aOrderBy?.pointee,
            table.columns.indices.contains(Int(order.iColumn)), table.columns[Int(order.iColumn)].type == .integer
        else { return }
        info.pointee.idxNum = BulkScan.Plan.ordered(column: Int(order.iColumn), isFalling: order.desc != 0).number
        info.pointee.orderByConsumed = 1
    }

    /// A negative column is SQLite's own row number, which is the same.
    private func isRowNumber(_ column: Int) -> Bool {
        column < 0 || column == 0 && table.columns[0].name == "buffer" && table.name == "buffers"
    }

    /// All rows in the order of a column, nulls first.
    func order(by column: Int) -> [UInt32] {
        let cell = cells[column]
        let keys = (0..<count).map { row -> UInt64 in
            guard case .integer(let number) = cell(row) else { return 0 }
            // Signed numbers in the order of unsigned ones.
            return UInt64(bitPattern: number) ^ 1 << 63
        }
        return RowOrder.sorted(by: keys)
    }

    // MARK: Cursors

    /// What SQLite holds; its own part comes first.
    private struct Table {
        var base = sqlite3_vtab()
        var module: Unmanaged<BulkModule>
    }

    private struct Cursor {
        var base = sqlite3_vtab_cursor()
        var scan: Unmanaged<BulkScan>
        /// The scan's, which lives as long: a count of references for each of a hundred million cells would cost more than
        /// the cells.
        let place: UnsafeMutablePointer<BulkScan.Place>
    }

    @inline(__always) private static func cursor(
        _ cursor: UnsafeMutablePointer<sqlite3_vtab_cursor>?
    ) -> UnsafeMutablePointer<Cursor> { UnsafeMutableRawPointer(cursor!).assumingMemoryBound(to: Cursor.self) }

    private static func scan(_ cursor: UnsafeMutablePointer<sqlite3_vtab_cursor>?) -> BulkScan {
        self.cursor(cursor).pointee.scan.takeUnretainedValue()
    }

    private static func module(_ table: UnsafeMutablePointer<sqlite3_vtab>?) -> BulkModule {
        UnsafeMutableRawPointer(table!).assumingMemoryBound(to: Table.self).pointee.module.takeUnretainedValue()
    }

    /// For the life of the process, as SQLite wants it.
    private nonisolated(unsafe) static let methods: UnsafePointer<sqlite3_module> = {
        var methods = sqlite3_module()
        methods.iVersion = 1
        methods.xCreate = { database, module, _, _, table, _ in connect(database, module, table) }
        methods.xConnect = { database, module, _, _, table, _ in connect(database, module, table) }
        methods.xDisconnect = { disconnect($0) }
        methods.xDestroy = { disconnect($0) }
        methods.xBestIndex = { table, info in
            guard let info else { return SQLITE_ERROR }
            module(table).plan(info)
            return SQLITE_OK
        }
        methods.xOpen = { table, cursor in
            let place = UnsafeMutablePointer<Cursor>.allocate(capacity: 1)
            let scan = BulkScan(module(table))
            place.initialize(to: Cursor(scan: .passRetained(scan), place: scan.place))
            cursor?.pointee = UnsafeMutableRawPointer(place).assumingMemoryBound(to: sqlite3_vtab_cursor.self)
            return SQLITE_OK
        }
        methods.xClose = { cursor in
            let place = UnsafeMutableRawPointer(cursor!).assumingMemoryBound(to: Cursor.self)
            place.pointee.scan.release()
            place.deinitialize(count: 1)
            place.deallocate()
            return SQLITE_OK
        }
        methods.xFilter = { cursor, number, _, count, arguments in
            scan(cursor).start(BulkScan.Plan(number), count > 0 ? arguments?[0] : nil)
            return SQLITE_OK
        }
        methods.xNext = { cursor in
            BulkModule.cursor(cursor).pointee.place.pointee.next += 1
            return SQLITE_OK
        }
        methods.xEof = { cursor($0).pointee.place.pointee.isAtEnd ? 1 : 0 }
        methods.xColumn = { cursor, context, column in
            let place = BulkModule.cursor(cursor).pointee.place
            if !place.pointee.give(Int(column), to: context) { scan(cursor).give(Int(column), to: context) }
            return SQLITE_OK
        }
        methods.xRowid = { cursor, row in
            row?.pointee = Int64(scan(cursor).row)
            return SQLITE_OK
        }
        let place = UnsafeMutablePointer<sqlite3_module>.allocate(capacity: 1)
        place.initialize(to: methods)
        return UnsafePointer(place)
    }()

    private static func connect(
        _ database: OpaquePointer?, _ module: UnsafeMutableRawPointer?,
        _ table: UnsafeMutablePointer<UnsafeMutablePointer<sqlite3_vtab>?>?
    ) -> Int32 {
        guard let module else { return SQLITE_ERROR }
        let unmanaged = Unmanaged<BulkModule>.fromOpaque(module)
        let columns = unmanaged.takeUnretainedValue().table.columns.map { "\($0.name) \($0.type.rawValue)" }
        let code = sqlite3_declare_vtab(database, "CREATE TABLE t (\(columns.joined(separator: ", ")))")
        guard code == SQLITE_OK else { return code }
        let place = UnsafeMutablePointer<Table>.allocate(capacity: 1)
        place.initialize(to: Table(module: unmanaged))
        table?.pointee = UnsafeMutableRawPointer(place).assumingMemoryBound(to: sqlite3_vtab.self)
        return SQLITE_OK
    }

    private static func disconnect(_ table: UnsafeMutablePointer<sqlite3_vtab>?) -> Int32 {
        let place = UnsafeMutableRawPointer(table!).assumingMemoryBound(to: Table.self)
        place.deinitialize(count: 1)
        place.deallocate()
        return SQLITE_OK
    }
}
