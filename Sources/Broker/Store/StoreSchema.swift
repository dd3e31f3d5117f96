import SQLite
import Glibc
import Ledger

/// The database file under the data directory: its tables, and what is refused at the start.
///
/// A write-ahead log with a full synchronisation at each commit: what is committed outlives the power too. Whoever reads
/// does not wait for who writes.
enum StoreSchema {
    static let fileName = "arena-broker.sqlite"
    /// "ARBR": tells our file from others.
    private static let applicationID: Int64 = 0x4152_4252
    /// Raised by every change of the tables.
    static let version: Int64 = 4
    /// From here on a store says what is in it (``StoreState``), and that is sealed.
    static let firstLayoutWithState: Int64 = 3
    /// From here on rows that are written have a checksum (``RowChecksum``).
    static let firstLayoutWithChecksums: Int64 = 4
    /// What SQLite makes of a new file before the first table.
    private static let emptyBytes = 4_096

    /// The files of a database; the last one only while it is made.
    static let fileNames = [fileName, "\(fileName)-wal", "\(fileName)-shm", "\(fileName)-journal"]

    /// Of an entry: whether, its session gone, another member of a shared subscription may get the message. QoS 2 that was
    /// sent is its client's alone (MQTT-4.8.2-5).
    static let isShared = "share IS NOT NULL AND message IS NOT NULL AND (serial IS NULL OR qos <> 2)"

    /// Whether a directory can be used, or made, without making it.
    ///
    /// - Parameter isMade: whether it has to be there.
    /// - Throws: `StartError`.
    static func check(directory: String, isMade: Bool = false) throws(StartError) {
        func failure(_ reason: String) -> StartError { StartError("data directory \(directory): \(reason)") }
        guard let status = FileStatus(directory) else {
            guard errno == ENOENT, !isMade else { throw failure(SystemError.text()) }
            guard !FileStatus.isDanglingLink(directory) else {
                throw failure("a symbolic link that leads nowhere; make the directory that it names")
            }
            let parent = FileStatus.parent(of: directory)
            guard let reason = FileStatus.whyNotWritable(parent) else { return }
            throw failure("it cannot be made in \(parent): \(reason)")
        }
        guard status.isDirectory else { throw failure("not a directory") }
        guard access(directory, R_OK | W_OK | X_OK) == 0 else { throw failure(SystemError.text()) }
        // Of an earlier run, perhaps as another user.
        for name in fileNames + [StoreSeal.fileName] {
            let path = "\(directory)/\(name)"
            guard let status = FileStatus(path, followsLinks: false) else { continue }
            guard status.isRegularFile else { throw StartError("\(path): not a regular file; move it away") }
            guard access(path, R_OK | W_OK) == 0 else { throw StartError("\(path): \(SystemError.text())") }
        }
    }

    /// Opens the database for the one who writes, and makes it if there is none.
    ///
    /// - Throws: `StartError` if the file is not ours, newer, damaged or in use.
    static func open(_ path: String) throws(StartError) -> DatabaseQueue {
        do {
            var configuration = DatabaseQueue.Configuration()
            configuration.hasLog = true
            // Others may look at the file, and write to it for a moment.
            configuration.busySeconds = 5
            configuration.prepare = RowChecksum.install
            let writer = try DatabaseQueue(path: path, configuration)
            try writer.use { database in
                try database.execute("PRAGMA synchronous = FULL")
                // A log that has grown while somebody read does not stay so large.
                try database.execute("PRAGMA journal_size_limit = \(64 << 20)")
            }
            try writer.write { database in try prepare(database, path) }
            // Tables stand in the database from the first, so that it says what it is without its log.
            if FileStatus(path)?.size == emptyBytes {
                try writer.use { try $0.checkpoint() }
            }
            return writer
        } catch let error as StartError {
            throw error
        } catch {
            throw failure(error, path)
        }
    }

    /// Ends what was interrupted while a database was made: until it has a write-ahead log, it has a journal, which whoever only
    /// reads cannot roll back. Nobody else has the directory.
    ///
    /// - Throws: `StartError`, but not for damage: whoever looks at it next says what is wrong with it.
    static func rollBack(_ path: String) throws(StartError) {
        guard FileStatus(path + "-journal") != nil else { return }
        do {
            let queue = try DatabaseQueue(path: path)
            try queue.read { _ = try $0.integer("PRAGMA user_version") }
            try queue.close()
        } catch {
            guard let error = error as? DatabaseError, StoreDamage.isDamage(error) else { throw failure(error, path) }
        }
    }

    /// Opens a database to look at it: nothing of it is changed, whatever state it is in.
    static func openToRead(_ path: String) throws -> DatabaseQueue {
        var configuration = DatabaseQueue.Configuration()
        configuration.isReadOnly = true
        configuration.busySeconds = 5
        configuration.prepare = RowChecksum.install
        return try DatabaseQueue(path: path, configuration)
    }

    /// What is said of an error at the start.
    static func failure(_ error: any Error, _ path: String) -> StartError {
        if let error = error as? StartError { return error }
        guard let error = error as? DatabaseError else { return StartError("\(path): \(error)") }
        if error.isBusy { return StartError("\(path): in use by another process; one broker a data directory") }
        if StoreDamage.isDamage(error) {
            return StartError("\(path): damaged (\(error.message)); \(StoreDamage.wayOut)")
        }
        return StartError("\(path): \(error.message)")
    }

    /// Makes the tables, or brings them up to date.
    static func prepare(_ database: Database, _ path: String) throws {
        let application = try database.integer("PRAGMA application_id") ?? 0
        let found = try database.integer("PRAGMA user_version") ?? 0
        if application == 0, found == 0, try database.integer("SELECT count(*) FROM sqlite_schema") == 0 {
            return try create(in: database)
        }
        guard application == applicationID else { throw StartError("\(path): a database of another program") }
        guard found <= version else {
            throw StartError("\(path): written by a newer arena-broker (layout \(found), this one knows \(version))")
        }
        // From 1: a will knows when it is due.
        if found < 2 { try database.execute("ALTER TABLE will ADD COLUMN due INTEGER") }
        // From 2: times are by the store's clock, which begins with the wall clock, as they were. A life is as long as is left of it.
        if found < 3 {
            try database.execute("ALTER TABLE message ADD COLUMN life INTEGER")
            try database.execute("ALTER TABLE retained ADD COLUMN life INTEGER")
            try database.execute(stateTable)
            try StoreState.make(in: database)
            // A clock that is behind what is written there already has not been set yet.
            let now = max(StoreClock(after: nil).now, FileStatus(path)?.modified ?? 0)
            try database.run("UPDATE state SET time = ?", [.integer(now)])
            for table in ["message", "retained"] {
                try database.run(
                    "UPDATE \(table) SET life = max(0, expires - ?) WHERE expires IS NOT NULL", [.integer(now)])
            }
        }
        // From 3: what is there stays without a checksum until it is written again.
        if found < 4 {
            for (table, _) in RowChecksum.columns {
                // Unless the number of the layout is what is wrong.
                guard try !database.columns(of: table).contains("checksum") else { continue }
                try database.execute("ALTER TABLE \(table) ADD COLUMN checksum INTEGER")
            }
        }
        if found < version { try database.execute("PRAGMA user_version = \(version)") }
    }

    /// The layout of a database; nil for one of another program, and for one without anything in it.
    static func layout(of database: Database) throws -> Int64? {
        guard try database.integer("PRAGMA application_id") == applicationID else { return nil }
        return try database.integer("PRAGMA user_version")
    }

    static func create(in database: Database) throws {
        for statement in tables { try database.execute(statement) }
        try StoreState.make(in: database)
        try database.execute("PRAGMA application_id = \(applicationID); PRAGMA user_version = \(version)")
    }

    /// Numbers of rows are below: no broker runs for so long, and more could not be counted on.
    static let lastNumber: Int64 = 1 << 62

    static let tableNames = [
        "state", "session", "subscription", "message", "entry", "receipt", "will", "retained",
    ]

    /// One row: which store it is, how much is in it, and the clocks at its last transaction (``StoreState``).
    private static let stateTable = """
        CREATE TABLE state (
            store BLOB NOT NULL, transactions INTEGER NOT NULL, sessions INTEGER NOT NULL, messages INTEGER NOT NULL,
            retained INTEGER NOT NULL, time INTEGER NOT NULL, boot TEXT NOT NULL, uptime INTEGER NOT NULL,
            wall INTEGER NOT NULL
        )
        """

    /// Numbers of sessions, messages and entries: ``Store/takeNumbers(_:)``. Times are milliseconds by the store's clock
    /// (``StoreClock``); no time is never. A life is what was left until then when it was written: more is never left. Blobs are
    /// bytes as they were sent.
    static let tables = [
        stateTable,
        // The user name and the name of the listener say what the client may do while it is away.
        """
        CREATE TABLE session (
            id INTEGER PRIMARY KEY, client TEXT NOT NULL UNIQUE, expiry INTEGER NOT NULL, ends INTEGER, user TEXT,
            listener TEXT NOT NULL, checksum INTEGER
        )
        """,
        """
        CREATE TABLE subscription (
            session INTEGER NOT NULL, filter TEXT NOT NULL, qos INTEGER NOT NULL, no_local INTEGER NOT NULL,
            retain_as_published INTEGER NOT NULL, identifier INTEGER NOT NULL, checksum INTEGER,
            PRIMARY KEY (session, filter)
        ) WITHOUT ROWID
        """,
        """
        CREATE TABLE message (
            id INTEGER PRIMARY KEY, topic BLOB NOT NULL, properties BLOB, payload BLOB NOT NULL, expires INTEGER,
            life INTEGER, checksum INTEGER
        )
        """,
        // Without a message: a QoS 2 identifier that waits for PUBCOMP. With a serial: in the inflight window. The share
        // is the shared subscription that it came by.
        """
        CREATE TABLE entry (
            session INTEGER NOT NULL, id INTEGER NOT NULL, message INTEGER, qos INTEGER NOT NULL,
            retain INTEGER NOT NULL, identifiers BLOB, serial INTEGER, share TEXT, PRIMARY KEY (session, id)
        ) WITHOUT ROWID
        """,
        "CREATE INDEX entry_message ON entry (message) WHERE message IS NOT NULL",
        "CREATE TABLE receipt (session INTEGER NOT NULL, packet INTEGER NOT NULL, PRIMARY KEY (session, packet)) WITHOUT ROWID",
        """
        CREATE TABLE will (
            session INTEGER PRIMARY KEY, topic BLOB NOT NULL, properties BLOB, payload BLOB NOT NULL,
            qos INTEGER NOT NULL, retain INTEGER NOT NULL, delay INTEGER NOT NULL, expiry INTEGER, due INTEGER,
            checksum INTEGER
        )
        """,
        """
        CREATE TABLE retained (
            topic BLOB PRIMARY KEY, properties BLOB, payload BLOB NOT NULL, qos INTEGER NOT NULL, expires INTEGER,
            life INTEGER, checksum INTEGER
        )
        """,
    ]
}
