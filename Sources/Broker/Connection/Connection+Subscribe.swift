import Arena
import MQTT
import NIOCore

// SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).
extension ConnectionHandler {
    func handle(_ subscribe: Subscribe) {
        begin(.subscribe(SubscribeProgress(subscribe)))
    }

    func handle(_ unsubscribe: Unsubscribe) {
        begin(.unsubscribe(UnsubscribeProgress(unsubscribe)))
    }

    /// - Returns: false if it is not done yet, since the tick has no steps left.
    func goOn(with progress: SubscribeProgress) -> Bool {
        let subscribe = progress.packet
        let identifier = subscribe.properties.subscriptionIdentifier
        while progress.outcomes.count < subscribe.filters.count {
            guard let session else { return true }
            if shard.steps.isSpent { return false }
            let filter = subscribe.filters[progress.outcomes.count]
            progress.outcomes.append(
                noting(&progress.storedThrough) { shard.subscribe(session, filter, identifier: identifier) })
        }
        // SUBACK first, then what is retained: the order clients expect.
        whenStored(through: progress.storedThrough) {
            let codes = progress.outcomes.map(\.code)
            $0.send(.suback(SubAck(packetID: subscribe.packetID, codes: codes)), size: 9 + codes.count)
            $0.begin(.retained(progress))
        }
        if progress.storedThrough > 0 { waitForStore() }
        return true
    }

    func goOn(with progress: UnsubscribeProgress) -> Bool {
        let unsubscribe = progress.packet
        while progress.codes.count < unsubscribe.filters.count {
            guard let session else { return true }
            if shard.steps.isSpent { return false }
            let filter = unsubscribe.filters[progress.codes.count]
            progress.codes.append(noting(&progress.storedThrough) { shard.unsubscribe(session, filter) })
        }
        whenStored(through: progress.storedThrough) {
            let codes = progress.codes
            $0.send(.unsuback(UnsubAck(packetID: unsubscribe.packetID, codes: codes)), size: 9 + codes.count)
        }
        if progress.storedThrough > 0 { waitForStore() }
        return true
    }

    /// Has the retained messages of new subscriptions sent.
    func goOn(withRetainedOf progress: SubscribeProgress) -> Bool {
        let identifier = progress.packet.properties.subscriptionIdentifier
        while progress.answered < progress.outcomes.count {
            guard let session, case .connected = phase else { return true }
            if shard.steps.isSpent { return false }
            let (subscription, outcome) = (
                progress.packet.filters[progress.answered], progress.outcomes[progress.answered]
            )
            progress.answered += 1
            // It may have been unsubscribed while SUBACK waited for the store.
            guard !outcome.code.isError, session.subscriptions[UTF8Key(subscription.filter)] != nil else { continue }
            switch subscription.retainHandling {
            case .doNotSend: continue
            case .sendIfNew where !outcome.isNew: continue
            default: break
            }
            do throws(ArenaError) {
                try deliverRetained(subscription, identifier: identifier, to: session)
            } catch {
                fail(error, while: "delivering retained messages")
                return true
            }
        }
        sendRetained()
        return true
    }

    private func deliverRetained(
        _ subscription: Subscription, identifier: UInt32?, to session: Session
    ) throws(ArenaError) {
        let filter = subscription.filter
        // The members of a group, and a device that waits for commands, get what is published from now on.
        if SharedSubscription.parse(filter) != nil || shard.context.rpcTopics.isCommandFilter(filter) { return }
        let route = Route(identifiers: identifier.map { [$0] } ?? [])
        shard.steps.take(Topic.levelCount(filter))
        if SysTopics.isPossible(filter) {
            shard.steps.take(Limits.stepsPerSysValues)
            for var message in try shard.sysMessages(filter) {
                message.qos = min(message.qos, subscription.qos)
                message.route = route
                try shard.deliver(&message, to: session)
            }
        }
        session.retained.append(
            RetainedDelivery(
                filter: UTF8Key(filter), qos: subscription.qos, route: route,
                lastNumber: shard.context.retained.lastNumber))
    }

    /// Sends retained messages that new subscriptions are to have, as far as the socket and the window take them, and not
    /// more than a tick should: the rest is where it was, and is fetched later.
    func sendRetained() {
        guard let session, !session.retained.isEmpty else { return }
        while canSend, retainedRoom > 0 {
            let room = retainedRoom
            shard.scheduleWork()
            guard shard.work.retainedMessages > 0, !shard.steps.isSpent else { return deferRetained() }
            let retained = shard.context.retained
            let ((messages, isAtEnd, visits), delivery) = session.retained.withFirst {
                retained.cursor($0.filter, through: $0.lastNumber)
            } _: { first, cursor in
                let found = retained.next(
                    &cursor,
                    count: min(
                        room, Limits.retainedPerFetch, limits.maxBacklogMessages, shard.work.retainedMessages),
                    bytes: Limits.retainedBytesPerFetch,
                    visits: min(Limits.retainedVisitsPerFetch, shard.steps.room))
                return (found, first)
            }
            if isAtEnd { session.retained.removeFirst() }
            shard.work.retainedMessages -= messages.count
            // A fetch that finds little has cost something, too.
            shard.steps.take(1 + visits + messages.count)
            do throws(ArenaError) {
                for var message in messages {
                    message.qos = min(message.qos, delivery.qos)
                    message.route = delivery.route
                    try shard.deliver(&message, to: session)
                }
            } catch {
                return fail(error, while: "delivering retained messages")
            }
        }
    }

    /// How many retained messages that are yet to be sent the session takes now; acknowledgements make room.
    var retainedRoom: Int {
        guard let session, let first = session.retained.first else { return 0 }
        return first.qos == .atMostOnce ? .max : session.state.room(limits: limits)
    }

    /// In the next tick.
    func deferRetained() {
        guard !output.isRetainedScheduled else { return }
        output.isRetainedScheduled = true
        shard.work.retained.append(reference)
        shard.scheduleWork()
    }
}
