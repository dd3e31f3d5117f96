public import NIOCore

/// The message a server publishes for a client that vanished; travels inside CONNECT (section 3.1.2.5).
///
/// Topic and payload as decoded are slices of the CONNECT's body and keep that alive: copy what is to live with the
/// session.
public struct Will: Equatable, Sendable {
    public var topic: TopicName
    public var payload: ByteBuffer
    public var qos: QoS
    public var retain: Bool
    /// Empty in 3.1.1.
    public var properties: WillProperties

    public init(
        topic: TopicName, payload: ByteBuffer, qos: QoS = .atMostOnce, retain: Bool = false,
        properties: WillProperties = .init()
    ) {
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.properties = properties
    }
}

/// The will's own properties (section 3.1.3.2).
public struct WillProperties: Equatable, Sendable {
    /// Seconds between the end of the connection and the will; nil is 0.
    public var delayInterval: UInt32?
    public var payloadFormat: PayloadFormat?
    /// Seconds; nil is never.
    public var messageExpiryInterval: UInt32?
    public var contentType: String?
    public var responseTopic: TopicName?
    public var correlationData: ByteBuffer?
    public var userProperties: [UserProperty] = []

    public init() {}
}

extension WillProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .willDelayInterval: delayInterval = try reader.readUInt32("will delay interval")
        case .payloadFormatIndicator: payloadFormat = try reader.readPayloadFormat()
        case .messageExpiryInterval: messageExpiryInterval = try reader.readUInt32("message expiry interval")
        case .contentType: contentType = try reader.readString("content type")
        case .responseTopic: responseTopic = try reader.readResponseTopic()
        case .correlationData: correlationData = try reader.readBinary("correlation data")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeProperty(.willDelayInterval, delayInterval)
        buffer.writeProperty(.payloadFormatIndicator, payloadFormat?.rawValue)
        buffer.writeProperty(.messageExpiryInterval, messageExpiryInterval)
        buffer.writeProperty(.contentType, contentType)
        buffer.writeProperty(.responseTopic, responseTopic)
        buffer.writeProperty(.correlationData, correlationData)
        buffer.writeUserProperties(userProperties)
    }
}
