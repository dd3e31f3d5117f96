public import NIOCore

/// DISCONNECT: the orderly end of a connection (section 3.14); in 3.1.1 only from the client, and without content.
public struct Disconnect: Equatable, Sendable {
    /// ``ReasonCode/normalDisconnection`` in 3.1.1.
    public var code: ReasonCode
    /// Empty in 3.1.1.
    public var properties: DisconnectProperties

    public init(code: ReasonCode = .normalDisconnection, properties: DisconnectProperties = .init()) {
        self.code = code
        self.properties = properties
    }
}

extension Disconnect {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Disconnect {
        var reader = PacketReader(body, header: header, version: version)
        var disconnect = Disconnect()
        if version == .v5_0, reader.remaining > 0 {
            disconnect.code = try reader.readReasonCode(in: .disconnect, "MQTT-3.14.2-1")
            if reader.remaining > 0 { disconnect.properties = try reader.readProperties(of: "DISCONNECT") }
        }
        try reader.finish()
        body.moveReaderIndex(to: body.writerIndex)
        return disconnect
    }

    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        buffer.writePacket(.disconnect) { buffer in
            let isDefault = properties == DisconnectProperties()
            guard version == .v5_0, code != .normalDisconnection || !isDefault else { return }
            buffer.writeInteger(code.rawValue)
            if !isDefault { buffer.writeProperties(properties, version: version) }
        }
    }
}

/// The properties of DISCONNECT (section 3.14.2.2).
public struct DisconnectProperties: Equatable, Sendable {
    /// Seconds; only from a client, and not from 0 to something else (MQTT-3.14.2-2).
    public var sessionExpiryInterval: UInt32?
    public var reasonString: String?
    public var userProperties: [UserProperty] = []
    /// Only from a server: another one to use.
    public var serverReference: String?

    public init() {}
}

extension DisconnectProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .sessionExpiryInterval: sessionExpiryInterval = try reader.readUInt32("session expiry interval")
        case .reasonString: reasonString = try reader.readString("reason string")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        case .serverReference: serverReference = try reader.readString("server reference")
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeProperty(.sessionExpiryInterval, sessionExpiryInterval)
        buffer.writeProperty(.reasonString, reasonString)
        buffer.writeUserProperties(userProperties)
        buffer.writeProperty(.serverReference, serverReference)
    }
}
