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
        /// For the first bytes of each buffer, where they are asked for.
        private let prefixes: PrefixCopy?
        private let pool: ArenaPool

        fileprivate init(
            copy: LedgerCopy, mappedBytes: Int, chargedBytes: Int, prefixes: PrefixCopy?, pool: ArenaPool
        ) {
            self.copy = copy
            self.mappedBytes = mappedBytes
            self.chargedBytes = chargedBytes
            self.prefixes = prefixes
            self.pool = pool
        }

        deinit {
            OS.release(copy.target.base, mappedBytes)
            prefixes?.release()
            pool.budget.refund(chargedBytes, from: pool.budget.snapshotBufferBytes)
        }

        /// The copy, once all parts have run.
        public var image: LedgerImage { copy.target }

        /// The copied first bytes of the buffers; nil where none were asked for.
        public var payloads: PayloadImage? { prefixes?.image }

        /// Which rows are copied, at a safepoint, before any part is. Nil where the ledger has outgrown this snapshot buffer.
        public func layOut() -> LedgerCopy.Layout? {
            guard let layout = copy.layOut() else { return nil }
            if let prefixes, layout.rows(.slots) > prefixes.rows { return nil }
            return layout
        }

        /// Copies part `part` of `parts`, at the same safepoint.
        public func fill(_ layout: LedgerCopy.Layout, part: Int, of parts: Int) {
            if part == 0 { pool.stampTimes() }
            if let prefixes {
                let rows = layout.rows(.slots)
                prefixes.take(rows * part / parts..<rows * (part + 1) / parts, of: pool.slots, from: pool.range.base)
            }
            copy.run(layout, part: part, of: parts)
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
            prefixes?.take(
                0..<image.rows(.slots), of: image.records(.slots, of: SlotRecord.self), from: pool.range.base,
                without: arenas)
            return leftOut
        }
    }

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
        guard let prefixMapping = PrefixCopy.bytes(rows: prefixRows, prefixBytes), prefixMapping < limitBytes else {
            return nil
        }
        let charged = mapped + prefixMapping
        guard forced || charged <= unclaimedBytes - besideBytes else { return nil }
        guard budget.charge(charged, to: budget.snapshotBufferBytes, forced: forced) else { return nil }
        guard let memory = OS.map(mapped) else {
            budget.refund(charged, from: budget.snapshotBufferBytes)
            return nil
        }
        var prefixes: PrefixCopy?
        if prefixBytes > 0 {
            prefixes = PrefixCopy(rows: prefixRows, prefixBytes)
            guard prefixes != nil else {
                OS.release(memory, mapped)
                budget.refund(charged, from: budget.snapshotBufferBytes)
                return nil
            }
        }
        return SnapshotBuffer(
            copy: LedgerCopy(of: ledger, to: memory, byteCount: mapped), mappedBytes: mapped, chargedBytes: charged,
            prefixes: prefixes, pool: self)
    }
}

/// Room for the first bytes of each buffer: `rows` slots of `prefixBytes` each.
private struct PrefixCopy {
    private let memory: UnsafeMutableRawPointer
    let rows: Int
    private let prefixBytes: Int

    /// Nil where the system has no memory for it.
    init?(rows: Int, _ prefixBytes: Int) {
        guard let bytes = Self.bytes(rows: rows, prefixBytes), let memory = OS.map(bytes) else { return nil }
        (self.memory, self.rows, self.prefixBytes) = (memory, rows, prefixBytes)
    }

    func release() {
        if let bytes = Self.bytes(rows: rows, prefixBytes) { OS.release(memory, bytes) }
    }

    /// What it takes, in whole pages; nil if that is no number.
    static func bytes(rows: Int, _ prefixBytes: Int) -> Int? {
        let (product, isTooMuch) = rows.multipliedReportingOverflow(by: prefixBytes)
        let (sum, overflow) = product.addingReportingOverflow(4095)
        return isTooMuch || overflow ? nil : sum & ~4095
    }

    /// Copies what these slots' buffers begin with, where they lie.
    ///
    /// - Parameter arenas: whose buffers do not stand still, and are left alone.
    func take(
        _ slots: Range<Int>, of records: UnsafeMutablePointer<SlotRecord>, from base: UnsafeMutableRawPointer,
        without arenas: ArenaSet = ArenaSet()
    ) {
        var live = PayloadImage(range: base, prefixBytes: prefixBytes)
        live.without = arenas
        for slot in slots {
            let count = live.count(records[slot])
            if count > 0 {
                (memory + slot * prefixBytes).copyMemory(from: live.start(slot, records[slot]), byteCount: count)
            }
        }
    }

    var image: PayloadImage { PayloadImage(copy: memory, prefixBytes: prefixBytes) }
}
