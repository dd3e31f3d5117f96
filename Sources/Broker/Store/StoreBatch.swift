import MQTT
import NIOCore

/// What one event loop has for the store: changes in their order, as plain values, with the bytes they refer to.
///
/// Bytes are copied out of the arena, so that nothing there waits for a disk; what is copied is counted and bounded
/// (`Limits.maxWaitingStoreBytes`). A message's bytes are copied once, however many sessions it is for.
struct StoreBatch: Sendable {
    /// A part of `bytes`.
    struct Piece: Sendable {
        var start: Int
        var count: Int
    }

    enum Change: Sendable {
        /// A session's client is there, for the first time or again, or has changed the expiry interval.
        case session(UInt64, client: Piece, expiryInterval: UInt32, user: Piece?, listener: Piece)
        /// Its client has gone: when it ends then.
        case sessionEnds(UInt64, at: NIODeadline)
        /// It is over, with all that belongs to it.
        case sessionEnded(UInt64)
        case subscribed(UInt64, filter: Piece, SubscriptionOptions)
        case unsubscribed(UInt64, filter: Piece)
        /// Comes before the first entry that names it, in the same batch.
        case message(Content)
        /// A message is owed to a session.
        case entry(Entry)
        /// The message was given the packet identifier that follows from the serial.
        case sent(StoredEntry, serial: UInt64)
        /// QoS 2: the receiver has it, only the identifier is still open.
        case released(StoredEntry)
        /// Delivered, or given up.
        case removed(StoredEntry)
        /// QoS 2 from the client: the identifier may not be forwarded again until it is released.
        case received(UInt64, packetID: UInt16)
        case receiptEnded(UInt64, packetID: UInt16)
        case will(UInt64, Content, delayInterval: UInt32, expiryInterval: UInt32?)
        /// Its client has gone: when it is published then.
        case willIsDue(UInt64, at: NIODeadline)
        /// What is retained of it is; it is yet to be known whom it goes to.
        case willIsRetained(UInt64)
        case willGone(UInt64)
        case retained(Content)
        case retainedGone(topic: Piece)
        /// One of the two above is in the list that all loops have in common (``Store/noteRetained(_:)``).
        case retainedNoted
    }

    /// A message without a receiver.
    struct Content: Sendable {
        /// 0 where no entry names it.
        var id: UInt64
        var topic: Piece
        var properties: Piece?
        var payload: Piece
        var qos: QoS
        var retain: Bool
        var expiresAt: NIODeadline
    }

    struct Entry: Sendable {
        var entry: StoredEntry
        var message: UInt64
        var qos: QoS
        var retain: Bool
        /// As in ``Route``.
        var identifiers: Piece?
        /// The shared subscription whose message it is.
        var share: Piece?
    }

    private(set) var changes: [Change] = []
    private(set) var bytes: [UInt8] = []

    var isEmpty: Bool { changes.isEmpty }

    /// What it occupies, with what its lists have taken in advance.
    var cost: Int { bytes.capacity + changes.capacity * MemoryLayout<Change>.stride }

    mutating func append(_ change: Change) { changes.append(change) }

    mutating func copy(_ buffer: ByteBuffer) -> Piece {
        let start = bytes.count
        bytes.append(contentsOf: buffer.readableBytesView)
        return Piece(start: start, count: buffer.readableBytes)
    }

    mutating func copy(_ text: String) -> Piece {
        let start = bytes.count
        bytes.append(contentsOf: text.utf8)
        return Piece(start: start, count: bytes.count - start)
    }

    mutating func copy(_ list: [UInt8]) -> Piece {
        let start = bytes.count
        bytes.append(contentsOf: list)
        return Piece(start: start, count: list.count)
    }

    mutating func copy(_ message: Message, id: UInt64) -> Content {
        Content(
            id: id, topic: copy(message.topic.bytes), properties: message.properties.map { copy($0) },
            payload: copy(message.payload), qos: message.qos, retain: message.retain,
            expiresAt: message.expiresAt)
    }
}

/// A message that the store keeps for a session: by this the two speak of it. Numbers of entries, messages and sessions
/// come from one count (``Store/takeNumbers(_:)``), so that entries are in the order in which they were queued.
struct StoredEntry: Hashable, Sendable {
    var session: UInt64
    /// 0 is a message that the store does not know.
    var id: UInt64

    static let none = StoredEntry(session: 0, id: 0)
    var isKnown: Bool { id != 0 }
}
