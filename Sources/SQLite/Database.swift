internal import CSQLite

/// A connection, in the hands of one thread at a time (``DatabaseQueue``).
public final class Database {
    /// `sqlite3 *`
    public let connection: OpaquePointer
    private var statements: [String: Statement] = [:]
    private(set) var isOpen = true

    init(_ path: String, _ flags: Int32) throws(DatabaseError) {
        var connection: OpaquePointer?
        let code = sqlite3_open_v2(path, &connection, flags, nil)
        guard let connection else { throw DatabaseError(SQLITE_NOMEM, "no memory for a connection") }
        self.connection = connection
        sqlite3_extended_result_codes(connection, 1)
        guard code == SQLITE_OK else {
            let error = DatabaseError(code, String(cString: sqlite3_errmsg(connection)))
            sqlite3_close_v2(connection)
            isOpen = false
            throw error
        }
    }

    deinit {
        statements = [:]
        // What is still being read from it goes first.
        if isOpen { sqlite3_close_v2(connection) }
    }

    func close() throws(DatabaseError) {
        guard isOpen else { return }
        statements = [:]
        try expect(sqlite3_close(connection))
        isOpen = false
    }

    /// - Throws: what SQLite says of the last call, unless that went well.
    public func expect(_ code: Int32, _ sql: String? = nil) throws(DatabaseError) {
        guard code != SQLITE_OK else { return }
        throw DatabaseError(code, String(cString: sqlite3_errmsg(connection)), sql)
    }

    // MARK: - Transactions

    func transaction<Result>(_ begin: String, _ body: (Database) throws -> Result) throws -> Result {
        try run(begin)
        do {
            let result = try body(self)
            try run("COMMIT")
            return result
        } catch {
            rollBack()
            throw error
        }
    }

    /// Calls `body`, and undoes what it has changed.
    public func undoing(_ body: (Database) throws -> Void) throws {
        try run("BEGIN")
        defer { rollBack() }
        try body(self)
    }

    /// After some errors SQLite has done so already.
    private func rollBack() {
        guard sqlite3_get_autocommit(connection) == 0 else { return }
        sqlite3_exec(connection, "ROLLBACK", nil, nil, nil)
    }

    /// Rows that the last statement has changed.
    public var changes: Int64 { Int64(sqlite3_changes(connection)) }
    /// Rows that all statements so far have changed.
    public var allChanges: Int64 { Int64(sqlite3_total_changes(connection)) }

    /// Takes all of the log into the database.
    public func checkpoint() throws(DatabaseError) {
        try expect(sqlite3_wal_checkpoint_v2(connection, nil, SQLITE_CHECKPOINT_FULL, nil, nil))
    }

    // MARK: - Statements

    /// The one statement of a text, compiled.
    public func prepare(_ sql: String) throws(DatabaseError) -> Statement {
        var sql = sql
        var (statement, code): (OpaquePointer?, Int32) = (nil, SQLITE_OK)
        var rest: OpaquePointer?
        sql.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) { characters in
                var tail: UnsafePointer<CChar>?
                code = sqlite3_prepare_v2(
                    connection, characters.baseAddress, Int32(clamping: characters.count), &statement, &tail)
                guard code == SQLITE_OK, let tail, let start = characters.baseAddress else { return }
                // White space and comments are no statement.
                let left = characters.count - (tail - start)
                if left > 0 { sqlite3_prepare_v2(connection, tail, Int32(clamping: left), &rest, nil) }
            }
        }
        try expect(code, sql)
        guard let statement else { throw DatabaseError(SQLITE_MISUSE, "the statement is empty", sql) }
        guard rest == nil else {
            sqlite3_finalize(rest)
            sqlite3_finalize(statement)
            throw DatabaseError(SQLITE_MISUSE, "there is more than one statement", sql)
        }
        return Statement(statement)
    }

    /// A statement that is kept for the next time.
    private func kept(_ sql: String) throws(DatabaseError) -> Statement {
        if let known = statements[sql] {
            // A row of it is being looked at further up.
            guard sqlite3_stmt_busy(known.handle) == 0 else { return try prepare(sql) }
            return known
        }
        let statement = try prepare(sql)
        statements[sql] = statement
        return statement
    }

    /// Runs a statement, which is compiled once.
    ///
    /// - Parameters:
    ///   - bind: binds its parameters, whose bytes must outlive the call.
    ///   - row: called with each row of its result.
    /// - Throws: ``DatabaseError``, and what `row` throws.
    public func run(
        _ sql: String, bind: (Statement) -> Void, row: (Row) throws -> Void = { _ in }
    ) throws {
        let statement = try kept(sql)
        defer { statement.reset() }
        bind(statement)
        try each(of: statement, row)
    }

    /// Runs a compiled statement, and calls `row` with each row of its result.
    public func each(of statement: Statement, _ row: (Row) throws -> Void) throws {
        while try step(statement) { try row(Row(statement.handle)) }
    }

    /// The same, with a value for each `?` in order, or for each `?1`.
    public func run(
        _ sql: String, _ values: [DatabaseValue] = [], row: (Row) throws -> Void = { _ in }
    ) throws {
        try run(sql, bind: { $0.bind(values) }, row: row)
    }

    /// - Returns: whether there is a row.
    private func step(_ statement: Statement) throws(DatabaseError) -> Bool {
        switch sqlite3_step(statement.handle) {
        case SQLITE_ROW: return true
        case SQLITE_DONE: return false
        case let code:
            try expect(code, String(cString: sqlite3_sql(statement.handle)))
            return false
        }
    }

    /// Runs statements without parameters, one after the other.
    public func execute(_ script: String) throws(DatabaseError) {
        try expect(sqlite3_exec(connection, script, nil, nil, nil), script)
    }

    // MARK: - Small answers

    /// The first column of each row.
    public func values(_ sql: String, _ values: [DatabaseValue] = []) throws -> [DatabaseValue] {
        var found: [DatabaseValue] = []
        try run(sql, values) { found.append($0[0]) }
        return found
    }

    /// The first column of each row, where that is a number.
    public func integers(_ sql: String, _ values: [DatabaseValue] = []) throws -> [Int64] {
        try self.values(sql, values).compactMap(\.integer)
    }

    public func integer(_ sql: String, _ values: [DatabaseValue] = []) throws -> Int64? {
        try integers(sql, values).first
    }

    /// The first column of each row, where that is a text.
    public func texts(_ sql: String, _ values: [DatabaseValue] = []) throws -> [String] {
        try self.values(sql, values).compactMap(\.text)
    }

    public func text(_ sql: String, _ values: [DatabaseValue] = []) throws -> String? { try texts(sql, values).first }

    /// The names of a table's columns; none if it is not there.
    public func columns(of table: String) throws -> [String] {
        try texts("SELECT name FROM pragma_table_info(?)", [.text(table)])
    }
}
