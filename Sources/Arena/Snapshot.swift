public import Ledger

import CArena

extension ArenaPool {
    /// A copy of the ledger, in memory that counts against the limit as staging until it is let go.
    public final class Staging: @unchecked Sendable {
        public let image: LedgerImage
        private let pool: ArenaPool

        init(image: LedgerImage, pool: ArenaPool) {
            self.image = image
            self.pool = pool
        }

        deinit {
            OS.release(image.base, image.byteCount)
            pool.budget.refund(image.byteCount, from: pool.budget.stagingBytes)
        }
    }

    /// Copies the ledger. The caller guarantees a safepoint: no thread allocates or frees meanwhile (threads without
    /// an arena are held off here). Nil where the limit, or the system, leaves no room for the copy: then `withLedger`
    /// can still read the original, for as long as the safepoint lasts.
    public func stage() -> Staging? {
        withSharedArenasLocked {
            let size = (ledger.copySize + 4095) & ~4095
            guard budget.charge(size, to: budget.stagingBytes) else { return nil }
            guard let memory = OS.map(size) else {
                budget.refund(size, from: budget.stagingBytes)
                return nil
            }
            stampTimes()
            return Staging(image: ledger.copy(to: memory, byteCount: size), pool: self)
        }
    }

    /// Reads the live ledger under a safepoint.
    public func withLedger<Result, Failure: Error>(
        _ body: (LedgerImage) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withSharedArenasLocked { () throws(Failure) -> Result in
            stampTimes()
            return try body(ledger)
        }
    }

    private func stampTimes() {
        ledger.header.pointee.monotonicTime = arena_clock_now()
        ledger.header.pointee.wallTime = OS.wallTime()
    }

    private func withSharedArenasLocked<Result, Failure: Error>(
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
