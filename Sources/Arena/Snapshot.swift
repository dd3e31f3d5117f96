public import Ledger

import CArena

extension ArenaPool {
    /// Memory for a copy of the ledger, and for what a dump keeps per row while it is written; counts against the limit
    /// as staging until it is let go.
    ///
    /// Made before the safepoint, pages and all, so that the loops wait for nothing but the copying itself.
    public final class Staging: @unchecked Sendable {
        private let copy: LedgerCopy
        private let mappedBytes: Int
        private let chargedBytes: Int
        private let pool: ArenaPool

        init(copy: LedgerCopy, mappedBytes: Int, chargedBytes: Int, pool: ArenaPool) {
            self.copy = copy
            self.mappedBytes = mappedBytes
            self.chargedBytes = chargedBytes
            self.pool = pool
        }

        /// The copy, once all parts have run.
        public var image: LedgerImage { copy.target }

        /// Copies part `part` of `parts`, at a safepoint. False where the ledger has outgrown this staging.
        public func fill(part: Int, of parts: Int) -> Bool {
            if part == 0 { pool.stampTimes() }
            return copy.run(part: part, of: parts)
        }

        deinit {
            OS.release(copy.target.base, mappedBytes)
            pool.budget.refund(chargedBytes, from: pool.budget.stagingBytes)
        }
    }

    /// What a dump in the making keeps beside the copy, per slot: its row, its edges and their columns.
    static let stagingBytesPerSlot = 32

    /// Staging for a snapshot that is about to be taken, with some room for growth until then. Nil where the limit, or
    /// the system, has none to give: then `withLedger` can still read the original for as long as the safepoint lasts.
    public func makeStaging() -> Staging? {
        let size = lock.withLock { ledger.copySize }
        let mapped = (size + size / 8 + 65536 + 4095) & ~4095
        let charged = mapped + ledger.rows(.slots) * Self.stagingBytesPerSlot
        guard budget.charge(charged, to: budget.stagingBytes) else { return nil }
        guard let memory = OS.map(mapped) else {
            budget.refund(charged, from: budget.stagingBytes)
            return nil
        }
        return Staging(
            copy: LedgerCopy(of: ledger, to: memory, byteCount: mapped), mappedBytes: mapped, chargedBytes: charged,
            pool: self)
    }

    /// Reads the live ledger, at a safepoint.
    public func withLedger<Result, Failure: Error>(
        _ body: (LedgerImage) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        stampTimes()
        return try body(ledger)
    }

    fileprivate func stampTimes() {
        ledger.header.pointee.monotonicTime = arena_clock_now()
        ledger.header.pointee.wallTime = OS.wallTime()
    }

    /// Holds off the threads that have no arena of their own, which no safepoint of event loops stops.
    public func withSharedArenasLocked<Result, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let shared = arenas.filter { $0.pointee.isShared }
        for state in shared { state.pointee.sharedLock._withUnsafeGuaranteedRef { $0.lock() } }
        defer { for state in shared { state.pointee.sharedLock._withUnsafeGuaranteedRef { $0.unlock() } } }
        return try body()
    }
}

extension Arena {
    /// The arena keeps nothing it does not need: empty slabs and chunks go back to the pool.
    ///
    /// For the arena's thread to call about once a second, also when it is idle. (`ArenaPool.trim` does the same for
    /// arenas whose thread has gone.)
    public func giveBackUnused() {
        if state.pointee.isShared {
            state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in lock.withLock { giveBackUnusedHere() } }
        } else {
            giveBackUnusedHere()
        }
    }

    /// The same on the arena's thread or under its lock.
    func giveBackUnusedHere() {
        _ = state.pointee.drainRemoteFrees()
        state.pointee.giveBackEmptyChunks()
    }
}
