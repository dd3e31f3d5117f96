public import NIOCore

/// CONNECT: the first packet of a client (section 3.1).
public struct Connect: Equatable, Sendable {
    public var version: ProtocolVersion
    /// 3.1.1's Clean Session.
    public var cleanStart: Bool
    /// Seconds; 0 turns the mechanism off.
    public var keepAlive: UInt16
    /// May be empty. The server then assigns one, but in 3.1.1 with `cleanStart` false it has to refuse with
    /// `identifierRejected` (MQTT-3.1.3-8), which is left to it: the packet is well-formed.
    public var clientID: String
    public var will: Will?
    public var username: String?
    public var password: ByteBuffer?
    /// Empty in 3.1.1.
    public var properties: ConnectProperties

    public init(
        version: ProtocolVersion, cleanStart: Bool = true, keepAlive: UInt16 = 0, clientID: String, will: Will? = nil,
        username: String? = nil, password: ByteBuffer? = nil, properties: ConnectProperties = .init()
    ) {
        self.version = version
        self.cleanStart = cleanStart
        self.keepAlive = keepAlive
        self.clientID = clientID
        self.will = will
        self.username = username
        self.password = password
        self.properties = properties
    }
}

extension Connect {
    /// Decodes a body; which version it is in, it says itself.
    public static func decode(header: FixedHeader, body: inout ByteBuffer) throws(DecodeError) -> Connect {
        let version = try readProtocol(body, header: header)
        var reader = PacketReader(body, header: header, version: version)
        _ = try reader.readBinary("protocol name")
        _ = try reader.readUInt8("protocol level")

        let flags = try Flags(from: &reader)
        let keepAlive = try reader.readUInt16("keep alive")
        let properties: ConnectProperties = try reader.readProperties(of: "CONNECT")
        guard properties.authenticationData == nil || properties.authenticationMethod != nil else {
            throw reader.protocolError("an authentication method beside authentication data")
        }

        var connect = Connect(
            version: version, cleanStart: flags.cleanStart, keepAlive: keepAlive,
            clientID: try reader.readString("client identifier"), properties: properties)
        if let (qos, retain) = flags.will { connect.will = try readWill(qos: qos, retain: retain, from: &reader) }
        if flags.hasUsername { connect.username = try reader.readString("user name") }
        if flags.hasPassword { connect.password = try reader.readBinary("password") }
        try reader.finish()
        body.moveReaderIndex(to: body.writerIndex)
        return connect
    }

    /// The version, from protocol name and level; whatever follows may mean anything if these are not known.
    static func readProtocol(_ body: ByteBuffer, header: FixedHeader) throws(DecodeError) -> ProtocolVersion {
        var reader = PacketReader(body, header: header, version: .v3_1_1)
        let name = try reader.readBinary("protocol name")
        let level = try reader.readUInt8("protocol level")
        // MQTT-3.1.2-1 and MQTT-3.1.2-2: an unknown name, "MQIsdp" of MQTT 3.1 among them, is an unknown version.
        guard name == protocolName, let version = ProtocolVersion(rawValue: level) else {
            throw .unsupportedProtocolVersion(level)
        }
        return version
    }

    private static func readWill(
        qos: QoS, retain: Bool, from reader: inout PacketReader
    ) throws(DecodeError) -> Will {
        let properties: WillProperties = try reader.readProperties(of: "a will")
        // A will is published, so its topic is held to the rules of a PUBLISH (MQTT-3.3.2-2, MQTT-4.7.3-1).
        let topic = try reader.readTopicName("will topic", "MQTT-3.3.2-2")
        let payload = try reader.readBinary("will payload")
        return Will(topic: topic, payload: payload, qos: qos, retain: retain, properties: properties)
    }

    private static let protocolName = ByteBuffer(string: "MQTT")

    /// Appends the packet, in the version it names.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writePacket(.connect) { buffer in
            buffer.writeMQTTBinary(Self.protocolName)
            buffer.writeInteger(version.rawValue)
            buffer.writeInteger(Flags(self).bits)
            buffer.writeInteger(keepAlive)
            buffer.writeProperties(properties, version: version)
            buffer.writeMQTTString(clientID)
            if let will {
                buffer.writeProperties(will.properties, version: version)
                buffer.writeMQTTTopic(will.topic)
                buffer.writeMQTTBinary(will.payload)
            }
            if let username { buffer.writeMQTTString(username) }
            if let password { buffer.writeMQTTBinary(password) }
        }
    }
}

extension Connect {
    /// The connect flags (section 3.1.2.3).
    ///
    ///     [ user name | password | will retain | will QoS : 2 | will | clean start | 0 ]
    private struct Flags {
        var cleanStart: Bool
        var will: (qos: QoS, retain: Bool)?
        var hasPassword: Bool
        var hasUsername: Bool

        private static let cleanStart: UInt8 = 0x02
        private static let will: UInt8 = 0x04
        private static let willQoSShift: UInt8 = 3
        private static let willRetain: UInt8 = 0x20
        private static let password: UInt8 = 0x40
        private static let username: UInt8 = 0x80

        init(_ connect: Connect) {
            cleanStart = connect.cleanStart
            will = connect.will.map { ($0.qos, $0.retain) }
            hasPassword = connect.password != nil
            hasUsername = connect.username != nil
        }

        init(from reader: inout PacketReader) throws(DecodeError) {
            let bits = try reader.readUInt8("connect flags")
            guard bits & 1 == 0 else {
                throw reader.malformed("0 in the reserved connect flag", "MQTT-3.1.2-3", back: 1)
            }
            let willRetain = bits & Self.willRetain != 0
            guard let willQoS = QoS(rawValue: bits >> Self.willQoSShift & 3) else {
                throw reader.malformed("a will QoS of 0 to 2", v3: "MQTT-3.1.2-14", v5: "MQTT-3.1.2-12", back: 1)
            }
            if bits & Self.will != 0 {
                will = (willQoS, willRetain)
            } else {
                guard willQoS == .atMostOnce else {
                    throw reader.malformed(
                        "a will QoS of 0 without a will", v3: "MQTT-3.1.2-13", v5: "MQTT-3.1.2-11", back: 1)
                }
                guard !willRetain else {
                    throw reader.malformed(
                        "no will retain without a will", v3: "MQTT-3.1.2-15", v5: "MQTT-3.1.2-13", back: 1)
                }
            }
            cleanStart = bits & Self.cleanStart != 0
            hasPassword = bits & Self.password != 0
            hasUsername = bits & Self.username != 0
            // 5.0 took this rule back.
            if reader.version == .v3_1_1, hasPassword, !hasUsername {
                throw reader.malformed("no password without a user name", "MQTT-3.1.2-22", back: 1)
            }
        }

        var bits: UInt8 {
            var bits: UInt8 = cleanStart ? Self.cleanStart : 0
            if let will {
                bits |= Self.will | will.qos.rawValue << Self.willQoSShift | (will.retain ? Self.willRetain : 0)
            }
            if hasPassword { bits |= Self.password }
            if hasUsername { bits |= Self.username }
            return bits
        }
    }
}
