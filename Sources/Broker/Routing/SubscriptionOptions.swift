import MQTT

/// What a subscription asks for beside its filter (sections 3.8.2.1.2 and 3.8.3.1). A value, to be written to and read
/// from a store as it is.
struct SubscriptionOptions: Equatable, Sendable {
    /// The highest QoS at which messages are to be sent.
    var qos: QoS
    /// Do not send back what this client published.
    var noLocal = false
    /// Keep the RETAIN flag as it was published.
    var retainAsPublished = false
    /// Comes back with every message of this subscription; 0 is none.
    var identifier: UInt32 = 0

    init(qos: QoS, noLocal: Bool = false, retainAsPublished: Bool = false, identifier: UInt32 = 0) {
        self.qos = qos
        self.noLocal = noLocal
        self.retainAsPublished = retainAsPublished
        self.identifier = identifier
    }

    init(_ subscription: Subscription, identifier: UInt32?) {
        self.init(
            qos: subscription.qos, noLocal: subscription.noLocal, retainAsPublished: subscription.retainAsPublished,
            identifier: identifier ?? 0)
    }
}

/// By which subscriptions a message comes to a session. Immutable, made once for a match and shared by all its
/// messages.
final class Route: Sendable {
    /// The subscription identifiers as they stand in a property list, ready to be sent (MQTT-3.3.4-3, -4, -5).
    let identifiers: [UInt8]
    /// The group whose share this message is; nil for a subscription of the session's own.
    let group: SharedGroup?

    /// What it takes on the heap.
    var heapBytes: Int { HeapSize.object(self) + HeapSize.array(identifiers) }

    /// nil if there is nothing to say.
    init?(identifiers: [UInt32], group: SharedGroup? = nil) {
        guard !identifiers.isEmpty || group != nil else { return nil }
        self.identifiers = OutgoingProperties.encode(subscriptionIdentifiers: identifiers)
        self.group = group
    }

    /// Out of the store; nil if there is nothing to say.
    init?(encodedIdentifiers: [UInt8]?, group: SharedGroup?) {
        guard encodedIdentifiers != nil || group != nil else { return nil }
        identifiers = encodedIdentifiers ?? []
        self.group = group
    }
}
