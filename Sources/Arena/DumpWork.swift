import Ledger

extension ArenaPool {
    /// What a dump in the making keeps on the heap beside the copy of the ledger, as a charge that lasts as long as this.
    ///
    /// It must be possible at the limit too: what does not fit is charged all the same and recorded as over-limit allocation.
    public final class DumpWork: @unchecked Sendable {
        private let pool: ArenaPool
        private var chargedBytes = 0
        private let slots: Int

        /// A row index in both directions, and a mark.
        private static let bytesPerSlot = 4 + 4 + 4 + 1
        /// As the referrer named it, and as columns in order.
        private static let bytesPerReference = 16 + 13
        /// A row, and its columns; most have a name, or had one.
        private static let bytesPerOwner = 64 + 41 + 64

        init(_ pool: ArenaPool) {
            self.pool = pool
            slots = pool.ledger.rows(.slots)
            charge(
                slots * (Self.bytesPerSlot + Self.bytesPerReference) + pool.ledger.rows(.owners) * Self.bytesPerOwner)
        }

        /// At the safepoint, once it is known: there can be more references than slots, where many hold the same buffers.
        public func add(references: Int) {
            if references > slots { charge((references - slots) * Self.bytesPerReference) }
        }

        private func charge(_ bytes: Int) {
            _ = pool.budget.charge(bytes, to: pool.budget.snapshotBufferBytes, forced: true)
            chargedBytes += bytes
        }

        deinit { pool.budget.refund(chargedBytes, from: pool.budget.snapshotBufferBytes) }
    }

    public func chargeDumpWork() -> DumpWork { DumpWork(self) }
}
