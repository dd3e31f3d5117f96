import Arena
import DequeModule
import Ledger
import Logging
import NIOCore

// What a shard does when memory gets short, and when it comes back. See `PressureGauge` for the levels.
extension EventLoopShard {
    /// Brings the level up to date; before every read, and at the end of every tick.
    @inline(__always)
    func updatePressure() {
        pressure.isStale = false
        if pressure.gauge.level == .normal, availableBytes(cachedChunks: 0) >= pressure.gauge.comfortableBytes {
            return
        }
        reassessPressure()
    }

    /// What the shard may still take on, in bytes; may be negative.
    ///
    /// Of the chunks that nobody has, only whole ones count, and only as many for each loop as there are for all: another
    /// loop may take its own at any moment. So with n loops the last n - 1 chunks are left by all of them, for what a loop
    /// has to send. What queues, buffers and batches for the store take on the heap is as good as taken from the arena; what
    /// state takes is (``HeapAccount``).
    /// What a dump takes while it is written comes back by itself; the references of queued messages, which can be most of it,
    /// are set aside for it.
    func availableBytes(cachedChunks: Int) -> Int {
        let (pool, loops) = (context.pool, max(1, peers.count))
        let heap =
            context.passingBytes + context.heap.bytes(of: .growth)
            + context.heap.bytes(of: .queues) / Limits.dumpShareOfQueues
        let unclaimed = pool.unclaimedBytes + pool.snapshotBufferBytes - heap
        let spare = spareBytes
        guard unclaimed < 0 else {
            return spare + (unclaimed / SizeClasses.chunkSize + cachedChunks) / loops * SizeClasses.chunkSize
        }
        // The heap has more than the arena has left: that comes out of the free pages of all loops. One that has many must not
        // count them for its own.
        let all = peers.reduce(0) { $0 + ($1 === self ? spare : $1.lastSpareBytes.load(ordering: .relaxed)) }
        let cached = cachedChunks / loops * SizeClasses.chunkSize
        return min(spare + unclaimed / loops, (all + unclaimed) / loops) + cached
    }

    /// The free pages of its chunks, less what its buffers cost on the heap.
    private var spareBytes: Int { arena.freeBytes - arena.liveBufferCount * Limits.heapBytesPerBuffer }

    /// For the other loops.
    @inline(__always)
    func noteSpareBytes() { lastSpareBytes.store(spareBytes, ordering: .relaxed) }

    /// What sending may take: whatever the arena still has. It is what makes room, also on the heap.
    private var egressBytes: Int {
        arena.freeBytes + max(0, context.pool.unclaimedBytes)
            / SizeClasses.chunkSize * SizeClasses.chunkSize
    }

    /// Whether there is more than is kept for acknowledgements and the like.
    var hasEgressMemory: Bool { egressBytes >= Limits.controlReserveBytes }

    /// Refuses memory for what a peer has only begun, or has remembered, where that would leave less than what is for
    /// acknowledgements and the like: however many peers do so together. A few bytes are always had: packets that make
    /// room are small, and may come in pieces.
    func checkRoom(_ bytes: Int) throws(ArenaError) {
        guard bytes > Limits.leastReadBytes else { return }
        let pool = context.pool
        // What is larger than a chunk comes out of none.
        let isHuge = bytes > SizeClasses.chunkSize
        let unclaimed = max(0, pool.unclaimedBytes - (isHuge ? bytes : 0))
        let free = arena.freeBytes - (isHuge ? 0 : bytes)
        guard free + unclaimed / SizeClasses.chunkSize * SizeClasses.chunkSize < Limits.controlReserveBytes else {
            return
        }
        noteRefusal(of: bytes)
        throw .limit(needed: bytes, used: pool.limitBytes - pool.unclaimedBytes, limit: pool.limitBytes)
    }

    /// Something is refused so that the arena need not: it is counted as if that had.
    func noteRefusal(of bytes: Int) {
        context.pressureEpisode.loopRefuses { context.pool.countRefusal(of: bytes, isFirst: $0) }
    }

    /// Whether so many bytes in one piece are possible at all.
    func hasRoom(_ bytes: Int) -> Bool {
        bytes <= max(arena.freeBytes, context.pool.unclaimedBytes)
    }

    @inline(never)
    private func reassessPressure() {
        let available = availableBytes(cachedChunks: context.pool.cachedChunkCount)
        let old = pressure.gauge.level
        pressure.isExhausted = arena.isReserveSpent
        guard pressure.gauge.update(available: available) else { return }
        let new = pressure.gauge.level
        pressure.isShort = new >= .near
        reads.isSmall = new >= .elevated
        tlsReads.isSmall = new >= .elevated
        if old == .normal {
            context.pressureEpisode.begin(isNearLimit: isCounterNear)
            giveBack()
        }
        if new == .normal { context.pressureEpisode.end() }
        if new >= .near { context.pressureEpisode.loopIsNear() }
        if new >= .near, new > old { logPressure(new, available) }
        if new < .near { resumePublishers() }
    }

    private var isCounterNear: Bool {
        context.pool.counterBytes + context.pool.externalBytes
            >= context.pool.limitBytes / 100 * context.configuration.nearPercent
    }

    /// Frees what is kept only to save time.
    private func giveBack() {
        fanOut.drop()
        forgetMatches()
        arena.giveBackUnused()
    }

    /// The levels may come and go many times a second, while many clients want more than there is.
    private func logPressure(_ level: ArenaPool.Level, _ available: Int) {
        let now = NIODeadline.now()
        if let last = pressure.lastLog, now - last < .seconds(Int64(Limits.lossLogIntervalSeconds)) { return }
        pressure.lastLog = now
        context.log.warning(
            "memory is short: \(level == .critical ? "publishes are refused" : "publishers are not read")",
            metadata: [
                "loop": "\(index)", "available": "\(available)", "counter": "\(context.pool.counterBytes)",
                "limit": "\(context.pool.limitBytes)",
            ])
    }

    // MARK: - Publishers

    /// Has a publisher resumed when there is room again.
    func notePaused(_ publisher: ConnectionReference) {
        context.counters.publisherPauses.increment()
        pressure.paused.append(publisher)
    }

    /// Reads on from publishers, some at a time: each may bring as much as one read. In the order in which they were
    /// paused, so that all of them get on.
    func resumePublishers() {
        guard !pressure.isShort, !pressure.paused.isEmpty else { return }
        for _ in 0..<min(Limits.resumedPerTick, pressure.paused.count) {
            connections[pressure.paused.removeFirst()]?.resumeReading(.memory)
        }
        if !pressure.paused.isEmpty { scheduleWork() }
    }

    /// Of the paused publishers, those whose acknowledgements are waited for are read once: they come behind whatever
    /// else these clients have sent.
    private func readAcknowledgements() {
        for _ in 0..<min(Limits.resumedPerTick, pressure.paused.count) {
            let reference = pressure.paused.removeFirst()
            guard let connection = connections[reference] else { continue }
            if connection.session?.state.inflightCount ?? 0 > 0 {
                connection.resumeReading(.memory)
            } else {
                pressure.paused.append(reference)
            }
        }
    }

    // MARK: - Without any memory

    /// Has a connection read on when there may be something to read into.
    func noteUnread(_ connection: ConnectionReference) { pressure.unread.append(connection) }

    /// Some at a time: each may find that there is nothing still, and wait again.
    private func readOn() {
        pressure.isExhausted = arena.isReserveSpent
        guard !pressure.isExhausted else { return }
        for _ in 0..<min(Limits.resumedPerTick, pressure.unread.count) {
            connections[pressure.unread.removeFirst()]?.resumeReading(.reserve)
        }
    }

    // MARK: - Consumers

    /// Has a connection's output looked at again when there may be memory for it.
    func noteStarved(_ connection: ConnectionReference) { pressure.starved.append(connection) }

    private func feedStarved() {
        let starved = pressure.starved
        pressure.starved = []
        for reference in starved {
            guard let connection = connections[reference] else { continue }
            connection.output.isStarved = false
            connection.wantsToSend()
        }
    }

    /// Disconnects the consumers that hold the most for want of reading, a few at a time.
    private func shedConsumers() {
        var worst: [(connection: ConnectionHandler, bytes: Int)] = []
        connections.forEach { connection in
            let bytes = connection.bytesBehind
            guard bytes >= Limits.shedFromBytes else { return }
            worst.append((connection, bytes))
        }
        worst.sort { $0.bytes > $1.bytes }
        for (connection, bytes) in worst.prefix(Limits.shedPerTick) {
            context.counters.consumersShed.increment()
            connection.close(.slowConsumer(bytes: bytes))
        }
    }

    /// Four times a second.
    func tickPressure() {
        // Free pages between used ones are memory of the process too. What the heap has beyond the chunks that nobody has
        // comes out of them, however many there are.
        if pressure.gauge.level > .normal || context.pool.unclaimedBytes < context.passingBytes {
            arena.giveBackUnused()
            arena.discardFreePages()
            context.heapTrim.look()
        }
        noteSpareBytes()
        updatePressure()
        if !pressure.unread.isEmpty { readOn() }
        if !pressure.starved.isEmpty { feedStarved() }
        guard pressure.isShort else { return resumePublishers() }
        readAcknowledgements()
        if pressure.gauge.level == .critical { shedConsumers() }
    }
}

/// What a shard remembers of a memory-pressure episode.
struct ShardPressure {
    var gauge: PressureGauge
    /// The level is `near` or `critical`.
    var isShort = false
    /// A message has gone to many since it was looked at, which takes as much as a tick's worth of others.
    var isStale = false
    /// NIO has spent what is kept for what it takes without asking: until that is set aside again, nothing is read.
    var isExhausted = false
    /// Publishers that are not read, in the order in which they came here; some may be gone.
    var paused: Deque<ConnectionReference> = []
    /// Connections that are not read since there was nothing to read into.
    var unread: Deque<ConnectionReference> = []
    /// Connections that had something to send, and no memory for it.
    var starved: [ConnectionReference] = []
    var lastLog: NIODeadline?

    init(limitBytes: Int, loops: Int, nearPercent: Int) {
        gauge = PressureGauge(share: limitBytes / max(1, loops), nearPercent: nearPercent)
    }
}
