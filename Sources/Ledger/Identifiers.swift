/// Index of a site in the ledger's site table. Site 0 is "unknown".
@frozen public struct SiteID: RawRepresentable, Hashable, Sendable {
    public var rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let unknown = SiteID(rawValue: 0)
}

/// An owner: who answers for a buffer.
///
///     31            22 21                                  0
///     +---------------+-------------------------------------+
///     | generation:10 | index in the owner table:22         |
///     +---------------+-------------------------------------+
///
/// Records of closed owners are used again, oldest first and only after many further closings; the generation tells
/// the old owner's buffers from the new one's.
@frozen public struct OwnerID: RawRepresentable, Hashable, Sendable {
    public static let indexBits: UInt32 = 22
    public static let maximumCount = 1 << 22

    public var rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    public init(index: Int, generation: UInt16) {
        rawValue = UInt32(truncatingIfNeeded: index) | UInt32(generation & 0x3ff) << Self.indexBits
    }

    public var index: Int { Int(rawValue & (1 << Self.indexBits - 1)) }
    public var generation: UInt16 { UInt16(rawValue >> Self.indexBits) }

    /// The root of the owner tree.
    public static let process = OwnerID(rawValue: 0)
}
