public import NIOCore

/// The properties of PUBLISH (section 3.3.2.3).
public struct PublishProperties: Equatable, Sendable {
    public var payloadFormat: PayloadFormat?
    /// Seconds; nil is never.
    public var messageExpiryInterval: UInt32?
    /// 1 to the maximum the receiver announced; never forwarded.
    public var topicAlias: UInt16?
    /// When decoded, a slice of the body.
    public var responseTopic: TopicName?
    /// When decoded, a slice of the body.
    public var correlationData: ByteBuffer?
    public var contentType: String?
    /// Forwarded unchanged and in order (MQTT-3.3.2-17, MQTT-3.3.2-18).
    public var userProperties: [UserProperty] = []
    /// One for each matching subscription; only from server to client (MQTT-3.3.4-6).
    public var subscriptionIdentifiers: [UInt32] = []

    public init() {}
}

extension PublishProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .payloadFormatIndicator: payloadFormat = try reader.readPayloadFormat()
        case .messageExpiryInterval: messageExpiryInterval = try reader.readUInt32("message expiry interval")
        case .topicAlias: topicAlias = try reader.readTopicAlias()
        case .responseTopic: responseTopic = try reader.readResponseTopic()
        case .correlationData: correlationData = try reader.readBinary("correlation data")
        case .contentType: contentType = try reader.readString("content type")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        case .subscriptionIdentifier: subscriptionIdentifiers.append(try reader.readSubscriptionIdentifier())
        default: return false
        }
        return true
    }

    static func mayRepeat(_ id: PropertyID) -> Bool { id == .userProperty || id == .subscriptionIdentifier }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeProperty(.payloadFormatIndicator, payloadFormat?.rawValue)
        buffer.writeProperty(.messageExpiryInterval, messageExpiryInterval)
        buffer.writeProperty(.topicAlias, topicAlias)
        buffer.writeProperty(.responseTopic, responseTopic)
        buffer.writeProperty(.correlationData, correlationData)
        buffer.writeProperty(.contentType, contentType)
        buffer.writeUserProperties(userProperties)
        for identifier in subscriptionIdentifiers { buffer.writeSubscriptionIdentifier(identifier) }
    }

    /// Bytes that ``write(to:)`` writes, so that PUBLISH needs no second pass over its bytes.
    var encodedLength: Int {
        let identifier = 1
        let lengthPrefix = 2
        var length = 0
        if payloadFormat != nil { length += identifier + 1 }
        if messageExpiryInterval != nil { length += identifier + 4 }
        if topicAlias != nil { length += identifier + 2 }
        if let responseTopic { length += identifier + lengthPrefix + responseTopic.byteCount }
        if let correlationData { length += identifier + ByteBuffer.mqttLength(correlationData) }
        if let contentType { length += identifier + ByteBuffer.mqttLength(contentType) }
        for property in userProperties {
            length += identifier + ByteBuffer.mqttLength(property.name) + ByteBuffer.mqttLength(property.value)
        }
        for subscription in subscriptionIdentifiers {
            length += identifier + VariableByteInteger.encodedLength(Int(subscription))
        }
        return length
    }
}

extension PublishProperties {
    /// Bytes that ``writePassedOn(to:)`` writes.
    public var forwardedPropertiesLength: Int { encodedLength }

    /// Appends the properties as a message on its way carries them, without a length in front.
    public func writePassedOn(to buffer: inout ByteBuffer) { write(to: &buffer) }

    /// Reads what ``writePassedOn(to:)`` has written, or what a PUBLISH brought to be passed on.
    ///
    /// - Returns: nil if the bytes are not such a list.
    public init?(forwardedProperties bytes: ByteBuffer) {
        self.init()
        var reader = PacketReader(
            bytes,
            header: FixedHeader(type: .publish, flags: 0, remainingLength: bytes.readableBytes, encodedLength: 0),
            version: .v5_0)
        do throws(DecodeError) {
            while reader.remaining > 0 {
                let number = try reader.readVariableByteInteger("property identifier")
                guard let id = UInt8(exactly: number).flatMap(PropertyID.init(rawValue:)),
                    try read(id, from: &reader)
                else { return nil }
            }
        } catch {
            return nil
        }
    }
}
