import DumpFormat
import Ledger

/// Where the memory of a running broker is, at one moment: the counter by parts, and what is live by size class, by kind
/// of owner, by kind of holder and by client. Each list adds up to its total, to the byte.
///
/// Bytes are those *held*: of the size class, or of the mapping, not of the payload alone.
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
    /// Loops that did not answer, and were gone on without: what they may hold is under the holder "loop that did not answer".
    package var missingLoops: [MissingLoop] = []
    /// The counter, part by part.
    package var parts: [Part]
    /// Live buffers by size class: the class's bytes, or "huge".
    package var sizeClasses: [Share]
    /// ... by the kind of their owner, who answers for them.
    package var owners: [Share]
    /// ... by what reaches them; a buffer that several kinds reach is under "several", one that none reaches under
    /// "unheld", one that another thread has freed and its arena not yet taken back under "freed".
    package var holders: [Share]
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
            Part(name: "slack", bytes: totals.liveBytes - totals.requestedBytes),
            Part(name: "free in chunks", bytes: totals.freeBytes - cached),
            Part(name: "cached chunks", bytes: cached),
            Part(name: "ledger", bytes: totals.ledgerBytes),
            Part(name: "dump staging", bytes: totals.stagingBytes),
        ]
        let sums = Sums(snapshot)
        sizeClasses = sums.classes.enumerated().compactMap { index, sum in
            let name = index < tables.sizeClasses.count ? "\(tables.sizeClasses[index].bytes)" : "huge"
            return sum.buffers == 0 ? nil : Share(name: name, buffers: sum.buffers, bytes: sum.bytes)
        }
        owners = Self.byKind(tables.owners)
        holders = Self.largest(
            sums.holders.enumerated().map { kind, sum in
                Share(name: Self.holderName(kind), buffers: sum.buffers, bytes: sum.bytes)
            }, .max)
        clients = Self.largest(
            tables.owners.lazy.filter { $0.kind == .session || $0.kind == .connection }
                .map { Share(name: $0.name, buffers: $0.liveBuffers, bytes: $0.liveBytes) })
        queues = Self.largest(
            sums.queues.lazy.map { row, sum in
                Share(name: tables.owners[Int(row)].name, buffers: sum.buffers, bytes: sum.bytes)
            })
        self.retained = retained
    }

    private static func byKind(_ owners: [Snapshot.Owner]) -> [Share] {
        var sums = [Sum](repeating: Sum(), count: Int(OwnerKind.allCases.map(\.rawValue).max() ?? 0) + 1)
        for owner in owners where owner.liveBuffers > 0 {
            sums[Int(owner.kind.rawValue)].buffers += owner.liveBuffers
            sums[Int(owner.kind.rawValue)].bytes += owner.liveBytes
        }
        return largest(
            OwnerKind.allCases.map { kind in
                let sum = sums[Int(kind.rawValue)]
                return Share(name: kind.name, buffers: sum.buffers, bytes: sum.bytes)
            }, .max)
    }

    private static func holderName(_ kind: Int) -> String {
        switch kind {
        case Sums.unheld: "unheld"
        case Sums.several: "several"
        case Sums.freed: "freed"
        default: HolderKind(rawValue: UInt8(kind))?.name ?? "unknown"
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

    fileprivate struct Sum {
        var buffers: UInt64 = 0
        var bytes: UInt64 = 0

        mutating func add(_ capacity: UInt64) {
            buffers += 1
            bytes += capacity
        }
    }

    /// Live slots added up by what the tables of a snapshot do not have.
    fileprivate struct Sums {
        static let unheld = 0
        static let several = Int(HolderKind.allCases.map(\.rawValue).max() ?? 0) + 1
        /// Freed by a thread that is not its arena's, which has not taken it back yet.
        static let freed = several + 1

        /// By size class; huge ones last.
        var classes = [Sum](repeating: Sum(), count: SizeClasses.count + 1)
        var holders = [Sum](repeating: Sum(), count: freed + 1)
        /// By row of the owner.
        var queues: [UInt32: Sum] = [:]

        init(_ snapshot: LedgerSnapshot) {
            let rows = snapshot.slots.count
            var edge = 0
            for first in stride(from: 0, to: rows, by: 8_192) {
                let batch = first..<min(rows, first + 8_192)
                let capacities = snapshot.slots.values(\.capacity, rows: batch)
                let classes = snapshot.slots.values(\.sizeClass, rows: batch)
                let states = snapshot.slots.values(\.state, rows: batch)
                for (index, row) in batch.enumerated() {
                    self.classes[min(Int(classes[index]), SizeClasses.count)].add(capacities[index])
                    let kind = kind(ofRow: row, capacities[index], snapshot.edges, from: &edge)
                    // As in a dump: what another thread has freed is on its way back, and nobody has lost it.
                    let isFreed = states[index] != Snapshot.SlotColumns.live
                    holders[isFreed ? Self.freed : kind].add(capacities[index])
                }
            }
        }

        /// What reaches a row, by the edges, which are sorted by row; and adds it to the queues that do.
        private mutating func kind(
            ofRow row: Int, _ capacity: UInt64, _ edges: Snapshot.EdgeColumns?, from edge: inout Int
        ) -> Int {
            guard let edges else { return Self.unheld }
            var kind = Self.unheld
            while edge < edges.slotRow.count, Int(edges.slotRow[edge]) == row {
                let next = Int(edges.holderKind[edge])
                kind = kind == Self.unheld || kind == next ? next : Self.several
                if next == Int(HolderKind.offlineQueue.rawValue) || next == Int(HolderKind.inflight.rawValue) {
                    queues[edges.holderOwner[edge], default: Sum()].add(capacity)
                }
                edge += 1
            }
            return kind
        }
    }
}
