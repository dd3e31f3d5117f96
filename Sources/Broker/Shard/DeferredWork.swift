import Arena
import DequeModule
import MQTT
import NIOCore

/// What a peer can order more of than a tick should do: it goes on after the next look at the sockets, piece by piece.
///
///     packet, timer, mailbox messages --> done at once while there are steps left (`StepBudget`)
///                         \-> waits here --> after the next poll: a slice for each kind, in turn, until steps are spent
///
/// What is in here is done in its order. Each kind keeps the order that it must keep: a connection's packets, a loop's mailbox
/// messages.
struct DeferredWork {
    /// Sessions whose connections are gone, and that are yet to end or to have their wills published.
    var leaving: Deque<Session> = []
    /// Sessions that are over, and of which something is left to be cleared away.
    var ended: Deque<EndedSession> = []
    /// Connections with more to be sent: retained messages above all.
    var retained: Deque<ConnectionReference> = []
    /// Connections with packets to be handled, or with one that is not done yet.
    var input: Deque<ConnectionReference> = []
    /// Those that publish, while another loop's mailbox has more than it should.
    var waitingForMailbox: Deque<ConnectionReference> = []
    /// What the buffers of all input that waits hold.
    var inputBytes = 0 { didSet { mostInputBytes = max(mostInputBytes, inputBytes) } }
    /// The most of it at any time; for tests.
    private(set) var mostInputBytes = 0
    /// Messages that go to many; what else would deliver messages waits behind them.
    var fanOuts: Deque<UnfinishedFanOut> = [] { didSet { mostFanOuts = max(mostFanOuts, fanOuts.count) } }
    /// The most of them at any time; for tests.
    private(set) var mostFanOuts = 0
    /// One of them is done: so many slices come before mailbox messages that have just arrived may bring the next.
    var slicesOwed = 0
    /// Mailbox messages from other loops; what comes meanwhile stays in the mailbox.
    var mailboxMessages: Deque<MailboxMessage> = []
    /// Sessions and connections of which something is due.
    var dueSessions: Deque<Session> = []
    var dueConnections: Deque<EventLoopShard.Watch> = []
    /// Sessions whose access rules are to be compiled again, and who waits for all of that.
    var rules: Deque<ObjectIdentifier> = []
    var whenRulesAreNew: [() -> Void] = []
    /// Sessions whose commands may have timed out.
    var commands: Deque<ObjectIdentifier> = []
    /// Sessions of which is yet to be counted what they keep, and the messages and bytes of the others.
    var counted: Deque<ObjectIdentifier> = []
    var stored: (messages: Int, bytes: Int)?
    /// Retained messages have expired.
    var isRetainedDue = false

    /// What is left for this tick.
    fileprivate(set) var endings = Limits.endingsPerTick
    var retainedMessages = Limits.retainedPerTick
    /// The most endings of any tick; for tests.
    fileprivate(set) var mostEndings = 0
    /// The most messages that any connection was not sent in a tick, since its client may not read them; for tests.
    var mostWithheld = 0

    /// Ticks of the loop so far, and which one it was when this was last scheduled.
    fileprivate var ticks: UInt64 = 0
    fileprivate var scheduledIn: UInt64 = 0
    fileprivate var isScheduled = false
    /// The kind that is first in turn: behind the one that was last. One piece may take more than all steps of a tick, so a
    /// kind that was always first could keep all others waiting.
    fileprivate var nextSlice = 0

    fileprivate var isEmpty: Bool {
        leaving.isEmpty && ended.isEmpty && retained.isEmpty && input.isEmpty && mailboxMessages.isEmpty
            && fanOuts.isEmpty
            && dueSessions.isEmpty && dueConnections.isEmpty && rules.isEmpty && commands.isEmpty && stored == nil
            && !isRetainedDue
    }
}

extension EventLoopShard {
    /// The loop looks at its sockets now.
    func tickEnded() {
        work.ticks &+= 1
        steps.tickEnded()
    }

    /// Has the budgets renewed after the next look at the sockets, and what waits gone on with.
    func scheduleWork() {
        guard !work.isScheduled, !isStopping else { return }
        work.isScheduled = true
        work.scheduledIn = work.ticks
        armWork()
    }

    /// Soon, but not now: a timer that is due runs before the loop polls. So it may have come too early all the same.
    private func armWork() {
        loop.scheduleTask(in: .microseconds(Int64(Limits.nextTickMicroseconds))) { [self] in
            guard work.ticks == work.scheduledIn else { return goOnWithWork() }
            armWork()
        }
    }

    private func goOnWithWork() {
        work.isScheduled = false
        guard !isStopping else { return }
        work.mostEndings = max(work.mostEndings, Limits.endingsPerTick - work.endings)
        work.endings = Limits.endingsPerTick
        work.retainedMessages = Limits.retainedPerTick
        steps.beginDeferred()
        updatePressure()
        resumePublishers()
        var idle = 0
        while idle < Self.slices.count, !steps.isSpent {
            // The kind that began it has had its turn; the next one has it when it is done.
            if !work.fanOuts.isEmpty {
                goOnWithFanOuts()
                continue
            }
            work.slicesOwed = max(0, work.slicesOwed - 1)
            let slice = Self.slices[work.nextSlice]
            work.nextSlice = (work.nextSlice + 1) % Self.slices.count
            steps.beginSlice()
            idle = slice(self) ? 0 : idle + 1
            steps.endSlice()
        }
        if !work.isEmpty { scheduleWork() }
        scheduleEndTick()
    }

    /// Each does some of its kind, and says whether it did anything.
    private static let slices: [@Sendable (EventLoopShard) -> Bool] = [
        { $0.goOnWithMailbox() }, { $0.goOnWithInput() }, { $0.goOnWithLeaving() }, { $0.goOnWithEnded() },
        { $0.goOnWithRetained() }, { $0.goOnWithDue() }, { $0.goOnWithRules() }, { $0.goOnWithExpiry() },
        { $0.goOnWithCommands() }, { $0.goOnWithCounting() },
    ]

    static var sliceCount: Int { slices.count }

    private func goOnWithInput() -> Bool {
        var isMoving = false
        // Each once: who is not done waits behind the others.
        for _ in 0..<work.input.count {
            guard !isBusy, let reference = work.input.popFirst() else { break }
            isMoving = true
            connections[reference]?.takeTurn()
        }
        return isMoving
    }

    private func goOnWithRetained() -> Bool {
        var isMoving = false
        for _ in 0..<work.retained.count {
            guard !steps.isSpent, work.retainedMessages > 0, let reference = work.retained.popFirst() else { break }
            guard let connection = connections[reference] else { continue }
            isMoving = true
            connection.output.isRetainedScheduled = false
            connection.sendRetained()
            connection.wantsToSend()
        }
        return isMoving
    }

    // MARK: - Time

    func goOnWithDue() -> Bool {
        let now = NIODeadline.now()
        var isMoving = false
        while !steps.isSpent, let watch = work.dueConnections.popFirst() {
            isMoving = true
            steps.take()
            connections[watch.connection]?.check(watch.deadline, now)
        }
        while !isBusy, let session = work.dueSessions.popFirst() {
            isMoving = true
            steps.take()
            // It may have ended since it came due, or moved, or it is on its way back.
            guard session.owningShard == index, !session.isInTransit, !session.isEnded else { continue }
            // Its queue is looked through.
            if session.state.nextExpiry <= now { steps.take(session.state.queuedCount) }
            check(session, at: now)
            settle(session)
        }
        if !work.dueConnections.isEmpty || !work.dueSessions.isEmpty { scheduleWork() }
        return isMoving
    }

    func goOnWithExpiry() -> Bool {
        guard work.isRetainedDue else { return false }
        let (_, looks, isMoreDue) = context.retained.removeExpired(
            at: .now(), atMost: min(steps.room, Limits.retainedVisitsPerFetch)
        ) { writeBehind?.retainedExpired($0) }
        steps.take(looks)
        work.isRetainedDue = isMoreDue
        if isMoreDue { scheduleWork() }
        return looks > 0
    }

    // MARK: - Access rules

    /// Access rules may have changed: returns when what connected clients and kept sessions may do has followed. Any thread.
    func renewRules() async throws {
        try await loop.flatSubmit { [self] in
            let promise = loop.makePromise(of: Void.self)
            renewRules { promise.succeed() }
            return promise.futureResult
        }.get()
    }

    private func renewRules(whenDone: @escaping () -> Void) {
        guard !isStopping else { return whenDone() }
        work.rules = Deque(sessions.keys)
        work.whenRulesAreNew.append(whenDone)
        _ = goOnWithRules()
        scheduleWork()
    }

    private func goOnWithRules() -> Bool {
        guard !work.whenRulesAreNew.isEmpty else { return false }
        while !steps.isSpent, let id = work.rules.popFirst() {
            // One that has come here since had its rules renewed where it was, or has them from its new connection.
            guard let session = sessions[id] else { continue }
            session.renewRules()
            steps.take(Limits.stepsPerRules)
        }
        guard work.rules.isEmpty else { return true }
        let waiting = work.whenRulesAreNew
        work.whenRulesAreNew = []
        for whenDone in waiting { whenDone() }
        return true
    }

    // MARK: - Sessions that end

    /// The connection of a session is gone: what follows from it happens now, or in its turn if there is much of that.
    func leaveSoon(_ session: Session) {
        session.isLeaving = true
        scheduleWork()
        guard work.leaving.isEmpty, work.endings > 0, !isBusy else { return work.leaving.append(session) }
        continueLeaving(session)
    }

    private func goOnWithLeaving() -> Bool {
        var isMoving = false
        while !isBusy, work.endings > 0, let session = work.leaving.popFirst() {
            isMoving = true
            continueLeaving(session)
        }
        return isMoving
    }

    private func continueLeaving(_ session: Session) {
        // Somebody has claimed it, and did not wait. It may be another loop's by now.
        guard session.owningShard == index, session.isLeaving else { return }
        work.endings -= 1
        finishLeaving(session)
    }

    /// A session is over: what is left of it is cleared away now, or in its turn if that is much.
    func finishEnd(_ session: EndedSession) {
        scheduleWork()
        var session = session
        if work.ended.isEmpty || isStopping, continueEnd(&session) { return }
        work.ended.append(session)
    }

    private func goOnWithEnded() -> Bool {
        var isMoving = false
        while !steps.isSpent, work.endings > 0, var session = work.ended.popFirst() {
            isMoving = true
            guard continueEnd(&session) else {
                work.ended.prepend(session)
                break
            }
        }
        return isMoving
    }

    /// All of it, before the broker ends.
    func clearEnded() {
        while var session = work.ended.popFirst() {
            while !continueEnd(&session) {
                steps.beginDeferred()
                work.endings = Limits.endingsPerTick
            }
        }
    }

    /// Does as much as there is budget for.
    ///
    /// - Returns: whether that was all.
    private func continueEnd(_ ended: inout EndedSession) -> Bool {
        let session = ended.session
        while !isStopping, !session.subscriptions.isEmpty {
            guard work.endings > 0, !steps.isSpent else { return false }
            work.endings -= unsubscribe(
                session, atMost: min(work.endings, max(1, steps.room / Limits.stepsPerSubscription)))
        }
        while !isStopping, let message = ended.shared.popFirst() {
            guard !steps.isSpent else {
                ended.shared.prepend(message)
                return false
            }
            steps.take()
            passOn(message, from: session)
        }
        if isStopping { unsubscribeAll(session) }
        context.pool.closeOwner(session.owner)
        return true
    }
}

/// A session that is over.
struct EndedSession {
    /// With its subscriptions, as far as they are not removed yet.
    let session: Session
    /// What is other members' now; where there is a store, that has it.
    var shared: Deque<Message>
}
