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

    mutating func write(_ batches: [StoreBatch]) throws {
        let passing = Self.passing(batches)
        // Messages whose last entry may be gone.
        var orphanCandidates: Set<Int64> = []
        for batch in batches {
            var messages: [UInt64: StoreBatch.Content] = [:]
            try batch.bytes.withUnsafeBytes { bytes in
                for change in batch.changes {
                    try write(change, bytes, &messages, passing, &orphanCandidates)
                }
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

    private mutating func write(
        _ change: StoreBatch.Change, _ bytes: UnsafeRawBufferPointer, _ messages: inout [UInt64: StoreBatch.Content],
        _ passing: Set<UInt64>, _ orphanCandidates: inout Set<Int64>
    ) throws {
        switch change {
        case .session(let id, let client, let expiry, let user, let listener):
            // The client may have a new session on another loop before the end of the old one is heard of here.
            var others: [UInt64] = []
            try database.run("SELECT id FROM session WHERE client = ?1 AND id <> ?2") {
                $0.bind(1, text: client, bytes)
                $0.bind(2, id)
            } row: {
                others.append($0.number(0))
            }
            for other in others { try end(other, &orphanCandidates) }
            counts.sessions += try replace(
                """
                UPDATE session SET expiry = ?3, ends = NULL, user = ?4, listener = ?5, checksum = row_checksum(?2, ?4, ?5)
                WHERE id = ?1
                """,
                """
                INSERT INTO session (id, client, expiry, user, listener, checksum)
                VALUES (?1, ?2, ?3, ?4, ?5, row_checksum(?2, ?4, ?5))
                """
            ) {
                $0.bind(1, id)
                $0.bind(2, text: client, bytes)
                $0.bind(3, Int64(expiry))
                if let user { $0.bind(4, text: user, bytes) } else { $0.bind(4, nil as Int64?) }
                $0.bind(5, text: listener, bytes)
            }
        case .sessionEnds(let id, let time):
            try run("UPDATE session SET ends = ?2 WHERE id = ?1") {
                $0.bind(1, id)
                $0.bind(2, clock.time(of: time))
            }
        case .sessionEnded(let id): try end(id, &orphanCandidates)
        case .subscribed(let session, let filter, let options):
            try run(
                "INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_checksum(?2))"
            ) {
                $0.bind(1, session)
                $0.bind(2, text: filter, bytes)
                $0.bind(3, Int64(options.qos.rawValue))
                $0.bind(4, options.noLocal ? 1 : 0)
                $0.bind(5, options.retainAsPublished ? 1 : 0)
                $0.bind(6, Int64(options.identifier))
            }
        case .unsubscribed(let session, let filter):
            try run("DELETE FROM subscription WHERE session = ?1 AND filter = ?2") {
                $0.bind(1, session)
                $0.bind(2, text: filter, bytes)
            }
        case .message(let content): messages[content.id] = content
        case .entry(let entry):
            guard !passing.contains(entry.entry.id) else { return }
            if let content = messages.removeValue(forKey: entry.message) { try insert(content, bytes) }
            // A session that has ended since takes nothing any more, but for what others of its group may get.
            try run(
                """
                INSERT OR IGNORE INTO entry (session, id, message, qos, retain, identifiers, share)
                SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 WHERE ?7 IS NOT NULL OR EXISTS (SELECT 1 FROM session WHERE id = ?1)
                """
            ) {
                $0.bind(1, entry.entry.session)
                $0.bind(2, entry.entry.id)
                $0.bind(3, entry.message)
                $0.bind(4, Int64(entry.qos.rawValue))
                $0.bind(5, entry.retain ? 1 : 0)
                $0.bind(6, entry.identifiers, bytes)
                if let share = entry.share { $0.bind(7, text: share, bytes) }
            }
            if changed == 0 { orphanCandidates.insert(Int64(bitPattern: entry.message)) }
            counts.messages += changed
        case .sent(let entry, let serial):
            guard !passing.contains(entry.id) else { return }
            try run("UPDATE entry SET serial = ?3 WHERE session = ?1 AND id = ?2") {
                $0.bind(entry)
                $0.bind(3, serial)
            }
        case .released(let entry):
            guard !passing.contains(entry.id) else { return }
            try noteOrphanCandidates("SELECT message FROM entry WHERE session = ?1 AND id = ?2", &orphanCandidates) {
                $0.bind(entry)
            }
            try run("UPDATE entry SET message = NULL WHERE session = ?1 AND id = ?2") { $0.bind(entry) }
        case .removed(let entry):
            guard !passing.contains(entry.id) else { return }
            counts.messages -= try noteOrphanCandidates(
                "DELETE FROM entry WHERE session = ?1 AND id = ?2 RETURNING message", &orphanCandidates
            ) { $0.bind(entry) }
        case .received(let session, let packetID):
            try run("INSERT OR IGNORE INTO receipt VALUES (?1, ?2)") {
                $0.bind(1, session)
                $0.bind(2, Int64(packetID))
            }
        case .receiptEnded(let session, let packetID):
            try run("DELETE FROM receipt WHERE session = ?1 AND packet = ?2") {
                $0.bind(1, session)
                $0.bind(2, Int64(packetID))
            }
        case .will(let session, let content, let delay, let expiry):
            try run(
                """
                INSERT OR REPLACE INTO will (session, topic, properties, payload, qos, retain, delay, expiry, checksum)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, row_checksum(?2, ?3, ?4))
                """
            ) {
                $0.bind(1, session)
                $0.bind(2, content.topic, bytes)
                $0.bind(3, content.properties, bytes)
                $0.bind(4, content.payload, bytes)
                $0.bind(5, Int64(content.qos.rawValue))
                $0.bind(6, content.retain ? 1 : 0)
                $0.bind(7, Int64(delay))
                $0.bind(8, expiry.map { Int64($0) })
            }
        case .willIsDue(let session, let time):
            try run("UPDATE will SET due = ?2 WHERE session = ?1") {
                $0.bind(1, session)
                $0.bind(2, clock.time(of: time))
            }
        case .willIsRetained(let session):
            try run("UPDATE will SET retain = 0 WHERE session = ?1") { $0.bind(1, session) }
        case .willGone(let session): try run("DELETE FROM will WHERE session = ?1") { $0.bind(1, session) }
        case .retained(let content):
            let (expires, life) = expiry(content)
            counts.retained += try replace(
                """
                UPDATE retained SET properties = ?2, payload = ?3, qos = ?4, expires = ?5, life = ?6,
                    checksum = row_checksum(?1, ?2, ?3)
                WHERE topic = ?1
                """,
                """
                INSERT INTO retained (topic, properties, payload, qos, expires, life, checksum)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_checksum(?1, ?2, ?3))
                """
            ) {
                $0.bind(1, content.topic, bytes)
                $0.bind(2, content.properties, bytes)
                $0.bind(3, content.payload, bytes)
                $0.bind(4, Int64(content.qos.rawValue))
                $0.bind(5, expires)
                $0.bind(6, life)
            }
        case .retainedGone(let topic):
            try run("DELETE FROM retained WHERE topic = ?1") { $0.bind(1, topic, bytes) }
            counts.retained -= changed
        case .retainedNoted: break
        }
    }

    private func insert(_ content: StoreBatch.Content, _ bytes: UnsafeRawBufferPointer) throws {
        let (expires, life) = expiry(content)
        try run(
            """
            INSERT OR IGNORE INTO message (id, topic, properties, payload, expires, life, checksum)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_checksum(?2, ?3, ?4))
            """
        ) {
            $0.bind(1, content.id)
            $0.bind(2, content.topic, bytes)
            $0.bind(3, content.properties, bytes)
            $0.bind(4, content.payload, bytes)
            $0.bind(5, expires)
            $0.bind(6, life)
        }
    }

    /// When it expires, and how long that is from now; nil if it does not.
    private func expiry(_ content: StoreBatch.Content) -> (expires: Int64?, life: Int64?) {
        guard let expires = clock.time(of: content.expiresAt) else { return (nil, nil) }
        return (expires, max(0, expires - clock.now))
    }

    private mutating func end(_ session: UInt64, _ orphanCandidates: inout Set<Int64>) throws {
        // What others of its groups may get stays, until it is given to them (`Shard+Handover.swift`).
        counts.messages -= try noteOrphanCandidates(
            "DELETE FROM entry WHERE session = ?1 AND NOT (\(StoreSchema.isShared)) RETURNING message",
            &orphanCandidates
        ) { $0.bind(1, session) }
        for table in ["subscription", "receipt", "will"] {
            try run("DELETE FROM \(table) WHERE session = ?1") { $0.bind(1, session) }
        }
        try run("DELETE FROM session WHERE id = ?1") { $0.bind(1, session) }
        counts.sessions -= changed
    }

    // MARK: - Statements

    private func run(_ sql: String, _ bind: (Statement) -> Void) throws {
        try database.run(sql, bind: bind)
    }

    /// Rows that the last statement has changed.
    private var changed: Int64 { database.changes }

    /// - Returns: how many rows there are more: 1 if there was none to update.
    private func replace(_ update: String, _ insert: String, _ bind: (Statement) -> Void) throws -> Int64 {
        try run(update, bind)
        guard changed == 0 else { return 0 }
        try run(insert, bind)
        return 1
    }

    /// Notes the messages that the rows of the result name.
    ///
    /// - Returns: how many rows.
    @discardableResult
    private func noteOrphanCandidates(
        _ sql: String, _ orphanCandidates: inout Set<Int64>, _ bind: (Statement) -> Void
    ) throws -> Int64 {
        var count: Int64 = 0
        try database.run(sql, bind: bind) { row in
            count += 1
            if let message = row.optionalInt(0) { orphanCandidates.insert(message) }
        }
        return count
    }
}
