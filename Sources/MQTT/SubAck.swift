public import NIOCore

/// SUBACK: one code for each filter of a SUBSCRIBE, in its order (section 3.9).
public struct SubAck: Equatable, Sendable {
    public var packetID: UInt16
    /// In 3.1.1 a granted QoS or ``ReasonCode/unspecifiedError`` (0x80); all failures are written as that.
    public var codes: [ReasonCode]
    /// Empty in 3.1.1.
    public var properties: ReasonProperties

    public init(packetID: UInt16, codes: [ReasonCode], properties: ReasonProperties = .init()) {
        self.packetID = packetID
        self.codes = codes
        self.properties = properties
    }
}

extension SubAck {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> SubAck {
        var reader = PacketReader(body, header: header, version: version)
        let packetID = try reader.readPacketID()
        let properties: ReasonProperties = try reader.readProperties(of: "SUBACK")
        var codes: [ReasonCode] = []
        repeat {
            let code = try reader.readReasonCode(in: .suback, "MQTT-3.9.3-2")
            guard version == .v5_0 || !code.isError || code == .unspecifiedError else {
                throw reader.protocolError("a return code of 0, 1, 2 or 128", "MQTT-3.9.3-2", back: 1)
            }
            codes.append(code)
        } while reader.remaining > 0
        body.moveReaderIndex(to: body.writerIndex)
        return SubAck(packetID: packetID, codes: codes, properties: properties)
    }

    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        buffer.writePacket(.suback) { buffer in
            buffer.writeInteger(packetID)
            buffer.writeProperties(properties, version: version)
            for code in codes {
                let expressible = version == .v5_0 || !code.isError ? code : .unspecifiedError
                buffer.writeInteger(expressible.rawValue)
            }
        }
    }
}
