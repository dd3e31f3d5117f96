import Arena
import ArenaNIO
import Ledger
import MQTT
import NIOCore

/// An application message on its way through the broker: a topic and a payload, as slices of the buffer they came in.
///
/// A message that is only passed on borrows the read buffer for a tick. One that stays (queued, in flight, retained,
/// a will) must own its buffer, or a few bytes would keep 64 KiB alive: see ``keep(in:owner:_:)``.
struct Message {
    var topic: ByteBuffer
    var payload: ByteBuffer
    var qos: QoS
    /// The RETAIN flag as it is sent: set only for what comes out of the retained store.
    var retain = false
    /// Whether topic and payload fill a buffer that holds nothing else.
    var ownsBuffer: Bool

    /// Bytes this message keeps alive if it owns its buffer.
    var heldBytes: Int { topic.readableBytes + payload.readableBytes }

    /// Moves the message into an exact buffer of its own, unless it has one.
    mutating func keep(
        in arena: Arena, owner: OwnerID, _ label: StaticString, file: StaticString = #fileID, line: UInt32 = #line,
        function: StaticString = #function
    ) throws(ArenaError) {
        guard !ownsBuffer else { return }
        var buffer = try arena.buffer(
            capacity: max(heldBytes, 1), owner: owner, label, file: file, line: line, function: function)
        buffer.writeImmutableBuffer(topic)
        buffer.writeImmutableBuffer(payload)
        let topicLength = topic.readableBytes
        topic = buffer.getSlice(at: 0, length: topicLength)!
        payload = buffer.getSlice(at: topicLength, length: buffer.readableBytes - topicLength)!
        ownsBuffer = true
    }
}
