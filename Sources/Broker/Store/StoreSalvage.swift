import GRDB

/// Copies the rows of a damaged database that can be read into a new one.
///
/// A page that cannot be read ends a scan of its table, so each table is read from both ends, and what lies between is asked for row
/// by row, by the keys that other trees of the database name. From these follows also what is missing.
struct StoreSalvage {
    /// What could not be read.
    struct Result {
        /// Messages, by the client of their session.
        var missing: [(client: String, messages: Int)] = []
        /// The clients of sessions of which the row, or a subscription, or the state of QoS 2, is missing: half a session is worse
        /// than none, since its client would believe that it is subscribed.
        var lostSessions: [String] = []
        var areWillsMissing = false
    }

    private let old: Database
    private let new: Database
    private var result = Result()
    /// Sessions of which not all could be read.
    private var torn: Set<Int64> = []

    static func run(from old: Database, to new: Database) throws -> Result {
        var salvage = StoreSalvage(old: old, new: new)
        for table in tables { try salvage.copy(table) }
        try salvage.settle()
        return salvage.result
    }

    private init(old: Database, new: Database) { (self.old, self.new) = (old, new) }

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

    private mutating func copy(_ table: Table) throws {
        let ascending = table.key.map { "\($0) ASC" }.joined(separator: ", ")
        guard try !copyRows(of: table, "ORDER BY \(ascending)") else { return }
        let descending = table.key.map { "\($0) DESC" }.joined(separator: ", ")
        _ = try copyRows(of: table, "ORDER BY \(descending)")
        let conditions = table.key.map { "\($0) = ?" }.joined(separator: " AND ")
        try eachKey(of: table) { _ = try copyRows(of: table, "WHERE \(conditions)", $0) }
        if table.name == "will" { result.areWillsMissing = true }
        // These have no other tree, but a session's rows lie together.
        guard ["subscription", "receipt"].contains(table.name) else { return }
        for session in try Int64.fetchAll(new, sql: "SELECT id FROM session") {
            let key = [session.databaseValue]
            if try !copyRows(of: table, "WHERE session = ? ORDER BY \(ascending)", key) { torn.insert(session) }
        }
    }

    /// The keys of a table's rows as other trees have them.
    private func eachKey(of table: Table, _ body: ([DatabaseValue]) throws -> Void) throws {
        switch table.name {
        case "session":
            try eachFromBothEnds("SELECT id FROM session INDEXED BY sqlite_autoindex_session_1 ORDER BY client", body)
        case "message":
            try eachFromBothEnds(
                "SELECT message FROM entry INDEXED BY entry_message WHERE message IS NOT NULL ORDER BY message", body)
        case "entry": try eachFromBothEnds(Self.entryKeys, body)
        case "will": for id in try DatabaseValue.fetchAll(new, sql: "SELECT id FROM session") { try body([id]) }
        case "retained":
            try eachFromBothEnds(
                "SELECT rowid FROM retained INDEXED BY sqlite_autoindex_retained_1 ORDER BY topic", body)
        default: break
        }
    }

    private static let entryKeys = """
        SELECT session, id FROM entry INDEXED BY entry_message WHERE message IS NOT NULL ORDER BY message
        """

    /// The rows of a result up to the first that cannot be read, from both of its ends: some of them twice. The order is the last
    /// word of the query.
    private func eachFromBothEnds(_ sql: String, _ body: ([DatabaseValue]) throws -> Void) throws {
        if try !each(sql, [], { try body(Array($0.databaseValues)) }) {
            _ = try each(sql + " DESC", [], { try body(Array($0.databaseValues)) })
        }
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
            // Those with arguments are asked again and again, and never while they are being read.
            let statement = try arguments.isEmpty ? old.makeStatement(sql: sql) : old.cachedStatement(sql: sql)
            let cursor = try Row.fetchCursor(statement, arguments: StatementArguments(arguments))
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
        // Of which the key is known, by another tree, and nothing else.
        var sessions: Set<String> = []
        try eachFromBothEnds("SELECT client FROM session INDEXED BY sqlite_autoindex_session_1 ORDER BY client") {
            key in
            guard let name = key.first.flatMap({ String.fromDatabaseValue($0) }) else { return }
            let isThere = try Bool.fetchOne(
                new, sql: "SELECT EXISTS (SELECT 1 FROM session WHERE client = ?)", arguments: [name])
            if isThere != true { sessions.insert(name) }
        }
        for session in torn {
            let name = try String.fetchOne(new, sql: "SELECT client FROM session WHERE id = ?", arguments: [session])
            if let name { sessions.insert(name) }
            for table in ["subscription", "receipt", "will", "entry"] {
                try new.execute(sql: "DELETE FROM \(table) WHERE session = ?", arguments: [session])
            }
            try new.execute(sql: "DELETE FROM session WHERE id = ?", arguments: [session])
        }
        result.lostSessions = sessions.sorted()
        try new.execute(sql: "CREATE TEMP TABLE lost (session, id, PRIMARY KEY (session, id)) WITHOUT ROWID")
        try eachFromBothEnds(Self.entryKeys) { key in
            try new.execute(
                sql: """
                    INSERT OR IGNORE INTO temp.lost SELECT ?1, ?2 WHERE NOT EXISTS (
                        SELECT 1 FROM entry JOIN message ON message.id = entry.message WHERE session = ?1 AND entry.id = ?2)
                    """, arguments: StatementArguments(key))
        }
        let rows = try Row.fetchAll(
            new,
            sql: """
                SELECT session.client, count(*) FROM temp.lost LEFT JOIN session ON session.id = lost.session
                GROUP BY lost.session ORDER BY count(*) DESC, session.client
                """)
        result.missing = rows.map { ($0[0] ?? "of a session that is unknown", $0[1]) }
        try new.execute(sql: "DROP TABLE temp.lost")
        try new.execute(
            sql: """
                DELETE FROM session WHERE id > \(StoreSchema.lastNumber);
                DELETE FROM message WHERE id > \(StoreSchema.lastNumber);
                DELETE FROM entry WHERE id > \(StoreSchema.lastNumber);
                UPDATE OR REPLACE retained SET topic = CAST(topic AS BLOB) WHERE typeof(topic) <> 'blob';
                DELETE FROM entry WHERE message IS NOT NULL AND message NOT IN (SELECT id FROM message);
                DELETE FROM message WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.message = message.id)
                """)
    }
}
