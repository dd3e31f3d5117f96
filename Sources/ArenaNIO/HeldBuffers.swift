public import Arena
public import Ledger
public import NIOCore

/// Collects, at a safepoint, which holder reaches which live buffer: one edge per reach.
public struct HeldBufferVisitor: ~Copyable {
    private let lookup: SlotLookup
    public private(set) var edges: [LedgerEdge] = []

    /// - Parameter expected: edges to make room for beforehand.
    public init(pool: ArenaPool, expected: Int = 0) {
        lookup = SlotLookup(pool)
        edges.reserveCapacity(expected)
    }

    /// `owner`'s structure of the given kind reaches `buffer`. Buffers outside the arena have no edge, nor have
    /// empty slices, which reach no byte: do not keep them (`ByteBuffer()` keeps nothing).
    public mutating func hold(_ buffer: ByteBuffer, owner: OwnerID, kind: HolderKind) {
        guard let address = buffer.address, let slot = lookup.slot(at: address) else { return }
        edges.append(
            LedgerEdge(
                slot: UInt32(slot), owner: owner.rawValue, kind: kind,
                referredBytes: UInt32(clamping: buffer.readableBytes)))
    }

    /// The edges found, which are given away.
    public consuming func finish() -> [LedgerEdge] { edges }
}
