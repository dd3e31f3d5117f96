import MQTT
import NIOCore

// The one place where the subscriptions of sessions change.
extension EventLoopShard {
    /// Adds a subscription, or replaces the one to the same filter (MQTT-3.8.4-3).
    ///
    /// - Returns: what SUBACK says of it, and whether there was none to this filter before.
    func subscribe(
        _ session: Session, _ subscription: Subscription, identifier: UInt32?
    ) -> (code: ReasonCode, isNew: Bool) {
        let filter = UTF8Key(subscription.filter)
        let limits = context.limits
        let levels = Topic.levelCount(filter.text)
        steps.take(Limits.stepsPerSubscription + levels)
        guard levels <= limits.maxTopicLevels else { return (.topicFilterInvalid, false) }
        guard session.maySubscribe(filter.text) else {
            context.noteDenied("subscribe", session, filter.text)
            return (.notAuthorized, false)
        }
        let options = SubscriptionOptions(subscription, identifier: identifier)
        let isNew = session.subscriptions[filter] == nil && session.commandFilters[filter] == nil
        if isNew {
            let bytes = Limits.subscriptionBytes(filter.text)
            guard session.subscriptions.count + session.commandFilters.count < limits.maxSubscriptionsPerSession,
                session.subscriptionBytes + bytes <= limits.maxSubscriptionBytesPerSession,
                session.sharedCount < limits.maxSharedSubscriptionsPerSession
                    || SharedSubscription.parse(filter.text) == nil,
                context.heap.admits(Limits.heapBytesPerSubscription + 2 * filter.byteCount, for: .subscriptions)
            else { return (.quotaExceeded, false) }
            session.subscriptionBytes += bytes
        }
        install(options, filter, of: session)
        if session.isStored { writeBehind?.subscribe(session, filter.text, options) }
        return (.granted(options.qos), isNew)
    }

    /// Puts a subscription where messages find it.
    func install(_ options: SubscriptionOptions, _ filter: UTF8Key, of session: Session) {
        if context.rpcTopics.isCommandFilter(filter.text) {
            session.commandFilters[filter] = options
        } else {
            let isNew = session.subscriptions.updateValue(options, forKey: filter) == nil
            if SharedSubscription.parse(filter.text) != nil {
                session.becomesMember()
                if isNew { session.sharedCount += 1 }
            }
            context.router.subscribe(session, filter.text, options)
        }
    }

    func unsubscribe(_ session: Session, _ filter: String) -> ReasonCode {
        let key = UTF8Key(filter)
        steps.take(Limits.stepsPerSubscription + Topic.levelCount(filter))
        let isCommands = session.commandFilters.removeValue(forKey: key) != nil
        let isSubscription = session.subscriptions.removeValue(forKey: key) != nil
        if isSubscription {
            context.router.unsubscribe(session, filter)
            if SharedSubscription.parse(filter) != nil { session.sharedCount -= 1 }
        }
        guard isCommands || isSubscription else { return .noSubscriptionExisted }
        if session.isStored { writeBehind?.unsubscribe(session, filter) }
        session.retained.remove(key)
        session.subscriptionBytes -= Limits.subscriptionBytes(filter)
        return .success
    }

    /// Some of a session that ends.
    ///
    /// - Returns: how many.
    func unsubscribe(_ session: Session, atMost count: Int) -> Int {
        let filters = Array(session.subscriptions.keys.prefix(count))
        for filter in filters {
            steps.take(Limits.stepsPerSubscription + Topic.levelCount(filter.text))
            context.router.unsubscribe(session, filter.text)
            session.subscriptions[filter] = nil
        }
        return filters.count
    }

    /// All of a session that ends.
    func unsubscribeAll(_ session: Session) {
        steps.take(Limits.stepsPerSession)
        for filter in session.subscriptions.keys {
            steps.take(Limits.stepsPerSubscription + Topic.levelCount(filter.text))
            context.router.unsubscribe(session, filter.text)
        }
        session.subscriptions.removeAll()
        session.commandFilters.removeAll()
        session.subscriptionBytes = 0
    }
}
