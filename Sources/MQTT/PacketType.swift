/// The kinds of control packet; the raw value is the upper half of a packet's first byte (section 2.1.2).
@frozen
public enum PacketType: UInt8, Sendable, CaseIterable {
    case connect = 1
    case connack = 2
    case publish = 3
    case puback = 4
    case pubrec = 5
    case pubrel = 6
    case pubcomp = 7
    case subscribe = 8
    case suback = 9
    case unsubscribe = 10
    case unsuback = 11
    case pingreq = 12
    case pingresp = 13
    case disconnect = 14
    /// 5.0 only; reserved in 3.1.1.
    case auth = 15

    /// The one legal value of the four flag bits, nil for PUBLISH, whose flags carry meaning (table 2.2).
    @inlinable
    public var reservedFlags: UInt8? {
        switch self {
        case .publish: nil
        case .pubrel, .subscribe, .unsubscribe: 0b0010
        default: 0
        }
    }
}

extension PacketType {
    /// The name as the specification spells it: "CONNECT".
    public var name: String { String(describing: self).uppercased() }
}
