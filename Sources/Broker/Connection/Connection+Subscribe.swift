import Arena
import MQTT
import NIOCore

// SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).
extension ConnectionHandler {
    func handle(_ subscribe: Subscribe) {
        guard let session else { return }
        let identifier = subscribe.properties.subscriptionIdentifier
        let mark = shard.journal?.mark
        let outcomes = subscribe.filters.map { shard.subscribe(session, $0, identifier: identifier) }
        whenStored(since: mark) { $0.answer(subscribe, outcomes, to: session) }
        waitForStore(since: mark)
    }

    private func answer(
        _ subscribe: Subscribe, _ outcomes: [(code: ReasonCode, isNew: Bool)], to session: Session
    ) {
        let identifier = subscribe.properties.subscriptionIdentifier
        let codes = outcomes.map(\.code)
        // SUBACK first, then what is retained: the order clients expect.
        send(.suback(SubAck(packetID: subscribe.packetID, codes: codes)), size: 9 + codes.count)
        for (subscription, outcome) in zip(subscribe.filters, outcomes) where !outcome.code.isError {
            guard case .connected = phase else { return }
            switch subscription.retainHandling {
            case .doNotSend: continue
            case .sendIfNew where !outcome.isNew: continue
            default: break
            }
            do throws(ArenaError) {
                try deliverRetained(subscription, identifier: identifier, to: session)
            } catch {
                return fail(error, while: "delivering retained messages")
            }
        }
        sendRetained()
    }

    private func deliverRetained(
        _ subscription: Subscription, identifier: UInt32?, to session: Session
    ) throws(ArenaError) {
        let filter = subscription.filter
        // The members of a group, and a device that waits for commands, get what is published from now on.
        if SharedSubscription.parse(filter) != nil || shard.context.rpcTopics.isCommandFilter(filter) { return }
        let route = Route(identifiers: identifier.map { [$0] } ?? [])
        if SysTopics.isPossible(filter) {
            for var message in try shard.sysMessages(filter) {
                message.qos = min(message.qos, subscription.qos)
                message.route = route
                try shard.deliver(&message, to: session)
            }
        }
        let key = UTF8Key(filter)
        session.retained.removeAll { $0.filter == key }
        session.retained.append(
            RetainedDelivery(
                filter: key, qos: subscription.qos, route: route, cursor: shard.context.retained.cursor(filter)))
    }

    /// Sends retained messages that new subscriptions are to have, as far as the socket and the window take them, and not
    /// more than a tick should: the rest is where it was, and is fetched later.
    func sendRetained() {
        guard let session, !session.retained.isEmpty else { return }
        while canSend, retainedRoom > 0 {
            let room = retainedRoom
            shard.scheduleLater()
            guard shard.later.retainedMessages > 0 else { return sendRetainedLater() }
            let (messages, isAtEnd) = shard.context.retained.next(
                &session.retained[0].cursor,
                count: min(
                    room, Limits.retainedPerFetch, limits.maxBacklogMessages, shard.later.retainedMessages),
                bytes: Limits.retainedBytesPerFetch)
            let delivery = session.retained[0]
            if isAtEnd { session.retained.removeFirst() }
            // A fetch that finds little has cost something, too.
            shard.later.retainedMessages -= max(messages.count, 1)
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
    func sendRetainedLater() {
        guard !output.isRetainedScheduled else { return }
        output.isRetainedScheduled = true
        shard.later.retained.append(reference)
        shard.scheduleLater()
    }

    func handle(_ unsubscribe: Unsubscribe) {
        guard let session else { return }
        let mark = shard.journal?.mark
        let codes = unsubscribe.filters.map { shard.unsubscribe(session, $0) }
        whenStored(since: mark) {
            $0.send(.unsuback(UnsubAck(packetID: unsubscribe.packetID, codes: codes)), size: 9 + codes.count)
        }
        waitForStore(since: mark)
    }
}
