public import NIOCore

/// AUTH: one step of an extended authentication exchange (5.0, section 3.15).
public struct Auth: Equatable, Sendable {
    public var code: ReasonCode
    public var properties: AuthProperties

    public init(code: ReasonCode = .success, properties: AuthProperties = .init()) {
        self.code = code
        self.properties = properties
    }
}

extension Auth {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Auth {
        guard version == .v5_0 else {
            throw .malformed(.init(offset: 0, expected: "a packet type of 3.1.1, AUTH came with 5.0"))
        }
        var reader = PacketReader(body, header: header, version: version)
        var auth = Auth()
        // An empty body is success without properties; any other has to name the method (section 3.15.2.2.2).
        if reader.remaining > 0 {
            auth.code = try reader.readReasonCode(in: .auth, "MQTT-3.15.2-1")
            auth.properties = try reader.readProperties(of: "AUTH")
            guard auth.properties.authenticationMethod != nil else {
                throw reader.protocolError("an authentication method")
            }
        }
        try reader.finish()
        body.moveReaderIndex(to: body.writerIndex)
        return auth
    }

    /// Appends the packet, which only 5.0 has.
    public func encode(into buffer: inout ByteBuffer) {
        buffer.writePacket(.auth) { buffer in
            guard code != .success || properties != AuthProperties() else { return }
            buffer.writeInteger(code.rawValue)
            buffer.writeProperties(properties, version: .v5_0)
        }
    }
}

/// The properties of AUTH (section 3.15.2.2).
public struct AuthProperties: Equatable, Sendable {
    public var authenticationMethod: String?
    public var authenticationData: ByteBuffer?
    public var reasonString: String?
    public var userProperties: [UserProperty] = []

    public init() {}
}

extension AuthProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .authenticationMethod: authenticationMethod = try reader.readString("authentication method")
        case .authenticationData: authenticationData = try reader.readBinary("authentication data")
        case .reasonString: reasonString = try reader.readString("reason string")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeProperty(.authenticationMethod, authenticationMethod)
        buffer.writeProperty(.authenticationData, authenticationData)
        buffer.writeProperty(.reasonString, reasonString)
        buffer.writeUserProperties(userProperties)
    }
}
