internal import NIOCore

/// The properties of every acknowledgement: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
public struct ReasonProperties: Equatable, Sendable {
    /// For a person who reads a log; never parsed.
    public var reasonString: String?
    public var userProperties: [UserProperty] = []

    public init() {}

    public var isEmpty: Bool { reasonString == nil && userProperties.isEmpty }
}

extension ReasonProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        switch id {
        case .reasonString: reasonString = try reader.readString("reason string")
        case .userProperty: userProperties.append(try reader.readUserProperty())
        default: return false
        }
        return true
    }

    func write(to buffer: inout ByteBuffer) {
        buffer.writeProperty(.reasonString, reasonString)
        buffer.writeUserProperties(userProperties)
    }
}
