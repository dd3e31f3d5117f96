public import NIOCore

/// What becomes of retained messages when a subscription is made (5.0, section 3.8.3.1).
public enum RetainHandling: UInt8, Sendable, CaseIterable {
    case sendAtSubscribe = 0
    case sendIfNew = 1
    case doNotSend = 2
}

/// One topic filter of a SUBSCRIBE with its options; the last three are 5.0's, and false or 0 in 3.1.1.
public struct Subscription: Equatable, Sendable {
    public var filter: String
    /// The highest QoS at which messages are to be sent.
    public var qos: QoS
    /// Do not send back what this client published.
    public var noLocal: Bool
    /// Keep the RETAIN flag as it was published.
    public var retainAsPublished: Bool
    public var retainHandling: RetainHandling

    public init(
        filter: String, qos: QoS = .atMostOnce, noLocal: Bool = false, retainAsPublished: Bool = false,
        retainHandling: RetainHandling = .sendAtSubscribe
    ) {
        self.filter = filter
        self.qos = qos
        self.noLocal = noLocal
        self.retainAsPublished = retainAsPublished
        self.retainHandling = retainHandling
    }
}

/// SUBSCRIBE: one or more subscriptions (section 3.8).
public struct Subscribe: Equatable, Sendable {
    public var packetID: UInt16
    public var filters: [Subscription]
    /// Empty in 3.1.1.
    public var properties: SubscribeProperties

    public init(packetID: UInt16, filters: [Subscription], properties: SubscribeProperties = .init()) {
        self.packetID = packetID
        self.filters = filters
        self.properties = properties
    }
}

extension Subscribe {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Subscribe {
        var reader = PacketReader(body, header: header, version: version)
        let packetID = try reader.readPacketID()
        let properties: SubscribeProperties = try reader.readProperties(of: "SUBSCRIBE")
        var filters: [Subscription] = []
        repeat {
            guard reader.remaining > 0 else {
                throw reader.protocolError("at least one topic filter", v3: "MQTT-3.8.3-3", v5: "MQTT-3.8.3-2")
            }
            filters.append(try Subscription(from: &reader))
        } while reader.remaining > 0
        body.moveReaderIndex(to: body.writerIndex)
        return Subscribe(packetID: packetID, filters: filters, properties: properties)
    }

    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        assert(packetID != 0, "a packet identifier is never 0 (MQTT-2.2.1-3)")
        buffer.writePacket(.subscribe) { buffer in
            buffer.writeInteger(packetID)
            buffer.writeProperties(properties, version: version)
            for subscription in filters {
                buffer.writeMQTTString(subscription.filter)
                buffer.writeInteger(version == .v5_0 ? subscription.options : subscription.qos.rawValue)
            }
        }
    }
}

/// The subscription options byte (section 3.8.3.1).
///
///     [ 0 : 2 | retain handling : 2 | retain as published | no local | QoS : 2 ]
extension Subscription {
    fileprivate init(from reader: inout PacketReader) throws(DecodeError) {
        filter = try reader.readTopicFilter()
        let options = try reader.readUInt8("subscription options")
        let reserved: UInt8 = reader.version == .v5_0 ? 0b1100_0000 : 0b1111_1100
        guard options & reserved == 0 else {
            throw reader.malformed(
                "0 in the reserved subscription options", v3: "MQTT-3-8.3-4", v5: "MQTT-3.8.3-5", back: 1)
        }
        guard let qos = QoS(rawValue: options & 3) else {
            // 3.1.1 counts it with the reserved bits; in 5.0 the rule has no number (section 3.8.3.1).
            let statement = reader.version == .v3_1_1 ? "MQTT-3-8.3-4" : nil
            throw reader.malformed("a subscription QoS of 0 to 2", statement, back: 1)
        }
        guard let retainHandling = RetainHandling(rawValue: options >> 4 & 3) else {
            throw reader.protocolError("retain handling of 0 to 2", back: 1)
        }
        self.qos = qos
        self.retainHandling = retainHandling
        noLocal = options & 0b0100 != 0
        retainAsPublished = options & 0b1000 != 0
        if noLocal, SharedSubscription.isShared(filter) {
            throw reader.protocolError("no No Local on a shared subscription", "MQTT-3.8.3-4", back: 1)
        }
    }

    fileprivate var options: UInt8 {
        qos.rawValue | (noLocal ? 0b0100 : 0) | (retainAsPublished ? 0b1000 : 0) | retainHandling.rawValue << 4
    }
}

/// The properties of SUBSCRIBE (section 3.8.2.1).
public struct SubscribeProperties: Equatable, Sendable {
    /// 1 to 268,435,455; comes back with every message that these subscriptions match.
    public var subscriptionIdentifier: UInt32?
    public var userProperties: [UserProperty] = []

    public init() {}
}

extension SubscribeProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .subscriptionIdentifier: subscriptionIdentifier = try reader.readSubscriptionIdentifier()
        case .userProperty: userProperties.append(try reader.readUserProperty())
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeSubscriptionIdentifier(subscriptionIdentifier)
        buffer.writeUserProperties(userProperties)
    }
}
