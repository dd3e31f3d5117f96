public import Ledger

import CArena

extension ArenaPool {
    /// Memory for a copy of the ledger, and for what a dump keeps per row while it is written; counts against the limit
    /// as snapshot buffer until it is let go.
    ///
    /// Made before the safepoint, pages and all, so that the loops wait for nothing but the copying itself.
    public final class SnapshotBuffer: @unchecked Sendable {
        private let copy: LedgerCopy
        private let mappedBytes: Int
        private let chargedBytes: Int
        /// For the first bytes of each buffer, where they are asked for: `rows` slots of `prefixBytes` each.
        private let prefixes: (memory: UnsafeMutableRawPointer, rows: Int, prefixBytes: Int)?
        private let pool: ArenaPool

        init(
            copy: LedgerCopy, mappedBytes: Int, chargedBytes: Int,
            prefixes: (memory: UnsafeMutableRawPointer, rows: Int, prefixBytes: Int)?, pool: ArenaPool
        ) {
            self.copy = copy
            self.mappedBytes = mappedBytes
            self.chargedBytes = chargedBytes
            self.prefixes = prefixes
            self.pool = pool
        }

        /// The copy, once all parts have run.
        public var image: LedgerImage { copy.target }

        /// The copied first bytes of the buffers; nil where none were asked for.
        public var payloads: PayloadImage? {
            prefixes.map { PayloadImage(copy: $0.memory, prefixBytes: $0.prefixBytes) }
        }

        /// Copies all of it while some arenas go on. What they write meanwhile may contradict the rest: see `settle`. False
        /// where the ledger has outgrown this snapshot buffer.
        public func fillWhileRunning() -> Bool {
            guard copy.runWhileChanging({ arena_copy_words($0, $1, $2) }) else { return false }
            if let prefixes, image.rows(.slots) > prefixes.rows { return false }
            image.header.pointee.monotonicTime = arena_clock_now()
            image.header.pointee.wallTime = OS.wallTime()
            return true
        }

        /// Makes the copy agree with itself, and takes the first bytes of the buffers of all other arenas, where they are asked
        /// for: they must still stand then.
        ///
        /// - Returns: how many buffers and entries of `arenas` were being changed, and are left out.
        public func settle(_ arenas: ArenaSet) -> Int {
            let leftOut = image.settle(arenas)
            guard let prefixes else { return leftOut }
            var live = PayloadImage(range: pool.base, prefixBytes: prefixes.prefixBytes)
            live.without = arenas
            let records = image.records(.slots, of: SlotRecord.self)
            for slot in 0..<image.rows(.slots) {
                let count = live.count(records[slot])
                if count > 0 {
                    (prefixes.memory + slot * prefixes.prefixBytes)
                        .copyMemory(from: live.start(slot, records[slot]), byteCount: count)
                }
            }
            return leftOut
        }

        /// Copies part `part` of `parts`, at a safepoint. False where the ledger has outgrown this snapshot buffer.
        public func fill(part: Int, of parts: Int) -> Bool {
            if part == 0 { pool.stampTimes() }
            return fillPrefixes(part: part, of: parts) && copy.run(part: part, of: parts)
        }

        private func fillPrefixes(part: Int, of parts: Int) -> Bool {
            guard let prefixes else { return true }
            let rows = pool.ledger.rows(.slots)
            guard rows <= prefixes.rows else { return false }
            let live = PayloadImage(range: pool.base, prefixBytes: prefixes.prefixBytes)
            for slot in rows * part / parts..<rows * (part + 1) / parts {
                let count = live.count(pool.slots[slot])
                if count > 0 {
                    (prefixes.memory + slot * prefixes.prefixBytes)
                        .copyMemory(from: live.start(slot, pool.slots[slot]), byteCount: count)
                }
            }
            return true
        }

        deinit {
            OS.release(copy.target.base, mappedBytes)
            if let prefixes {
                OS.release(prefixes.memory, ArenaPool.prefixMapping(prefixes.rows, prefixes.prefixBytes))
            }
            pool.budget.refund(chargedBytes, from: pool.budget.snapshotBufferBytes)
        }
    }

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

    /// A snapshot buffer for a snapshot that is about to be taken, with some room for growth until then. Nil where the limit, or
    /// the system, has none to give: then `withLedger` can still read the original for as long as the safepoint lasts.
    ///
    /// - Parameters:
    ///   - prefixBytes: of each buffer, to be copied too.
    ///   - besideBytes: what the program has taken of the limit, and the pool has not been told of.
    ///   - forced: whether the limit may be passed for it, which is counted as over-limit allocation.
    public func makeSnapshotBuffer(prefixBytes: Int = 0, besideBytes: Int = 0, forced: Bool = false) -> SnapshotBuffer?
    {
        let (size, rows) = (ledger.copySize, ledger.rows(.slots))
        let mapped = (size + size / 8 + 65536 + 4095) & ~4095
        let prefixRows = prefixBytes > 0 ? rows + rows / 8 + 1024 : 0
        let (prefixMapped, isTooMuch) = prefixRows.multipliedReportingOverflow(by: prefixBytes)
        guard !isTooMuch, prefixMapped < limitBytes else { return nil }
        let prefixMapping = Self.prefixMapping(prefixRows, prefixBytes)
        let charged = mapped + prefixMapping
        guard forced || charged <= unclaimedBytes - besideBytes else { return nil }
        guard budget.charge(charged, to: budget.snapshotBufferBytes, forced: forced) else { return nil }
        guard let memory = OS.map(mapped) else {
            budget.refund(charged, from: budget.snapshotBufferBytes)
            return nil
        }
        var prefixes: (memory: UnsafeMutableRawPointer, rows: Int, prefixBytes: Int)?
        if prefixBytes > 0 {
            guard let prefixMemory = OS.map(prefixMapping) else {
                OS.release(memory, mapped)
                budget.refund(charged, from: budget.snapshotBufferBytes)
                return nil
            }
            prefixes = (prefixMemory, prefixRows, prefixBytes)
        }
        return SnapshotBuffer(
            copy: LedgerCopy(of: ledger, to: memory, byteCount: mapped), mappedBytes: mapped, chargedBytes: charged,
            prefixes: prefixes, pool: self)
    }

    fileprivate static func prefixMapping(_ rows: Int, _ prefixBytes: Int) -> Int {
        (rows * prefixBytes + 4095) & ~4095
    }

    /// The first bytes of the buffers where they lie, at a safepoint.
    public func payloads(prefixBytes: Int) -> PayloadImage? {
        prefixBytes > 0 ? PayloadImage(range: base, prefixBytes: prefixBytes) : nil
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
    public var isLockFree: Bool {
        guard lock.lockInAMoment() else { return false }
        lock.unlock()
        return true
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
