import GRDB
import GRDBSQLite

// Statements without an array of values for each row: bytes go to and from SQLite where they lie.

extension Database {
    /// Runs a statement, which is compiled once, and calls `row` with each row of its result.
    func step(
        _ sql: String, _ bind: (BoundStatement) -> Void = { _ in }, row: (OpaquePointer) throws -> Void
    ) throws {
        let handle = try cachedStatement(sql: sql).sqliteStatement
        defer {
            sqlite3_reset(handle)
            // What is bound belongs to the caller.
            sqlite3_clear_bindings(handle)
        }
        bind(BoundStatement(handle: handle))
        while true {
            switch sqlite3_step(handle) {
            case SQLITE_ROW: try row(handle)
            case SQLITE_DONE: return
            case let code:
                throw DatabaseError(
                    resultCode: ResultCode(rawValue: code), message: String(cString: sqlite3_errmsg(sqliteConnection)),
                    sql: sql)
            }
        }
    }
}

/// A statement whose parameters are being set: without a copy of the bytes, which outlive the step.
struct BoundStatement {
    let handle: OpaquePointer

    func bind(_ index: Int32, _ number: Int64?) {
        if let number { sqlite3_bind_int64(handle, index, number) } else { sqlite3_bind_null(handle, index) }
    }

    func bind(_ index: Int32, _ number: UInt64) { bind(index, Int64(bitPattern: number)) }

    func bind(_ entry: StoredEntry) {
        bind(1, entry.session)
        bind(2, entry.id)
    }

    func bind(_ index: Int32, _ piece: StoreBatch.Piece?, _ bytes: UnsafeRawBufferPointer) {
        guard let piece else { return bind(index, nil as Int64?) }
        // SQLite takes a nil pointer for NULL.
        guard piece.count > 0 else { return _ = sqlite3_bind_zeroblob(handle, index, 0) }
        sqlite3_bind_blob(handle, index, bytes.baseAddress! + piece.start, Int32(piece.count), nil)
    }

    /// A copy of it, which outlives the step.
    func bind(text index: Int32, _ text: String) { sqlite3_bind_text(handle, index, text, -1, Self.isTransient) }

    private static let isTransient = unsafeBitCast(-1, to: sqlite3_destructor_type.self)

    func bind(text index: Int32, _ piece: StoreBatch.Piece, _ bytes: UnsafeRawBufferPointer) {
        guard piece.count > 0 else { return _ = sqlite3_bind_text(handle, index, "", 0, nil) }
        let start = (bytes.baseAddress! + piece.start).assumingMemoryBound(to: CChar.self)
        sqlite3_bind_text(handle, index, start, Int32(piece.count), nil)
    }
}

/// A row of a result, while the statement stands on it.
struct StoredRow {
    let handle: OpaquePointer

    func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }
    func int(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }
    func optionalInt(_ column: Int32) -> Int64? { isNull(column) ? nil : int(column) }
    func number(_ column: Int32) -> UInt64 { UInt64(bitPattern: int(column)) }
    func bool(_ column: Int32) -> Bool { int(column) != 0 }

    /// The bytes of a blob or text, until the statement goes on.
    func bytes(_ column: Int32) -> UnsafeRawBufferPointer {
        let start = sqlite3_column_blob(handle, column)
        return UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(handle, column)))
    }

    func text(_ column: Int32) -> String { String(decoding: bytes(column), as: UTF8.self) }
}
