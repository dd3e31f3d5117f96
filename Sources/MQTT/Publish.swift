public import NIOCore

/// PUBLISH: an application message on its way to or from a server (section 3.3).
///
/// The hot packet, so decoding it allocates nothing: topic and payload are slices of the body, and stay valid as long
/// as somebody keeps them. A slice keeps all of the buffer it was read from alive.
public struct Publish: Equatable, Sendable {
    public var dup: Bool
    public var qos: QoS
    public var retain: Bool
    /// 0 for QoS 0.
    public var packetID: UInt16
    /// nil only in 5.0, where a topic alias stands for it.
    public var topic: TopicName?
    public var payload: ByteBuffer
    /// Out of line: eight bytes here, and nothing allocated, for the packets that have none.
    private var propertyBox: Box?

    public init(
        topic: TopicName?, payload: ByteBuffer, qos: QoS = .atMostOnce, retain: Bool = false, dup: Bool = false,
        packetID: UInt16 = 0, properties: PublishProperties? = nil
    ) {
        self.dup = dup
        self.qos = qos
        self.retain = retain
        self.packetID = packetID
        self.topic = topic
        self.payload = payload
        self.propertyBox = properties.map(Box.init)
    }

    /// nil in 3.1.1, and in 5.0 if the list is empty. Setting it allocates.
    public var properties: PublishProperties? {
        get { propertyBox?.value }
        set { propertyBox = newValue.map(Box.init) }
    }

    /// The topic as text; allocates, so it is for logs and for what is looked up once.
    public var topicString: String { topic?.text ?? "" }

    private final class Box: Sendable, Equatable {
        let value: PublishProperties

        init(_ value: PublishProperties) { self.value = value }

        static func == (a: Box, b: Box) -> Bool { a === b || a.value == b.value }
    }
}

extension Publish {
    /// The flags in PUBLISH's fixed header (section 3.3.1): `[ DUP | QoS : 2 | RETAIN ]`.
    @usableFromInline
    struct Flags {
        var dup: Bool
        var qos: QoS
        var retain: Bool

        init(dup: Bool, qos: QoS, retain: Bool) {
            self.dup = dup
            self.qos = qos
            self.retain = retain
        }

        @usableFromInline
        init(_ bits: UInt8) throws(DecodeError) {
            guard let qos = QoS(rawValue: bits >> 1 & 3) else {
                throw .malformed(.init(offset: 0, expected: "a QoS of 0 to 2", statement: "MQTT-3.3.1-4"))
            }
            self.init(dup: bits & 8 != 0, qos: qos, retain: bits & 1 != 0)
            guard !dup || qos != .atMostOnce else {
                throw .malformed(.init(offset: 0, expected: "no DUP flag with QoS 0", statement: "MQTT-3.3.1-2"))
            }
        }

        var bits: UInt8 { (dup ? 8 : 0) | qos.rawValue << 1 | (retain ? 1 : 0) }
    }

    /// Decodes a body of exactly `header.remainingLength` bytes and consumes it.
    ///
    /// What depends on the direction is left to the session: a client may not send a subscription identifier
    /// (MQTT-3.3.4-6), and a topic alias has to be within the limit that was announced.
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Publish {
        let flags = try Flags(header.flags)
        var reader = PacketReader(body, header: header, version: version)
        let topic = try reader.readPublishTopic()
        let packetID = flags.qos == .atMostOnce ? 0 : try reader.readPacketID()
        var properties: PublishProperties?
        if version == .v5_0 {
            properties = try readProperties(from: &reader)
            if topic == nil, properties?.topicAlias == nil {
                throw reader.protocolError("a topic name or a topic alias")
            }
        }
        let publish = Publish(
            topic: topic, payload: reader.readRest(), qos: flags.qos, retain: flags.retain, dup: flags.dup,
            packetID: packetID, properties: properties)
        body.moveReaderIndex(to: body.writerIndex)
        return publish
    }

    private static func readProperties(from reader: inout PacketReader) throws(DecodeError) -> PublishProperties? {
        if reader.skipEmptyBlock() { return nil }
        return try reader.readProperties(of: "PUBLISH")
    }
}

extension Publish {
    /// Bytes of the whole packet, payload included; what a receiver's Maximum Packet Size limits.
    ///
    /// Can exceed ``Packet/maximumLength``, where a forwarded message gained properties: compare before encoding.
    public static func encodedSize(
        topicLength: Int, qos: QoS, payloadLength: Int, properties: PublishProperties?, version: ProtocolVersion
    ) -> Int {
        let remaining = remainingLength(
            topicLength: topicLength, qos: qos, payloadLength: payloadLength,
            propertyLength: version == .v5_0 ? properties?.encodedLength ?? 0 : 0, version: version)
        return 1 + VariableByteInteger.encodedLength(remaining) + remaining
    }

    public func encodedSize(version: ProtocolVersion) -> Int {
        Self.encodedSize(
            topicLength: topic?.byteCount ?? 0, qos: qos, payloadLength: payload.readableBytes, properties: properties,
            version: version)
    }

    /// Appends everything of a packet but its payload, which the caller writes next, or sends from where it lies.
    ///
    /// Allocates nothing if the buffer has room.
    ///
    /// - Parameters:
    ///   - topic: nil only in 5.0, where a topic alias stands for it.
    ///   - packetID: ignored for QoS 0, other than 0 for the rest.
    ///   - payloadLength: bytes of the payload that will follow.
    ///   - properties: ignored in 3.1.1.
    /// - Returns: false, with nothing written, if the packet would exceed ``Packet/maximumLength``.
    public static func encodeHeader(
        into buffer: inout ByteBuffer, topic: TopicName?, qos: QoS, dup: Bool = false, retain: Bool = false,
        packetID: UInt16 = 0, payloadLength: Int, properties: PublishProperties? = nil, version: ProtocolVersion
    ) -> Bool {
        let propertyLength = version == .v5_0 ? properties?.encodedLength ?? 0 : 0
        let fits = encodeFront(
            into: &buffer, topic: topic, qos: qos, dup: dup, retain: retain, packetID: packetID,
            payloadLength: payloadLength, propertyLength: propertyLength, version: version)
        if fits, propertyLength > 0 { properties?.write(to: &buffer) }
        return fits
    }

    /// Appends a packet as far as the length of its property list.
    ///
    /// - Returns: false, with nothing written, if the packet would exceed ``Packet/maximumLength``.
    static func encodeFront(
        into buffer: inout ByteBuffer, topic: TopicName?, qos: QoS, dup: Bool, retain: Bool, packetID: UInt16,
        payloadLength: Int, propertyLength: Int, version: ProtocolVersion
    ) -> Bool {
        assert(qos == .atMostOnce || packetID != 0, "a packet identifier is never 0 (MQTT-2.2.1-3, MQTT-2.2.1-4)")
        let topicLength = topic?.byteCount ?? 0
        let remaining = remainingLength(
            topicLength: topicLength, qos: qos, payloadLength: payloadLength, propertyLength: propertyLength,
            version: version)
        guard remaining <= VariableByteInteger.maximum else { return false }
        let flags = Flags(dup: dup, qos: qos, retain: retain)
        // Two spans and two copies in place of a write per field: each write checks for uniqueness and capacity anew.
        buffer.writeWithOutputRawSpan(
            minimumWritableBytes: 1 + VariableByteInteger.encodedLength(remaining) + remaining - payloadLength
        ) { span in
            span.append(PacketType.publish.rawValue << 4 | flags.bits)
            VariableByteInteger.append(remaining, to: &span)
            span.append(UInt16(truncatingIfNeeded: topicLength))
        }
        if let topic { buffer.writeImmutableBuffer(topic.bytes) }
        guard qos != .atMostOnce || version == .v5_0 else { return true }
        buffer.writeWithOutputRawSpan(minimumWritableBytes: 0) { span in
            if qos != .atMostOnce { span.append(packetID) }
            if version == .v5_0 { VariableByteInteger.append(propertyLength, to: &span) }
        }
        return true
    }

    /// Appends the whole packet; nothing if it would exceed ``Packet/maximumLength``.
    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        let size = encodedSize(version: version)
        if size <= Packet.maximumLength { buffer.reserveCapacity(minimumWritableBytes: size) }
        let fits = Self.encodeHeader(
            into: &buffer, topic: topic, qos: qos, dup: dup, retain: retain, packetID: packetID,
            payloadLength: payload.readableBytes, properties: properties, version: version)
        if fits { buffer.writeImmutableBuffer(payload) }
    }

    static func remainingLength(
        topicLength: Int, qos: QoS, payloadLength: Int, propertyLength: Int, version: ProtocolVersion
    ) -> Int {
        2 + topicLength
            + (qos == .atMostOnce ? 0 : 2)
            + (version == .v5_0 ? VariableByteInteger.encodedLength(propertyLength) + propertyLength : 0)
            + payloadLength
    }
}
