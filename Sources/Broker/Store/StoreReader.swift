import SQLite
import MQTT
import NIOCore

/// Reads what the store has, a session or some hundred retained messages at a time: the one place where rows, which are bytes
/// from outside like others, become values. What a column may not have is made the nearest that it may, or is damage.
struct StoreReader {
    struct StoredSession {
        var id: UInt64
        var clientID: String
        var expiryInterval: UInt32
        /// Nil if its client was there when the broker ended, or if it never ends.
        var endsAt: NIODeadline?
        var userName: String?
        var listenerName: String
    }

    struct Content {
        var id: UInt64 = 0
        var topic: [UInt8]
        var properties: [UInt8]?
        var payload: [UInt8]
        var expiresAt = NIODeadline.distantFuture

        /// Whether its parts but the topic, which is looked at where it becomes one, are what a PUBLISH may have.
        var isSendable: Bool {
            guard payload.count <= VariableByteInteger.maximum else { return false }
            guard let properties else { return true }
            return PublishProperties(forwardedProperties: ByteBuffer(bytes: properties)) != nil
        }

        var byteCount: Int { topic.count + (properties?.count ?? 0) + payload.count }

        /// The message, in a buffer that has room for ``byteCount``.
        ///
        /// - Returns: nil for what no broker can send: bytes that are no topic name, or no properties.
        func message(in buffer: inout ByteBuffer) -> Message? {
            guard topic.count <= Topic.maximumLength, isSendable else { return nil }
            buffer.writeBytes(topic)
            if let properties { buffer.writeBytes(properties) }
            buffer.writeBytes(payload)
            // Not before all is written: a slice would make the buffer write into another one.
            guard let name = buffer.getSlice(at: 0, length: topic.count).flatMap({ try? TopicName($0) }),
                Topic.levelCount(name) <= Limits.mostTopicLevels
            else { return nil }
            let list = properties?.count ?? 0
            var message = Message(
                topic: name, payload: buffer.getSlice(at: topic.count + list, length: payload.count)!,
                properties: properties == nil ? nil : buffer.getSlice(at: topic.count, length: list)!,
                qos: .atLeastOnce, ownsBuffer: true)
            message.expiresAt = expiresAt
            return message
        }
    }

    /// A message owed to a session, or, without content, an identifier that waits for PUBCOMP.
    struct Owed {
        var id: UInt64
        var content: Content?
        var qos: QoS
        var retain: Bool
        var identifiers: [UInt8]?
        var share: String?
        var serial: UInt64?
    }

    struct Will {
        var content: Content
        var qos: QoS
        var retain: Bool
        var delayInterval: UInt32
        var expiryInterval: UInt32?
        /// Nil if its client was there when the broker ended.
        var dueAt: NIODeadline?
    }

    /// What belongs to one session.
    struct SessionRecord {
        var subscriptions: [(filter: String, options: SubscriptionOptions)] = []
        /// The filters of those that are none, as they stand there: nobody could have subscribed so.
        var unusable: [[UInt8]] = []
        /// What was in the inflight window, in its order.
        var owed: [Owed] = []
        /// What is queued, in its order.
        var queued: [(id: UInt64, bytes: Int, expiresAt: NIODeadline)] = []
        var receipts: [UInt16] = []
        /// Whether any of these came by a shared subscription.
        var hasShared = false
        var will: Will?
    }

    struct Retained {
        var content: Content
        var qos: QoS
    }

    let database: Database
    let clock: StoreClock

    func sessions() throws -> [StoredSession] {
        var sessions: [StoredSession] = []
        try rows(
            "SELECT id, client, expiry, ends, user, listener, \(Self.isIntact("session")) FROM session ORDER BY id"
        ) { row in
            try expectIntact(row, 6, "session")
            let expiry = UInt32(clamping: row.int(2))
            sessions.append(
                StoredSession(
                    id: row.number(0), clientID: row.text(1), expiryInterval: expiry,
                    endsAt: row.optionalInt(3).map { clock.deadline($0, life: Int64(expiry) * 1_000) },
                    userName: row.isNull(4) ? nil : row.text(4),
                    listenerName: row.text(5)))
        }
        return sessions
    }

    func sessionRecord(of session: UInt64) throws -> SessionRecord {
        var found = SessionRecord()
        try rows(
            """
            SELECT filter, qos, no_local, retain_as_published, identifier, \(Self.isIntact("subscription"))
            FROM subscription WHERE session = ?1
            """, session
        ) { row in
            try expectIntact(row, 5, "subscription")
            let options = SubscriptionOptions(
                qos: qos(row, 1), noLocal: row.bool(2), retainAsPublished: row.bool(3),
                identifier: UInt32(clamping: row.int(4)))
            guard let filter = String(validating: row.bytes(0), as: UTF8.self), Topic.isValidFilter(filter),
                Topic.levelCount(filter) <= Limits.mostTopicLevels,
                options.identifier <= VariableByteInteger.maximum
            else { return found.unusable.append(Array(row.bytes(0))) }
            found.subscriptions.append((filter, options))
        }
        try rows(
            """
            \(Self.owedColumns) FROM entry LEFT JOIN message ON message.id = entry.message
            WHERE entry.session = ?1 AND entry.serial IS NOT NULL ORDER BY entry.serial
            """, session
        ) { row in
            found.owed.append(try owed(row))
            if !row.isNull(5) { found.hasShared = true }
        }
        try rows(
            """
            SELECT entry.id, length(topic) + coalesce(length(properties), 0) + length(payload), expires, life,
                entry.share IS NOT NULL
            FROM entry JOIN message ON message.id = entry.message
            WHERE entry.session = ?1 AND entry.serial IS NULL ORDER BY entry.id
            """, session
        ) { row in
            found.queued.append((row.number(0), Int(row.int(1)), deadline(row, 2)))
            if row.bool(4) { found.hasShared = true }
        }
        try rows("SELECT packet FROM receipt WHERE session = ?1", session) { row in
            found.receipts.append(UInt16(clamping: row.int(0)))
        }
        try rows(
            """
            SELECT qos, retain, delay, expiry, due, 0, topic, properties, payload, NULL, NULL, \(Self.isIntact("will"))
            FROM will WHERE session = ?1
            """,
            session
        ) { row in
            let delay = UInt32(clamping: row.int(2))
            found.will = Will(
                content: try content(row, from: 5, of: "will"), qos: qos(row, 0), retain: row.bool(1),
                delayInterval: delay,
                expiryInterval: row.optionalInt(3).map { UInt32(clamping: $0) },
                dueAt: row.optionalInt(4).map { clock.deadline($0, life: Int64(delay) * 1_000) })
        }
        return found
    }

    /// Messages owed to a session; without those that are not there.
    func owed(to session: UInt64, _ entries: [UInt64]) throws -> [UInt64: Owed] {
        var found: [UInt64: Owed] = [:]
        for entry in entries {
            try database.run(
                """
                \(Self.owedColumns) FROM entry JOIN message ON message.id = entry.message
                WHERE entry.session = ?1 AND entry.id = ?2
                """
            ) {
                $0.bind(1, session)
                $0.bind(2, entry)
            } row: {
                found[entry] = try owed($0)
            }
        }
        return found
    }

    /// Sessions that are over and have left messages of shared subscriptions.
    func sessionsWithHandovers() throws -> [UInt64] {
        var found: [UInt64] = []
        try rows("SELECT DISTINCT session FROM entry WHERE session NOT IN (SELECT id FROM session) ORDER BY session") {
            found.append($0.number(0))
        }
        return found
    }

    /// The first messages of shared subscriptions that these sessions have left, a page of them, each session's in order.
    ///
    /// - Returns: also the sessions that have left nothing more.
    func handovers(of sessions: [UInt64]) throws -> (messages: [(session: UInt64, owed: Owed)], ended: [UInt64]) {
        var (found, ended) = ([(session: UInt64, owed: Owed)](), [UInt64]())
        var bytes = 0
        for session in sessions {
            var next: [(entry: UInt64, bytes: Int)] = []
            try rows(
                """
                SELECT entry.id, length(topic) + coalesce(length(properties), 0) + length(payload)
                FROM entry JOIN message ON message.id = entry.message
                WHERE entry.session = ?1 AND \(StoreSchema.isShared) ORDER BY entry.id LIMIT \(Limits.queueMemoryMessages)
                """, session
            ) { next.append(($0.number(0), Int($0.int(1)))) }
            if next.isEmpty { ended.append(session) }
            for (entry, size) in next {
                bytes += size
                guard found.isEmpty || (found.count < Limits.queueMemoryMessages && bytes <= Limits.queueMemoryBytes)
                else { return (found, ended) }
                if let owed = try owed(to: session, [entry])[entry] { found.append((session, owed)) }
            }
        }
        return (found, ended)
    }

    /// Which queued messages of a session have expired, and when the next one does.
    func expired(of session: UInt64) throws -> (expired: [UInt64], next: NIODeadline) {
        var (expired, next) = ([UInt64](), NIODeadline.distantFuture)
        try rows(
            """
            SELECT entry.id, expires, life FROM entry JOIN message ON message.id = entry.message
            WHERE entry.session = ?1 AND entry.serial IS NULL AND expires IS NOT NULL
            """, session
        ) { row in
            let time = deadline(row, 1)
            // What is past is now, which has been a moment before.
            if time <= .now() { expired.append(row.number(0)) } else { next = min(next, time) }
        }
        return (expired, next)
    }

    private static let owedColumns = """
        SELECT entry.id, entry.qos, entry.retain, entry.identifiers, entry.serial, entry.share, message.id,
            message.topic, message.properties, message.payload, message.expires, message.life, \(isIntact("message"))
        """

    private func owed(_ row: Row) throws -> Owed {
        Owed(
            id: row.number(0), content: row.isNull(6) ? nil : try content(row, from: 6, of: "message"),
            qos: qos(row, 1),
            retain: row.bool(2), identifiers: identifiers(row, 3),
            share: row.isNull(5) ? nil : row.text(5), serial: row.isNull(4) ? nil : UInt64(clamping: row.int(4)))
    }

    /// Retained messages in the order of their topics.
    ///
    /// - Parameter after: the last topic of the page before; nil for the first page.
    func retained(after topic: [UInt8]?, limit: Int) throws -> [Retained] {
        var found: [Retained] = []
        try (topic ?? []).withUnsafeBytes { bytes in
            try database.run(
                """
                SELECT qos, 0, topic, properties, payload, expires, life, \(Self.isIntact("retained")) FROM retained
                WHERE topic \(topic == nil ? ">=" : ">") ?1 ORDER BY topic LIMIT ?2
                """
            ) {
                $0.bind(1, StoreBatch.Piece(start: 0, count: bytes.count), bytes)
                $0.bind(2, Int64(limit))
            } row: { row in
                found.append(Retained(content: try content(row, from: 1, of: "retained"), qos: qos(row, 0)))
            }
        }
        return found
    }

    private func rows(_ sql: String, _ session: UInt64? = nil, _ body: (Row) throws -> Void) throws {
        try database.run(sql) {
            if let session { $0.bind(1, session) }
        } row: {
            try body($0)
        }
    }

    private func content(_ row: Row, from column: Int32, of table: String) throws -> Content {
        try expectIntact(row, column + 6, table)
        return Content(
            id: row.number(column), topic: Array(row.bytes(column + 1)),
            properties: row.isNull(column + 2) ? nil : Array(row.bytes(column + 2)),
            payload: Array(row.bytes(column + 3)), expiresAt: deadline(row, column + 4))
    }

    /// - Throws: damage, for a row that is another than was written: nothing is served from it, and it is kept as it is.
    private func expectIntact(_ row: Row, _ column: Int32, _ table: String) throws {
        guard row.bool(column) else {
            throw DatabaseError.corrupt("a row of table \(table) is not as it was written")
        }
    }

    /// One more column, behind those of a content.
    private static func isIntact(_ table: String) -> String {
        RowChecksum.isWrong(in: table).map { "NOT (\($0))" } ?? "1"
    }

    /// When something expires, from that column and the one behind it, which says how long it may at most take.
    private func deadline(_ row: Row, _ column: Int32) -> NIODeadline {
        clock.deadline(row.optionalInt(column), life: row.optionalInt(column + 1) ?? .max)
    }

    /// Subscription identifiers as they stand in a property list; nil if there are none, or if these bytes are not.
    private func identifiers(_ row: Row, _ column: Int32) -> [UInt8]? {
        let bytes = Array(row.bytes(column))
        return bytes.isEmpty || !OutgoingProperties.areIdentifiers(bytes) ? nil : bytes
    }

    /// The nearest that there is.
    private func qos(_ row: Row, _ column: Int32) -> QoS {
        QoS(rawValue: UInt8(min(max(row.int(column), 0), 2))) ?? .exactlyOnce
    }
}
