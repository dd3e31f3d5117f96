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
    }

    private func deliverRetained(
        _ subscription: Subscription, identifier: UInt32?, to session: Session
    ) throws(ArenaError) {
        let filter = subscription.filter
        // The members of a group, and a device that waits for commands, get what is published from now on.
        if SharedSubscription.parse(filter) != nil || shard.context.rpcTopics.isCommandFilter(filter) { return }
        let route = Route(identifiers: identifier.map { [$0] } ?? [])
        var messages = shard.context.retained.match(filter)
        if SysTopics.isPossible(filter) { messages += try shard.sysMessages(filter) }
        for var message in messages {
            message.qos = min(message.qos, subscription.qos)
            message.route = route
            try shard.deliver(&message, to: session)
        }
    }

    func handle(_ unsubscribe: Unsubscribe) {
        guard let session else { return }
        let mark = shard.journal?.mark
        let codes = unsubscribe.filters.map { shard.unsubscribe(session, $0) }
        whenStored(since: mark) {
            $0.send(.unsuback(UnsubAck(packetID: unsubscribe.packetID, codes: codes)), size: 9 + codes.count)
        }
    }
}
