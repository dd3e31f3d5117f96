public import NIOCore

/// A PUBLISH as a server takes it in: what concerns this hop is decoded, what is passed on stays the bytes it came as.
///
/// Decoding allocates nothing for either version, and all buffers are slices of the body. Only a list whose parts that
/// are passed on do not lie together costs an array of their slices.
public struct IncomingPublish: Sendable {
    public var dup: Bool
    public var qos: QoS
    public var retain: Bool
    /// 0 for QoS 0.
    public var packetID: UInt16
    /// nil where a topic alias stands for it.
    public var topic: TopicName?
    public var payload: ByteBuffer
    /// 0 is none.
    public var topicAlias: UInt16 = 0
    /// Seconds; nil is never.
    public var messageExpiryInterval: UInt32?
    /// The properties that go to the receivers unaltered and in their order, as on the wire without a length
    /// (MQTT-3.3.2-4, -15, -16, -17, -18, -20); nil if there are none.
    public var forwardedProperties: ByteBuffer?
    /// What follows ``forwardedProperties``, where a property for this hop stood between.
    public var morePassedOn: [ByteBuffer] = []

    public init(
        topic: TopicName?, payload: ByteBuffer, qos: QoS = .atMostOnce, retain: Bool = false, dup: Bool = false,
        packetID: UInt16 = 0
    ) {
        self.dup = dup
        self.qos = qos
        self.retain = retain
        self.packetID = packetID
        self.topic = topic
        self.payload = payload
    }
}

extension IncomingPublish {
    /// Decodes a body of exactly `header.remainingLength` bytes and consumes it.
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> IncomingPublish {
        let flags = try Publish.Flags(header.flags)
        var reader = PacketReader(body, header: header, version: version)
        let topic = try reader.readPublishTopic()
        var publish = IncomingPublish(
            topic: topic, payload: body, qos: flags.qos, retain: flags.retain, dup: flags.dup)
        if flags.qos != .atMostOnce { publish.packetID = try reader.readPacketID() }
        if version == .v5_0 {
            if !reader.skipEmptyBlock() { try publish.readProperties(from: &reader) }
            guard topic != nil || publish.topicAlias != 0 else {
                throw reader.protocolError("a topic name or a topic alias")
            }
        }
        publish.payload = reader.readRest()
        body.moveReaderIndex(to: body.writerIndex)
        return publish
    }

    private mutating func readProperties(from reader: inout PacketReader) throws(DecodeError) {
        var block = try reader.readPropertyBlock()
        // Slices are taken of what is still readable, so not of the reader's own buffer.
        let whole = block.buffer
        var seen: UInt64 = 0
        /// Where the piece begins that is passed on as a whole.
        var piece = block.buffer.readerIndex
        while block.remaining > 0 {
            let start = block.buffer.readerIndex
            let number = try block.readVariableByteInteger("property identifier")
            guard let id = UInt8(exactly: number).flatMap(PropertyID.init(rawValue:)) else {
                throw block.malformed("a known property, found \(number)", back: block.buffer.readerIndex - start)
            }
            let bit: UInt64 = 1 << UInt64(id.rawValue)
            guard seen & bit == 0 || id == .userProperty else {
                throw block.protocolError("\(id) only once", back: block.buffer.readerIndex - start)
            }
            seen |= bit
            switch id {
            case .payloadFormatIndicator: _ = try block.readPayloadFormat()
            case .contentType: _ = try block.readUTF8("content type")
            case .responseTopic: _ = try block.readResponseTopic()
            case .correlationData: _ = try block.readBinary("correlation data")
            case .userProperty:
                _ = try block.readUTF8("user property name")
                _ = try block.readUTF8("user property value")
            case .messageExpiryInterval:
                messageExpiryInterval = try block.readUInt32("message expiry interval")
                pass(whole, piece..<start)
                piece = block.buffer.readerIndex
            case .topicAlias:
                topicAlias = try block.readTopicAlias()
                pass(whole, piece..<start)
                piece = block.buffer.readerIndex
            case .subscriptionIdentifier:
                throw block.protocolError(
                    "no subscription identifier from a client", "MQTT-3.3.4-6", back: block.buffer.readerIndex - start)
            default:
                throw block.protocolError(
                    "a property of PUBLISH, found \(id)", back: block.buffer.readerIndex - start)
            }
        }
        pass(whole, piece..<whole.writerIndex)
    }

    private mutating func pass(_ buffer: ByteBuffer, _ range: Range<Int>) {
        if range.isEmpty { return }
        let slice = buffer.getSlice(at: range.lowerBound, length: range.count)!
        if forwardedProperties == nil { forwardedProperties = slice } else { morePassedOn.append(slice) }
    }
}
