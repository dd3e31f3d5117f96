import DumpFormat
import Ledger

/// Where the memory of a running broker is, at one moment: the counter by parts, and what is live by size class, by kind
/// of owner, by kind of referrer and by client. Each list adds up to its total, to the byte.
///
/// Bytes are those allocated: of the size class, or of the mapping, not of the payload alone.
package struct LiveMemory: Sendable, Equatable, Codable {
    package struct Share: Sendable, Equatable, Codable {
        package var name: String
        package var buffers: UInt64 = 0
        package var bytes: UInt64 = 0
    }

    package struct MissingLoop: Sendable, Equatable, Codable {
        package var name: String
        /// Since it was seen last.
        package var stuckNanoseconds: UInt64
        /// The function its thread was in; empty where it did not say.
        package var place: String
    }

    package struct Part: Sendable, Equatable, Codable {
        package var name: String
        package var bytes: UInt64
    }

    /// Nanoseconds since 1970-01-01 UTC.
    package var wallTime: UInt64
    /// How long the event loops stood still for it.
    package var pauseNanoseconds: UInt64
    package var limitBytes: UInt64
    package var counterBytes: UInt64
    package var peakCounterBytes: UInt64
    /// What queues and windows take beside the arena, to name their messages: not in the counter.
    package var queueHeapBytes: UInt64
    /// What is kept on the heap, by what it is for: not in the counter. All but the queues leaves the arena less of the limit.
    package var heap: [Part]
    /// All that the C library has given out, to whomever.
    package var mallocBytes: UInt64
    package var liveBuffers: UInt64
    package var liveBytes: UInt64
    /// Loops that did not answer, and were gone on without: what they may hold is under the referrer "loop that did not answer".
    package var missingLoops: [MissingLoop] = []
    /// The counter, part by part.
    package var parts: [Part]
    /// Live buffers by size class: the class's bytes, or "huge".
    package var sizeClasses: [Share]
    /// ... by the kind of their owner, who answers for them.
    package var owners: [Share]
    /// ... by what reaches them; a buffer that several kinds reach is under "several", one that none reaches under
    /// "unreachable", one that another thread has freed and its arena not yet taken back under "freed".
    package var referrers: [Share]
    /// The clients that answer for most, sessions and connections without one.
    package var clients: [Share]
    /// The sessions whose queues and windows reach most. A buffer in several queues counts in each of them.
    package var queues: [Share]
    /// The retained messages that hold most, by topic.
    package var retained: [Share]

    /// How many rows the lists of the largest have.
    static let topCount = 20
}

extension LiveMemory {
    /// - Parameters:
    ///   - retained: the largest retained messages, which the ledger does not know by topic.
    ///   - heap: which the ledger does not know either.
    ///   - mallocBytes: what the C library had given out before.
    init(
        _ snapshot: LedgerSnapshot, pauseNanoseconds: UInt64, retained: [Share], heap: HeapAccount?, mallocBytes: Int
    ) {
        let tables = snapshot.tables
        let totals = tables.totals
        wallTime = tables.header.wallTime
        self.pauseNanoseconds = pauseNanoseconds
        limitBytes = totals.limitBytes
        counterBytes = totals.counterBytes
        peakCounterBytes = totals.peakCounterBytes
        self.heap = HeapAccount.Use.allCases.map { use in
            Part(name: "\(use)", bytes: UInt64(max(0, heap?.bytes(of: use) ?? 0)))
        }
        self.mallocBytes = UInt64(mallocBytes)
        queueHeapBytes = UInt64(max(0, heap?.bytes(of: .queues) ?? 0))
        liveBuffers = totals.liveBuffers
        liveBytes = totals.liveBytes
        let now = tables.header.monotonicTime
        missingLoops = tables.missingLoops.map {
            MissingLoop(name: $0.name, stuckNanoseconds: now &- min($0.lastSeen, now), place: $0.place)
        }
        let cached = tables.chunks.reduce(0) { $0 + ($1.kind == .cached ? $1.bytes : 0) }
        parts = [
            Part(name: "requested", bytes: totals.requestedBytes),
            Part(name: "internal fragmentation", bytes: totals.liveBytes - totals.requestedBytes),
            Part(name: "free in chunks", bytes: totals.freeBytes - cached),
            Part(name: "cached chunks", bytes: cached),
            Part(name: "ledger", bytes: totals.ledgerBytes),
            Part(name: "snapshot buffer", bytes: totals.snapshotBufferBytes),
        ]
        var sums = SlotAggregate(tables, [.sizeClasses, .reach, .queues])
        snapshot.add(to: &sums)
        sizeClasses = sums.sizeClasses.enumerated().compactMap { index, sum in
            let name = index < tables.sizeClasses.count ? "\(tables.sizeClasses[index].bytes)" : "huge"
            return sum.buffers == 0 ? nil : Share(name, sum)
        }
        owners = Self.byKind(tables.owners)
        referrers = Self.largest(Reach.all.map { Share(Self.name($0), sums[$0]) }, .max)
        clients = Self.largest(
            tables.owners.lazy.filter { $0.kind == .session || $0.kind == .connection }
                .map { Share(name: $0.name, buffers: $0.liveBuffers, bytes: $0.liveBytes) })
        queues = Self.largest(zip(tables.owners, sums.queues).lazy.map { Share($0.name, $1) })
        self.retained = retained
    }

    private static func byKind(_ owners: [Snapshot.Owner]) -> [Share] {
        var shares = OwnerKind.allCases.map { Share(name: $0.name) }
        for owner in owners where owner.liveBuffers > 0 {
            shares[Int(owner.kind.rawValue)].buffers += owner.liveBuffers
            shares[Int(owner.kind.rawValue)].bytes += owner.liveBytes
        }
        return largest(shares, .max)
    }

    private static func name(_ reach: Reach) -> String {
        switch reach {
        case .nobody: "unreachable"
        case .several: "several"
        // As in a dump: what another thread has freed is on its way back, and nobody has lost it.
        case .freed: "freed"
        default: reach.kind?.name ?? "unknown"
        }
    }

    /// Those that have anything, largest first.
    static func largest(_ shares: some Sequence<Share>, _ count: Int = topCount) -> [Share] {
        var top: [Share] = []
        for share in shares where share.buffers > 0 {
            if top.count >= count {
                guard let last = top.last, isLarger(share, last) else { continue }
                top.removeLast()
            }
            let place = top.firstIndex { isLarger(share, $0) } ?? top.count
            top.insert(share, at: place)
        }
        return top
    }

    private static func isLarger(_ a: Share, _ b: Share) -> Bool {
        (a.bytes, a.buffers, b.name) > (b.bytes, b.buffers, a.name)
    }
}

extension LiveMemory.Share {
    fileprivate init(_ name: String, _ sum: SlotAggregate.Sum) {
        self.init(name: name, buffers: sum.buffers, bytes: sum.bytes)
    }
}
