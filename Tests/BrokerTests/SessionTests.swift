import MQTT
import NIOCore
import Testing

@testable import Broker

@Suite("Sessions", .serialized)
struct SessionTests {
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
            try watcher.send(.puback(Ack(packetID: publish.packetID)))
            try watcher.ping()
            #expect(broker.context.retained.count == 1)
        }
    }

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
                try await broker.poll { broker.context.registry.count == 0 }
            }
            #expect(broker.context.router.subscriptionCount == 0)
        }
    }

    @Test("taking a client identifier over loses and repeats nothing, on one loop and across loops", arguments: [1, 3])
    func takeOver(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            var device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("n", .atLeastOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            var homes: Set<Int?> = []
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
                homes.insert(broker.home(of: "device"))
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
            #expect(homes.count == threads, "the session was on every loop")
        }
    }

    @Test("a silent client is closed after one and a half times its keep alive, one that pings is not")
    func keepAlive() async throws {
        try await withBroker { broker in
            let silent = try TestClient(port: broker.port)
            try silent.connect("silent", keepAlive: 1)
            let start = ContinuousClock.now
            try silent.expectClosed()
            let waited = ContinuousClock.now - start
            #expect(waited >= .milliseconds(1_450) && waited < .milliseconds(3_000))
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

func withBroker(_ configure: (inout Configuration) -> Void, _ body: (Broker) async throws -> Void) async throws {
    try await withBroker(threads: 1, configure, body)
}
