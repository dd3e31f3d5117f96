import Arena
import ArenaNIO
import Ledger
import MQTT
import NIOCore

/// The packets of one message that goes to many: encoded once for each protocol version, QoS and RETAIN flag, then
/// copied into each connection's output.
///
/// What only one receiver gets (topic aliases, subscription identifiers) is encoded for that receiver alone. There is
/// one of these for each event loop, and its one buffer is used again for every message.
struct FanOut {
    /// A packet without its identifier, which each receiver has another of; without the payload where that is sent
    /// from where it lies.
    struct Variant {
        var bytes: ByteBuffer
        /// Where the packet identifier goes; 0 in QoS 0.
        var identifierOffset: Int
    }

    /// Whether a message is on its way to many now.
    private(set) var isActive = false
    private var buffer: ByteBuffer?
    private var ranges: [(start: Int32, length: Int32, identifierOffset: Int32)] = Array(
        repeating: (0, 0, 0), count: 32)
    private var wasUsed = false

    /// A message begins its way. One that is published because a receiver failed on the way has no part in this.
    ///
    /// - Returns: what ``end(_:)`` needs.
    mutating func begin(receivers: Int) -> Bool {
        let outer = isActive
        isActive = !outer && receivers > 1
        if isActive {
            for index in ranges.indices { ranges[index].length = 0 }
            if let buffer, buffer.readableBytes > 0 { self.buffer?.clear() }
            wasUsed = true
        }
        return outer
    }

    mutating func end(_ outer: Bool) { isActive = outer }

    /// The packet of the message that is on its way; nil where it cannot be encoded ahead.
    mutating func variant(
        _ message: Message, version: ProtocolVersion, withPayload: Bool, in arena: Arena, owner: OwnerID
    ) -> Variant? {
        let key =
            Int(message.qos.rawValue) << 3 | (withPayload ? 4 : 0) | (message.retain ? 2 : 0)
            | (version == .v5_0 ? 1 : 0)
        if ranges[key].length == 0 {
            guard encode(message, version, withPayload: withPayload, key: key, in: arena, owner: owner) else {
                return nil
            }
        }
        let range = ranges[key]
        return Variant(
            bytes: buffer!.getSlice(at: Int(range.start), length: Int(range.length))!,
            identifierOffset: Int(range.identifierOffset))
    }

    private mutating func encode(
        _ message: Message, _ version: ProtocolVersion, withPayload: Bool, key: Int, in arena: Arena, owner: OwnerID
    ) -> Bool {
        let payloadLength = message.payload.readableBytes
        // Fixed header, topic, identifier, properties with their length and expiry.
        let most = 32 + message.heldBytes - (withPayload ? 0 : payloadLength)
        guard most <= Limits.maxFanOutBytes, makeRoom(most, in: arena, owner: owner) else { return false }
        let start = buffer!.writerIndex
        // Any identifier: each receiver's is put in its place.
        let packetID: UInt16 = message.qos == .atMostOnce ? 0 : 1
        var properties = OutgoingProperties()
        let fits: Bool
        if version == .v5_0 {
            properties.forwardedProperties = message.properties
            if message.mayExpire { properties.messageExpiryInterval = message.remainingSeconds(at: .now()) }
            fits = Publish.encodeHeader(
                into: &buffer!, topic: message.topic, qos: message.qos, dup: false, retain: message.retain,
                packetID: packetID, payloadLength: payloadLength, properties: properties)
        } else {
            fits = Publish.encodeHeader(
                into: &buffer!, topic: message.topic, qos: message.qos, retain: message.retain, packetID: packetID,
                payloadLength: payloadLength, version: .v3_1_1)
        }
        guard fits else { return false }
        var identifierOffset = 0
        if packetID != 0 {
            let list = version == .v5_0 ? properties.encodedLength : -1
            let behind = list < 0 ? 0 : list + (list < 128 ? 1 : list < 16_384 ? 2 : 3)
            identifierOffset = buffer!.writerIndex - start - behind - 2
        }
        if withPayload { buffer!.writeImmutableBuffer(message.payload) }
        ranges[key] = (Int32(start), Int32(buffer!.writerIndex - start), Int32(identifierOffset))
        return true
    }

    /// Room behind what is encoded already, in place: a slice of an earlier variant must stay what it is.
    private mutating func makeRoom(_ count: Int, in arena: Arena, owner: OwnerID) -> Bool {
        if let buffer, buffer.writableBytes >= count { return true }
        for index in ranges.indices { ranges[index].length = 0 }
        let capacity = max(count * 2, Limits.minSegmentBytes * 4)
        guard let fresh = try? arena.buffer(capacity: capacity, owner: owner, "fan-out packets") else {
            buffer = nil
            return false
        }
        buffer = fresh
        return true
    }

    /// Frees the buffer if it was not used since the last call.
    mutating func trim() {
        if !wasUsed { drop() }
        wasUsed = false
    }

    mutating func drop() {
        for index in ranges.indices { ranges[index].length = 0 }
        buffer = nil
    }

    func visit(owner: OwnerID, _ visitor: inout ReachableBufferVisitor) {
        if let buffer { visitor.hold(buffer, owner: owner, kind: .outbound) }
    }
}
