import Arena
import ArenaNIO
import Ledger
import MQTT
import NIOCore

/// An application message on its way through the broker: a topic and a payload, as slices of the buffer they came in.
///
/// A message that is only passed on borrows the read buffer for a tick. One that stays (queued, in flight, retained,
/// a will) must own its buffer, or a few bytes would keep 64 KiB alive: see ``keep(in:owner:_:)``.
///
/// A queue holds millions of them, so the order of the fields is the one that takes least room: 128 bytes.
struct Message {
    var topic: TopicName
    var payload: ByteBuffer
    /// The properties of 5.0 that are passed on, as they came and without a length; nil if there are none.
    var properties: ByteBuffer?
    var qos: QoS
    /// The RETAIN flag as it is sent: for what comes out of the retained store, or as published for those who asked.
    var retain = false
    /// Whether topic, properties and payload fill a buffer that holds nothing else.
    var ownsBuffer: Bool
    /// For whom it was kept, and whether for others too.
    private var keeper = Keeper.nobody
    private(set) var reach = Reach()
    /// When it is no longer worth delivering (section 3.3.2.3.3); the distant future is never.
    var expiresAt = NIODeadline.distantFuture
    /// By which subscriptions it comes to the session it is for; nil where there is nothing to say of it.
    var route: Route?
    /// What the store calls it: as owed to one session, and its bytes. 0 where it does not know of it. The second holds
    /// on the loop that stored it, within the batch that was open then.
    var entry: UInt64 = 0
    var contentID: UInt64 = 0

    /// The slot of the buffer that a kept message owns, and the bytes it refers to: by this a safepoint names a million
    /// messages in a few milliseconds, without a look at their buffers.
    struct Reach {
        var slot = SlotIndex.none
        var bytes: UInt32 = 0
        var isKnown: Bool { slot != .none }
    }

    private enum Keeper {
        case nobody
        case one(OwnerID)
        /// Whoever answers for it now goes on doing so.
        case settled
    }

    init(
        topic: TopicName, payload: ByteBuffer, properties: ByteBuffer? = nil, qos: QoS, retain: Bool = false,
        ownsBuffer: Bool
    ) {
        self.topic = topic
        self.payload = Self.kept(payload)
        self.properties = properties
        self.qos = qos
        self.retain = retain
        self.ownsBuffer = ownsBuffer
    }

    /// An empty slice would keep a buffer alive of which it reaches no byte, so that nobody could name it. The topic is
    /// never empty: it is by the topic that a message with a buffer of its own is known.
    private static func kept(_ payload: ByteBuffer) -> ByteBuffer {
        payload.readableBytes > 0 ? payload : ByteBuffer()
    }

    /// Bytes this message keeps alive if it owns its buffer.
    var heldBytes: Int { topic.byteCount + payload.readableBytes + (properties?.readableBytes ?? 0) }

    /// Of its bytes the batches of another loop know nothing.
    var forAnotherLoop: Message {
        var message = self
        message.contentID = 0
        return message
    }

    /// Whether it may expire at all: else nobody need look at the clock.
    var mayExpire: Bool { expiresAt != .distantFuture }

    func isExpired(at now: NIODeadline) -> Bool { now >= expiresAt }

    /// The message expiry interval to send: what it came with, less the time it has been here (MQTT-3.3.2-6).
    func remainingSeconds(at now: NIODeadline) -> UInt32? {
        guard mayExpire else { return nil }
        let left = max(0, (expiresAt - now).nanoseconds)
        return UInt32(clamping: (left + 999_999_999) / 1_000_000_000)
    }

    /// Moves the message into an exact buffer of its own, unless it has one, on behalf of `owner`.
    ///
    /// In a fan-out the same buffer is kept for many. Then it is `sharedOwner` that answers for it: no one session.
    mutating func assignOwner(
        in arena: Arena, owner: OwnerID, sharedOwner: OwnerID? = nil, _ label: StaticString,
        file: StaticString = #fileID, line: UInt32 = #line, function: StaticString = #function
    ) throws(ArenaError) {
        switch (ownsBuffer, keeper) {
        case (true, .settled): return
        case (true, .nobody):
            arena.transfer(topic.bytes, to: owner, label, file: file, line: line, function: function)
            reach = Reach(slot: arena.slot(of: topic.bytes), bytes: UInt32(clamping: heldBytes))
        case (true, .one(let first)):
            guard first != owner, let sharedOwner else { return }
            keeper = .settled
            return arena.transfer(topic.bytes, to: sharedOwner, label, file: file, line: line, function: function)
        case (false, _): try copy(in: arena, owner: owner, label, file: file, line: line, function: function)
        }
        keeper = .one(owner)
    }

    /// Moves the message into a buffer of its own before it is known who will keep it: whoever keeps it first answers
    /// for it then.
    mutating func copyIfBorrowed(
        in arena: Arena, owner: OwnerID, _ label: StaticString, file: StaticString = #fileID, line: UInt32 = #line,
        function: StaticString = #function
    ) throws(ArenaError) {
        guard !ownsBuffer else { return }
        try copy(in: arena, owner: owner, label, file: file, line: line, function: function)
    }

    /// Says that nobody who keeps the message from here on answers for it.
    mutating func fixOwner() { keeper = .settled }

    private mutating func copy(
        in arena: Arena, owner: OwnerID, _ label: StaticString, file: StaticString, line: UInt32, function: StaticString
    ) throws(ArenaError) {
        var buffer = try arena.buffer(
            capacity: max(heldBytes, 1), owner: owner, label, file: file, line: line, function: function)
        buffer.writeImmutableBuffer(topic.bytes)
        let topicLength = buffer.writerIndex
        if let properties { buffer.writeImmutableBuffer(properties) }
        let start = buffer.writerIndex
        buffer.writeImmutableBuffer(payload)
        topic = topic.moved(to: buffer, at: 0)
        if properties != nil { properties = buffer.getSlice(at: topicLength, length: start - topicLength)! }
        payload = Self.kept(buffer.getSlice(at: start, length: buffer.readableBytes - start)!)
        ownsBuffer = true
        reach = Reach(slot: arena.slot(of: buffer), bytes: UInt32(clamping: heldBytes))
    }
}
