/// Some of a pool's arenas, by index.
public struct ArenaSet: Sendable, Equatable {
    private var words = SIMD4<UInt64>()

    public init() {}

    public var isEmpty: Bool { words == SIMD4() }

    public mutating func insert(_ arena: Int) { words[arena >> 6] |= 1 << UInt64(arena & 63) }

    @inlinable
    public func contains(_ arena: UInt8) -> Bool { word(Int(arena >> 6)) >> UInt64(arena & 63) & 1 == 1 }

    @usableFromInline
    func word(_ index: Int) -> UInt64 { words[index] }
}

/// What a snapshot could not ask: the loops that did not come to its safepoint. Their arenas went on while they were copied,
/// and nobody knows what they hold.
public struct LedgerGaps: Sendable {
    /// The arenas of these loops.
    public private(set) var arenas = ArenaSet()
    private var owners: [UInt8: OwnerID] = [:]
    private var firstOwner = OwnerID.process
    /// Buffers that were being given out or taken back while they were copied, and are left out.
    public var leftOut = 0

    public init() {}

    /// - Parameter owner: the loop, which answers for whatever it may hold.
    public mutating func add(arena: Int, owner: OwnerID) {
        if arenas.isEmpty { firstOwner = owner }
        arenas.insert(arena)
        owners[UInt8(arena)] = owner
    }

    /// Who may hold a buffer that nobody has named; nil where it is known that nobody does. Buffers of the missing arenas may
    /// be anywhere in their loops; of others those that were handed to other threads, or are nobody's own.
    public func possibleReferrer(_ slot: SlotRecord) -> OwnerID? {
        if arenas.contains(slot.arena) { return owners[slot.arena] }
        return slot.arena == 0 || slot.next & SlotRecord.shared != 0 ? firstOwner : nil
    }
}
