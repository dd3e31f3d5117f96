public import Ledger

import CArena

// What a snapshot asks of the pool at a safepoint, beside a copy (`SnapshotBuffer`): the ledger itself, and that nobody moves.

extension ArenaPool {
    /// The first bytes of the buffers where they lie, at a safepoint.
    public func payloads(prefixBytes: Int) -> PayloadImage? {
        prefixBytes > 0 ? PayloadImage(range: range.base, prefixBytes: prefixBytes) : nil
    }

    /// Reads the live ledger, at a safepoint.
    public func withLedger<Result, Failure: Error>(
        _ body: (LedgerImage) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        stampTimes()
        return try body(ledger)
    }

    func stampTimes() {
        ledger.header.pointee.monotonicTime = arena_clock_now()
        ledger.header.pointee.wallTime = OS.wallTime()
    }

    /// Holds off the threads that have no arena of their own, which no safepoint of event loops stops.
    ///
    /// - Parameter body: gets the arenas that go on, since a thread that hangs has them locked.
    public func withSharedArenasLocked<Result, Failure: Error>(
        _ body: (_ moving: [Arena]) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        var locked: [Lock] = []
        var moving: [Arena] = []
        defer { for lock in locked { lock.unlock() } }
        for state in arenas where state.pointee.isShared {
            let lock = state.pointee.sharedLock.takeUnretainedValue()
            if lock.lockInAMoment() { locked.append(lock) } else { moving.append(Arena(state: state)) }
        }
        return try body(moving)
    }

    /// Whether nobody hangs with the pool locked: then giving memory back may take as long.
    public var isLockFree: Bool { state.withLockInAMoment { _ in true } ?? false }
}
