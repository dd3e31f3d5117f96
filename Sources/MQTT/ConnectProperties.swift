public import NIOCore

/// The properties of CONNECT (section 3.1.2.11); nil is the default that the specification gives.
public struct ConnectProperties: Equatable, Sendable {
    /// Seconds the session outlives its connection; nil is 0, `UInt32.max` is for ever.
    public var sessionExpiryInterval: UInt32?
    /// QoS 1 and 2 publishes the client handles at once; nil is 65,535.
    public var receiveMaximum: UInt16?
    /// Bytes of the largest packet the client accepts; nil is no limit but the protocol's.
    public var maximumPacketSize: UInt32?
    public var topicAliasMaximum: UInt16?
    public var requestResponseInformation: Bool?
    public var requestProblemInformation: Bool?
    public var userProperties: [UserProperty] = []
    public var authenticationMethod: String?
    public var authenticationData: ByteBuffer?

    public init() {}
}

extension ConnectProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .sessionExpiryInterval: sessionExpiryInterval = try reader.readUInt32("session expiry interval")
        case .receiveMaximum: receiveMaximum = try reader.readPositiveUInt16("receive maximum")
        case .maximumPacketSize: maximumPacketSize = try reader.readPositiveUInt32("maximum packet size")
        case .topicAliasMaximum: topicAliasMaximum = try reader.readUInt16("topic alias maximum")
        case .requestResponseInformation:
            requestResponseInformation = try reader.readBool("request response information")
        case .requestProblemInformation:
            requestProblemInformation = try reader.readBool("request problem information")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        case .authenticationMethod: authenticationMethod = try reader.readString("authentication method")
        case .authenticationData: authenticationData = try reader.readBinary("authentication data")
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeProperty(.sessionExpiryInterval, sessionExpiryInterval)
        buffer.writeProperty(.receiveMaximum, receiveMaximum)
        buffer.writeProperty(.maximumPacketSize, maximumPacketSize)
        buffer.writeProperty(.topicAliasMaximum, topicAliasMaximum)
        buffer.writeProperty(.requestResponseInformation, requestResponseInformation)
        buffer.writeProperty(.requestProblemInformation, requestProblemInformation)
        buffer.writeUserProperties(userProperties)
        buffer.writeProperty(.authenticationMethod, authenticationMethod)
        buffer.writeProperty(.authenticationData, authenticationData)
    }
}
