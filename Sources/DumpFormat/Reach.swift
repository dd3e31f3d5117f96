public import Ledger

/// What reaches a live slot: nobody, referrers of one kind, or of several kinds; or nobody has to, since it has been freed.
public struct Reach: Hashable, Sendable {
    let rawValue: UInt8

    private init(rawValue: UInt8) { self.rawValue = rawValue }

    /// It is unreachable.
    public static let nobody = Reach(rawValue: 0)
    /// A kind that a later version has added, or that damage has made.
    public static let otherKind = Reach(rawValue: 32)
    public static let several = Reach(rawValue: 33)
    /// Freed by a thread that is not its arena's, which has not taken it back yet, or kept by the thread that freed it.
    public static let freed = Reach(rawValue: 34)
    /// Nobody was asked.
    public static let unasked = Reach(rawValue: 35)

    static let count = 36
    public static let all = (0..<UInt8(count)).map(Reach.init(rawValue:))

    /// Reached by a referrer of this kind, as references name it.
    @inline(__always)
    public init(kind: UInt8) {
        rawValue = kind > 0 && kind < Self.otherKind.rawValue ? kind : Self.otherKind.rawValue
    }

    /// Reached by what reaches either of the two.
    @inline(__always)
    mutating func formUnion(_ other: Reach) {
        if self == .nobody {
            self = other
        } else if other != .nobody, self != other {
            self = .several
        }
    }

    /// The kind, where it is one that is known.
    public var kind: ReferrerKind? { ReferrerKind(rawValue: rawValue) }
}

extension Snapshot.ReferenceColumns {
    /// What reaches each of the slots; references that lead nowhere are passed over.
    ///
    /// - Parameter states: of the slots: those that are not live are `freed`.
    public func reach(_ states: [UInt8]) -> [Reach] {
        var reach = [Reach](repeating: .nobody, count: states.count)
        add(to: &reach)
        for row in reach.indices where states[row] != Snapshot.SlotColumns.live { reach[row] = .freed }
        return reach
    }

    /// Adds what reaches each of the slots.
    func add(to reach: inout [Reach]) {
        for reference in 0..<count where Int(slotRow[reference]) < reach.count {
            reach[Int(slotRow[reference])].formUnion(Reach(kind: referrerKind[reference]))
        }
    }
}
