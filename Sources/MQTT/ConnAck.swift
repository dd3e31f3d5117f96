public import NIOCore

/// CONNACK: the server's answer to CONNECT (section 3.2).
public struct ConnAck: Equatable, Sendable {
    public var sessionPresent: Bool
    /// In 3.1.1 it is written as the nearest ``ConnectReturnCode``.
    public var code: ReasonCode
    /// Empty in 3.1.1.
    public var properties: ConnAckProperties

    public init(sessionPresent: Bool = false, code: ReasonCode, properties: ConnAckProperties = .init()) {
        self.sessionPresent = sessionPresent
        self.code = code
        self.properties = properties
    }
}

extension ConnAck {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> ConnAck {
        var reader = PacketReader(body, header: header, version: version)
        let flags = try reader.readUInt8("acknowledge flags")
        guard flags <= 1 else {
            throw reader.malformed(
                "0 in the reserved acknowledge flags", v3: "MQTT-2.2.2-1", v5: "MQTT-3.2.2-1", back: 1)
        }
        let code: ReasonCode
        switch version {
        case .v3_1_1:
            let byte = try reader.readUInt8("return code")
            guard let returnCode = ConnectReturnCode(rawValue: byte) else {
                throw reader.malformed("a return code of 0 to 5, found \(byte)", back: 1)
            }
            code = returnCode.reasonCode
        case .v5_0:
            code = try reader.readReasonCode(in: .connack, "MQTT-3.2.2-8")
        }
        guard flags == 0 || code == .success else {
            throw reader.protocolError(
                "no session present in a refusal", v3: "MQTT-3.2.2-4", v5: "MQTT-3.2.2-6", back: 2)
        }
        let properties: ConnAckProperties = try reader.readProperties(of: "CONNACK")
        try reader.finish()
        body.moveReaderIndex(to: body.writerIndex)
        return ConnAck(sessionPresent: flags == 1, code: code, properties: properties)
    }

    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        assert(!sessionPresent || code == .success, "a refusal has no session present (MQTT-3.2.2-6)")
        buffer.writePacket(.connack) { buffer in
            buffer.writeInteger(UInt8(sessionPresent ? 1 : 0))
            buffer.writeInteger(version == .v5_0 ? code.rawValue : ConnectReturnCode(code).rawValue)
            buffer.writeProperties(properties, version: version)
        }
    }
}

/// The properties of CONNACK (section 3.2.2.3); nil is the default that the specification gives.
public struct ConnAckProperties: Equatable, Sendable {
    /// Seconds; nil is what the client asked for.
    public var sessionExpiryInterval: UInt32?
    /// QoS 1 and 2 publishes the server handles at once from this client; nil is 65,535.
    public var receiveMaximum: UInt16?
    /// 0 or 1; nil is QoS 2.
    public var maximumQoS: QoS?
    public var retainAvailable: Bool?
    /// Bytes of the largest packet the server accepts.
    public var maximumPacketSize: UInt32?
    public var assignedClientIdentifier: String?
    public var topicAliasMaximum: UInt16?
    public var reasonString: String?
    public var userProperties: [UserProperty] = []
    public var wildcardSubscriptionAvailable: Bool?
    public var subscriptionIdentifierAvailable: Bool?
    public var sharedSubscriptionAvailable: Bool?
    /// Seconds; overrides what the client asked for.
    public var serverKeepAlive: UInt16?
    public var responseInformation: String?
    public var serverReference: String?
    public var authenticationMethod: String?
    public var authenticationData: ByteBuffer?

    public init() {}
}

extension ConnAckProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .sessionExpiryInterval: sessionExpiryInterval = try reader.readUInt32("session expiry interval")
        case .receiveMaximum: receiveMaximum = try reader.readPositiveUInt16("receive maximum")
        case .maximumQoS: maximumQoS = try reader.readBool("maximum QoS") ? .atLeastOnce : .atMostOnce
        case .retainAvailable: retainAvailable = try reader.readBool("retain available")
        case .maximumPacketSize: maximumPacketSize = try reader.readPositiveUInt32("maximum packet size")
        case .assignedClientIdentifier:
            assignedClientIdentifier = try reader.readString("assigned client identifier")
        case .topicAliasMaximum: topicAliasMaximum = try reader.readUInt16("topic alias maximum")
        case .reasonString: reasonString = try reader.readString("reason string")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        case .wildcardSubscriptionAvailable:
            wildcardSubscriptionAvailable = try reader.readBool("wildcard subscription available")
        case .subscriptionIdentifierAvailable:
            subscriptionIdentifierAvailable = try reader.readBool("subscription identifier available")
        case .sharedSubscriptionAvailable:
            sharedSubscriptionAvailable = try reader.readBool("shared subscription available")
        case .serverKeepAlive: serverKeepAlive = try reader.readUInt16("server keep alive")
        case .responseInformation: responseInformation = try reader.readString("response information")
        case .serverReference: serverReference = try reader.readString("server reference")
        case .authenticationMethod: authenticationMethod = try reader.readString("authentication method")
        case .authenticationData: authenticationData = try reader.readBinary("authentication data")
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        assert(maximumQoS != .exactlyOnce, "a maximum QoS of 2 is expressed by its absence (section 3.2.2.3.4)")
        buffer.writeProperty(.sessionExpiryInterval, sessionExpiryInterval)
        buffer.writeProperty(.receiveMaximum, receiveMaximum)
        buffer.writeProperty(.maximumQoS, maximumQoS?.rawValue)
        buffer.writeProperty(.retainAvailable, retainAvailable)
        buffer.writeProperty(.maximumPacketSize, maximumPacketSize)
        buffer.writeProperty(.assignedClientIdentifier, assignedClientIdentifier)
        buffer.writeProperty(.topicAliasMaximum, topicAliasMaximum)
        buffer.writeProperty(.reasonString, reasonString)
        buffer.writeUserProperties(userProperties)
        buffer.writeProperty(.wildcardSubscriptionAvailable, wildcardSubscriptionAvailable)
        buffer.writeProperty(.subscriptionIdentifierAvailable, subscriptionIdentifierAvailable)
        buffer.writeProperty(.sharedSubscriptionAvailable, sharedSubscriptionAvailable)
        buffer.writeProperty(.serverKeepAlive, serverKeepAlive)
        buffer.writeProperty(.responseInformation, responseInformation)
        buffer.writeProperty(.serverReference, serverReference)
        buffer.writeProperty(.authenticationMethod, authenticationMethod)
        buffer.writeProperty(.authenticationData, authenticationData)
    }
}
