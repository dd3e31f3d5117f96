import CArena
public import Ledger

extension ArenaPool {
    /// The pool in figures: what Netty's `PooledByteBufAllocatorMetric` and its arenas' and chunk lists' metrics tell,
    /// and what our records know beyond that (huge bytes, remote frees, slack by site).
    ///
    /// Read from the ledger without stopping anybody: exact at a safepoint and on an arena's own thread for that
    /// arena; otherwise each figure was true at some moment during the call.
    public struct Metrics: Sendable {
        /// Allocations and frees of one size class.
        public struct ClassFigures: Sendable, Equatable {
            /// Bytes of the class; 0 for buffers with their own mapping.
            public var bytes: Int
            public var allocations: UInt64
            public var frees: UInt64
            public var active: UInt64 { Metrics.active(allocations, frees) }
        }

        /// How a class is served: from slabs up to 64 KiB, as a run up to a chunk, by a mapping of its own beyond.
        public enum Tier: Sendable, CaseIterable { case small, normal, huge }

        /// Chunks by the part of their pages that is used. (Netty's lists overlap, as a hysteresis; these do not.)
        public enum Usage: Int, Sendable, CaseIterable {
            /// Not used at all.
            case empty
            /// Above 0 and under 25 %, and so on.
            case q000, q025, q050, q075
            case q100

            init(usedPages: Int) {
                let pages = SizeClasses.pagesPerChunk
                self =
                    usedPages == 0
                    ? .empty : usedPages == pages ? .q100 : [.q000, .q025, .q050, .q075][usedPages * 4 / pages]
            }
        }

        public struct ArenaFigures: Sendable {
            public var name: String
            /// Whether any thread may use it, under a lock: arena 0, and arenas whose thread has gone.
            public var isShared: Bool
            /// By class, smallest first, huge last.
            public var classes: [ClassFigures]
            /// Of `frees`, those by other threads.
            public var remoteFrees: UInt64
            /// Chunks by usage, in the order of `Usage`.
            public var chunksByUsage: [Int]
            /// Bytes of its chunks and huge mappings: what it keeps from others.
            public var usedBytes: Int
            /// Bytes of its live buffers' slots: what keeps that memory where it is.
            public var pinnedBytes: Int
            /// Bytes that were asked for, of the pinned ones.
            public var requestedBytes: Int
            /// Bytes kept for allocations that cannot be refused.
            public var reserveBytes: Int

            public var chunkCount: Int { chunksByUsage.reduce(0, +) }
            public var allocations: UInt64 { classes.reduce(0) { $0 &+ $1.allocations } }
            public var frees: UInt64 { classes.reduce(0) { $0 &+ $1.frees } }
            public var active: UInt64 { Metrics.active(allocations, frees) }

            public func figures(_ tier: Tier) -> (allocations: UInt64, frees: UInt64) {
                let slice =
                    switch tier {
                    case .small: classes[...SizeClasses.lastSlabClass]
                    case .normal: classes[(SizeClasses.lastSlabClass + 1)..<SizeClasses.count]
                    case .huge: classes[SizeClasses.count...]
                    }
                return slice.reduce((0, 0)) { ($0.0 &+ $1.allocations, $0.1 &+ $1.frees) }
            }
        }

        /// One site's live buffers, all arenas together.
        public struct SiteFigures: Sendable {
            public var site: SiteID
            public var label: String
            public var liveBuffers: Int
            public var requestedBytes: Int
            public var capacityBytes: Int
            /// Bytes of slots that their buffers did not ask for.
            public var slackBytes: Int { capacityBytes - requestedBytes }
        }

        public var level: Level
        public var limitBytes: Int
        public var counterBytes: Int
        public var chunkBytes: Int
        public var hugeBytes: Int
        public var ledgerBytes: Int
        public var snapshotBufferBytes: Int
        /// Chunks that no arena uses and that wait for their decay.
        public var cachedChunks: Int
        public var failedAllocations: Int
        public var arenas: [ArenaFigures]
        public var sites: [SiteFigures]

        public var allocations: UInt64 { arenas.reduce(0) { $0 &+ $1.allocations } }
        public var frees: UInt64 { arenas.reduce(0) { $0 &+ $1.frees } }
        public var pinnedBytes: Int { arenas.reduce(0) { $0 + $1.pinnedBytes } }

        /// None where frees were seen of allocations that were not: the arena was at work between the two.
        private static func active(_ allocations: UInt64, _ frees: UInt64) -> UInt64 {
            UInt64(max(0, Int64(bitPattern: allocations &- frees)))
        }
    }

    /// Live buffers of all arenas, by their counters. Any thread; exact only while no arena is at work, and never negative.
    public var liveBufferCount: Int {
        max(0, arenas.reduce(0) { $0 + $1.pointee.liveBuffers })
    }

    /// The figures now. Any thread; takes time in proportion to the ledger's slabs and chunks, so not on a hot path.
    public func metrics() -> Metrics {
        let states = arenas
        var figures = states.map(figures(of:))
        addSlabs(rows: ledger.rows(.slabs), to: &figures)
        let cached = addChunks(rows: ledger.rows(.chunks), to: &figures)
        return Metrics(
            level: level, limitBytes: limitBytes, counterBytes: counterBytes, chunkBytes: chunkBytes,
            hugeBytes: hugeBytes, ledgerBytes: ledgerBytes, snapshotBufferBytes: snapshotBufferBytes,
            cachedChunks: cached,
            failedAllocations: failedAllocations, arenas: figures, sites: sites(rows: ledger.rows(.sites), states))
    }

    private func figures(of state: ArenaState.Pointer) -> Metrics.ArenaFigures {
        let index = Int(state.pointee.index)
        let record = ledger.record(.arenas, index)
        let words = record.assumingMemoryBound(to: ArenaRecord.self).pointee
        var arena = Metrics.ArenaFigures(
            name: LedgerText.read(record + ArenaRecord.nameOffset, capacity: ArenaRecord.nameCapacity),
            isShared: state.pointee.isShared,
            classes: (0...SizeClasses.count).map { sizeClass in
                let counts = state.pointee.classCounts[sizeClass]
                return Metrics.ClassFigures(
                    bytes: sizeClass < SizeClasses.count ? SizeClasses.bytes(of: sizeClass) : 0,
                    allocations: counts.allocations, frees: counts.frees)
            },
            remoteFrees: words.remoteFrees, chunksByUsage: .init(repeating: 0, count: Metrics.Usage.allCases.count),
            usedBytes: 0, pinnedBytes: 0, requestedBytes: 0, reserveBytes: Int(words.reserveBytes))
        for site in 0..<state.pointee.siteRows {
            let counters = state.pointee.counters(site).pointee
            arena.pinnedBytes += Int(truncatingIfNeeded: counters.allocatedCapacity &- counters.freedCapacity)
            arena.requestedBytes += Int(truncatingIfNeeded: counters.allocatedRequested &- counters.freedRequested)
        }
        return arena
    }

    private func addSlabs(rows: Int, to arenas: inout [Metrics.ArenaFigures]) {
        let slabs = ledger.records(.slabs, of: SlabRecord.self)
        for row in 0..<rows where slabs[row].state != 0 {
            let slab = slabs[row]
            guard Int(slab.arena) < arenas.count, Int(slab.sizeClass) < SizeClasses.count else { continue }
            let live = UInt64(slab.elements &- slab.freeCount)
            arenas[Int(slab.arena)].classes[Int(slab.sizeClass)].allocations &+= slab.allocations
            arenas[Int(slab.arena)].classes[Int(slab.sizeClass)].frees &+= slab.allocations &- live
        }
    }

    /// - Returns: how many chunks are nobody's, and kept.
    private func addChunks(rows: Int, to arenas: inout [Metrics.ArenaFigures]) -> Int {
        let chunks = ledger.records(.chunks, of: ChunkRecord.self)
        var cached = 0
        for row in 0..<rows {
            let chunk = chunks[row]
            guard Int(chunk.arena) < arenas.count else { continue }
            switch ChunkRecord.State(rawValue: chunk.state) {
            case .chunk:
                let used = SizeClasses.pagesPerChunk - Int(chunk.freePages)
                arenas[Int(chunk.arena)].chunksByUsage[Metrics.Usage(usedPages: used).rawValue] += 1
                arenas[Int(chunk.arena)].usedBytes += SizeClasses.chunkSize
            case .hugeHead: arenas[Int(chunk.arena)].usedBytes += Int(chunk.mappedBytes)
            case .cached: cached += 1
            case .unused, .hugeBody, nil: break
            }
        }
        return cached
    }

    private func sites(rows: Int, _ states: UnsafeBufferPointer<ArenaState.Pointer>) -> [Metrics.SiteFigures] {
        (0..<rows).map { site in
            let record = ledger.record(.sites, site)
            var figures = Metrics.SiteFigures(
                site: SiteID(rawValue: UInt32(site)),
                label: LedgerText.read(record + SiteRecord.labelOffset, capacity: SiteRecord.labelCapacity),
                liveBuffers: 0, requestedBytes: 0, capacityBytes: 0)
            for state in states where site < Int(state.pointee.siteRows) {
                let counters = state.pointee.counters(UInt32(site)).pointee
                figures.liveBuffers += Int(truncatingIfNeeded: counters.allocations &- counters.frees)
                figures.requestedBytes += Int(
                    truncatingIfNeeded: counters.allocatedRequested &- counters.freedRequested)
                figures.capacityBytes += Int(truncatingIfNeeded: counters.allocatedCapacity &- counters.freedCapacity)
            }
            return figures
        }
    }
}
