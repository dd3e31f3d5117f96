internal import CSQLite
import Dispatch

/// One connection to a database of the system's SQLite, which one thread uses at a time: the others wait for it.
///
/// As thin as it can be: what is bound and read stays where it lies, and a statement is compiled once.
public final class DatabaseQueue: @unchecked Sendable {
    public struct Configuration {
        /// Nothing of the file is changed, and it must be there.
        public var isReadOnly = false
        /// Has a write-ahead log, and full synchronisation, unless ``prepare`` says otherwise.
        public var hasLog = false
        /// How long to wait for another process that has the database.
        public var busySeconds = 0
        /// Called with the connection before anything is read.
        public var prepare: (Database) throws -> Void = { _ in }

        public init() {}
    }

    /// One thread at a time.
    private let turn = DispatchSemaphore(value: 1)
    private let database: Database

    /// - Parameter path: made if it is not there; nil for a database in memory.
    /// - Throws: ``DatabaseError``, and what ``Configuration/prepare`` throws.
    public init(path: String?, _ configuration: Configuration = Configuration()) throws {
        let flags = configuration.isReadOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
        database = try Database(path ?? ":memory:", flags | SQLITE_OPEN_NOMUTEX)
        let connection = database.connection
        sqlite3_busy_timeout(connection, Int32(configuration.busySeconds) * 1_000)
        try database.expect(arena_sqlite_refuse_quoted_texts(connection))
        try configuration.prepare(database)
        guard configuration.hasLog else { return }
        guard try database.text("PRAGMA journal_mode = WAL") == "wal" else {
            throw DatabaseError(SQLITE_ERROR, "it cannot have a write-ahead log here")
        }
    }

    /// Calls `body` with the connection.
    public func use<Result>(_ body: (Database) throws -> Result) throws -> Result {
        turn.wait()
        defer { turn.signal() }
        guard database.isOpen else { throw DatabaseError(SQLITE_MISUSE, "the database is closed") }
        return try body(database)
    }

    /// Calls `body`, for which nothing changes meanwhile, and which may change nothing.
    public func read<Result>(_ body: (Database) throws -> Result) throws -> Result {
        try use { database in
            guard sqlite3_db_readonly(database.connection, "main") != 1 else {
                return try database.transaction("BEGIN", body)
            }
            try database.run("PRAGMA query_only = 1")
            let result = Swift.Result { try database.transaction("BEGIN", body) }
            let isOver = Swift.Result { try database.run("PRAGMA query_only = 0") }
            let value = try result.get()
            try isOver.get()
            return value
        }
    }

    /// Calls `body`, all of whose changes are made, or none.
    public func write<Result>(_ body: (Database) throws -> Result) throws -> Result {
        try use { try $0.transaction("BEGIN IMMEDIATE", body) }
    }

    /// Ends what is being done with it. From any thread.
    public func interrupt() { sqlite3_interrupt(database.connection) }

    /// - Throws: ``DatabaseError`` if the log could not be taken into the database, or a statement of it is still there.
    public func close() throws {
        turn.wait()
        defer { turn.signal() }
        try database.close()
    }
}
