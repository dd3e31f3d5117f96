import Arena
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Delivery", .mayBlock, .serialized)
struct DeliveryTests {
    // [MQTT-3.3.4-1] [MQTT-3.8.4-8] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.2-4] [MQTT-4.3.3-2] [3.1.1: MQTT-3.3.4-1]
    // [3.1.1: MQTT-3.8.4-6] [3.1.1: MQTT-4.3.1-1] [3.1.1: MQTT-4.3.2-1] [3.1.1: MQTT-4.3.3-1]
    @Test("a message arrives with the lower of the two QoS", arguments: QoS.allCases, QoS.allCases)
    func qualities(published: QoS, subscribed: QoS) async throws {
        try await withBroker { broker in
            let subscriber = try TestClient(port: broker.port)
            try subscriber.connect("subscriber")
            try subscriber.subscribe(("a/b", subscribed))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try publisher.publish("a/b", "hello", qos: published)

            let publish = try subscriber.receivePublish()
            #expect(publish.topicString == "a/b")
            #expect(publish.text == "hello")
            #expect(publish.qos == min(published, subscribed))
            #expect(!publish.dup && !publish.retain)
            try subscriber.acknowledge(publish)
            try subscriber.ping()
        }
    }

    @Test("who cannot be kept a QoS 0 message for goes without it, and the others of its fan-out do not")
    func refusedCopy() async throws {
        try await withBroker({ $0.memoryLimit = 32 << 20 }) { broker in
            let clients = try ["a", "b", "c"].map { name in
                let client = try TestClient(port: broker.port)
                try client.connect(name)
                try client.subscribe(("t", .atMostOnce))
                return client
            }
            let shard = broker.shards[0]
            try await shard.loop.submit {
                /// As one that has been read: topic and payload are slices of a larger buffer.
                func message(_ text: String) throws -> Message {
                    var buffer = try shard.arena.buffer(capacity: 4_000, owner: shard.owner, "test")
                    buffer.writeString("t" + text)
                    let topic = buffer.readSlice(length: 1)!
                    return Message(
                        topic: try TopicName(topic), payload: buffer, qos: .atMostOnce,
                        ownsBuffer: false)
                }
                // Room in the segment of the one that takes more.
                var first = try message("first")
                try shard.route(&first, shard.match(first.topic), from: nil)
                // The others wait for their sockets.
                for name in ["a", "c"] {
                    let connection = try #require(broker.context.registry.find(name)?.connection)
                    var waiting = try message("waiting")
                    try waiting.assignOwner(in: shard.arena, owner: shard.owner, "test")
                    connection.output.backlog.append(waiting)
                    connection.output.backlogBytes += waiting.heldBytes
                }
                var second = try message("second")
                var taken: [ByteBuffer] = []
                for size in [1 << 20, 64 << 10, 4 << 10, 512, 64] {
                    while let buffer = try? shard.arena.buffer(capacity: size, owner: shard.owner, "test") {
                        taken.append(buffer)
                    }
                }
                try shard.route(&second, shard.match(second.topic), from: nil)
                _ = consume taken
            }.get()
            #expect(broker.counters.backlogDrops.value == 2)
            for (client, texts) in zip(clients, [["first", "waiting"], ["first", "second"], ["first", "waiting"]]) {
                for text in texts { #expect(try client.receivePublish().text == text) }
                try client.ping()
            }
        }
    }

    // [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [3.1.1: MQTT-4.3.3-2]
    @Test("a QoS 2 duplicate is acknowledged and not forwarded; PUBREL is answered however often it comes")
    func exactlyOnce() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("t", .atMostOnce))
            var publish = Publish(topic: "t", payload: "once", qos: .exactlyOnce, packetID: 9)
            try client.send(.publish(publish))
            try client.expect(.pubrec(Ack(packetID: 9)))
            #expect(try client.receivePublish().text == "once", "PUBREC comes before what is forwarded")
            publish.dup = true
            try client.send(.publish(publish))
            try client.expect(.pubrec(Ack(packetID: 9)))
            for _ in 1...2 {
                try client.send(.pubrel(Ack(packetID: 9)))
                try client.expect(.pubcomp(Ack(packetID: 9)))
            }
            publish.dup = false
            try client.send(.publish(publish))
            try client.expect(.pubrec(Ack(packetID: 9)))
            #expect(try client.receivePublish().text == "once", "after PUBREL the identifier is a new message's")
        }
    }

    // [3.1.1: MQTT-3.3.5-1]
    @Test("overlapping subscriptions deliver once, with the highest QoS")
    func overlapping() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("a/+", .atMostOnce), ("a/#", .atLeastOnce), ("a/b", .atMostOnce))
            try client.send(
                .publish(Publish(topic: "a/b", payload: "1", qos: .exactlyOnce, packetID: 1)),
                .publish(Publish(topic: "a/b", payload: "2")))
            try client.expect(.pubrec(Ack(packetID: 1)))
            let first = try client.receivePublish()
            #expect(first.text == "1" && first.qos == .atLeastOnce)
            #expect(try client.receivePublish().text == "2")
        }
    }

    // [3.1.1: MQTT-3.10.4-1] [3.1.1: MQTT-3.10.4-2] [3.1.1: MQTT-3.10.4-4] [3.1.1: MQTT-3.8.4-3]
    @Test("an unsubscribed topic is no longer delivered, a subscribed one is delivered at once after the cache knows")
    func subscriptionsChange() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("a", .atMostOnce))
            try client.publish("a", "1")
            #expect(try client.receivePublish().text == "1")
            try client.unsubscribe("a")
            try client.publish("a", "2")
            try client.ping()
            try client.subscribe(("a", .atMostOnce))
            try client.publish("a", "3")
            #expect(try client.receivePublish().text == "3")
        }
    }

    // [MQTT-4.7.2-1] [3.1.1: MQTT-4.7.2-1]
    @Test("topics that begin with $ reach their own subscribers and not those of #")
    func reservedTopics() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("#", .atMostOnce))
            try client.publish("$app/x", "hidden")
            try client.publish("visible")
            #expect(try client.receivePublish().topicString == "visible")
        }
    }

    // [MQTT-4.5.0-1] [3.1.1: MQTT-4.5.0-1]
    @Test("one message reaches fifty subscribers on four loops, payloads small and large", arguments: [16, 300_000])
    func fanOut(payloadBytes: Int) async throws {
        try await withBroker(threads: 4) { broker in
            let subscribers = try (0..<50).map { index in
                let client = try TestClient(port: broker.port)
                try client.connect("subscriber-\(index)")
                try client.subscribe(("news", index % 2 == 0 ? .atMostOnce : .atLeastOnce))
                return client
            }
            let owningShards = Set((0..<50).compactMap { broker.owningShard(of: "subscriber-\($0)") })
            #expect(owningShards == [0, 1, 2, 3], "the test is about several loops")
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            let payload = String(repeating: "x", count: payloadBytes)
            for _ in 1...3 { try publisher.publish("news", payload, qos: .atLeastOnce) }
            for subscriber in subscribers {
                for _ in 1...3 {
                    let publish = try subscriber.receivePublish()
                    #expect(publish.payload.readableBytes == payloadBytes)
                    if publish.qos == .atLeastOnce { try subscriber.send(.puback(Ack(packetID: publish.packetID))) }
                }
                try subscriber.ping()
            }
        }
    }

    // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [3.1.1: MQTT-4.6.0-5] [3.1.1: MQTT-4.6.0-6]
    @Test("messages of one publisher keep their order across loops")
    func order() async throws {
        try await withBroker(threads: 3) { broker in
            let clients = try (0..<3).map { index in
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(index)")
                try client.subscribe(("n", .atMostOnce))
                return client
            }
            for number in 0..<2_000 { try clients[0].publish("n", "\(number)") }
            for client in clients {
                for number in 0..<2_000 { try #require(client.receivePublish().text == "\(number)") }
            }
        }
    }

    @Test("a subscriber that reads late gets every QoS 1 message, in order")
    func lateSubscriber() async throws {
        try await withBroker({ $0.limits.maxInflight = 20 }) { broker in
            let late = try TestClient(port: broker.port)
            try late.connect("late")
            try late.subscribe(("flood", .atLeastOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            let padding = String(repeating: "x", count: 60_000)
            for number in 0..<200 { try publisher.publish("flood", "\(number) \(padding)", qos: .atLeastOnce) }
            for number in 0..<200 {
                let publish = try late.receivePublish()
                try #require(publish.text.hasPrefix("\(number) ") && !publish.dup)
                try late.send(.puback(Ack(packetID: publish.packetID)))
            }
            try late.ping()
        }
    }

    @Test("a subscriber that does not read loses QoS 0 messages, and nobody else waits for it")
    func slowSubscriber() async throws {
        try await withBroker { broker in
            let slow = try TestClient(port: broker.port)
            try slow.connect("slow")
            try slow.subscribe(("flood", .atMostOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            let payload = String(repeating: "x", count: 60_000)
            while broker.counters.backlogDrops.value == 0 {
                for _ in 1...50 { try publisher.publish("flood", payload) }
                try publisher.ping()
            }
            #expect(broker.pool.counterBytes < 128 << 20)
            try publisher.publish("flood", "end")
            try publisher.ping()
            // What was not dropped is whole, and the newest was not dropped.
            while case let publish = try slow.receivePublish(), publish.text != "end" {
                try #require(publish.payload.readableBytes == 60_000)
            }
            try slow.ping()
        }
    }
}
