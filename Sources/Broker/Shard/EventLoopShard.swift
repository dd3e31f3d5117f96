import Arena
import ArenaNIO
import DequeModule
import Ledger
import Logging
import MQTT
import NIOCore
import Synchronization

/// One event loop with all it owns: its arena, its connections, its sessions, what it remembers of the router, and
/// the mailbox messages it has for other shards.
///
/// Nothing here is locked. All members are used on the loop, but for `mailbox` and the constants.
///
/// A tick goes like this: sockets are read, packets handled, messages appended to the output of local connections or
/// to the mailbox messages of other shards. The first of these schedules ``endTick()``, which runs after all sockets of the tick:
/// it posts the mailbox messages, and writes and flushes each connection that has output, once.
public final class EventLoopShard: @unchecked Sendable {
    let index: Int
    let loop: any EventLoop
    let arena: Arena
    let context: BrokerContext
    let owner: OwnerID
    let reads: ReadBufferSource
    /// The same for TLS connections.
    let tlsReads: ReadBufferSource
    let mailbox = Mailbox()
    /// The way to the store, if there is one.
    let writeBehind: WriteBehindBuffer?
    /// Connections that are not read until the store has caught up.
    var waitingForStore: [ConnectionReference] = []
    /// Parts of queues to be read from the store.
    var overflowBatches = OverflowBatches()
    var handovers = Handovers()
    var lateWills: Deque<LateWill> = []
    /// Whether it comes round; any thread may look.
    let presence = LoopPresence()
    /// What this loop has received and sent; any thread may read it.
    let traffic = Traffic()
    /// All shards of the broker, this one included; set once before the first connection.
    var peers: [EventLoopShard] = []
    /// Set once, as `peers`, before the first connection is there.
    var memory: MemoryReporter?

    var connections = ConnectionTable()
    /// Of connections that are not plain TCP, also of such as have gone whose TLS handler has not.
    var transports: [ObjectIdentifier: TransportBuffers] = [:]
    /// The sessions that this shard owns, connected or not.
    var sessions: [ObjectIdentifier: Session] = [:]
    /// Those of them that have commands open.
    var sessionsWithCommands: [ObjectIdentifier: Session] = [:]

    /// Sessions that are leaving for another shard.
    var migrations: [ObjectIdentifier: SessionMigration] = [:]
    /// Sessions on their way here that have messages already.
    var arriving: [ObjectIdentifier: Session] = [:]

    /// The packets of a message that goes to many.
    var fanOut = FanOut()
    private var matchCache: MatchCache
    private var outgoing: [[MailboxMessage]] = []
    /// The deliveries that each of these orders, and those of other loops that have been done in this tick.
    private var outgoingLoad: [Int] = []
    private var handledLoad = 0
    /// Deliveries that other loops have ordered here, and that are not done; any thread.
    let mailboxLoad = Atomic<Int>(0)
    /// So many of them may wait for a loop: the lists of those who get them have a 64th of the limit.
    private(set) var mostMailboxLoad = 0
    /// Another loop has more of them than it should: who publishes waits.
    var isMailboxFull = false
    /// ... and it is to be told when there is room. Any thread.
    let wantsMailboxRoom = Atomic<Bool>(false)
    /// Mailbox messages taken and being handled. Empty between ticks.
    private var incoming: [MailboxMessage] = []
    private var dirty: [ConnectionHandler] = []
    private var isEndTickScheduled = false
    private var endTickTask: @Sendable () -> Void = {}
    private var drainTask: @Sendable () -> Void = {}
    private var wheel = TimerWheel<Watch>(slots: 256)
    private var sessionWheel = SessionWheel(slots: 256)
    /// Not before all that the store has is here.
    var isTimeRunning: Bool
    /// Publishers are refused, and so must know, when a queue is full (`Limits.queuePolicy`).
    let rejectsWhenFull: Bool
    /// Seconds since the last look at the figures of the sessions, and of the broker.
    var storedSeconds = 0
    var sysSeconds = 0
    private(set) var isStopping = false
    private var ticks = 0
    private var ticker: RepeatedTask?
    private var refusals = RefusalLog()
    private var counterLog = CounterLog()
    private var lossLog = LossLog()
    /// How short memory is.
    var pressure: ShardPressure
    /// As of the end of its last tick; any thread may look.
    let lastSpareBytes = Atomic<Int>(0)
    /// Of groups whose messages are passed on.
    var groupMembers = GroupMembers()
    /// What this tick may do yet, and what waits for the next one.
    var steps = StepBudget()
    var work = DeferredWork()
    /// Whom messages were lost for since the last second.
    var losses = LossTally()

    init(index: Int, loop: any EventLoop, arena: Arena, context: BrokerContext) {
        self.index = index
        self.loop = loop
        self.arena = arena
        self.context = context
        isTimeRunning = context.store == nil
        matchCache = MatchCache(heap: context.heap, mostBytes: 0)
        rejectsWhenFull = context.limits.queuePolicy == .reject
        writeBehind = context.store.map { WriteBehindBuffer(store: $0, shard: index) }
        owner = context.pool.openOwner(.eventLoop, name: "loop-\(index)", parent: .process)
        pressure = ShardPressure(
            limitBytes: context.pool.limitBytes, loops: 1, nearPercent: context.configuration.nearPercent)
        reads = ReadBufferSource(arena: arena, owner: owner, bytes: Limits.readBufferBytes)
        tlsReads = ReadBufferSource(arena: arena, owner: owner, bytes: Limits.tlsReadBufferBytes)
    }

    /// Where connections of a listener read into.
    func reads(for policy: Listener.Settings) -> ReadBufferSource { policy.configuration.isTLS ? tlsReads : reads }

    /// To be called once on the loop, before the first connection.
    func start(peers: [EventLoopShard]) {
        loop.assertInEventLoop()
        arena.bind(to: loop, owner: owner)
        presence.start()
        self.peers = peers
        outgoing = Array(repeating: [], count: peers.count)
        outgoingLoad = Array(repeating: 0, count: peers.count)
        let share = context.pool.limitBytes / 64 / MemoryLayout<Subscriber>.stride / peers.count
        mostMailboxLoad = max(Limits.stepsPerTick / 4, min(Limits.mailboxDeliveries, share))
        matchCache = MatchCache(
            heap: context.heap, mostBytes: context.pool.limitBytes / Limits.matchCacheShare / peers.count)
        pressure = ShardPressure(
            limitBytes: context.pool.limitBytes, loops: peers.count, nearPercent: context.configuration.nearPercent)
        // Made once: a closure for every tick would be an allocation for every tick.
        endTickTask = { [unowned self] in endTick() }
        drainTask = { [unowned self] in drainMailbox() }
        writeBehind?.whenFirstChanged = { [unowned self] in scheduleEndTick() }
        let period = TimeAmount.milliseconds(Int64(Limits.tickMilliseconds))
        ticker = loop.scheduleRepeatedTask(initialDelay: period, delay: period) { [unowned self] _ in tick() }
    }

    /// Closes all connections: nobody can send any more, what has been sent is on its way to the other loops. On the
    /// loop.
    func closeConnections() {
        clearEnded()
        isStopping = true
        ticker?.cancel()
        // What has been read counts, as far as that does not make the end wait: a goodbye, above all.
        finishFanOuts()
        lookForMailboxRoom()
        let before = steps.total
        for _ in 0..<Limits.lastTurns where steps.total - before < Limits.lastSteps {
            guard let reference = work.input.popFirst() else { break }
            steps.beginDeferred()
            connections[reference]?.takeTurn()
            finishFanOuts()
        }
        connections.forEach { $0.close(.shuttingDown) }
        // Now, in however many ticks it would have been: their wills are owed to sessions that are kept.
        while let session = work.leaving.popFirst() { finishLeaving(session) }
        for whenDone in work.whenRulesAreNew { whenDone() }
        work.whenRulesAreNew = []
        endTick()
    }

    /// Forgets all sessions; on the loop, after all loops have closed their connections and empty their mailboxes.
    func stop() {
        endTick()
        for session in sessions.values { if session.isStored { leave(session) } else { end(session) } }
        writeBehind?.end()
        trim()
        context.pool.closeOwner(owner)
        arena.unbind()
    }

    /// After all loops have ended: the shards refer to each other, also through what reports on all of them.
    func forgetPeers() {
        peers = []
        memory = nil
    }

    // MARK: - Publishing

    /// Who gets what is published to a topic.
    func match(_ topic: TopicName) -> Match {
        var taken = 0
        let match = matchCache.match(topic, router: context.router, shards: peers.count, steps: &taken)
        if taken > 0 { steps.take(taken) }
        return match
    }

    func hasFullQueue(_ match: Match, _ topic: TopicName) -> Bool {
        var looks = 0
        defer { steps.take(looks) }
        return match.hasFullQueue(topic, steps: &looks)
    }

    /// Keeps a message for those who subscribe later.
    ///
    /// - Returns: false if the store is full.
    func retain(_ message: Message) throws(ArenaError) -> Bool {
        if context.store?.isFailing != true,
            try context.retained.store(message, arena: arena, whenPlaced: { writeBehind?.retain(message) })
        {
            return true
        }
        context.counters.retainedRefused.increment()
        return false
    }

    /// Publishes a message of the broker itself, or on behalf of a session: into the retained store if it asks for it,
    /// then to its subscribers. Those who are subscribed already get it without RETAIN (MQTT-3.3.1-9), or with it if
    /// they have asked for that (MQTT-3.3.1-13).
    ///
    /// - Returns: false if the store is yet to be told who gets it: see ``whenNoted(_:)``.
    @discardableResult
    func publish(_ message: inout Message, retain: Bool, from session: Session?) throws(ArenaError) -> Bool {
        message.retain = retain
        if retain { _ = try self.retain(message) }
        return try route(&message, match(message.topic), from: session)
    }

    /// Delivers a message to a session whichever shard owns it.
    func send(_ message: inout Message, to session: Session) throws(ArenaError) {
        let owningShard = session.owningShard
        if owningShard == index { return try deliver(&message, to: session) }
        if message.qos != .atMostOnce { try message.copyIfBorrowed(in: arena, owner: owner, "message to another loop") }
        if !message.ownsBuffer { reads.noteKept(by: owner) }
        if session.isStored, message.qos != .atMostOnce, message.entry == 0 {
            writeBehind?.keep(&message, for: session)
        }
        post(.deliver(session, message.forAnotherLoop), to: owningShard)
    }

    /// Sends a message to a client, or keeps it for later as its QoS and the session say. Follows the session if it
    /// has moved.
    ///
    /// - Parameter isForwarded: the message was sent to the session's former owning shard.
    func deliver(
        _ message: inout Message, to session: Session, isForwarded: Bool = false
    ) throws(ArenaError) {
        let owningShard = session.owningShard
        guard owningShard == index else {
            if !message.ownsBuffer { reads.noteKept(by: owner) }
            if session.isStored, message.qos != .atMostOnce, message.entry == 0 {
                writeBehind?.keep(&message, for: session)
            }
            return post(.forward(session, message.forAnotherLoop), to: owningShard)
        }
        guard session.mayReceive(message.topic) else { return turnAway(&message, from: session) }
        if message.qos == .atMostOnce {
            // Not kept for a client that is away: section 4.3.1 leaves it to the server.
            session.connection?.sendAtMostOnce(&message)
            return
        }
        guard !session.isEnded else { return passOn(message, from: session) }
        if session.isStored, !session.isInTransit, session.state.spills(message) {
            // It need not even be in the arena.
            if message.entry == 0 { writeBehind?.keep(&message, for: session) }
            return queue(message, for: session, isAsked: true)
        }
        try message.assignOwner(in: arena, owner: session.owner, sharedOwner: context.listenerOwner, "queued message")
        if session.isStored, message.entry == 0 { writeBehind?.keep(&message, for: session) }
        guard !session.isInTransit else {
            arriving[ObjectIdentifier(session)] = session
            if isForwarded { session.forwarded.append(message) } else { session.stagingQueue.append(message) }
            return
        }
        queue(message, for: session, isAsked: true)
    }

    /// Offers a message that owns its buffer to a session that this shard owns.
    ///
    /// - Parameter isAsked: whether the client's right to read it has been asked for in this tick.
    func queue(_ message: Message, for session: Session, isAsked: Bool) {
        let canSend = session.connection?.canSend ?? false
        switch update(session, { $0.state.offer(message, canSend: canSend, limits: context.limits) }) {
        case .send(let packetID): session.connection?.send(message, packetID: packetID, dup: false, isAsked: isAsked)
        case .queued: break
        case .dropped: noteQueueDrops(1, session)
        case .replaced(let count): noteQueueDrops(count, session)
        }
    }

    private func noteQueueDrops(_ count: Int, _ session: Session) {
        context.counters.queueDrops.increment(by: count)
        losses.add(session.clientID, count: count)
    }

    // MARK: - Mailboxes

    func post(_ message: MailboxMessage, to shard: Int) {
        message.share(in: arena)
        outgoing[shard].append(message)
        outgoingLoad[shard] += message.load
        scheduleEndTick()
    }

    /// Mailbox messages that is on its way: not posted yet, or not handled yet.
    func forEachMailboxMessage(_ body: (MailboxMessage) -> Void) {
        for messages in outgoing { messages.forEach(body) }
        work.mailboxMessages.forEach(body)
    }

    /// What has come so far, all of it; at the end of the broker.
    func handleMailbox() {
        finishFanOuts()
        while let message = work.mailboxMessages.popFirst() { handle(message) }
        while takeMailboxMessages({ false }) { finishFanOuts() }
        endTick()
    }

    private func drainMailbox() {
        // Others have waited behind a message to many: it is their turn, and then this one's.
        if work.slicesOwed == 0 { _ = goOnWithMailbox() } else { scheduleWork() }
        endTick()
    }

    /// Handles mailbox messages in their order, as long as there are steps for it.
    func goOnWithMailbox() -> Bool {
        var isMoving = false
        while !isBusy, let message = work.mailboxMessages.popFirst() {
            isMoving = true
            handle(message)
        }
        if work.mailboxMessages.isEmpty, takeMailboxMessages({ isBusy }) { isMoving = true }
        if !work.mailboxMessages.isEmpty || !work.fanOuts.isEmpty { scheduleWork() }
        return isMoving
    }

    /// Whether what comes now must wait: for steps, or behind a message that goes to many.
    @inline(__always)
    var isBusy: Bool { steps.isSpent || !work.fanOuts.isEmpty }

    /// Empties the mailbox; what is too much for now waits.
    ///
    /// - Returns: whether there was anything.
    @discardableResult
    private func takeMailboxMessages(_ isEnough: () -> Bool) -> Bool {
        mailbox.take(&incoming)
        defer { incoming.removeAll(keepingCapacity: incoming.capacity <= 1_024) }
        for (offset, message) in incoming.enumerated() {
            if isEnough() {
                work.mailboxMessages.append(contentsOf: incoming[offset...])
                break
            }
            handle(message)
        }
        return !incoming.isEmpty
    }

    private func handle(_ mailboxMessage: MailboxMessage) {
        steps.take()
        handledLoad += mailboxMessage.load
        scheduleEndTick()
        do throws(ArenaError) {
            switch mailboxMessage {
            case .publish(var message, let subscribers): try deliver(&message, postedTo: subscribers)
            case .deliver(let session, var message): try deliver(&message, to: session)
            case .forward(let session, var message): try deliver(&message, to: session, isForwarded: true)
            case .command(let session, var message): try deliverCommand(&message, to: session)
            case .takeOver(let session, let claim): takeOver(session, for: claim)
            case .barrier(let session, let shard): post(.barrierPassed(session), to: shard)
            case .barrierPassed(let session): barrierPassed(session)
            case .adopt(let session, let connection, let hasMoved): adopt(session, for: connection, hasMoved: hasMoved)
            case .overflowBatch(let session, let batch): take(batch, for: session)
            case .claimAgain(let reference): connections[reference]?.claimSession()
            case .superseded(let reference): connections[reference]?.close(.takenOver)
            }
        } catch {
            refused(error, while: "delivering a message from another loop")
        }
    }

    // MARK: - The tick

    /// Asks for the connection's output to be written at the end of this tick.
    func markDirty(_ connection: ConnectionHandler) {
        steps.take(Limits.stepsPerWrite)
        dirty.append(connection)
        scheduleEndTick()
    }

    func scheduleEndTick() {
        guard !isEndTickScheduled else { return }
        isEndTickScheduled = true
        loop.execute(endTickTask)
    }

    private func endTick() {
        isEndTickScheduled = false
        noteSpareBytes()
        updatePressure()
        // By index: flushing can make further connections dirty.
        var index = 0
        while index < dirty.count {
            dirty[index].finishTick()
            index += 1
        }
        dirty.removeAll(keepingCapacity: true)
        // First: the store hears of a message before any other loop does.
        writeBehind?.post()
        if overflowBatches.isWanted { readOverflowBatches() }
        if handovers.isDue { readHandovers() }
        settleMailboxLoad(handledLoad)
        handledLoad = 0
        for shard in outgoing.indices where !outgoing[shard].isEmpty {
            postGathered(to: shard, outgoingLoad[shard])
            outgoingLoad[shard] = 0
            if peers[shard].mailbox.post(&outgoing[shard]) { peers[shard].loop.execute(peers[shard].drainTask) }
        }
    }

    // MARK: - Time

    /// Which of a connection's deadlines an entry of the wheel is for. There is at most one entry for each.
    enum Deadline {
        /// CONNECT.
        case connect
        /// Keep alive.
        case silence
        /// An unfinished packet.
        case packet
        /// What is written after the connection was closed.
        case goodbye
        /// A socket that takes nothing.
        case stall
    }

    struct Watch {
        let connection: ConnectionReference
        let deadline: Deadline
    }

    /// Has ``ConnectionHandler/check(_:_:)`` called at about `deadline`; earlier if that is far away.
    func watch(_ connection: ConnectionReference, _ kind: Deadline, until deadline: NIODeadline) {
        wheel.insert(Watch(connection: connection, deadline: kind), ticks: Self.ticks(until: deadline))
    }

    /// What the wheel has for a connection; for tests.
    func watches(of connection: ConnectionReference) -> [Deadline] {
        wheel.entries.filter { $0.connection == connection }.map(\.deadline)
    }

    /// Has ``check(_:at:)`` called at about `deadline`, the session's next one; earlier if that is far away.
    func watch(_ session: Session, until deadline: NIODeadline) {
        guard isTimeRunning else { return }
        sessionWheel.set(session, deadline, ticks: Self.ticks(until: deadline))
    }

    /// Sessions of which something will be due.
    var watchedSessions: Int { sessionWheel.count }

    private static func ticks(until deadline: NIODeadline) -> Int {
        let wait = max(0, (deadline - .now()).nanoseconds / 1_000_000)
        let period = Int64(Limits.tickMilliseconds)
        return Int((wait + period - 1) / period) + 1
    }

    private func tick() {
        let now = NIODeadline.now()
        presence.note()
        work.dueConnections.append(contentsOf: wheel.advance())
        work.dueSessions.append(contentsOf: sessionWheel.advance())
        _ = goOnWithDue()
        resumeWaiting()
        lookForMailboxRoom()
        tickPressure()
        if !overflowBatches.again.isEmpty { wantOverflowBatchesAgain() }
        if handovers.isResting { goOnWithHandovers() }
        if !lateWills.isEmpty { publishLateWills() }
        ticks += 1
        guard ticks % (1_000 / Limits.tickMilliseconds) == 0 else { return }
        expireCommands()
        matchCache.trim(version: context.router.version)
        groupMembers.trim(version: context.router.version)
        reads.trim()
        fanOut.trim()
        tlsReads.trim()
        forgetTransports()
        refusals.flush(context.log)
        context.losses.take(&losses)
        arena.giveBackUnused()
        countStored()
        guard index == 0 else { return }
        context.store?.retry()
        context.retained.advance()
        work.isRetainedDue = true
        _ = goOnWithExpiry()
        publishSysTopics(now)
        context.pool.trim()
        context.flightRecording.tick(context)
        counterLog.tick(context.pool, context.log)
        lossLog.tick(context.counters, context.losses, context.pool, context.log)
    }

    private func forgetTransports() {
        for (id, transport) in transports where transport.isGone {
            transports[id] = nil
            transport.closeOwner()
        }
    }

    func forgetMatches() { matchCache.drop() }

    /// Frees what is kept only to save time.
    func trim() {
        reads.drop()
        fanOut.drop()
        tlsReads.drop()
        forgetTransports()
        forgetMatches()
        groupMembers = GroupMembers()
        arena.drainRemoteFrees()
    }

    // MARK: - Refusals

    /// Counts an allocation the arena refused, and logs it: at once, then once a second with a count.
    func refused(_ error: ArenaError, while doing: String) {
        context.counters.allocationFailures.increment()
        refusals.report(error, doing, context.log)
    }
}

/// One log line a second about allocation failures, however many there are.
struct RefusalLog {
    private var last: NIODeadline?
    private var suppressed = 0
    private var lastText = ""

    mutating func report(_ error: ArenaError, _ doing: String, _ log: Logger) {
        let now = NIODeadline.now()
        if let last, now - last < .seconds(Int64(Limits.errorLogIntervalSeconds)) {
            suppressed += 1
            lastText = "\(error)"
            return
        }
        last = now
        log.error("\(error)", metadata: ["while": "\(doing)"])
    }

    /// Says how many were not logged.
    mutating func flush(_ log: Logger) {
        guard suppressed > 0 else { return }
        log.error("\(lastText)", metadata: ["more": "\(suppressed)"])
        suppressed = 0
    }
}
