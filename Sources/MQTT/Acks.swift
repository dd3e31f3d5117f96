public import NIOCore

/// PUBACK, PUBREC, PUBREL and PUBCOMP: the four packets that acknowledge a PUBLISH, alike but for their type
/// (sections 3.4 to 3.7).
public struct Ack: Equatable, Sendable {
    public var packetID: UInt16
    /// ``ReasonCode/success`` in 3.1.1, which cannot say anything else.
    public var code: ReasonCode
    /// Empty in 3.1.1.
    public var properties: ReasonProperties

    public init(packetID: UInt16, code: ReasonCode = .success, properties: ReasonProperties = .init()) {
        self.packetID = packetID
        self.code = code
        self.properties = properties
    }
}

extension Ack {
    /// Decodes a body of one of the four types, as the header says.
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Ack {
        var reader = PacketReader(body, header: header, version: version)
        var ack = Ack(packetID: try reader.readPacketID())
        // 5.0 may leave out empty properties, and then a code of 0 too (section 3.4.2.1).
        if version == .v5_0, reader.remaining > 0 {
            ack.code = try reader.readReasonCode(in: header.type, statement(for: header.type))
            if reader.remaining > 0 { ack.properties = try reader.readProperties(of: header.type.name) }
        }
        try reader.finish()
        body.moveReaderIndex(to: body.writerIndex)
        return ack
    }

    /// Appends the packet as one of the four types; 2 bytes of body wherever that says it all.
    public func encode(as type: PacketType, into buffer: inout ByteBuffer, version: ProtocolVersion) {
        assert((4...7).contains(type.rawValue), "\(type.name) does not acknowledge a PUBLISH")
        assert(packetID != 0, "a packet identifier is never 0 (MQTT-2.2.1-3)")
        if version == .v3_1_1 || (code == .success && properties.isEmpty) {
            let first = type.rawValue << 4 | (type.reservedFlags ?? 0)
            buffer.writeInteger(UInt32(first) << 24 | 2 << 16 | UInt32(packetID))
            return
        }
        buffer.writePacket(type) { buffer in
            buffer.writeInteger(packetID)
            buffer.writeInteger(code.rawValue)
            if !properties.isEmpty { buffer.writeProperties(properties, version: version) }
        }
    }

    private static func statement(for type: PacketType) -> String {
        switch type {
        case .puback: "MQTT-3.4.2-1"
        case .pubrec: "MQTT-3.5.2-1"
        case .pubrel: "MQTT-3.6.2-1"
        default: "MQTT-3.7.2-1"
        }
    }
}
