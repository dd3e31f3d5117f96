public import Arena
public import Ledger
public import NIOCore

/// Collects, at a safepoint, which referrer reaches which live buffer: one reference per reach.
public struct ReachableBufferVisitor: ~Copyable {
    private let lookup: SlotLookup
    /// In parts, since an array that grows would be copied, and take twice as much meanwhile: there can be many more references
    /// than there is room for.
    private var parts: [[LedgerReference]] = []
    private var last: [LedgerReference]

    private static let referencesPerPart = 8_192

    /// - Parameter room: an empty array; what it has room for costs no allocation.
    public init(pool: ArenaPool, room: consuming [LedgerReference] = []) {
        lookup = SlotLookup(pool)
        last = room
    }

    /// `owner`'s structure of the given kind reaches `buffer`. Buffers outside the arena have no reference, nor have
    /// empty slices, which reach no byte: do not keep them (`ByteBuffer()` keeps nothing).
    public mutating func hold(_ buffer: borrowing ByteBuffer, owner: OwnerID, kind: ReferrerKind) {
        guard let slot = lookup.slot(of: buffer) else { return }
        hold(slot, bytes: buffer.readableBytes, owner: owner, kind: kind)
    }

    /// The same for who noted the buffer's slot (`Arena.slot(of:)`) and keeps it beside the buffer: nothing is looked at
    /// then but what is given here, and a million buffers are named in a few milliseconds.
    ///
    /// - Parameter bytes: of the buffer that the referrer refers to.
    @inlinable
    public mutating func hold(_ slot: SlotIndex, bytes: Int, owner: OwnerID, kind: ReferrerKind) {
        guard slot != .none else { return }
        append(
            LedgerReference(
                slot: slot.rawValue, owner: owner.rawValue, kind: kind, referredBytes: UInt32(clamping: bytes)))
    }

    @usableFromInline
    mutating func append(_ reference: LedgerReference) {
        if last.count == last.capacity, last.count >= Self.referencesPerPart { beginPart() }
        last.append(reference)
    }

    private mutating func beginPart() {
        parts.append(last)
        last = []
        last.reserveCapacity(Self.referencesPerPart)
    }

    /// The references found, which are given away.
    public consuming func finish() -> [[LedgerReference]] { parts + [last] }
}

extension Arena {
    /// The slot that records the buffer's memory; `none` outside the arena and for empty slices.
    ///
    /// It is the buffer's as long as nothing is written past its capacity, which would move it.
    public func slot(of buffer: ByteBuffer) -> SlotIndex {
        SlotLookup(pool).slot(of: buffer) ?? .none
    }

    /// Notes that other threads may hold the buffer from now on; see `share(_:)` of its slot.
    public static func share(_ buffer: borrowing ByteBuffer) {
        if let address = buffer.address { share(address) }
    }
}

extension SlotLookup {
    @inline(__always)
    fileprivate func slot(of buffer: borrowing ByteBuffer) -> SlotIndex? {
        guard let address = buffer.address, let slot = slot(at: address) else { return nil }
        return SlotIndex(rawValue: UInt32(slot))
    }
}
