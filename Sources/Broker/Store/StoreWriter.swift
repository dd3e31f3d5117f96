import SQLite
import MQTT

/// Writes batches into the database, within a transaction of the caller's.
///
/// What is queued and delivered again within the batches of one transaction is never written: a subscriber that keeps
/// up costs the disk nothing.
struct StoreWriter {
    let database: Database
    let clock: StoreClock
    /// What the tables have, as it changes.
    var counts: StoreSeal.Counts

    /// Entries that come and go within the batches of this transaction.
    private var passing: Set<UInt64> = []
    /// Messages whose last entry may be gone.
    private var orphanCandidates: Set<Int64> = []
    /// Of the batch that is being written, by number: messages that no entry has needed yet.
    private var unwritten: [UInt64: StoreBatch.Content] = [:]

    init(database: Database, clock: StoreClock, counts: StoreSeal.Counts) {
        (self.database, self.clock, self.counts) = (database, clock, counts)
    }

    mutating func write(_ batches: [StoreBatch]) throws {
        passing = Self.passing(batches)
        orphanCandidates = []
        for batch in batches {
            unwritten = [:]
            try batch.bytes.withUnsafeBytes { bytes in
                for change in batch.changes { try write(change, bytes) }
            }
        }
        for message in orphanCandidates {
            try run(
                """
                DELETE FROM message WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM entry WHERE message = ?1)
                """
            ) { $0.bind(1, message) }
        }
    }

    /// At the start: removes what belongs to nobody, and what has expired meanwhile.
    mutating func collectGarbage() throws {
        // They were to end with their connections, which were to the broker before.
        try database.execute("DELETE FROM session WHERE expiry = 0")
        for table in ["subscription", "receipt", "will"] {
            try database.execute("DELETE FROM \(table) WHERE session NOT IN (SELECT id FROM session)")
        }
        try database.execute(
            "DELETE FROM entry WHERE session NOT IN (SELECT id FROM session) AND NOT (\(StoreSchema.isShared))")
        try database.run("DELETE FROM retained WHERE expires <= ?", [.integer(clock.now)])
        try database.execute(
            "DELETE FROM message WHERE NOT EXISTS (SELECT 1 FROM entry WHERE entry.message = message.id)")
        counts = try StoreState.count(in: database)
    }

    /// Entries that come and go within these batches.
    private static func passing(_ batches: [StoreBatch]) -> Set<UInt64> {
        var (come, gone): (Set<UInt64>, Set<UInt64>) = ([], [])
        for batch in batches {
            for change in batch.changes {
                switch change {
                case .entry(let entry): come.insert(entry.entry.id)
                case .removed(let entry): if come.contains(entry.id) { gone.insert(entry.id) }
                default: break
                }
            }
        }
        return gone
    }

    /// - Parameter bytes: of the change's batch.
    private mutating func write(_ change: StoreBatch.Change, _ bytes: UnsafeRawBufferPointer) throws {
        switch change {
        case .session(let id, let client, let expiry, let user, let listener):
            try endOthers(of: client, than: id, bytes)
            try write(session: id, client: client, expiry: expiry, user: user, listener: listener, bytes)
        case .sessionEnds(let id, let time): try write(end: time, ofSession: id)
        case .sessionEnded(let id): try end(id)
        case .subscribed(let session, let filter, let options): try subscribe(session, filter, options, bytes)
        case .unsubscribed(let session, let filter): try unsubscribe(session, filter, bytes)
        case .message(let content): unwritten[content.id] = content
        case .entry(let entry):
            guard !passing.contains(entry.entry.id) else { return }
            if let content = unwritten.removeValue(forKey: entry.message) { try write(message: content, bytes) }
            try write(entry, bytes)
        case .sent(let entry, let serial):
            if !passing.contains(entry.id) { try write(serial: serial, of: entry) }
        case .released(let entry):
            if !passing.contains(entry.id) { try release(entry) }
        case .removed(let entry):
            if !passing.contains(entry.id) { try remove(entry) }
        case .received(let session, let packetID): try write(receipt: packetID, of: session)
        case .receiptEnded(let session, let packetID): try removeReceipt(packetID, of: session)
        case .will(let session, let content, let delay, let expiry):
            try write(will: content, of: session, delay: delay, expiry: expiry, bytes)
        case .willIsDue(let session, let time): try write(due: time, ofWillOf: session)
        case .willIsRetained(let session): try forgetRetain(ofWillOf: session)
        case .willGone(let session): try removeWill(of: session)
        case .retained(let content): try write(retained: content, bytes)
        case .retainedGone(let topic): try removeRetained(topic, bytes)
        case .retainedNoted: break
        }
    }

    // MARK: - Statements

    func run(_ sql: String, _ bind: (Statement) -> Void) throws {
        try database.run(sql, bind: bind)
    }

    /// Rows that the last statement has changed.
    var changed: Int64 { database.changes }

    /// - Returns: how many rows there are more: 1 if there was none to update.
    func replace(_ update: String, _ insert: String, _ bind: (Statement) -> Void) throws -> Int64 {
        try run(update, bind)
        guard changed == 0 else { return 0 }
        try run(insert, bind)
        return 1
    }

    /// Notes a message whose last entry may be gone.
    mutating func noteOrphanCandidates(_ message: Int64) { orphanCandidates.insert(message) }

    /// Notes the messages that the rows of the result name.
    ///
    /// - Returns: how many rows.
    @discardableResult
    mutating func noteOrphanCandidates(_ sql: String, _ bind: (Statement) -> Void) throws -> Int64 {
        var count: Int64 = 0
        try database.run(sql, bind: bind) { row in
            count += 1
            if let message = row.optionalInt(0) { orphanCandidates.insert(message) }
        }
        return count
    }
}
