import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Sessions", .mayBlock, .serialized)
struct SessionTests {
    // [3.1.1: MQTT-3.1.2-8] [3.1.1: MQTT-3.1.2-10] [3.1.1: MQTT-3.1.2-12] [3.1.1: MQTT-3.1.2-16]
    // [3.1.1: MQTT-3.1.2-17] [3.1.1: MQTT-3.14.4-3]
    @Test("a will is published when the client vanishes, and not after DISCONNECT")
    func wills() async throws {
        try await withBroker(threads: 2) { broker in
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe(("will/+", .atLeastOnce))
            let will = { (topic: String) in
                Will(topic: topic, payload: ByteBuffer(string: "gone"), qos: .atLeastOnce, retain: true)
            }
            let polite = try TestClient(port: broker.port)
            try polite.connect("polite", will: will("will/polite"))
            try polite.disconnect()
            let vanishing = try TestClient(port: broker.port)
            try vanishing.connect("vanishing", will: will("will/vanishing"))
            vanishing.vanish()
            let publish = try watcher.receivePublish()
            #expect(publish.topicString == "will/vanishing" && publish.text == "gone")
            #expect(!publish.retain, "RETAIN is for those who subscribe later (MQTT-3.3.1-9)")
            try watcher.send(.puback(Ack(packetID: publish.packetID)))
            try watcher.ping()
            #expect(broker.context.retained.count == 1)
        }
    }

    // [MQTT-4.1.0-1] [3.1.1: MQTT-3.1.2-4] [3.1.1: MQTT-3.1.2-5] [3.1.1: MQTT-3.2.2-2] [3.1.1: MQTT-3.2.2-3]
    // [3.1.1: MQTT-4.1.0-1] [3.1.1: MQTT-4.1.0-2] [3.1.1: MQTT-3.1.3-2]
    @Test("a kept session queues QoS 1 and 2 while its client is away and delivers them in order, once")
    func queueing() async throws {
        try await withBroker { broker in
            let device = try TestClient(port: broker.port)
            #expect(try !device.connect("device", clean: false).sessionPresent)
            try device.subscribe(("c/#", .exactlyOnce))
            try device.disconnect()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            for number in 0..<10 {
                try publisher.publish("c/\(number)", "\(number)", qos: number % 2 == 0 ? .atLeastOnce : .exactlyOnce)
            }
            try publisher.publish("c/x", "not kept")

            let again = try TestClient(port: broker.port)
            #expect(try again.connect("device", clean: false).sessionPresent)
            for number in 0..<10 {
                let publish = try again.receivePublish()
                #expect(publish.text == "\(number)" && !publish.dup)
                if publish.qos == .atLeastOnce {
                    try again.send(.puback(Ack(packetID: publish.packetID)))
                } else {
                    try again.send(.pubrec(Ack(packetID: publish.packetID)))
                }
            }
            for number in stride(from: 1, to: 10, by: 2) {
                guard case .pubrel(let ack)? = try again.receive() else {
                    Issue.record("expected PUBREL for message \(number)")
                    return
                }
                try again.send(.pubcomp(ack))
            }
            try again.ping()
        }
    }

    // [3.1.1: MQTT-3.3.1-1] [3.1.1: MQTT-4.4.0-1]
    @Test("what was sent and not acknowledged comes again, in order, with DUP; PUBREL without the message")
    func redelivery() async throws {
        try await withBroker { broker in
            let device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("c", .exactlyOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try publisher.publish("c", "1", qos: .exactlyOnce)
            try publisher.publish("c", "2", qos: .atLeastOnce)
            let first = try device.receivePublish()
            try device.send(.pubrec(Ack(packetID: first.packetID)))
            let second = try device.receivePublish()
            try device.expect(.pubrel(Ack(packetID: first.packetID)))
            device.vanish()

            let again = try TestClient(port: broker.port)
            #expect(try again.connect("device", clean: false).sessionPresent)
            try again.expect(.pubrel(Ack(packetID: first.packetID)))
            let repeated = try again.receivePublish()
            #expect(repeated.dup && repeated.packetID == second.packetID && repeated.text == "2")
        }
    }

    // [MQTT-3.1.4-4] [3.1.1: MQTT-3.1.2-6] [3.1.1: MQTT-3.1.4-3] [3.1.1: MQTT-3.2.2-1]
    @Test("a clean connect ends the kept session")
    func cleanStart() async throws {
        try await withBroker(threads: 2) { broker in
            for _ in 1...3 {
                let kept = try TestClient(port: broker.port)
                try kept.connect("client", clean: false)
                try kept.subscribe(("t", .atLeastOnce))
                let clean = try TestClient(port: broker.port)
                #expect(try !clean.connect("client").sessionPresent)
                try kept.expectClosed()
                try clean.publish("t", "x", qos: .atLeastOnce)
                try clean.ping()
                try clean.disconnect()
                try await broker.poll {
                    broker.context.registry.count == 0 && broker.context.router.subscriptionCount == 0
                }
            }
        }
    }

    // [3.1.1: MQTT-3.1.4-2]
    @Test("taking a client identifier over loses and repeats nothing, on one loop and across loops", arguments: [1, 3])
    func takeOver(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            var device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("n", .atLeastOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            var owningShards: Set<Int?> = []
            var received: [Int] = []
            for round in 0..<20 {
                // Sent without waiting, so that the session moves while messages are under way.
                for index in 0..<20 {
                    try publisher.send(
                        .publish(
                            Publish(
                                topic: "n", payload: "\(round * 20 + index)", qos: .atLeastOnce,
                                packetID: publisher.takePacketID())))
                }
                let next = try TestClient(port: broker.port)
                #expect(try next.connect("device", clean: false).sessionPresent)
                owningShards.insert(broker.owningShard(of: "device"))
                let old = device
                device = next
                // What the old connection got and did not acknowledge comes again.
                while try old.receive() != nil {}
                while received.count < (round + 1) * 20 {
                    let publish = try device.receivePublish()
                    try device.send(.puback(Ack(packetID: publish.packetID)))
                    received.append(Int(publish.text)!)
                }
                try device.ping()
            }
            #expect(received == Array(0..<400), "each once, in order")
            #expect(owningShards.count == threads, "the session was on every loop")
        }
    }

    // [3.1.1: MQTT-3.1.2-24]
    @Test("a silent client is closed after one and a half times its keep alive, one that pings is not")
    func keepAlive() async throws {
        try await withBroker { broker in
            let (silent, lively) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
            try silent.connect("silent", keepAlive: 1)
            try lively.connect("lively", keepAlive: 60)
            let shard = broker.shards[0]
            let session = try #require(broker.context.registry.find("lively"))
            let before = try await shard.loop.submit { try #require(session.connection).lastRead }.get()
            try lively.ping()
            try await shard.loop.submit {
                let connection = try #require(session.connection)
                #expect(connection.lastRead > before)
                connection.check(.silence, connection.lastRead + .milliseconds(90_000 - 1))
                guard case .connected = connection.phase else { throw TestClient.Failure(description: "was closed") }
            }.get()
            try silent.expectClosed()
            try lively.ping()
        }
    }

    @Test("who connects and says nothing is closed")
    func connectTimeout() async throws {
        try await withBroker({ $0.limits.connectTimeoutSeconds = 1 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.expectClosed()
        }
    }
}

extension SessionTests {
    @Test("a packet that is begun and not finished costs its connection, with and without keep alive, trickled or not")
    func packetTimeout() async throws {
        let log = LogCollector()
        try await withBroker(threads: 1, { $0.limits.packetTimeoutSeconds = 1 }, log: log.logger) { broker in
            let (half, trickling, idle) = (
                try TestClient(port: broker.port), try TestClient(port: broker.port), try TestClient(port: broker.port)
            )
            try half.connect("half")
            try trickling.connect("trickling", keepAlive: 60)
            try idle.connect("idle")
            // A whole packet and the first byte of the next.
            try half.send(bytes: [0xC0, 0x00, 0x30])
            try half.expect(.pingresp)
            try trickling.send(bytes: [0x30, 0x80, 0x80, 0x20, 0x00, 0x01, 0x61])
            while broker.counters.connectionsOpen.value > 1 {
                try? trickling.send(bytes: [0x78])
                try idle.ping()
            }
            try half.expectClosed()
            try idle.ping()
        }
        let closed = log.lines.filter { $0.contains("a packet was not complete 1 s after its first byte") }
        #expect(closed.count == 2, "\(log.lines)")
    }

    // [MQTT-4.7.3-4] [3.1.1: MQTT-4.7.3-4]
    @Test("names are compared byte for byte: two spellings of é are two clients and two topics")
    func canonicalEquivalents() async throws {
        try await withBroker(threads: 2) { broker in
            let (composed, decomposed) = ("caf\u{E9}", "cafe\u{301}")
            let one = try TestClient(port: broker.port)
            try one.connect(composed)
            let other = try TestClient(port: broker.port)
            try other.connect(decomposed)
            try one.ping()
            #expect(broker.context.registry.count == 2)

            try one.subscribe((composed, .atMostOnce), (decomposed, .atMostOnce))
            try other.publish(decomposed, "decomposed", qos: .atLeastOnce)
            try other.publish(composed, "composed", qos: .atLeastOnce)
            #expect(try one.receivePublish().text == "decomposed")
            #expect(try one.receivePublish().text == "composed")
            try one.unsubscribe(decomposed)
            try other.publish(decomposed, "no longer", qos: .atLeastOnce)
            try other.publish(composed, "still", qos: .atLeastOnce)
            #expect(try one.receivePublish().text == "still")

            try one.subscribe((decomposed, .atMostOnce))
            try one.disconnect()
            // The end of a session removes all of its filters.
            try await broker.poll {
                broker.context.registry.count == 1 && broker.context.router.subscriptionCount == 0
            }
        }
    }

    @Test("filters are bounded by their bytes, and what is given up is free again")
    func subscriptionBytes() async throws {
        try await withBroker({ $0.limits.maxSubscriptionBytesPerSession = 1_000 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            let filters = (1...3).map { String(repeating: "\($0)", count: 400) }
            #expect(
                try client.subscribe((filters[0], .atMostOnce), (filters[1], .atLeastOnce)).map(\.rawValue) == [0, 1])
            #expect(try client.subscribe((filters[2], .atMostOnce)).map(\.rawValue) == [0x80])
            #expect(try client.subscribe((filters[0], .atLeastOnce)).map(\.rawValue) == [1], "known already")
            try client.unsubscribe(filters[1])
            #expect(try client.subscribe((filters[2], .atMostOnce)).map(\.rawValue) == [0])
            // A level past the eighth costs a node that its byte does not pay for.
            let deep = String(repeating: "/", count: 20)
            #expect(try client.subscribe((deep, .atMostOnce)).map(\.rawValue) == [0x80])
        }
    }

    @Test("kept sessions are bounded; clean ones and those that exist are served all the same")
    func sessionLimit() async throws {
        try await withBroker({ $0.limits.maxSessions = 1 }) { broker in
            let kept = try TestClient(port: broker.port)
            try kept.connect("kept", clean: false)
            try kept.disconnect()
            let refused = try TestClient(port: broker.port)
            #expect(try refused.connect("refused", clean: false).code == .serverUnavailable)
            try refused.expectClosed()
            let clean = try TestClient(port: broker.port)
            #expect(try clean.connect("clean").code == .success)
            let again = try TestClient(port: broker.port)
            #expect(try again.connect("kept", clean: false).sessionPresent)
            let ending = try TestClient(port: broker.port)
            try ending.connect("kept", clean: true)
            let next = try TestClient(port: broker.port)
            #expect(try next.connect("refused", clean: false).code == .success)
        }
    }
}

func withBroker(_ configure: (inout Configuration) -> Void, _ body: (Broker) async throws -> Void) async throws {
    try await withBroker(threads: 1, configure, body)
}
