import GRDB

/// Copies the rows of a damaged database that can be read into a new one, and finds out what is missing by what other trees of the
/// database say of it.
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

    private mutating func copy(_ table: Table) throws {
        // An earlier layout has fewer.
        let there = Set((try? old.columns(in: table.name).map(\.name)) ?? [])
        let columns = table.columns.filter { there.contains($0) }
        guard !columns.isEmpty else { return }
        let names = columns.joined(separator: ", ")
        let places = columns.map { _ in "?" }.joined(separator: ", ")
        let insert = try new.cachedStatement(
            sql: "INSERT OR IGNORE INTO \(table.name) (\(names)) VALUES (\(places))")
        func copyRow(_ row: Row) throws {
            try insert.execute(arguments: StatementArguments(row.databaseValues.dropFirst(table.key.count)))
        }
        let select = "SELECT \(table.key.joined(separator: ", ")), \(names) FROM \(table.name) WHERE"
        let scan = LeapingScan(select: select, key: table.key, places: Array(table.key.indices), database: old)
        guard try !scan.read(copyRow) else { return }
        if table.name == "will" { result.areWillsMissing = true }
        guard table.key.count > 1 else { return }
        // A page that is damaged ends what is read of a session, but its other rows are asked for by their own numbers.
        let sessions = "SELECT id FROM session UNION SELECT session FROM \(table.name)"
        for session in try Int64.fetchAll(new, sql: sessions) {
            let isWhole: Bool
            if table.name == "entry" {
                let ofSession = LeapingScan(
                    select: "\(select) session = ? AND", arguments: [session], key: ["id"], places: [1], database: old)
                isWhole = try ofSession.read(copyRow)
            } else {
                isWhole = try old.eachReadableRow("\(select) session = ?", [session]) { row in
                    try copyRow(row)
                    return true
                }
                if !isWhole { torn.insert(session) }
            }
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
                guard let client = String.fromDatabaseValue(row[0]) else { return false }
                try body(client)
                return true
            }
            if isWhole { return }
        }
    }

    /// Leaves out rows that are not as they were written. A session that is left out is named by the index.
    private mutating func leaveOutChanged() throws {
        func delete(from table: String) throws -> [Int64] {
            guard let isWrong = RowChecksum.isWrong(in: table) else { return [] }
            let key = ["session": "id", "message": "id", "retained": "rowid"][table] ?? "session"
            return try Int64.fetchAll(new, sql: "DELETE FROM \(table) WHERE \(isWrong) RETURNING \(key)")
        }
        for session in try delete(from: "session") { try removeBelongings(of: session) }
        torn.formUnion(try delete(from: "subscription"))
        if try !delete(from: "will").isEmpty { result.areWillsMissing = true }
        _ = try delete(from: "message")
        _ = try delete(from: "retained")
    }

    private func removeBelongings(of session: Int64) throws {
        for table in ["subscription", "receipt", "will", "entry"] {
            try new.execute(sql: "DELETE FROM \(table) WHERE session = ?", arguments: [session])
        }
    }

    /// Leaves out what refers to something that could not be read, and counts it.
    private mutating func settle() throws {
        try leaveOutChanged()
        // Of which the key is known, by another tree, and nothing else.
        var sessions: Set<String> = []
        try eachClientOfIndex { name in
            let isThere = try Bool.fetchOne(
                new, sql: "SELECT EXISTS (SELECT 1 FROM session WHERE client = ?)", arguments: [name])
            if isThere != true { sessions.insert(name) }
        }
        for session in torn {
            let name = try String.fetchOne(new, sql: "SELECT client FROM session WHERE id = ?", arguments: [session])
            if let name { sessions.insert(name) }
            try removeBelongings(of: session)
            try new.execute(sql: "DELETE FROM session WHERE id = ?", arguments: [session])
        }
        result.lostSessions = sessions.sorted()
        try new.execute(sql: "CREATE TEMP TABLE lost (session, id, PRIMARY KEY (session, id)) WITHOUT ROWID")
        let lost = try new.cachedStatement(
            sql: """
                INSERT OR IGNORE INTO temp.lost SELECT ?2, ?3 WHERE NOT EXISTS (
                    SELECT 1 FROM entry JOIN message ON message.id = entry.message WHERE session = ?2 AND entry.id = ?3)
                """)
        try eachEntryOfIndex { try lost.execute(arguments: StatementArguments($0.databaseValues)) }
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
