import MQTT
import TestSupport
import Testing

@testable import Broker

@Suite("Retained messages", .mayBlock, .serialized)
struct RetainedTests {
    // [3.1.1: MQTT-3.3.1-5] [3.1.1: MQTT-3.3.1-6] [3.1.1: MQTT-3.3.1-8]
    @Test("a new subscription gets the last retained message, after SUBACK, with RETAIN set")
    func deliver() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.publish("room/1", "old", qos: .atLeastOnce, retain: true)
            try client.publish("room/1", "new", qos: .atLeastOnce, retain: true)
            try client.publish("room/2", "two", retain: true)
            try client.subscribe(("room/1", .atLeastOnce))
            let publish = try client.receivePublish()
            #expect(publish.text == "new" && publish.retain && publish.qos == .atLeastOnce)
            try client.send(.puback(Ack(packetID: publish.packetID)))
            #expect(broker.context.retained.count == 2)

            try client.subscribe(("+/2", .atMostOnce))
            #expect(try client.receivePublish().text == "two")
        }
    }

    // [3.1.1: MQTT-3.3.1-9]
    @Test("subscribers that were there before get it without RETAIN")
    func live() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("t", .atMostOnce))
            try client.publish("t", "x", retain: true)
            #expect(try !client.receivePublish().retain)
        }
    }

    // [MQTT-3.3.1-6] [MQTT-3.3.1-7] [3.1.1: MQTT-3.3.1-10] [3.1.1: MQTT-3.3.1-11]
    @Test("an empty payload removes the message, and is itself delivered to those subscribed")
    func remove() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.publish("t", "x", retain: true)
            try client.publish("t", "", qos: .atLeastOnce, retain: true)
            #expect(broker.context.retained.count == 0)
            try client.subscribe(("t", .atMostOnce))
            try client.ping()
        }
    }

    @Test("wildcards find retained messages as they find live ones")
    func matching() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            for (filter, topic, matches) in SubscriptionTrieTests.cases {
                // Below `$SYS` nobody but the broker publishes: another name that begins with `$` stands for it.
                let (filter, topic) = (
                    filter.replacing("$SYS", with: "$other"), topic.replacing("$SYS", with: "$other")
                )
                try client.publish(topic, "x", qos: .atLeastOnce, retain: true)
                #expect(retained(filter, in: broker).isEmpty == !matches, "\(filter) and \(topic)")
                try client.publish(topic, "", qos: .atLeastOnce, retain: true)
            }
        }
    }

    @Test("a full store keeps what it has, replaces it, and delivers what it cannot keep")
    func full() async throws {
        try await withBroker({ $0.limits.maxRetainedMessages = 2 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            for topic in ["a", "b", "c"] { try client.publish(topic, topic, qos: .atLeastOnce, retain: true) }
            #expect(broker.context.retained.count == 2)
            #expect(broker.counters.retainedRefused.value == 1)
            try client.publish("b", "new", qos: .atLeastOnce, retain: true)
            try client.subscribe(("b", .atMostOnce), ("c", .atMostOnce))
            #expect(try client.receivePublish().text == "new")
            try client.publish("c", "passed on", retain: true)
            #expect(try client.receivePublish().text == "passed on")
            try client.publish("a", "", qos: .atLeastOnce, retain: true)
            // Two messages may have sixteen nodes: these need seventeen with "b".
            try client.publish(String(repeating: "/", count: 15), "deep", qos: .atLeastOnce, retain: true)
            #expect(broker.context.retained.nodeCount == 1)
            try client.publish(String(repeating: "/", count: 14), "deep", qos: .atLeastOnce, retain: true)
            #expect(broker.context.retained.nodeCount == 16)
            try client.publish(String(repeating: "/", count: 14), "", qos: .atLeastOnce, retain: true)
            #expect(broker.context.retained.nodeCount == 1)
        }
    }
}

/// What a subscription to `filter` would get.
private func retained(_ filter: String, in broker: Broker) -> [Message] {
    let retained = broker.context.retained
    var cursor = retained.cursor(UTF8Key(filter), through: retained.lastNumber)
    return broker.context.retained.next(&cursor, count: .max, visits: .max).messages
}
