public import NIOCore

/// UNSUBACK: in 5.0 one code for each filter of an UNSUBSCRIBE, in its order (section 3.11).
public struct UnsubAck: Equatable, Sendable {
    public var packetID: UInt16
    /// Not written in 3.1.1, and decoded as empty there.
    public var codes: [ReasonCode]
    /// Empty in 3.1.1.
    public var properties: ReasonProperties

    public init(packetID: UInt16, codes: [ReasonCode] = [], properties: ReasonProperties = .init()) {
        self.packetID = packetID
        self.codes = codes
        self.properties = properties
    }
}

extension UnsubAck {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> UnsubAck {
        var reader = PacketReader(body, header: header, version: version)
        var ack = UnsubAck(packetID: try reader.readPacketID())
        if version == .v5_0 {
            ack.properties = try reader.readProperties(of: "UNSUBACK")
            repeat {
                ack.codes.append(try reader.readReasonCode(in: .unsuback, "MQTT-3.11.3-2"))
            } while reader.remaining > 0
        }
        try reader.finish()
        body.moveReaderIndex(to: body.writerIndex)
        return ack
    }

    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        buffer.writePacket(.unsuback) { buffer in
            buffer.writeInteger(packetID)
            guard version == .v5_0 else { return }
            buffer.writeProperties(properties, version: version)
            for code in codes { buffer.writeInteger(code.rawValue) }
        }
    }
}
