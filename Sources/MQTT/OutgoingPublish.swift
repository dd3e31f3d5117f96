public import NIOCore

/// The property list of a PUBLISH from a server: what came with the message, and what this hop adds.
public struct OutgoingProperties: Sendable {
    /// As ``IncomingPublish/forwardedProperties``: sent as it came.
    public var forwardedProperties: ByteBuffer?
    /// Seconds that are left; nil is never.
    public var messageExpiryInterval: UInt32?
    /// 0 is none.
    public var topicAlias: UInt16 = 0
    /// The subscription identifiers, encoded by ``encode(subscriptionIdentifiers:)``.
    public var identifiers: [UInt8] = []

    public init() {}

    /// Bytes of the list, without its own length.
    public var encodedLength: Int {
        (forwardedProperties?.readableBytes ?? 0) + (messageExpiryInterval == nil ? 0 : 5) + (topicAlias == 0 ? 0 : 3)
            + identifiers.count
    }

    /// The identifiers as they stand in a property list, to be encoded once for many messages.
    public static func encode(subscriptionIdentifiers: [UInt32]) -> [UInt8] {
        var buffer = ByteBuffer()
        for identifier in subscriptionIdentifiers { buffer.writeSubscriptionIdentifier(identifier) }
        return Array(buffer.readableBytesView)
    }

    /// Whether these are the bytes of ``encode(subscriptionIdentifiers:)``.
    public static func areIdentifiers(_ bytes: [UInt8]) -> Bool {
        var buffer = ByteBuffer(bytes: bytes)
        while let key: UInt8 = buffer.readInteger() {
            guard key == PropertyID.subscriptionIdentifier.rawValue,
                let (value, length) = try? VariableByteInteger.peek(buffer, at: buffer.readerIndex), value > 0
            else { return false }
            buffer.moveReaderIndex(forwardBy: length)
        }
        return true
    }
}

extension Publish {
    /// Bytes of a whole 5.0 packet, payload included; what a receiver's Maximum Packet Size limits.
    public static func encodedSize(
        topicLength: Int, qos: QoS, payloadLength: Int, properties: OutgoingProperties
    ) -> Int {
        let remaining = remainingLength(
            topicLength: topicLength, qos: qos, payloadLength: payloadLength,
            propertyLength: properties.encodedLength, version: .v5_0)
        return 1 + VariableByteInteger.encodedLength(remaining) + remaining
    }

    /// Appends everything of a 5.0 packet but its payload. Allocates nothing if the buffer has room.
    ///
    /// - Parameters:
    ///   - topic: nil where a topic alias stands for it.
    ///   - packetID: ignored for QoS 0, other than 0 for the rest.
    /// - Returns: false, with nothing written, if the packet would exceed ``Packet/maximumLength``.
    public static func encodeHeader(
        into buffer: inout ByteBuffer, topic: TopicName?, qos: QoS, dup: Bool, retain: Bool, packetID: UInt16,
        payloadLength: Int, properties: OutgoingProperties
    ) -> Bool {
        let length = properties.encodedLength
        let fits = encodeFront(
            into: &buffer, topic: topic, qos: qos, dup: dup, retain: retain, packetID: packetID,
            payloadLength: payloadLength, propertyLength: length, version: .v5_0)
        guard fits, length > 0 else { return fits }
        buffer.writeProperty(.messageExpiryInterval, properties.messageExpiryInterval)
        if properties.topicAlias != 0 { buffer.writeProperty(.topicAlias, properties.topicAlias) }
        if let forwardedProperties = properties.forwardedProperties { buffer.writeImmutableBuffer(forwardedProperties) }
        if !properties.identifiers.isEmpty { buffer.writeBytes(properties.identifiers) }
        return true
    }
}

extension WillProperties {
    /// Bytes that ``writePassedOn(to:)`` writes.
    public var forwardedPropertiesLength: Int { forwardedProperties.encodedLength }

    /// Appends what the receivers of the will get with it: all but the two times, which are the server's to apply.
    public func writePassedOn(to buffer: inout ByteBuffer) { forwardedProperties.write(to: &buffer) }

    private var forwardedProperties: PublishProperties {
        var list = PublishProperties()
        list.payloadFormat = payloadFormat
        list.contentType = contentType
        list.responseTopic = responseTopic
        list.correlationData = correlationData
        list.userProperties = userProperties
        return list
    }
}

extension Connect {
    /// The version that a CONNECT says it is in, whatever else may be wrong with it; nil for none that is known.
    public static func version(of body: ByteBuffer, header: FixedHeader) -> ProtocolVersion? {
        try? readProtocol(body, header: header)
    }
}
