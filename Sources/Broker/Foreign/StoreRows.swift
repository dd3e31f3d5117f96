import SQLite
import MQTT
import NIOCore
import Synchronization

/// Rows of the store that bytes stand for, whatever they are, read as a start and a running broker read them.
///
///     row:   [ table: 1 | values ]
///     value: [ kind: 1 | nothing, or a byte, or eight bytes, or length: 1 and that many bytes ]
///
/// SQLite lets a column hold any kind of value, whatever the schema calls it.
enum StoreRows {
    private static let tables: [(name: String, columns: Int)] = [
        ("session", 6), ("subscription", 6), ("message", 6), ("entry", 8), ("receipt", 2), ("will", 9),
        ("retained", 6),
        ("state", 9),
    ]

    /// One for all inputs: each is undone when it has been read.
    private static let database = Mutex<DatabaseQueue?>(nil)

    static func read(_ bytes: [UInt8]) {
        let queue = database.withLock { database in
            if let database { return database }
            var configuration = DatabaseQueue.Configuration()
            configuration.prepare = RowChecksum.install
            guard let made = try? DatabaseQueue(path: nil, configuration) else {
                preconditionFailure("no database in memory")
            }
            try? made.write { for statement in StoreSchema.tables { try $0.execute(statement) } }
            database = made
            return made
        }
        try? queue.use { database in
            try database.undoing {
                insert(bytes, into: $0)
                // An error is an answer.
                try? read($0)
            }
        }
    }

    private static func insert(_ bytes: [UInt8], into database: Database) {
        var rest = ByteBuffer(bytes: bytes)
        while let table: UInt8 = rest.readInteger() {
            let (name, columns) = tables[Int(table) % tables.count]
            let values = (0..<columns).map { _ in value(&rest) }
            // Without a checksum: these bytes would not have the right one.
            let last = RowChecksum.isWrong(in: name) == nil ? [] : ["NULL"]
            let places = (Array(repeating: "?", count: columns) + last).joined(separator: ", ")
            // What the schema refuses is not there.
            try? database.run("INSERT OR IGNORE INTO \(name) VALUES (\(places))", values)
        }
    }

    private static func value(_ rest: inout ByteBuffer) -> DatabaseValue {
        func take(_ count: Int) -> ByteBuffer { rest.readSlice(length: min(count, rest.readableBytes)) ?? ByteBuffer() }
        switch (rest.readInteger(as: UInt8.self) ?? 0) % 5 {
        case 0: return .null
        case 1: return .integer(Int64(rest.readInteger(as: UInt8.self) ?? 0))
        case 2: return .integer(rest.readInteger(as: Int64.self) ?? .min)
        case 3: return .text(String(buffer: take(Int(rest.readInteger(as: UInt8.self) ?? 0))))
        default: return .blob(Array(buffer: take(Int(rest.readInteger(as: UInt8.self) ?? 0))))
        }
    }

    private static func read(_ database: Database) throws {
        let state = try StoreState.read(from: database)
        let clock = StoreClock(after: state?.moment)
        precondition(clock.now >= 0, "a time before all times")
        var writer = StoreWriter(database: database, clock: clock, counts: StoreSeal.Counts())
        try writer.collectGarbage()
        let reader = StoreReader(database: database, clock: clock)
        for stored in try reader.sessions() {
            var state = SessionState()
            let found = try reader.sessionRecord(of: stored.id)
            for packetID in found.receipts { state.restoreReceipt(packetID) }
            for (filter, _) in found.subscriptions {
                precondition(Topic.isValidFilter(filter), "a filter that is none")
            }
            for owed in found.owed { restore(owed, to: &state) }
            for queued in found.queued {
                state.restoreSpilled(queued.id, bytes: queued.bytes, expiresAt: queued.expiresAt)
            }
            for owed in try reader.owed(to: stored.id, found.queued.map(\.id)).values { restore(owed, to: &state) }
            if let will = found.will {
                send(message(will.content))
            }
            _ = try reader.expired(of: stored.id)
            state.resume(receiveMaximum: 65_535)
            while case .publish(let message, _)? = state.nextRedelivery() { send(message) }
            while let (message, packetID) = state.next(limits: Limits()) {
                precondition(packetID != 0, "a packet without an identifier")
                send(message)
            }
        }
        _ = try reader.handovers(of: try reader.sessionsWithHandovers())
        var last: [UInt8]?
        while let end = try reader.retained(after: last, limit: 2).last {
            precondition(last.map { $0.lexicographicallyPrecedes(end.content.topic) } ?? true, "pages without an end")
            last = end.content.topic
            send(message(end.content))
        }
    }

    private static func restore(_ owed: StoreReader.Owed, to state: inout SessionState) {
        guard let content = owed.content else {
            return state.restore(nil, serial: owed.serial ?? 0, stored: owed.id)
        }
        guard var message = message(content) else { return }
        (message.qos, message.retain, message.entry) = (owed.qos, owed.retain, owed.id)
        message.route = Route(encodedIdentifiers: owed.identifiers, group: nil)
        if let serial = owed.serial {
            state.restore(message, serial: serial, stored: owed.id)
        } else {
            state.restore(message)
        }
    }

    private static func message(_ content: StoreReader.Content) -> Message? {
        var buffer = ByteBufferAllocator().buffer(capacity: max(content.byteCount, 1))
        return content.message(in: &buffer)
    }

    /// As it would be sent: a client can read it.
    private static func send(_ message: Message?) {
        guard let message else { return }
        var properties = OutgoingProperties()
        properties.forwardedProperties = message.properties
        if let route = message.route { properties.identifiers = route.identifiers }
        var packet = ByteBuffer()
        let fits = Publish.encodeHeader(
            into: &packet, topic: message.topic, qos: message.qos, dup: false, retain: message.retain, packetID: 1,
            payloadLength: message.payload.readableBytes, properties: properties)
        guard fits else { return }
        packet.writeImmutableBuffer(message.payload)
        do throws(DecodeError) {
            guard let header = try FixedHeader.parse(packet) else { preconditionFailure("no packet") }
            packet.moveReaderIndex(forwardBy: header.encodedLength)
            _ = try Publish.decode(header: header, body: &packet, version: .v5_0)
        } catch {
            preconditionFailure("a stored message that no client can read: \(error)")
        }
    }
}
