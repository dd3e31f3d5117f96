import MQTT
import Synchronization

/// Who gets what is published: the broker's one subscription trie, and the version number by which the shards know
/// that what they remember of it still holds.
///
/// The lock is taken to subscribe, and to match a topic that a shard has not seen since the last change. Between
/// changes publishing takes no lock: see ``MatchCache``.
final class Router: Sendable {
    private let trie = ObservableBox(SubscriptionTrie<Session>())
    private let heap: HeapAccount
    /// Of the trie, as far as the account has heard; under its lock.
    private let countedBytes = Atomic<Int>(0)
    private let lastCount = Atomic<Int>(0)
    private let lastSharedCount = Atomic<Int>(0)
    private let changes = Synchronization::Atomic<UInt64>(1)

    /// Changes whenever a match could.
    var version: UInt64 { changes.load(ordering: .acquiring) }

    init(heap: HeapAccount) { self.heap = heap }

    /// To be called where the trie may have grown or shrunk, under its lock.
    private func noteHeap(_ trie: borrowing SubscriptionTrie<Session>) {
        let now = trie.heapBytes
        let counted = countedBytes.exchange(now, ordering: .relaxed)
        if now != counted { heap.add(now - counted, to: .subscriptions) }
    }

    /// - Parameter filter: a shared subscription's with its prefix.
    func subscribe(_ session: Session, _ filter: String, _ options: SubscriptionOptions) {
        let shared = SharedSubscription.parse(filter)
        trie.withLockedValue { trie in
            let proper = shared?.filter ?? filter
            trie.insert(session, filter: proper.utf8Span.span, group: shared?.group, options: options) {
                SharedGroup(name: $0, filter: proper)
            }
            noteHeap(trie)
            changed()
        }
    }

    func unsubscribe(_ session: Session, _ filter: String) {
        let shared = SharedSubscription.parse(filter)
        trie.withLockedValue { trie in
            trie.remove(session, filter: (shared?.filter ?? filter).utf8Span.span, group: shared?.group)
            noteHeap(trie)
            changed()
        }
    }

    /// To be called when a session has a new owning shard.
    func changed() { changes.add(1, ordering: .releasing) }

    var subscriptionCount: Int { trie.figure(lastCount) { $0.count } }
    var sharedSubscriptionCount: Int { trie.figure(lastSharedCount) { $0.sharedCount } }

    /// The subscribers of a topic, by shard.
    ///
    /// A client with several matching subscriptions appears once, with the highest QoS and all of their identifiers
    /// (MQTT-3.3.4-2, -4; 3.1.1: MQTT-3.3.5-1). Shared subscriptions stand apart: their messages are in addition.
    ///
    /// - Parameter steps: grows by what this took: nodes and subscriptions looked at, and members of groups.
    func match(_ topic: Span<UInt8>, shards: Int, steps: inout Int) -> Match {
        var indices: [ObjectIdentifier: Int] = [:]
        var found: [Subscriptions] = []
        var shares: [SubscriptionTrie<Session>.Share] = []
        // One client may have many that match.
        var looked = 0
        let nodes = trie.withLockedValue { trie in
            trie.match(topic) { subscriptions in
                for subscription in subscriptions {
                    looked += 1
                    let id = ObjectIdentifier(subscription.subscriber)
                    if let index = indices[id] {
                        found[index].add(subscription.options)
                    } else {
                        indices[id] = found.count
                        found.append(Subscriptions(of: subscription.subscriber, subscription.options))
                    }
                }
            } shares: { groups in
                shares.append(contentsOf: copy groups)
            }
        }
        let match = Match(
            found.map(Subscriber.init), shares: shares.map { Match.Share($0) }, shards: shards)
        steps += nodes + looked + match.shares.reduce(0) { $0 + $1.members.count }
        return match
    }

    /// The group of a shared subscription out of the store, as it is now or as it was.
    func group(of filter: String) -> SharedGroup? {
        SharedSubscription.parse(filter).map { shared in
            trie.withLockedValue { $0.share(filter: shared.filter.utf8Span.span, group: shared.group)?.group }
                ?? SharedGroup(name: shared.group, filter: shared.filter)
        }
    }

    /// Who is in a group now.
    func members(of group: SharedGroup) -> [Subscriber] {
        trie.withLockedValue { $0.share(filter: group.filter.utf8Span.span, group: group.name) }
            .map { Match.Share($0).members } ?? []
    }
}

/// The subscriptions of one client that match a topic: it gets one message, the best that any of them asks for.
private struct Subscriptions {
    struct Terms {
        var qos: QoS
        var retainAsPublished: Bool
        var identifiers: [UInt32]

        init(_ options: SubscriptionOptions) {
            qos = options.qos
            retainAsPublished = options.retainAsPublished
            identifiers = options.identifier == 0 ? [] : [options.identifier]
        }

        mutating func merge(_ other: Terms) {
            qos = max(qos, other.qos)
            retainAsPublished = retainAsPublished || other.retainAsPublished
            identifiers += other.identifiers
        }
    }

    let session: Session
    var all: Terms
    var hasNoLocal: Bool
    /// Of those that are for what the client publishes itself too.
    var local: Terms?

    init(of session: Session, _ options: SubscriptionOptions) {
        self.session = session
        all = Terms(options)
        hasNoLocal = options.noLocal
        local = options.noLocal ? nil : all
    }

    mutating func add(_ options: SubscriptionOptions) {
        let terms = Terms(options)
        all.merge(terms)
        if options.noLocal {
            hasNoLocal = true
        } else if local == nil {
            local = terms
        } else {
            local?.merge(terms)
        }
    }
}

/// A session that a message goes to, and how.
struct Subscriber: Sendable {
    /// How a message comes to a client that has published it, where some of its subscriptions are not for such.
    final class Local: Sendable {
        let qos: QoS
        let retainAsPublished: Bool
        let route: Route?

        fileprivate init(_ terms: Subscriptions.Terms) {
            qos = terms.qos
            retainAsPublished = terms.retainAsPublished
            route = Route(identifiers: terms.identifiers)
        }
    }

    var session: Session
    var qos: QoS
    /// Any of its subscriptions is not for what the client publishes itself: then `local` holds for that, and without it
    /// the client gets nothing.
    var noLocal: Bool
    var local: Local?
    var retainAsPublished: Bool
    var route: Route?

    /// For what its client has published itself; nil where it gets nothing of that.
    var own: Subscriber? {
        guard let local else { return nil }
        var own = self
        own.noLocal = false
        (own.qos, own.retainAsPublished, own.route) = (local.qos, local.retainAsPublished, local.route)
        return own
    }

    var isFull: Bool { qos != .atMostOnce && session.isQueueFull }

    /// Whether what it gets in QoS 1 or 2 is stored.
    var isStored: Bool { session.isStored && qos != .atMostOnce }

    fileprivate init(_ found: Subscriptions) {
        session = found.session
        qos = found.all.qos
        noLocal = found.hasNoLocal
        local = found.hasNoLocal ? found.local.map(Local.init) : nil
        retainAsPublished = found.all.retainAsPublished
        route = Route(identifiers: found.all.identifiers)
    }

    /// A member of a group, where No Local is not allowed (MQTT-3.8.3-4).
    fileprivate init(_ session: Session, _ options: SubscriptionOptions, in group: SharedGroup) {
        self.session = session
        qos = options.qos
        noLocal = false
        retainAsPublished = options.retainAsPublished
        route = Route(identifiers: options.identifier == 0 ? [] : [options.identifier], group: group)
    }
}

/// The subscribers of one topic. Immutable, and shared by all messages to it.
final class Match: Sendable {
    struct Group: Sendable {
        let shard: Int
        let subscribers: Subscribers
        /// Whether a message of QoS 1 or 2 must be stored for any of them.
        let requiresPersistence: Bool
    }

    /// A group of which one member gets each message.
    struct Share: Sendable {
        let group: SharedGroup
        let members: [Subscriber]
        let requiresPersistence: Bool

        init(_ share: SubscriptionTrie<Session>.Share) {
            group = share.group
            requiresPersistence = share.members.elements.contains {
                $0.subscriber.isStored && $0.options.qos != .atMostOnce
            }
            members = share.members.elements.map { Subscriber($0.subscriber, $0.options, in: share.group) }
        }

        /// Whether the queues of all who may have the message are full.
        fileprivate func isFull(_ topic: TopicName, steps: inout Int) -> Bool {
            var isFull = false
            for member in members {
                steps += 1
                guard member.session.mayBeGiven(topic) else { continue }
                guard member.isFull else { return false }
                isFull = true
            }
            return isFull
        }
    }

    let groups: [Group]
    let shares: [Share]

    /// Whether a message of QoS 1 or 2 must be stored for any of them.
    let requiresPersistence: Bool
    /// Sessions that get the message.
    let receivers: Int

    /// What it takes on the heap.
    var heapBytes: Int {
        func of(_ list: [Subscriber]) -> Int {
            HeapSize.array(list) + list.reduce(0) { $0 + ($1.route?.heapBytes ?? 0) + ($1.local == nil ? 0 : 128) }
        }
        return HeapSize.object(self) + HeapSize.array(groups) + HeapSize.array(shares)
            + groups.reduce(0) { $0 + HeapSize.object($1.subscribers) + of($1.subscribers.list) }
            + shares.reduce(0) { $0 + of($1.members) }
    }

    var isEmpty: Bool { groups.isEmpty && shares.isEmpty }

    /// Whether a message of QoS 1 or 2 would come to a queue that takes no more: for the policy that rejects it.
    ///
    /// - Parameter steps: grows by the sessions that were looked at.
    func hasFullQueue(_ topic: TopicName, steps: inout Int) -> Bool {
        for group in groups {
            for subscriber in group.subscribers.list {
                steps += 1
                if subscriber.isFull { return true }
            }
        }
        return shares.contains { $0.isFull(topic, steps: &steps) }
    }

    init(_ subscribers: [Subscriber], shares: [Share], shards: Int) {
        var byShard: [[Subscriber]] = Array(repeating: [], count: shards)
        for subscriber in subscribers {
            byShard[subscriber.session.owningShard].append(subscriber)
        }
        groups = byShard.enumerated().filter { !$0.element.isEmpty }
            .map { shard, list in
                Group(
                    shard: shard, subscribers: Subscribers(list), requiresPersistence: list.contains(where: \.isStored))
            }
        self.shares = shares
        requiresPersistence =
            groups.contains(where: \.requiresPersistence) || shares.contains(where: \.requiresPersistence)
        receivers = subscribers.count + shares.count
    }
}

/// One shard's share of a match: an object, so that a mailbox message refers to it by one reference.
final class Subscribers: Sendable {
    let list: [Subscriber]

    init(_ list: [Subscriber]) { self.list = list }
}
