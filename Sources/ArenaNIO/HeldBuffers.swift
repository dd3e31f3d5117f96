public import Arena
public import Ledger
public import NIOCore

/// Collects, at a safepoint, which holder reaches which live buffer: one edge per reach.
public struct HeldBufferVisitor: ~Copyable {
    let pool: ArenaPool
    public private(set) var edges: [LedgerEdge] = []

    public init(pool: ArenaPool) { self.pool = pool }

    /// `owner`'s structure of the given kind reaches `buffer`. Buffers outside the arena, and empty ones, have no edge.
    public mutating func hold(_ buffer: ByteBuffer, owner: OwnerID, kind: HolderKind) {
        let slot = buffer.withVeryUnsafeBytes { bytes in bytes.baseAddress.flatMap { pool.slot(at: $0) } }
        guard let slot else { return }
        edges.append(
            LedgerEdge(
                slot: UInt32(slot), owner: owner.rawValue, kind: kind,
                referredBytes: UInt32(clamping: buffer.readableBytes)))
    }

    /// The edges found, which are given away.
    public consuming func finish() -> [LedgerEdge] { edges }
}
