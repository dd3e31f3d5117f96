import SQLite

/// What the database says of itself, in one row that each transaction writes anew: what is sealed beside it (``StoreSeal``), and the
/// time by all clocks (``StoreClock``).
struct StoreState: Sendable {
    var seal: StoreSeal
    var moment: StoreClock.Moment

    /// A new store's, with what the tables have already.
    static func make(in database: Database) throws {
        var random = SystemRandomNumberGenerator()
        let store = (0..<StoreSeal.nameBytes).map { _ in UInt8.random(in: 0...255, using: &random) }
        let seal = StoreSeal(store: store, transactions: 0, counts: try count(in: database))
        let moment = StoreClock(after: nil).moment
        try database.run("INSERT INTO state VALUES (?, 0, 0, 0, 0, 0, '', 0, 0)", [.blob(store)])
        try StoreState(seal: seal, moment: moment).write(to: database)
    }

    /// - Returns: nil if there is none.
    /// - Throws: `DatabaseError` for what no store says of itself.
    static func read(from database: Database) throws -> StoreState? {
        var found: StoreState?
        try database.run(
            "SELECT store, transactions, sessions, messages, retained, time, boot, uptime, wall FROM state LIMIT 1"
        ) { row in
            let store = Array(row.bytes(0))
            guard store.count == StoreSeal.nameBytes, (1...4).allSatisfy({ StoreSeal.possible ~= row.int($0) }) else {
                throw DatabaseError.corrupt("its row of state cannot be")
            }
            let counts = StoreSeal.Counts(sessions: row.int(2), messages: row.int(3), retained: row.int(4))
            found = StoreState(
                seal: StoreSeal(store: store, transactions: row.int(1), counts: counts),
                moment: StoreClock.Moment(time: row.int(5), boot: row.text(6), uptime: row.int(7), wall: row.int(8)))
        }
        return found
    }

    /// But for the store's name, which stays.
    func write(to database: Database) throws {
        try database.run(
            """
            UPDATE state SET transactions = ?1, sessions = ?2, messages = ?3, retained = ?4, time = ?5, boot = ?6,
                uptime = ?7, wall = ?8
            """
        ) {
            $0.bind(1, seal.transactions)
            $0.bind(2, seal.counts.sessions)
            $0.bind(3, seal.counts.messages)
            $0.bind(4, seal.counts.retained)
            $0.bind(5, moment.time)
            $0.bind(6, moment.boot)
            $0.bind(7, moment.uptime)
            $0.bind(8, moment.wall)
        }
    }

    /// What there is, row by row.
    static func count(in database: Database) throws -> StoreSeal.Counts {
        func count(_ table: String) throws -> Int64 {
            try database.integer("SELECT count(*) FROM \(table)") ?? 0
        }
        return StoreSeal.Counts(
            sessions: try count("session"), messages: try count("entry"), retained: try count("retained"))
    }
}
