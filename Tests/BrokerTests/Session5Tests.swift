import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("5.0: sessions and wills", .mayBlock, .serialized)
struct Session5Tests {
    @Test(
        "a session is kept for its expiry interval and no longer [MQTT-3.1.2-23] [MQTT-4.1.0-2] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.2.2-3]"
    )
    func expiry() async throws {
        try await withBroker(threads: 2) { broker in
            func connect(_ interval: UInt32?, clean: Bool = false) throws -> (client: TestClient, isPresent: Bool) {
                let client = try TestClient(port: broker.port, version: .v5_0)
                let ack = try client.connect("client", clean: clean) { $0.sessionExpiryInterval = interval }
                return (client, ack.sessionPresent)
            }
            // Without an interval it ends with its connection.
            let first = try connect(nil)
            #expect(!first.isPresent)
            try first.client.disconnect()
            try await broker.poll { broker.context.registry.count == 0 }
            // Kept, and found again, by the same identifier [MQTT-3.1.3-2].
            let second = try connect(1_000)
            #expect(!second.isPresent)
            try second.client.subscribe(("t", .atLeastOnce))
            second.client.vanish()
            let third = try connect(1)
            #expect(third.isPresent)
            third.client.vanish()
            // After a second it is over, with all it had.
            try await broker.poll {
                broker.context.registry.count == 0 && broker.context.router.subscriptionCount == 0
                    && broker.counters.sessionsExpired.value == 1
            }
            #expect(try !connect(1_000).isPresent)
            // Clean Start ends it [MQTT-3.1.2-4].
            #expect(try !connect(1_000, clean: true).isPresent)
        }
    }

    @Test("DISCONNECT may change the interval, but not from nothing to something")
    func changedExpiry() async throws {
        try await withBroker { broker in
            func disconnect(_ from: UInt32?, _ to: UInt32) throws -> TestClient {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client", clean: true) { $0.sessionExpiryInterval = from }
                var disconnect = Disconnect()
                disconnect.properties.sessionExpiryInterval = to
                try client.send(.disconnect(disconnect))
                return client
            }
            try disconnect(1_000, 0).expectClosed()
            try await broker.poll { broker.context.registry.count == 0 }
            try disconnect(1_000, .max).expectClosed()
            #expect(broker.context.registry.find("client")?.expiryInterval == .max)
            try disconnect(nil, 10).expectDisconnect(.protocolError)
        }
    }

    @Test("an interval beyond the limit is cut, and the client is told")
    func limitedExpiry() async throws {
        try await withBroker({ $0.limits.maxSessionExpirySeconds = 60 }) { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            #expect(
                try client.connect("new") { $0.sessionExpiryInterval = .max }.properties.sessionExpiryInterval == 60)
            let modest = try TestClient(port: broker.port, version: .v5_0)
            #expect(
                try modest.connect("modest") { $0.sessionExpiryInterval = 59 }.properties.sessionExpiryInterval == nil)
            let old = try TestClient(port: broker.port)
            try old.connect("old", clean: false)
            #expect(broker.context.registry.find("old")?.expiryInterval == 60)
        }
    }

    @Test("sessions of one version are taken up in the other")
    func versions() async throws {
        try await withBroker { broker in
            let old = try TestClient(port: broker.port)
            try old.connect("client", clean: false)
            try old.subscribe(("t", .atLeastOnce))
            try old.disconnect()
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            var expected = PublishProperties()
            Publish5Tests.fill(&expected)
            for text in ["1", "2"] { try publisher.publish("t", text, qos: .atLeastOnce) { $0 = expected } }
            let new = try TestClient(port: broker.port, version: .v5_0)
            #expect(try new.connect("client", clean: false) { $0.sessionExpiryInterval = .max }.sessionPresent)
            let first = try new.receivePublish()
            #expect(first.text == "1" && first.properties == expected)
            try new.send(.puback(Ack(packetID: first.packetID)))
            #expect(try new.receivePublish().text == "2")
            new.vanish()
            let again = try TestClient(port: broker.port)
            #expect(try again.connect("client", clean: false).sessionPresent)
            let repeated = try again.receivePublish()
            #expect(repeated.text == "2" && repeated.dup && repeated.properties == nil)
        }
    }

    private static func will(_ delay: UInt32?, _ text: String = "gone") -> Will {
        var will = Will(topic: "will", payload: ByteBuffer(string: text), qos: .atLeastOnce)
        will.properties.delayInterval = delay
        return will
    }

    @Test(
        "a will waits for its delay or for the end of its session, whichever is first [MQTT-3.1.2-8] [MQTT-3.1.2-7] [MQTT-3.1.2-10] [MQTT-3.1.2-14]"
    )
    func willDelay() async throws {
        try await withBroker(threads: 2) { broker in
            let watcher = try Subscribe5Tests.client(broker, "watcher")
            try watcher.subscribe([Subscription(filter: "will", retainAsPublished: true)])
            /// What CONNECT says, and whether the client comes back clean.
            let cases: [(name: String, delay: UInt32?, expiry: UInt32?, cleanAfter: Bool)] = [
                ("no delay", nil, 1_000, false), ("a second", 1, 1_000, false),
                ("the session ends with the connection", 1_000, nil, false),
                ("the session ends after a second", 1_000, 1, false), ("the client starts anew", 1_000, 1_000, true),
            ]
            for (name, delay, expiry, cleanAfter) in cases {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect(name, will: Self.will(delay, name)) { $0.sessionExpiryInterval = expiry }
                client.vanish()
                if cleanAfter {
                    try await broker.poll { broker.context.registry.find(name)?.presence == .away }
                    #expect(try await broker.unreachable() == [])
                    let next = try TestClient(port: broker.port, version: .v5_0)
                    try next.connect(name, clean: true)
                }
                let publish = try watcher.receivePublish()
                #expect(publish.text == name && !publish.retain)
            }
        }
    }

    @Test("a will is not sent if the client is back before its delay has passed [MQTT-3.1.3-9]", arguments: [1, 3])
    func backInTime(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let watcher = try Subscribe5Tests.client(broker, "watcher")
            try watcher.subscribe(("will", .atMostOnce))
            for _ in 0..<3 {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client", clean: false, will: Self.will(1_000)) {
                    $0.sessionExpiryInterval = 2_000
                }
                client.vanish()
            }
            let back = try TestClient(port: broker.port, version: .v5_0)
            #expect(try back.connect("client", clean: false) { $0.sessionExpiryInterval = 2_000 }.sessionPresent)
            // When the delay of any of them has passed.
            let session = try #require(broker.context.registry.find("client"))
            let shard = broker.shards[session.owningShard]
            try await shard.loop.submit { shard.check(session, at: .now() + .seconds(1_500)) }.get()
            let marker = try TestClient(port: broker.port, version: .v5_0)
            try marker.connect("marker", will: Self.will(nil, "marker"))
            marker.vanish()
            #expect(try watcher.receivePublish().text == "marker")
        }
    }

    @Test("a will that was due when its client came back is sent, also if its timer is late")
    func backTooLate() async throws {
        try await withBroker(threads: 2) { broker in
            let watcher = try Subscribe5Tests.client(broker, "watcher")
            try watcher.subscribe(("will", .atMostOnce))
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("client", will: Self.will(1_000, "due")) { $0.sessionExpiryInterval = 2_000 }
            client.vanish()
            let session = try #require(broker.context.registry.find("client"))
            let shard = broker.shards[session.owningShard]
            var isWaiting = false
            while !isWaiting {
                isWaiting = try await shard.loop.submit { session.will?.dueAt != .distantFuture }.get()
            }
            // As after a start, when the time came while the broker was down: no timer runs between this and that.
            try await shard.loop.submit {
                shard.update(session) { $0.will = $0.will?.due(at: .now()) }
                shard.attach(session, expiryInterval: 2_000)
            }.get()
            #expect(try watcher.receivePublish().text == "due")
        }
    }

    @Test("DISCONNECT takes the will back, or asks for it with 0x04 [MQTT-3.14.4-3]")
    func goodbye() async throws {
        try await withBroker { broker in
            let watcher = try Subscribe5Tests.client(broker, "watcher")
            try watcher.subscribe(("will", .atMostOnce))
            for (code, text) in [(ReasonCode.normalDisconnection, "not sent"), (.disconnectWithWillMessage, "sent")] {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client", will: Self.will(nil, text))
                try client.send(.disconnect(Disconnect(code: code)))
                try client.expectClosed()
            }
            #expect(try watcher.receivePublish().text == "sent")
            try watcher.ping()
        }
    }

    @Test("while wills wait, groups share, aliases stand and messages expire, every buffer is reachable")
    func everyBufferIsReachable() async throws {
        try await withBroker(threads: 2) { broker in
            let publisher = try TestClient(port: broker.port, version: .v5_0)
            try publisher.connect("publisher")
            var clients: [TestClient] = []
            for index in 0..<8 {
                let client = try TestClient(port: broker.port, version: .v5_0)
                var will = Self.will(1_000)
                Publish5Tests.fill(&will.properties)
                try client.connect("client-\(index)", will: will) {
                    $0.sessionExpiryInterval = 1_000
                    $0.topicAliasMaximum = 4
                }
                try client.subscribe(
                    [
                        Subscription(filter: "$share/g/topic/#", qos: .exactlyOnce),
                        Subscription(filter: "topic/#", qos: .atLeastOnce),
                    ], identifier: UInt32(index + 1))
                clients.append(client)
            }
            for client in clients[..<4] { client.vanish() }
            for number in 0..<20 {
                try publisher.publish(
                    number < 10 ? "topic/\(number)" : "", String(repeating: "x", count: number * 700),
                    qos: .exactlyOnce,
                    retain: number < 3
                ) {
                    Publish5Tests.fill(&$0)
                    $0.topicAlias = UInt16(number % 10 + 1)
                    $0.messageExpiryInterval = 1_000
                }
            }
            for client in clients[4...] { for _ in 0..<20 { _ = try client.receivePublish() } }
            let busy = try await broker.accounting()
            // Messages, each once; those retained, of which one was empty; wills; aliases in, and out to four clients.
            #expect(busy.live == 20 + 2 + 8 + 10 + 4 * 4)
            #expect(try await broker.unreachable() == [])
            for client in clients[4...] { client.vanish() }
            publisher.vanish()
            try await broker.awaitNoConnections()
            #expect(try await broker.unreachable() == [])
            for index in 0..<8 {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client-\(index)", clean: true)
                try client.disconnect()
            }
            let sweeper = try Subscribe5Tests.client(broker, "sweeper")
            for number in 0..<3 { try sweeper.publish("topic/\(number)", qos: .atLeastOnce, retain: true) { _ in } }
            try sweeper.disconnect()
            try await broker.awaitNoConnections()
            try await broker.poll { broker.context.registry.count == 0 }
            try await broker.awaitNothingLeft()
        }
    }
}

extension Publish5Tests {
    static func fill(_ properties: inout WillProperties) {
        properties.contentType = "text/plain"
        properties.correlationData = ByteBuffer(bytes: [1, 2, 3])
        properties.userProperties = [UserProperty(name: "a", value: "1")]
    }
}
