public import NIOCore

/// Any control packet. The large ones, which are rare, are indirect, to keep the enum about as small as ``Publish``.
public enum Packet: Equatable, Sendable {
    indirect case connect(Connect)
    indirect case connack(ConnAck)
    case publish(Publish)
    case puback(Ack)
    case pubrec(Ack)
    case pubrel(Ack)
    case pubcomp(Ack)
    case subscribe(Subscribe)
    case suback(SubAck)
    case unsubscribe(Unsubscribe)
    case unsuback(UnsubAck)
    case pingreq
    case pingresp
    indirect case disconnect(Disconnect)
    indirect case auth(Auth)

    /// Bytes of the largest packet there can be, fixed header included.
    public static let maximumLength = 1 + VariableByteInteger.maximumLength + VariableByteInteger.maximum

    public var type: PacketType {
        switch self {
        case .connect: .connect
        case .connack: .connack
        case .publish: .publish
        case .puback: .puback
        case .pubrec: .pubrec
        case .pubrel: .pubrel
        case .pubcomp: .pubcomp
        case .subscribe: .subscribe
        case .suback: .suback
        case .unsubscribe: .unsubscribe
        case .unsuback: .unsuback
        case .pingreq: .pingreq
        case .pingresp: .pingresp
        case .disconnect: .disconnect
        case .auth: .auth
        }
    }

    /// Decodes a body of exactly `header.remainingLength` bytes and consumes it.
    ///
    /// Buffers in the packet are slices of the body, and memory use is bounded by its size. A server decodes PUBLISH
    /// with ``Publish/decode(header:body:version:)``, which leaves this enum out.
    ///
    /// - Parameter version: what the connection speaks; ignored for CONNECT, which says so itself.
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Packet {
        switch header.type {
        case .connect: .connect(try Connect.decode(header: header, body: &body))
        case .connack: .connack(try ConnAck.decode(header: header, body: &body, version: version))
        case .publish: .publish(try Publish.decode(header: header, body: &body, version: version))
        case .puback: .puback(try Ack.decode(header: header, body: &body, version: version))
        case .pubrec: .pubrec(try Ack.decode(header: header, body: &body, version: version))
        case .pubrel: .pubrel(try Ack.decode(header: header, body: &body, version: version))
        case .pubcomp: .pubcomp(try Ack.decode(header: header, body: &body, version: version))
        case .subscribe: .subscribe(try Subscribe.decode(header: header, body: &body, version: version))
        case .suback: .suback(try SubAck.decode(header: header, body: &body, version: version))
        case .unsubscribe: .unsubscribe(try Unsubscribe.decode(header: header, body: &body, version: version))
        case .unsuback: .unsuback(try UnsubAck.decode(header: header, body: &body, version: version))
        case .pingreq: try decodeEmpty(.pingreq, header: header, body: body, version: version)
        case .pingresp: try decodeEmpty(.pingresp, header: header, body: body, version: version)
        case .disconnect: .disconnect(try Disconnect.decode(header: header, body: &body, version: version))
        case .auth: .auth(try Auth.decode(header: header, body: &body, version: version))
        }
    }

    private static func decodeEmpty(
        _ packet: Packet, header: FixedHeader, body: ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Packet {
        try PacketReader(body, header: header, version: version).finish()
        return packet
    }

    /// Appends the packet.
    ///
    /// - Parameter version: what the connection speaks; CONNECT is written in the version it names.
    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        switch self {
        case .connect(let connect): connect.encode(into: &buffer)
        case .connack(let ack): ack.encode(into: &buffer, version: version)
        case .publish(let publish): publish.encode(into: &buffer, version: version)
        case .puback(let ack), .pubrec(let ack), .pubrel(let ack), .pubcomp(let ack):
            ack.encode(as: type, into: &buffer, version: version)
        case .subscribe(let subscribe): subscribe.encode(into: &buffer, version: version)
        case .suback(let ack): ack.encode(into: &buffer, version: version)
        case .unsubscribe(let unsubscribe): unsubscribe.encode(into: &buffer, version: version)
        case .unsuback(let ack): ack.encode(into: &buffer, version: version)
        case .pingreq, .pingresp: buffer.writePacket(type) { _ in }
        case .disconnect(let disconnect): disconnect.encode(into: &buffer, version: version)
        case .auth(let auth):
            assert(version == .v5_0, "AUTH came with 5.0")
            auth.encode(into: &buffer)
        }
    }
}
