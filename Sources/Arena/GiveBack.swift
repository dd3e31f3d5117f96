import Ledger

// What an arena gives back without being asked for it by a free, and what it says of its room.

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
        state.pointee.refillReserve()
    }

    /// Gives the memory behind free runs of 64 KiB and more back to the system. They stay the arena's, and are faulted in
    /// again when they are used: for when the process must become smaller, not for every day.
    ///
    /// - Returns: the bytes of these runs, whether there was memory behind them or not. On the arena's thread.
    @discardableResult
    public func discardFreePages() -> Int {
        guard state.pointee.isShared else { return state.pointee.discardFreeRuns() }
        return state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
            lock.withLock { state.pointee.discardFreeRuns() }
        }
    }

    /// Bytes of whole free pages in the arena's chunks: what it can serve without a further chunk, if not in one piece.
    /// The reserve and the free elements of slabs are not in it. On the arena's thread.
    public var freeBytes: Int { state.pointee.freePages * SizeClasses.pageSize }

    /// Whether what is kept for allocations that cannot be refused has been spent: the next may pass the limit, by a chunk.
    /// ``giveBackUnused()`` sets it aside again when there is room. On the arena's thread.
    public var isReserveSpent: Bool { state.pointee.isReserveSpent }

    /// Live buffers, by two counters; frees of other threads that wait to be taken back are still live. On the arena's
    /// thread.
    public var liveBufferCount: Int {
        Int(UInt32(truncatingIfNeeded: state.pointee.nextSerial >> 8) &- 1 &- state.pointee.freedCount)
    }
}
