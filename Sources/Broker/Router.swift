import MQTT
import NIOConcurrencyHelpers
import Synchronization

/// Who gets what is published: the broker's one subscription trie, and the version number by which the shards know
/// that what they remember of it still holds.
///
/// The lock is taken to subscribe, and to match a topic that a shard has not seen since the last change. Between
/// changes publishing takes no lock: see ``MatchCache``.
final class Router: Sendable {
    private let trie = NIOLockedValueBox(SubscriptionTrie<Session>())
    private let changes = Synchronization::Atomic<UInt64>(1)

    /// Changes whenever a match could.
    var version: UInt64 { changes.load(ordering: .acquiring) }

    func subscribe(_ session: Session, _ filter: String, _ qos: QoS) {
        trie.withLockedValue { trie in
            trie.insert(session, filter: filter.utf8Span.span, qos: qos)
            changed()
        }
    }

    func unsubscribe(_ session: Session, _ filter: String) {
        trie.withLockedValue { trie in
            trie.remove(session, filter: filter.utf8Span.span)
            changed()
        }
    }

    /// To be called when a session has a new home.
    func changed() { changes.add(1, ordering: .releasing) }

    var subscriptionCount: Int { trie.withLockedValue { $0.count } }

    /// The subscribers of a topic, by shard.
    ///
    /// A client with several matching subscriptions appears once, with the highest QoS (MQTT-3.3.5-1).
    func match(_ topic: Span<UInt8>, shards: Int) -> Match {
        var indices: [ObjectIdentifier: Int] = [:]
        var found: [Subscriber] = []
        trie.withLockedValue { trie in
            trie.match(topic) { subscriptions in
                for subscription in subscriptions {
                    let id = ObjectIdentifier(subscription.subscriber)
                    if let index = indices[id] {
                        found[index].qos = max(found[index].qos, subscription.qos)
                    } else {
                        indices[id] = found.count
                        found.append(Subscriber(session: subscription.subscriber, qos: subscription.qos))
                    }
                }
            }
        }
        return Match(found, shards: shards)
    }
}

/// A session that a message goes to, with the QoS it was granted.
struct Subscriber: Sendable {
    var session: Session
    var qos: QoS
}

/// The subscribers of one topic. Immutable, and shared by all messages to it.
final class Match: Sendable {
    struct Group: Sendable {
        let shard: Int
        let subscribers: Subscribers
    }

    let groups: [Group]

    init(_ subscribers: [Subscriber], shards: Int) {
        var byShard: [[Subscriber]] = Array(repeating: [], count: shards)
        for subscriber in subscribers {
            byShard[subscriber.session.home].append(subscriber)
        }
        groups = byShard.enumerated().filter { !$0.element.isEmpty }
            .map { Group(shard: $0.offset, subscribers: Subscribers($0.element)) }
    }
}

/// One shard's share of a match: an object, so that mail refers to it by one reference.
final class Subscribers: Sendable {
    let list: [Subscriber]

    init(_ list: [Subscriber]) { self.list = list }
}
