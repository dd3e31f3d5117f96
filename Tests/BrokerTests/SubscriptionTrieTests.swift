import MQTT
import TestSupport
import Testing

@testable import Broker

@Suite("Topic filters", .mayBlock)
struct SubscriptionTrieTests {
    final class Client: Sendable {}

    static let cases: [(filter: String, topic: String, matches: Bool)] = [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("sport/#", "sports", false),
        ("#", "a/b/c", true),
        ("#", "/", true),
        ("#", "$SYS/uptime", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/uptime", true),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/tennis/#", "sport/tennis/a/b", true),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b/d", false),
        ("a//c", "a//c", true),
        ("a/+/c", "a//c", true),
        ("accounts", "Accounts", false),
        ("a/b", "a/b/", false),
    ]

    // [MQTT-3.3.2-3] [3.1.1: MQTT-3.3.2-3]
    @Test("a filter matches as section 4.7 says", arguments: cases)
    func matching(filter: String, topic: String, matches: Bool) {
        var trie = SubscriptionTrie<Client>()
        trie.insert(Client(), filter: filter.utf8Span.span, qos: .atMostOnce)
        #expect(trie.subscriberCount(topic) == (matches ? 1 : 0))
    }

    @Test("ten thousand filters are found, then removed without a trace")
    func manyFilters() {
        var trie = SubscriptionTrie<Client>()
        let client = Client()
        let filters = (0..<10_000).map { "site/\($0 % 97)/device/\($0)/\($0 % 3 == 0 ? "+" : "state")" }
        for filter in filters { trie.insert(client, filter: filter.utf8Span.span, qos: .atLeastOnce) }
        #expect(trie.count == 10_000)
        for (index, _) in filters.enumerated() {
            #expect(trie.subscriberCount("site/\(index % 97)/device/\(index)/state") == 1)
        }
        for filter in filters { trie.remove(client, filter: filter.utf8Span.span) }
        #expect(trie.count == 0)
        #expect(trie.nodeCount == 1)
    }

    @Test("removing some filters leaves the others to be found")
    func removal() {
        var trie = SubscriptionTrie<Client>()
        let client = Client()
        for index in 0..<1_000 { trie.insert(client, filter: "a/\(index)".utf8Span.span, qos: .atMostOnce) }
        for index in stride(from: 0, to: 1_000, by: 2) { trie.remove(client, filter: "a/\(index)".utf8Span.span) }
        for index in 0..<1_000 { #expect(trie.subscriberCount("a/\(index)") == index % 2) }
    }
}

extension SubscriptionTrie {
    fileprivate func subscriberCount(_ topic: String) -> Int {
        var count = 0
        match(topic.utf8Span.span) { count += $0.count }
        return count
    }
}
