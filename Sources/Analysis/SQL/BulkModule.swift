import DumpFormat
import GRDB
import GRDBSQLite

/// A large table of a dump as SQLite sees it without a copy: a virtual table over the columns that were read.
///
/// Ten million rows would take SQLite ten seconds to take in; like this it asks for the cells it needs. Two questions are
/// answered faster than by looking at each row: the row of a number, as joins on `buffer` ask, and rows in the order of
/// one column, as GROUP BY and ORDER BY do. https://www.sqlite.org/vtab.html
final class BulkModule {
    let table: DumpTable
    private var cells: [(Int) -> Cell] = []
    /// The same for columns of numbers only.
    private var numbers: [((Int) -> Int64)?] = []
    private var count = 0

    init(_ table: DumpTable) { self.table = table }

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
            database.sqliteConnection, "dump_\(table.name)", Self.methods, Unmanaged.passRetained(self).toOpaque()
        ) { Unmanaged<BulkModule>.fromOpaque($0!).release() }
        guard code == SQLITE_OK else { throw DatabaseError(resultCode: ResultCode(rawValue: code)) }
    }

    /// As a source of rows for the table of its name.
    var createSource: String { "CREATE VIRTUAL TABLE temp.rows_of_\(table.name) USING dump_\(table.name)" }
    var copyStatement: String { "INSERT INTO main.\(table.name) SELECT * FROM temp.rows_of_\(table.name)" }

    var createStatement: String { "CREATE VIRTUAL TABLE \(table.name) USING dump_\(table.name)" }

    // MARK: Plans

    /// How a cursor goes through the rows; SQLite keeps it as one number.
    private enum Plan {
        case all
        /// The row of the number in the first argument.
        case row
        case ordered(column: Int, isFalling: Bool)

        init(_ number: Int32) {
            switch number {
            case 0: self = .all
            case 1: self = .row
            default: self = .ordered(column: Int(number - 2) / 2, isFalling: number % 2 == 1)
            }
        }

        var number: Int32 {
            switch self {
            case .all: 0
            case .row: 1
            case .ordered(let column, let isFalling): Int32(2 + 2 * column + (isFalling ? 1 : 0))
            }
        }
    }

    private func plan(_ info: UnsafeMutablePointer<sqlite3_index_info>) {
        let rows = Double(max(1, count))
        for index in 0..<Int(info.pointee.nConstraint) {
            let constraint = info.pointee.aConstraint[index]
            guard constraint.usable != 0, constraint.op == UInt8(SQLITE_INDEX_CONSTRAINT_EQ),
                isRowNumber(Int(constraint.iColumn))
            else { continue }
            info.pointee.aConstraintUsage[index].argvIndex = 1
            info.pointee.idxNum = Plan.row.number
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
        info.pointee.idxNum = Plan.ordered(column: Int(order.iColumn), isFalling: order.desc != 0).number
        info.pointee.orderByConsumed = 1
    }

    /// A negative column is SQLite's own row number, which is the same.
    private func isRowNumber(_ column: Int) -> Bool {
        column < 0 || column == 0 && table.columns[0].name == "buffer" && table.name == "buffers"
    }

    /// All rows in the order of a column, nulls first.
    private func order(by column: Int) -> [UInt32] {
        let cell = cells[column]
        let keys = (0..<count).map { row -> UInt64 in
            guard case .integer(let number) = cell(row) else { return 0 }
            // Signed numbers in the order of unsigned ones.
            return UInt64(bitPattern: number) ^ 1 << 63
        }
        return RowOrder.sorted(by: keys)
    }

    // MARK: Cursors

    private final class Scan {
        let module: BulkModule
        private var order: [UInt32]?
        private var isFalling = false
        private var next = 0
        private var end = 0

        init(_ module: BulkModule) { self.module = module }

        func start(_ plan: Plan, _ argument: OpaquePointer?) {
            (order, isFalling, next, end) = (nil, false, 0, module.count)
            switch plan {
            case .all: break
            case .row:
                // What is no whole number is equal to none.
                let number = sqlite3_value_int64(argument)
                let isNumber = sqlite3_value_numeric_type(argument) == SQLITE_INTEGER
                next = isNumber && number >= 0 && number < Int64(module.count) ? Int(number) : 0
                end = isNumber && number >= 0 && number < Int64(module.count) ? next + 1 : 0
            case .ordered(let column, let isFalling):
                order = module.order(by: column)
                self.isFalling = isFalling
            }
        }

        var isAtEnd: Bool { next >= end }
        func advance() { next += 1 }

        var row: Int {
            guard let order else { return next }
            return Int(order[isFalling ? end - 1 - next : next])
        }

        func give(_ column: Int, to context: OpaquePointer?) {
            guard module.cells.indices.contains(column) else { return sqlite3_result_null(context) }
            if let number = module.numbers[column] {
                let value = number(row)
                return value == Cell.nullNumber ? sqlite3_result_null(context) : sqlite3_result_int64(context, value)
            }
            switch module.cells[column](row) {
            case .null: sqlite3_result_null(context)
            case .integer(let number): sqlite3_result_int64(context, number)
            case .text(let text): sqlite3_result_text(context, text, -1, DumpDatabase.copied)
            }
        }
    }

    /// What SQLite holds; its own part comes first.
    private struct Table {
        var base = sqlite3_vtab()
        var module: Unmanaged<BulkModule>
    }

    private struct Cursor {
        var base = sqlite3_vtab_cursor()
        var scan: Unmanaged<Scan>
    }

    private static func scan(_ cursor: UnsafeMutablePointer<sqlite3_vtab_cursor>?) -> Scan {
        UnsafeMutableRawPointer(cursor!).assumingMemoryBound(to: Cursor.self).pointee.scan.takeUnretainedValue()
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
            place.initialize(to: Cursor(scan: .passRetained(Scan(module(table)))))
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
            scan(cursor).start(Plan(number), count > 0 ? arguments?[0] : nil)
            return SQLITE_OK
        }
        methods.xNext = { cursor in
            scan(cursor).advance()
            return SQLITE_OK
        }
        methods.xEof = { scan($0).isAtEnd ? 1 : 0 }
        methods.xColumn = { cursor, context, column in
            scan(cursor).give(Int(column), to: context)
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
