import SQLite

/// Copies the rows of a damaged database that can be read into a new one, and finds out what is missing by what other trees of
/// the database say of it.
struct StoreSalvage {
    /// What could not be read.
    struct Result {
        /// Messages, by the client of their session.
        var missing: [(client: String, messages: Int)] = []
        /// The clients of sessions of which the row, or a subscription, or the state of QoS 2, is missing: half a session is
        /// worse than none, since its client would believe that it is subscribed.
        var lostSessions: [String] = []
        var areWillsMissing = false
    }

    private let old: Database
    private let new: Database
    private var result = Result()
    /// Sessions of which not all could be read.
    private var torn: Set<Int64> = []
    /// Sessions whose row is not as it was written.
    private var changedSessions: Set<Int64> = []

    static func run(from old: Database, to new: Database) throws -> Result {
        var salvage = StoreSalvage(old: old, new: new)
        for table in tables { try salvage.copy(table) }
        try salvage.askForMissing()
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
        Table(
            name: "session", columns: ["id", "client", "expiry", "ends", "user", "listener", "checksum"], key: ["id"]),
        Table(
            name: "subscription",
            columns: ["session", "filter", "qos", "no_local", "retain_as_published", "identifier", "checksum"],
            key: ["session", "filter"]),
        Table(
            name: "message", columns: ["id", "topic", "properties", "payload", "expires", "life", "checksum"],
            key: ["id"]),
        Table(
            name: "entry",
            columns: ["session", "id", "message", "qos", "retain", "identifiers", "serial", "share"],
            key: ["session", "id"]),
        Table(name: "receipt", columns: ["session", "packet"], key: ["session", "packet"]),
        Table(
            name: "will",
            columns: [
                "session", "topic", "properties", "payload", "qos", "retain", "delay", "expiry", "due", "checksum",
            ],
            key: ["session"]),
        Table(
            name: "retained", columns: ["topic", "properties", "payload", "qos", "expires", "life", "checksum"],
            key: ["rowid"]),
    ]

    /// What layouts after the first have more.
    private static let laterColumns: Set<String> = ["due", "life", "checksum"]

    /// The way of one table's rows from the old database into the new one.
    private struct Way {
        let table: Table
        /// The key's columns, whether the row is another than was written, and what is copied.
        let select: String
        let insert: String

        /// - Returns: nil for a table that is not there, or has not all of its columns.
        init?(_ table: Table, from old: Database, to new: Database) throws {
            let there = Set((try? old.columns(of: table.name)) ?? [])
            guard table.columns.allSatisfy({ there.contains($0) || StoreSalvage.laterColumns.contains($0) }) else {
                return nil
            }
            let columns = table.columns.filter { there.contains($0) }
            let names = columns.joined(separator: ", ")
            let places = columns.map { _ in "?" }.joined(separator: ", ")
            let isChanged = there.contains("checksum") ? RowChecksum.isWrong(in: table.name) ?? "0" : "0"
            self.table = table
            select = "SELECT \(table.key.joined(separator: ", ")), \(isChanged), \(names) FROM \(table.name) WHERE"
            insert = "INSERT OR IGNORE INTO \(table.name) (\(names)) VALUES (\(places))"
        }
    }

    private mutating func copy(_ table: Table) throws {
        guard let way = try Way(table, from: old, to: new) else {
            if table.name == "will" { result.areWillsMissing = true }
            if ["subscription", "receipt"].contains(table.name) {
                torn.formUnion(try new.integers("SELECT id FROM session"))
            }
            return
        }
        let scan = LeapingScan(
            select: way.select, key: table.key, places: Array(table.key.indices), database: old)
        guard try !scan.read({ try copyRow($0, way) }) else { return }
        if table.name == "will" { result.areWillsMissing = true }
        guard table.key.count > 1 else { return }
        // A page that is damaged ends what is read of a session, but its other rows are asked for by their own numbers.
        let sessions = "SELECT id FROM session UNION SELECT session FROM \(table.name)"
        for session in try new.integers(sessions) {
            if table.name == "entry" {
                let ofSession = LeapingScan(
                    select: "\(way.select) session = ? AND", values: [.integer(session)], key: ["id"], places: [1],
                    database: old)
                _ = try ofSession.read { try copyRow($0, way) }
            } else if try !copyRows(way, "session = ?", [.integer(session)]) {
                torn.insert(session)
            }
        }
    }

    private mutating func copyRows(_ way: Way, _ condition: String, _ values: [DatabaseValue]) throws -> Bool {
        try old.eachReadableRow("\(way.select) \(condition)", values) { row in
            try copyRow(row, way)
            return true
        }
    }

    /// Leaves out a row that is not as it was written. The session of such a one is named by the index.
    private mutating func copyRow(_ row: Row, _ way: Way) throws {
        let (values, keys) = (row.values, way.table.key.count)
        guard values[keys] != .integer(0) else { return try new.run(way.insert, Array(values.dropFirst(keys + 1))) }
        switch way.table.name {
        case "session": if let id = values[0].integer { changedSessions.insert(id) }
        case "subscription": if let session = values[0].integer { torn.insert(session) }
        case "will": result.areWillsMissing = true
        default: break
        }
    }

    /// What other trees name and the scans have leapt over: a page that can be read between several that cannot.
    private mutating func askForMissing() throws {
        let table = { (name: String) in Self.tables.first { $0.name == name }! }
        if let way = try Way(table("entry"), from: old, to: new) {
            let isThere = "SELECT EXISTS (SELECT 1 FROM entry WHERE session = ? AND id = ?)"
            var keys: [(DatabaseValue, DatabaseValue)] = []
            try eachEntryOfIndex { row in
                if try new.integer(isThere, [row[1], row[2]]) == 0 { keys.append((row[1], row[2])) }
            }
            for (session, id) in keys { _ = try copyRows(way, "session = ? AND id = ?", [session, id]) }
        }
        if let way = try Way(table("message"), from: old, to: new) {
            let missing = "SELECT DISTINCT message FROM entry WHERE message NOT IN (SELECT id FROM message)"
            for id in try new.integers(missing) { _ = try copyRows(way, "id = ?", [.integer(id)]) }
        }
    }

    /// The entries of sessions as the index names them: `message`, `session`, `id`.
    private func eachEntryOfIndex(_ body: (Row) throws -> Void) throws {
        let select = "SELECT message, session, id FROM entry INDEXED BY entry_message WHERE message IS NOT NULL AND"
        let scan = LeapingScan(
            select: select, key: ["message", "session", "id"], places: [0, 1, 2], database: old)
        _ = try scan.read(body)
    }

    /// The clients of sessions as the index names them.
    private func eachClientOfIndex(_ body: (String) throws -> Void) throws {
        let select = "SELECT client FROM session INDEXED BY sqlite_autoindex_session_1 ORDER BY client"
        for order in ["ASC", "DESC"] {
            let isWhole = try old.eachReadableRow("\(select) \(order)") { row in
                guard let client = row[0].text else { return false }
                try body(client)
                return true
            }
            if isWhole { return }
        }
    }

    private func removeSessionRecord(of session: Int64) throws {
        for table in ["subscription", "receipt", "will"] {
            try new.run("DELETE FROM \(table) WHERE session = ?", [.integer(session)])
        }
        // The others are for another member of the group.
        try new.run("DELETE FROM entry WHERE session = ? AND NOT (\(StoreSchema.isShared))", [.integer(session)])
    }

    /// Leaves out what refers to something that could not be read, and counts it.
    private mutating func settle() throws {
        for session in changedSessions { try removeSessionRecord(of: session) }
        // Of which the key is known, by another tree, and nothing else.
        var sessions: Set<String> = []
        try eachClientOfIndex { name in
            let isThere = try new.integer("SELECT EXISTS (SELECT 1 FROM session WHERE client = ?)", [.text(name)])
            if isThere == 0 { sessions.insert(name) }
        }
        for session in torn {
            let name = try new.text("SELECT client FROM session WHERE id = ?", [.integer(session)])
            if let name { sessions.insert(name) }
            try removeSessionRecord(of: session)
            try new.run("DELETE FROM session WHERE id = ?", [.integer(session)])
        }
        result.lostSessions = sessions.sorted()
        try new.execute("CREATE TEMP TABLE lost (session, id, PRIMARY KEY (session, id)) WITHOUT ROWID")
        try eachEntryOfIndex { row in
            try new.run(
                """
                INSERT OR IGNORE INTO temp.lost SELECT ?1, ?2 WHERE NOT EXISTS (
                    SELECT 1 FROM entry JOIN message ON message.id = entry.message WHERE session = ?1 AND entry.id = ?2)
                """, [row[1], row[2]])
        }
        var missing: [(client: String, messages: Int)] = []
        try new.run(
            """
            SELECT session.client, count(*) FROM temp.lost LEFT JOIN session ON session.id = lost.session
            GROUP BY lost.session ORDER BY count(*) DESC, session.client
            """
        ) { row in
            missing.append((row[0].text ?? "of a session that is unknown", Int(row.int(1))))
        }
        result.missing = missing
        try new.execute("DROP TABLE temp.lost")
        try new.execute(
            """
            DELETE FROM session WHERE id > \(StoreSchema.lastNumber);
            DELETE FROM message WHERE id > \(StoreSchema.lastNumber);
            DELETE FROM entry WHERE id > \(StoreSchema.lastNumber);
            UPDATE OR REPLACE retained SET topic = CAST(topic AS BLOB) WHERE typeof(topic) <> 'blob';
            DELETE FROM entry WHERE message IS NOT NULL AND message NOT IN (SELECT id FROM message);
            DELETE FROM message WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.message = message.id)
            """)
    }
}
