/// The delivery guarantee of a message or a subscription (section 4.3).
@frozen
public enum QoS: UInt8, Sendable, Comparable, CaseIterable {
    case atMostOnce = 0
    case atLeastOnce = 1
    case exactlyOnce = 2

    @inlinable
    public static func < (a: QoS, b: QoS) -> Bool { a.rawValue < b.rawValue }
}
