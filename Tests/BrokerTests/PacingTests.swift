import Arena
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Much work at once is done a tick's worth at a time, with other clients served in between.
@Suite("Pacing", .mayBlock, .serialized)
struct PacingTests {
    @Test(
        "a wildcard over many retained messages gets all of them, few at a time",
        arguments: [(QoS.atMostOnce, 20_000), (.atLeastOnce, 5_000)])
    func retained(qos: QoS, total: Int) async throws {
        try await withBroker { broker in
            try await broker.retain((0..<total).map { "fleet/\($0 % 1_000)/device/\($0)" }, payload: "on")
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            let live = broker.liveBuffers
            try client.subscribe(("fleet/#", qos))
            var topics: Set<String> = []
            var (most, isRetained) = (0, true)
            for count in 1...total {
                let publish = try client.receivePublish()
                topics.insert(publish.topicString)
                isRetained = isRetained && publish.retain
                if qos == .atLeastOnce { try client.send(.puback(Ack(packetID: publish.packetID))) }
                if count % 1_000 == 0 { most = max(most, broker.liveBuffers - live) }
            }
            #expect(topics.count == total && isRetained)
            // Output segments only: nothing of it is queued.
            #expect(most < 32)
            #expect(broker.counters.backlogDrops.value + broker.counters.queueDrops.value == 0)
            try client.ping()
        }
    }

    @Test("a client that does not read holds up its own retained messages, and nobody else")
    func unread() async throws {
        let count = 3_000
        try await withBroker { broker in
            let payload = String(repeating: "x", count: 4_000)
            try await broker.retain((0..<count).map { "t/\($0)" }, payload: payload)
            let idle = try TestClient(port: broker.port)
            try idle.connect("idle")
            let live = broker.liveBuffers
            try idle.subscribe(("#", .atMostOnce))
            let other = try TestClient(port: broker.port)
            try other.connect("other")
            for _ in 0..<50 { try other.ping() }
            // What its socket has not taken, and a fetch.
            #expect(broker.liveBuffers - live < 64)
            // Removed, replaced and added while it waits: what it gets then is what is there then.
            for index in 0..<count { try other.publish("t/\(index)", "", retain: true) }
            try other.publish("last", "live", qos: .atLeastOnce, retain: true)
            var texts: [String] = []
            while texts.last != "live" { texts.append(try idle.receivePublish().text) }
            try idle.ping { texts.append($0.text) }
            #expect(texts.filter { $0 == "live" }.count == 1)
            #expect(texts.count < 2 * count)
        }
    }

    @Test("a filter is asked for again before all of it came: it begins anew; unsubscribed, it ends")
    func again() async throws {
        try await withBroker({ $0.limits.maxInflight = 1 }) { broker in
            try await broker.retain(["a", "b", "c"], payload: "x")
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("#", .atLeastOnce))
            let first = try client.receivePublish()
            try client.subscribe(("#", .atLeastOnce))
            try client.acknowledge(first)
            var topics: [String] = []
            for _ in 0..<2 {
                let publish = try client.receivePublish()
                topics.append(publish.topicString)
                if topics.count == 1 { try client.acknowledge(publish) }
            }
            #expect(topics[0] == first.topicString)
            try client.unsubscribe("#")
            try client.send(.puback(Ack(packetID: 3)))
            try client.ping()
        }
    }

    @Test("what is retained waits for a client whose session is kept")
    func resumed() async throws {
        try await withBroker({ $0.limits.maxInflight = 1 }) { broker in
            try await broker.retain(["a", "b", "c"], payload: "x")
            let client = try TestClient(port: broker.port)
            try client.connect("client", clean: false)
            try client.subscribe(("#", .atLeastOnce))
            let first = try client.receivePublish()
            client.vanish()
            let back = try TestClient(port: broker.port)
            #expect(try back.connect("client", clean: false).sessionPresent)
            var topics: [String] = []
            for _ in 0..<3 {
                let publish = try back.receivePublish()
                topics.append(publish.topicString)
                try back.acknowledge(publish)
            }
            #expect(topics[0] == first.topicString)
            #expect(topics.sorted() == ["a", "b", "c"])
        }
    }

    @Test("a thousand clients that vanish at once have their wills published and their subscriptions removed in turn")
    func disconnects() async throws {
        let (count, subscriptions) = (1_000, 10)
        try await withBroker { broker in
            let witness = try TestClient(port: broker.port)
            try witness.connect("witness")
            try witness.subscribe(("will/#", .atMostOnce))
            var clients: [TestClient] = []
            for index in 0..<count {
                let client = try TestClient(port: broker.port)
                try client.connect(
                    "client-\(index)", will: Will(topic: "will/\(index)", payload: ByteBuffer(string: "gone")))
                try client.subscribe(
                    (0..<subscriptions).map { Subscription(filter: "own/\(index)/\($0)", qos: .atMostOnce) })
                clients.append(client)
            }
            #expect(broker.context.router.subscriptionCount == count * subscriptions + 1)
            clients.removeAll()
            var wills: Set<String> = []
            for _ in 0..<count { wills.insert(try witness.receivePublish().topicString) }
            #expect(wills.count == count)
            try await broker.poll {
                broker.context.router.subscriptionCount == 1 && broker.context.registry.count == 1
            }
            let most = try await broker.shards[0].loop.submit { [shard = broker.shards[0]] in shard.work.mostEndings }
                .get()
            #expect(most > 0 && most <= Limits.endingsPerTick)
        }
    }

    @Test("a client that comes back while its old session is about to end gets a new one")
    func returns() async throws {
        // More than a tick deals with.
        let subscriptions = 3 * Limits.endingsPerTick
        try await withBroker { broker in
            for round in 0..<5 {
                let client = try TestClient(port: broker.port)
                #expect(try client.connect("client") == ConnAck(sessionPresent: false, code: .success))
                let filters = (0..<subscriptions).map { Subscription(filter: "t/\($0)", qos: .atLeastOnce) }
                try client.subscribe(filters)
                #expect(broker.context.router.subscriptionCount == subscriptions, "round \(round)")
                client.vanish()
                let back = try TestClient(port: broker.port)
                #expect(try back.connect("client", clean: false) == ConnAck(sessionPresent: false, code: .success))
                try await broker.poll { broker.context.router.subscriptionCount == 0 }
                try back.disconnect()
                try TestClient(port: broker.port).connect("client", clean: true)
            }
        }
    }
}

extension Broker {
    /// Stores retained messages, as if published.
    fileprivate func retain(_ topics: [String], payload: String) async throws {
        let shard = shards[0]
        try await shard.loop.submit {
            for topic in topics {
                let message = Message(
                    topic: try TopicName(topic), payload: ByteBuffer(string: payload), qos: .atLeastOnce,
                    ownsBuffer: false)
                _ = try shard.retain(message)
            }
        }.get()
        #expect(context.retained.count == topics.count)
    }

    /// Of all loops.
    fileprivate var liveBuffers: Int { Int(pool.metrics().allocations) - Int(pool.metrics().frees) }
}
