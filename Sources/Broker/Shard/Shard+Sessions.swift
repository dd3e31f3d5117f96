import Arena
import DequeModule
import MQTT
import NIOCore

// The life of sessions: begun here, moved here from other shards, ended.
extension EventLoopShard {
    /// Ends a session for good: its will, its messages, its name. Nothing comes to it from here on. Its subscriptions, which may
    /// be many, and what it has of its groups go in turn (``finishEnd(_:)``).
    func end(_ session: Session) {
        guard !session.isEnded else { return }
        // A will that waits for its delay is due now (MQTT-3.1.2-8).
        publishWill(of: session)
        // They are let go of.
        steps.take(Limits.stepsPerSession + session.state.heldCount)
        // With a store, what it has is given to others from there.
        let (isStored, heap) = (session.isStored, context.heap)
        let shared = update(session) { core in
            core.isEnded = true
            core.endsAt = .distantFuture
            let shared = isStored ? [] : core.state.takeShared()
            core.state = SessionState(heap: heap)
            return shared
        }
        // Its name is not free before: a new session of it would end this one in the store, with the will.
        whenWillIsNoted(of: session) { [context, writeBehind] in
            context.registry.remove(session)
            if session.isStored { writeBehind?.end(session) }
        }
        session.commandFilters.removeAll()
        session.pendingCommands = PendingCommands()
        session.retained.removeAll()
        session.isLeaving = false
        sessions[ObjectIdentifier(session)] = nil
        sessionsWithCommands[ObjectIdentifier(session)] = nil
        if session.isStored, session.mayHoldShared { handOver(session.storeKey) }
        finishEnd(EndedSession(session: session, shared: Deque(shared)))
    }

    /// The client is there, for the first time or again.
    func attach(_ session: Session, expiryInterval: UInt32) {
        setExpiry(of: session, to: expiryInterval)
        update(session) { $0.endsAt = .distantFuture }
        noteAttached(session)
    }

    /// The client is back before its will was due (MQTT-3.1.3-9), or after, and before the timer came to it: it is for a
    /// timer to be late, not for a will to be lost.
    func settleWill(of session: Session) {
        // Without one here, what the store may have is one that is late, and not forgotten before it is published.
        guard let will = session.will else { return }
        if will.dueAt <= .now() { publishWill(of: session) } else { forgetWill(of: session) }
    }

    /// How long a session outlives its connection.
    func setExpiry(of session: Session, to interval: UInt32) {
        guard interval != session.expiryInterval else { return }
        session.expiryInterval = min(interval, UInt32(clamping: context.limits.maxSessionExpirySeconds))
        context.registry.note(session, isPersistent: session.isPersistent)
        // Also one that is to end with its connection: until then its queue is in the store.
        if session.isStored { writeBehind?.attach(session) }
    }

    /// Called when the network connection of a session is gone: publishes its will unless the client said goodbye, or
    /// has it wait for its delay, and ends the session if it is not to outlive its connection.
    ///
    /// When many go at once, that takes more than one tick.
    func detach(_ session: Session, publishWill: Bool) {
        update(session) { $0.connection = nil }
        if !publishWill { forgetWill(of: session) }
        leaveSoon(session)
    }

    /// What follows when the connection of a session is gone.
    func finishLeaving(_ session: Session) {
        // It may be another loop's by now.
        guard session.owningShard == index, session.isLeaving else { return }
        session.isLeaving = false
        guard session.isPersistent else { return end(session) }
        let (now, expiryInterval) = (NIODeadline.now(), session.expiryInterval)
        update(session) { core in
            if expiryInterval != .max { core.endsAt = now + .seconds(Int64(expiryInterval)) }
            if let will = core.will, will.delayInterval > 0 {
                core.will = will.due(at: now + .seconds(Int64(will.delayInterval)))
            }
        }
        if session.isStored, session.endsAt != .distantFuture { writeBehind?.detach(session) }
        guard let will = session.will else { return }
        if will.delayInterval == 0 { return publishWill(of: session) }
        if session.isWillStored { writeBehind?.willIsDue(of: session) }
    }

    private func publishWill(of session: Session) {
        guard let will = session.will else { return }
        update(session) { $0.will = nil }
        var message = will.message
        if let seconds = will.expiryInterval { message.expiresAt = .now() + .seconds(Int64(seconds)) }
        publishWill(LateWill(session: session, listener: session.listener, message: message), by: session.rules)
    }

    // MARK: - Time

    /// Publishes a will that is due, ends a session that has expired, lets go of messages that have.
    func check(_ session: Session, at now: NIODeadline) {
        if let due = session.will?.dueAt, due <= now { publishWill(of: session) }
        if session.endsAt <= now {
            context.counters.sessionsExpired.increment()
            return end(session)
        }
        let expired = update(session) { $0.state.purgeExpired(at: now) }
        if expired > 0 { context.counters.messagesExpired.increment(by: expired) }
        wantExpired(session)
    }

    // MARK: - Take-over
    //
    // A client connects while a session of its name exists (MQTT-3.1.4-2). The new connection asks the shard that owns the
    // session to give it up. On the same loop that is all. Else the session moves, and no message may be lost, delivered twice
    // or overtaken by a later one of its publisher (MQTT-4.6.0-6):
    //
    //     former owning shard                other shards                    new owning shard
    //     closes the old connection
    //     stores the new owning shard - - - - new messages go there - - - - -> keeps it in `stagingQueue`
    //     sends a barrier to all - - - - - -> answer behind their last message
    //     forwards what still comes  - - - - - - - - - - - - - - - - - - - > keeps it in `forwarded`
    //     has all answers: "adopt"  - - - - - - - - - - - - - - - - - - - -> queues both, begins
    //
    // Until then the session's core is the former owning shard's: it names the buffers in it for a dump, and shares them.

    /// Gives a session up for a client that has connected anew, or ends it if a clean one was asked for.
    func takeOver(_ session: Session, for claim: SessionWaiter) {
        let (owningShard, connection) = (session.owningShard, claim.connection)
        guard owningShard == index else { return post(.takeOver(session, claim), to: owningShard) }
        // What would begin now might not come to its end, and the connection is about to be closed.
        guard !isStopping else { return }
        // The client has connected again since, by another loop.
        guard claim.number >= session.claim else { return post(.superseded(connection), to: connection.shard) }
        if session.isInTransit { return session.waiters.append(claim) }
        // What its old connection has sent comes first: a goodbye, above all.
        if session.connection?.hasInput ?? false { return session.waiters.append(claim) }
        session.claim = claim.number
        session.connection?.close(.takenOver)
        finishLeaving(session)
        // What comes with the new connection replaces the will in the store, perhaps by another loop.
        guard session.leavingWill?.hasBegun ?? true else {
            return whenWillIsNoted(of: session) { [self] in post(.takeOver(session, claim), to: index) }
        }
        // Its time may have come, and the timer not yet: what was due at its end is not to be forgotten.
        let isOver = session.endsAt <= .now()
        if isOver { context.counters.sessionsExpired.increment() }
        if claim.discard || isOver, !session.isEnded {
            if claim.isForfeit { noteForfeit(session) }
            end(session)
        }
        // To this shard too by a mailbox message: the connection that asks is in the middle of handling its CONNECT. Not before
        // the end is durable: a client that was told that its session is gone must not find it again after a kill.
        guard !session.isEnded else {
            return whenEndIsDurable(of: session) { [self] in post(.claimAgain(connection), to: connection.shard) }
        }
        guard connection.shard != index else { return post(.adopt(session, connection, hasMoved: false), to: index) }

        sessions[ObjectIdentifier(session)] = nil
        sessionsWithCommands[ObjectIdentifier(session)] = nil
        migrations[ObjectIdentifier(session)] = SessionMigration(
            session: session, connection: connection, answersDue: peers.count - 1)
        // Before the new owning shard may look at it. The wheel forgets it with that.
        update(session) { $0.isInTransit = true }
        session.move(to: connection.shard)
        context.router.changed()
        for shard in peers.indices where shard != index { post(.barrier(session, from: index), to: shard) }
    }

    /// - Returns: at once, having called `body` if there is nothing to wait for.
    func whenEndIsDurable(of session: Session, _ body: @escaping () -> Void) {
        guard session.isStored, let writeBehind else { return body() }
        whenWillIsNoted(of: session) {
            guard writeBehind.lastNumber > writeBehind.durable else { return body() }
            writeBehind.hold(writeBehind.lastNumber, .other(body))
        }
    }

    /// A session ends since its client identifier goes to another user: what it has is nobody's.
    private func noteForfeit(_ session: Session) {
        let count = session.state.ownCount
        context.counters.messagesWithheld.increment(by: count)
        losses.add(session.clientID, count: count)
        context.log.notice(
            "a session gives its client identifier to another user",
            metadata: [
                "client": "\(session.logName)", "messages": "\(count)",
                "user": "\(LogLines.cut(session.userName ?? ""))",
            ])
    }

    /// What the old connection of a session had sent has been handled, or it is closed: those who wait for that are served.
    func serveWaiters(of session: Session) {
        guard !session.waiters.isEmpty, !session.isInTransit else { return }
        let waiters = session.waiters.sorted { $0.number < $1.number }
        session.waiters = []
        // By a mailbox message: whoever calls is in the middle of something.
        for claim in waiters { post(.takeOver(session, claim), to: index) }
    }

    /// A shard has seen the new owning shard: whatever it sent here before has been forwarded.
    func barrierPassed(_ session: Session) {
        let id = ObjectIdentifier(session)
        migrations[id]?.answersDue -= 1
        guard let migration = migrations[id], migration.answersDue == 0 else { return }
        migrations[id] = nil
        post(.adopt(session, migration.connection, hasMoved: true), to: migration.connection.shard)
    }

    /// Takes a session that has arrived, and serves the connection it came for if that is still there.
    ///
    /// - Parameter hasMoved: it was another shard's until now.
    func adopt(_ session: Session, for reference: ConnectionReference, hasMoved: Bool) {
        // Of two connections that asked for it, the first may have come and gone: what follows from that comes first.
        finishLeaving(session)
        // On one loop, another connection may have taken it on since, or away: start again.
        guard session.owningShard == index, !session.isEnded, session.connection == nil, session.isInTransit == hasMoved
        else {
            connections[reference]?.claimSession()
            return
        }
        // What fell due on the way is due in the next tick.
        update(session) { $0.isInTransit = false }
        sessions[ObjectIdentifier(session)] = session
        if !session.pendingCommands.isEmpty { sessionsWithCommands[ObjectIdentifier(session)] = session }
        // A reload has not found it on its way.
        session.renewRules()
        for message in session.forwarded + session.stagingQueue { queue(message, for: session, isAsked: false) }
        (session.forwarded, session.stagingQueue) = ([], [])
        arriving[ObjectIdentifier(session)] = nil
        for batch in session.overflowBatches { take(batch, for: session) }
        session.overflowBatches = []
        connections[reference]?.begin(session, isPresent: true)
        let waiters = session.waiters
        session.waiters = []
        // First: a claim may have it move on.
        let operators = session.operators
        session.operators = []
        for waiter in operators { end(session, for: waiter) }
        for claim in waiters.sorted(by: { $0.number < $1.number }) { takeOver(session, for: claim) }
    }
}

/// A session on its way to another shard.
struct SessionMigration {
    let session: Session
    let connection: ConnectionReference
    /// Shards whose mailbox messages to the session may still come here.
    var answersDue: Int
}
