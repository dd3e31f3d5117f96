internal import CSQLite

/// What SQLite says went wrong. https://www.sqlite.org/rescode.html
public struct DatabaseError: Error, CustomStringConvertible {
    /// The primary one: `SQLITE_CORRUPT`, `SQLITE_FULL`, ...
    public let code: Int32
    /// In SQLite's words, or those of whoever throws it.
    public let message: String
    /// The statement, where there was one.
    public let sql: String?

    public init(_ code: Int32, _ message: String, _ sql: String? = nil) {
        (self.code, self.message, self.sql) = (code & 0xff, message, sql)
    }

    /// Of what is in a file and cannot be.
    public static func corrupt(_ message: String) -> DatabaseError { DatabaseError(SQLITE_CORRUPT, message) }

    /// Whether a file is damaged, or none of SQLite's.
    public var isCorrupt: Bool { code == SQLITE_CORRUPT || code == SQLITE_NOTADB }
    /// Whether the disk, or whatever is in its place, did not do what it was told.
    public var isIO: Bool { code == SQLITE_IOERR }
    public var isBusy: Bool { code == SQLITE_BUSY || code == SQLITE_LOCKED }
    public var isInterrupt: Bool { code == SQLITE_INTERRUPT }
    public var isReadOnly: Bool { code == SQLITE_READONLY }

    public var description: String { "\(message) (SQLite: \(String(cString: sqlite3_errstr(code))))" }
}
