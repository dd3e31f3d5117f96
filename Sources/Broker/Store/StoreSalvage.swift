import GRDB

/// Copies the rows of a damaged database that can be read into a new one.
///
/// A page that cannot be read ends a scan of its table, so each table is read from both ends, and what lies between is asked for row
/// by row, by the keys that other trees of the database name. From these follows also what is missing.
struct StoreSalvage {
    private let old: Database
    private let new: Database
    private(set) var missing: [(client: String, messages: Int)] = []
    private(set) var lostSessions: [String] = []

    init(from old: Database, to new: Database) { (self.old, self.new) = (old, new) }

    private struct Table {
        let name: String
        let columns: [String]
        /// Its rows are in the order of these.
        let key: [String]
    }

    private static let tables = [
        Table(name: "session", columns: ["id", "client", "expiry", "ends", "user", "listener"], key: ["id"]),
        Table(
            name: "subscription",
            columns: ["session", "filter", "qos", "no_local", "retain_as_published", "identifier"],
            key: ["session", "filter"]),
        Table(name: "message", columns: ["id", "topic", "properties", "payload", "expires", "life"], key: ["id"]),
        Table(
            name: "entry",
            columns: ["session", "id", "message", "qos", "retain", "identifiers", "serial", "share"],
            key: ["session", "id"]),
        Table(name: "receipt", columns: ["session", "packet"], key: ["session", "packet"]),
        Table(
            name: "will",
            columns: ["session", "topic", "properties", "payload", "qos", "retain", "delay", "expiry", "due"],
            key: ["session"]),
        Table(
            name: "retained", columns: ["topic", "properties", "payload", "qos", "expires", "life"], key: ["rowid"]),
    ]

    mutating func run() throws {
        for table in Self.tables { try copy(table) }
        try settle()
    }

    private func copy(_ table: Table) throws {
        let ascending = table.key.map { "\($0) ASC" }.joined(separator: ", ")
        guard try !copyRows(of: table, "ORDER BY \(ascending)") else { return }
        let descending = table.key.map { "\($0) DESC" }.joined(separator: ", ")
        _ = try copyRows(of: table, "ORDER BY \(descending)")
        let conditions = table.key.map { "\($0) = ?" }.joined(separator: " AND ")
        for key in try keys(of: table) { _ = try copyRows(of: table, "WHERE \(conditions)", key) }
        // These have no other tree, but a session's rows lie together.
        guard ["subscription", "receipt"].contains(table.name) else { return }
        for session in try DatabaseValue.fetchAll(new, sql: "SELECT id FROM session") {
            for order in [ascending, descending] {
                _ = try copyRows(of: table, "WHERE session = ? ORDER BY \(order)", [session])
            }
        }
    }

    /// The keys of a table's rows as other trees have them.
    private func keys(of table: Table) throws -> [[DatabaseValue]] {
        switch table.name {
        case "session": try values("SELECT id FROM session INDEXED BY sqlite_autoindex_session_1 ORDER BY client")
        case "message":
            try values("SELECT message FROM entry INDEXED BY entry_message WHERE message IS NOT NULL ORDER BY message")
        case "entry":
            try values(
                """
                SELECT session, id FROM entry INDEXED BY entry_message WHERE message IS NOT NULL ORDER BY message
                """)
        case "will": try DatabaseValue.fetchAll(new, sql: "SELECT id FROM session").map { [$0] }
        case "retained":
            try values("SELECT rowid FROM retained INDEXED BY sqlite_autoindex_retained_1 ORDER BY topic")
        default: []
        }
    }

    /// What can be read of a query's result from both of its ends. The order is the last word of the query.
    private func values(_ sql: String) throws -> [[DatabaseValue]] {
        var (found, isWhole) = try rows(sql, [])
        if !isWhole { found += try rows(sql + " DESC", []).rows }
        return found
    }

    /// - Returns: the rows up to the first that cannot be read, and whether these are all.
    private func rows(_ sql: String, _ arguments: [DatabaseValue]) throws -> (rows: [[DatabaseValue]], isWhole: Bool) {
        var rows: [[DatabaseValue]] = []
        let isWhole = try each(sql, arguments) { rows.append(Array($0.databaseValues)) }
        return (rows, isWhole)
    }

    /// - Returns: false if the result ended at a row that cannot be read.
    private func copyRows(of table: Table, _ rest: String, _ arguments: [DatabaseValue] = []) throws -> Bool {
        let columns = table.columns.joined(separator: ", ")
        let places = Array(repeating: "?", count: table.columns.count).joined(separator: ", ")
        let insert = try new.cachedStatement(
            sql: "INSERT OR IGNORE INTO \(table.name) (\(columns)) VALUES (\(places))")
        return try each("SELECT \(columns) FROM \(table.name) \(rest)", arguments) { row in
            try insert.execute(arguments: StatementArguments(row.databaseValues))
        }
    }

    /// - Returns: false if a row could not be read.
    private func each(_ sql: String, _ arguments: [DatabaseValue], _ body: (Row) throws -> Void) throws -> Bool {
        do {
            let cursor = try Row.fetchCursor(old, sql: sql, arguments: StatementArguments(arguments))
            while let row = try cursor.next() {
                // What is written to the new one fails for other reasons.
                do { try body(row) } catch { throw StoreFileError("\(error)") }
            }
            return true
        } catch is DatabaseError {
            return false
        }
    }

    /// Leaves out what refers to something that could not be read, and counts it.
    private mutating func settle() throws {
        var lost: [String: Int] = [:]
        func lose(_ client: String?) { lost[client ?? "of a session that is unknown", default: 0] += 1 }
        // Of which the key is known, by another tree, and nothing else.
        let names = try values("SELECT client FROM session INDEXED BY sqlite_autoindex_session_1 ORDER BY client")
        for name in names.compactMap({ $0.first.flatMap { String.fromDatabaseValue($0) } }) {
            let isThere = try Bool.fetchOne(
                new, sql: "SELECT EXISTS (SELECT 1 FROM session WHERE client = ?)", arguments: [name])
            if isThere != true { lostSessions.append(name) }
        }
        let known = try values(
            "SELECT session, id FROM entry INDEXED BY entry_message WHERE message IS NOT NULL ORDER BY message")
        for key in known {
            let found = try Row.fetchOne(
                new,
                sql: """
                    SELECT (SELECT client FROM session WHERE id = ?1), (SELECT message FROM entry WHERE session = ?1 AND id = ?2),
                        EXISTS (SELECT 1 FROM entry JOIN message ON message.id = entry.message WHERE session = ?1 AND entry.id = ?2)
                    """, arguments: StatementArguments(key))
            guard let found, found[2] == false else { continue }
            lose(found[0])
        }
        missing = lost.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { ($0.key, $0.value) }
        try new.execute(
            sql: """
                DELETE FROM entry WHERE message IS NOT NULL AND message NOT IN (SELECT id FROM message);
                DELETE FROM message WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.message = message.id)
                """)
    }
}
