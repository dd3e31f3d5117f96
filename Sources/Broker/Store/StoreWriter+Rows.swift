import MQTT
import NIOCore
import SQLite

// What each change means for the rows of the tables. Counts of rows are kept with the statements that change them.

// MARK: Sessions and subscriptions

extension StoreWriter {
    /// The client may have a new session on another loop before the end of the old one is heard of here.
    mutating func endOthers(
        of client: StoreBatch.Piece, than id: UInt64, _ bytes: UnsafeRawBufferPointer
    ) throws {
        var others: [UInt64] = []
        try database.run("SELECT id FROM session WHERE client = ?1 AND id <> ?2") {
            $0.bind(1, text: client, bytes)
            $0.bind(2, id)
        } row: {
            others.append($0.number(0))
        }
        for other in others { try end(other) }
    }

    mutating func write(
        session id: UInt64, client: StoreBatch.Piece, expiry: UInt32, user: StoreBatch.Piece?,
        listener: StoreBatch.Piece, _ bytes: UnsafeRawBufferPointer
    ) throws {
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
    }

    func write(end time: NIODeadline, ofSession id: UInt64) throws {
        try run("UPDATE session SET ends = ?2 WHERE id = ?1") {
            $0.bind(1, id)
            $0.bind(2, clock.time(of: time))
        }
    }

    mutating func end(_ session: UInt64) throws {
        // What others of its groups may get stays, until it is given to them (`Shard+Handover.swift`).
        let removed = try noteOrphanCandidates(
            "DELETE FROM entry WHERE session = ?1 AND NOT (\(StoreSchema.isShared)) RETURNING message"
        ) { $0.bind(1, session) }
        counts.messages -= removed
        for table in ["subscription", "receipt", "will"] {
            try run("DELETE FROM \(table) WHERE session = ?1") { $0.bind(1, session) }
        }
        try run("DELETE FROM session WHERE id = ?1") { $0.bind(1, session) }
        counts.sessions -= changed
    }

    func subscribe(
        _ session: UInt64, _ filter: StoreBatch.Piece, _ options: SubscriptionOptions,
        _ bytes: UnsafeRawBufferPointer
    ) throws {
        try run("INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3, ?4, ?5, ?6, row_checksum(?2))") {
            $0.bind(1, session)
            $0.bind(2, text: filter, bytes)
            $0.bind(3, Int64(options.qos.rawValue))
            $0.bind(4, options.noLocal ? 1 : 0)
            $0.bind(5, options.retainAsPublished ? 1 : 0)
            $0.bind(6, Int64(options.identifier))
        }
    }

    func unsubscribe(_ session: UInt64, _ filter: StoreBatch.Piece, _ bytes: UnsafeRawBufferPointer) throws {
        try run("DELETE FROM subscription WHERE session = ?1 AND filter = ?2") {
            $0.bind(1, session)
            $0.bind(2, text: filter, bytes)
        }
    }
}

// MARK: Messages and what is owed of them

extension StoreWriter {
    func write(message content: StoreBatch.Content, _ bytes: UnsafeRawBufferPointer) throws {
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

    mutating func write(_ entry: StoreBatch.Entry, _ bytes: UnsafeRawBufferPointer) throws {
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
        if changed == 0 { noteOrphanCandidates(Int64(bitPattern: entry.message)) }
        counts.messages += changed
    }

    func write(serial: UInt64, of entry: StoredEntry) throws {
        try run("UPDATE entry SET serial = ?3 WHERE session = ?1 AND id = ?2") {
            $0.bind(entry)
            $0.bind(3, serial)
        }
    }

    /// The entry stays, for its packet identifier; its message does not.
    mutating func release(_ entry: StoredEntry) throws {
        try noteOrphanCandidates("SELECT message FROM entry WHERE session = ?1 AND id = ?2") { $0.bind(entry) }
        try run("UPDATE entry SET message = NULL WHERE session = ?1 AND id = ?2") { $0.bind(entry) }
    }

    mutating func remove(_ entry: StoredEntry) throws {
        let removed = try noteOrphanCandidates("DELETE FROM entry WHERE session = ?1 AND id = ?2 RETURNING message") {
            $0.bind(entry)
        }
        counts.messages -= removed
    }

    func write(receipt packetID: UInt16, of session: UInt64) throws {
        try run("INSERT OR IGNORE INTO receipt VALUES (?1, ?2)") {
            $0.bind(1, session)
            $0.bind(2, Int64(packetID))
        }
    }

    func removeReceipt(_ packetID: UInt16, of session: UInt64) throws {
        try run("DELETE FROM receipt WHERE session = ?1 AND packet = ?2") {
            $0.bind(1, session)
            $0.bind(2, Int64(packetID))
        }
    }

    /// When it expires, and how long that is from now; nil if it does not.
    private func expiry(_ content: StoreBatch.Content) -> (expires: Int64?, life: Int64?) {
        guard let expires = clock.time(of: content.expiresAt) else { return (nil, nil) }
        return (expires, max(0, expires - clock.now))
    }
}

// MARK: Wills and retained messages

extension StoreWriter {
    func write(
        will content: StoreBatch.Content, of session: UInt64, delay: UInt32, expiry: UInt32?,
        _ bytes: UnsafeRawBufferPointer
    ) throws {
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
    }

    func write(due time: NIODeadline, ofWillOf session: UInt64) throws {
        try run("UPDATE will SET due = ?2 WHERE session = ?1") {
            $0.bind(1, session)
            $0.bind(2, clock.time(of: time))
        }
    }

    /// What is retained of it is; it is yet to be known whom it goes to.
    func forgetRetain(ofWillOf session: UInt64) throws {
        try run("UPDATE will SET retain = 0 WHERE session = ?1") { $0.bind(1, session) }
    }

    func removeWill(of session: UInt64) throws {
        try run("DELETE FROM will WHERE session = ?1") { $0.bind(1, session) }
    }

    mutating func write(retained content: StoreBatch.Content, _ bytes: UnsafeRawBufferPointer) throws {
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
    }

    mutating func removeRetained(_ topic: StoreBatch.Piece, _ bytes: UnsafeRawBufferPointer) throws {
        try run("DELETE FROM retained WHERE topic = ?1") { $0.bind(1, topic, bytes) }
        counts.retained -= changed
    }
}
