import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("5.0: PUBLISH", .mayBlock, .serialized)
struct Publish5Tests {
    static func pair(_ broker: Broker, _ settings: (inout ConnectProperties) -> Void = { _ in }) throws -> (
        publisher: TestClient, subscriber: TestClient
    ) {
        let subscriber = try TestClient(port: broker.port, version: .v5_0)
        try subscriber.connect("subscriber", settings)
        let publisher = try TestClient(port: broker.port, version: .v5_0)
        try publisher.connect("publisher")
        return (publisher, subscriber)
    }

    /// Every property that is passed on, user properties with a repeated name among them.
    static func fill(_ properties: inout PublishProperties) {
        properties.payloadFormat = .utf8
        properties.contentType = "text/plain"
        properties.responseTopic = try! TopicName("answers/7")
        properties.correlationData = ByteBuffer(bytes: [0, 255, 1, 2])
        properties.userProperties = [
            UserProperty(name: "b", value: "1"), UserProperty(name: "a", value: "2"),
            UserProperty(name: "b", value: "3"),
        ]
    }

    @Test(
        "properties reach the subscriber unaltered and in order, whatever is taken out between them [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]",
        arguments: QoS.allCases, [1, 2])
    func forwardedProperties(qos: QoS, threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let (publisher, subscriber) = try Self.pair(broker)
            try subscriber.subscribe(("t", qos))
            let old = try TestClient(port: broker.port)
            try old.connect("old")
            try old.subscribe(("t", .atMostOnce))
            for hop in 0..<4 {
                let code = try publisher.publish("t", "payload \(hop)", qos: qos) { properties in
                    Self.fill(&properties)
                    if hop & 1 != 0 { properties.messageExpiryInterval = 1_000 }
                    if hop & 2 != 0 { properties.topicAlias = 3 }
                }
                #expect(code == .success)
                let publish = try subscriber.receivePublish()
                var expected = PublishProperties()
                Self.fill(&expected)
                if hop & 1 != 0 { expected.messageExpiryInterval = publish.properties?.messageExpiryInterval }
                #expect(publish.properties == expected && publish.text == "payload \(hop)" && publish.qos == qos)
                if hop & 1 != 0 { #expect((990...1_000).contains(try #require(expected.messageExpiryInterval))) }
                try subscriber.acknowledge(publish)
                // 3.1.1 has no words for them.
                #expect(try old.receivePublish().text == "payload \(hop)")
            }
        }
    }

    @Test("a retained message, a queued one and a will keep their properties [MQTT-3.1.3-10] [MQTT-3.1.2-15]")
    func keptProperties() async throws {
        try await withBroker { broker in
            let (publisher, away) = try Self.pair(broker) { $0.sessionExpiryInterval = 1_000 }
            try away.subscribe(("q", .atLeastOnce))
            try away.disconnect()
            var expected = PublishProperties()
            Self.fill(&expected)
            try publisher.publish("q", "queued", qos: .atLeastOnce) { $0 = expected }
            try publisher.publish("r", "retained", qos: .atLeastOnce, retain: true) { $0 = expected }
            var will = Will(topic: "w", payload: ByteBuffer(string: "will"), qos: .atLeastOnce, retain: true)
            will.properties.payloadFormat = .utf8
            will.properties.contentType = expected.contentType
            will.properties.responseTopic = expected.responseTopic
            will.properties.correlationData = expected.correlationData
            will.properties.userProperties = expected.userProperties
            let testator = try TestClient(port: broker.port, version: .v5_0)
            try testator.connect("testator", will: will)
            #expect(try await broker.unreachable() == [])
            testator.vanish()
            try await broker.poll { broker.context.retained.count == 2 }

            let again = try TestClient(port: broker.port, version: .v5_0)
            #expect(try again.connect("subscriber", clean: false).sessionPresent)
            let queued = try again.receivePublish()
            #expect(queued.text == "queued" && queued.properties == expected)
            try again.subscribe(("r", .atMostOnce), ("w", .atMostOnce))
            for text in ["retained", "will"] {
                let publish = try again.receivePublish()
                #expect(publish.text == text && publish.retain && publish.properties == expected)
            }
        }
    }

    @Test("an alias stands for the topic it came with, until it comes with another [MQTT-3.3.2-12] [MQTT-3.3.2-7]")
    func incomingAliases() async throws {
        try await withBroker(threads: 2) { broker in
            let (publisher, subscriber) = try Self.pair(broker)
            try subscriber.subscribe(("a/+", .atLeastOnce))
            for (topic, alias, expected) in [("a/1", 1, "a/1"), ("", 1, "a/1"), ("a/2", 16, "a/2"), ("", 1, "a/1")]
                + [("a/3", 1, "a/3"), ("", 16, "a/2"), ("", 1, "a/3")]
            {
                try publisher.publish(topic, "x", qos: .atLeastOnce) { $0.topicAlias = UInt16(alias) }
                let publish = try subscriber.receivePublish()
                #expect(publish.topicString == expected && publish.properties == nil)
                try subscriber.send(.puback(Ack(packetID: publish.packetID)))
            }
            #expect(try await broker.unreachable() == [])
            // A large one comes in a buffer of its own, which its topic is not in.
            let large = String(repeating: "x", count: 200_000)
            try publisher.publish("", large, qos: .atLeastOnce) { $0.topicAlias = 1 }
            let publish = try subscriber.receivePublish()
            #expect(publish.topicString == "a/3" && publish.payload.readableBytes == 200_000)
            #expect(try await broker.unreachable() == [])
            // Aliases end with their connection.
            let next = try TestClient(port: broker.port, version: .v5_0)
            try next.connect("publisher")
            try next.publish("", "x", qos: .atMostOnce) { $0.topicAlias = 1 }
            try next.expectDisconnect(.protocolError)
        }
    }

    @Test(
        "a client that offers aliases gets them, up to its maximum; others get none [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-11]"
    )
    func outgoingAliases() async throws {
        try await withBroker { broker in
            let (publisher, subscriber) = try Self.pair(broker) { $0.topicAliasMaximum = 2 }
            try subscriber.subscribe(("long/topic/#", .atLeastOnce))
            var topics: [UInt16: String] = [:]
            for round in 0..<3 {
                for name in ["one", "two", "three"] {
                    try publisher.publish("long/topic/\(name)", "\(round)", qos: .atLeastOnce)
                    let publish = try subscriber.receivePublish()
                    try subscriber.send(.puback(Ack(packetID: publish.packetID)))
                    let alias = publish.properties?.topicAlias
                    if let alias, publish.topic != nil { topics[alias] = publish.topicString }
                    let topic = publish.topic != nil ? publish.topicString : topics[try #require(alias)]
                    #expect(topic == "long/topic/\(name)")
                    #expect((publish.topic == nil) == (round > 0 && name != "three"))
                    #expect((alias == nil) == (name == "three"))
                }
            }
            #expect(Set(topics.keys) == [1, 2])
            #expect(try await broker.unreachable() == [])
        }
    }

    @Test("many topics have each its alias")
    func manyAliases() async throws {
        let count = 100
        try await withBroker({ $0.limits.maxTopicAliases = count }) { broker in
            let (publisher, subscriber) = try Self.pair(broker) { $0.topicAliasMaximum = UInt16(count) }
            try subscriber.subscribe(("long/topic/#", .atMostOnce))
            var topics: [UInt16: String] = [:]
            for round in 0..<2 {
                for index in 0..<count {
                    try publisher.publish("long/topic/\(index)", "\(round)", qos: .atLeastOnce)
                    let publish = try subscriber.receivePublish()
                    let alias = try #require(publish.properties?.topicAlias)
                    if publish.topic != nil { topics[alias] = publish.topicString }
                    #expect((publish.topic == nil) == (round > 0))
                    #expect(topics[alias] == "long/topic/\(index)")
                }
            }
            #expect(topics.count == count)
        }
    }

    @Test("what expires in a queue is not delivered, what is left has less time [MQTT-3.3.2-5] [MQTT-3.3.2-6]")
    func expiry() async throws {
        try await withBroker { broker in
            let (publisher, away) = try Self.pair(broker) { $0.sessionExpiryInterval = 1_000 }
            try away.subscribe(("t", .atLeastOnce))
            try away.disconnect()
            try publisher.publish("t", "short", qos: .atLeastOnce) { $0.messageExpiryInterval = 1 }
            try publisher.publish("t", "long", qos: .atLeastOnce) { $0.messageExpiryInterval = 1_000 }
            try publisher.publish("t", "for ever", qos: .atLeastOnce)
            try publisher.publish("r", "short", qos: .atLeastOnce, retain: true) { $0.messageExpiryInterval = 1 }
            try publisher.publish("r2", "long", qos: .atLeastOnce, retain: true) { $0.messageExpiryInterval = 1_000 }
            #expect(try await broker.unreachable() == [])
            // The queue and the retained store let go by themselves.
            try await broker.poll {
                broker.counters.messagesExpired.value == 1 && broker.context.retained.count == 1
            }
            let again = try TestClient(port: broker.port, version: .v5_0)
            try again.connect("subscriber", clean: false)
            let long = try again.receivePublish()
            #expect(long.text == "long")
            #expect((1..<1_000).contains(try #require(long.properties?.messageExpiryInterval)))
            #expect(try again.receivePublish().text == "for ever")
            try again.subscribe(("r", .atMostOnce), ("r2", .atMostOnce))
            let retained = try again.receivePublish()
            #expect(retained.text == "long")
            #expect((1..<1_000).contains(try #require(retained.properties?.messageExpiryInterval)))
            try again.subscribe(("now", .atMostOnce))
            try publisher.publish("now", "too late", qos: .atLeastOnce) { $0.messageExpiryInterval = 0 }
            try again.ping()
        }
    }

    @Test("acknowledgements say what became of the message; 3.1.1's cannot")
    func reasonCodes() async throws {
        try await withBroker({ $0.limits.maxRetainedMessages = 1 }) { broker in
            let (publisher, subscriber) = try Self.pair(broker)
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                #expect(try publisher.publish("nobody", qos: qos) { _ in } == .noMatchingSubscribers)
            }
            try subscriber.subscribe(("somebody", .atMostOnce))
            #expect(try publisher.publish("somebody", qos: .atLeastOnce) { _ in } == .success)
            #expect(try publisher.publish("somebody", "1", qos: .atLeastOnce, retain: true) { _ in } == .success)
            // What cannot be kept is not acknowledged as if it were, and goes nowhere.
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                #expect(try publisher.publish("full", "2", qos: qos, retain: true) { _ in } == .quotaExceeded)
                #expect(try publisher.publish("$SYS/broker/uptime", "3", qos: qos) { _ in } == .notAuthorized)
            }
            // The identifier of a refused QoS 2 message is free again [MQTT-4.3.3-9].
            #expect(try publisher.publish("somebody", "4", qos: .exactlyOnce) { _ in } == .success)
            for text in ["", "1", "4"] { #expect(try subscriber.receivePublish().text == text) }

            let packetID = publisher.takePacketID()
            try publisher.send(.publish(Publish(topic: "somebody", qos: .exactlyOnce, packetID: packetID)))
            try publisher.expect(.pubrec(Ack(packetID: packetID)))
            try publisher.send(.publish(Publish(topic: "somebody", qos: .atLeastOnce, packetID: packetID)))
            try publisher.expect(.puback(Ack(packetID: packetID, code: .packetIdentifierInUse)))
            try publisher.send(.pubrel(Ack(packetID: 999)))
            try publisher.expect(.pubcomp(Ack(packetID: 999, code: .packetIdentifierNotFound)))
            try publisher.send(.pubrec(Ack(packetID: 999)))
            try publisher.expect(.pubrel(Ack(packetID: 999, code: .packetIdentifierNotFound)))

            let old = try TestClient(port: broker.port)
            try old.connect("old")
            try old.publish("nobody", qos: .atLeastOnce)
            try old.publish("$SYS/broker/uptime", "3", qos: .exactlyOnce)
        }
    }

    @Test(
        "a refusal by the subscriber ends the delivery: no PUBREL, no repetition [MQTT-4.3.3-4] [MQTT-4.4.0-2]")
    func refusedBySubscriber() async throws {
        try await withBroker { broker in
            let (publisher, subscriber) = try Self.pair(broker) { $0.sessionExpiryInterval = 1_000 }
            try subscriber.subscribe(("t", .exactlyOnce))
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                try publisher.publish("t", "\(qos)", qos: qos)
                let publish = try subscriber.receivePublish()
                let ack = Ack(packetID: publish.packetID, code: .payloadFormatInvalid)
                try subscriber.send(qos == .atLeastOnce ? .puback(ack) : .pubrec(ack))
                try subscriber.ping()
            }
            subscriber.vanish()
            let again = try TestClient(port: broker.port, version: .v5_0)
            #expect(try again.connect("subscriber", clean: false).sessionPresent)
            try again.ping()
        }
    }

    @Test("a back end asks by response topic and correlation data, and gets its answer (section 4.10)")
    func requestResponse() async throws {
        try await withBroker(threads: 2) { broker in
            let (requester, responder) = try Self.pair(broker)
            try responder.subscribe(("do/it", .atLeastOnce))
            try requester.subscribe(("answers/me", .atLeastOnce))
            for number in UInt8(0)..<20 {
                try requester.publish("do/it", "please", qos: .atLeastOnce) {
                    $0.responseTopic = try? TopicName("answers/me")
                    $0.correlationData = ByteBuffer(bytes: [number])
                }
                let request = try responder.receivePublish()
                try responder.send(.puback(Ack(packetID: request.packetID)))
                try responder.publish(try #require(request.properties?.responseTopic).text, "done", qos: .atLeastOnce) {
                    $0.correlationData = request.properties?.correlationData
                }
                let answer = try requester.receivePublish()
                try requester.send(.puback(Ack(packetID: answer.packetID)))
                #expect(answer.properties?.correlationData == ByteBuffer(bytes: [number]))
            }
        }
    }
}

@Suite("5.0: how much a client takes", .mayBlock, .serialized)
struct FlowControl5Tests {
    // [MQTT-4.3.2-3]
    @Test(
        "no more unacknowledged messages than the receive maximum, whatever else goes on [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]"
    )
    func receiveMaximum() async throws {
        try await withBroker { broker in
            let (publisher, subscriber) = try Publish5Tests.pair(broker) { $0.receiveMaximum = 2 }
            try subscriber.subscribe(("t", .exactlyOnce))
            for number in 0..<6 {
                try publisher.publish("t", "\(number)", qos: number % 2 == 0 ? .exactlyOnce : .atLeastOnce)
            }
            try publisher.publish("t", "at most once", qos: .atMostOnce)
            var open = [try subscriber.receivePublish(), try subscriber.receivePublish()]
            #expect(try subscriber.receivePublish().text == "at most once")
            for number in 0..<6 {
                try subscriber.ping()
                let publish = open.removeFirst()
                #expect(publish.text == "\(number)")
                if publish.qos == .atLeastOnce {
                    try subscriber.send(.puback(Ack(packetID: publish.packetID)))
                } else {
                    try subscriber.send(.pubrec(Ack(packetID: publish.packetID)))
                    try subscriber.expect(.pubrel(Ack(packetID: publish.packetID)))
                    try subscriber.ping()
                    try subscriber.send(.pubcomp(Ack(packetID: publish.packetID)))
                }
                if number < 4 { open.append(try subscriber.receivePublish()) }
            }
            try subscriber.ping()
        }
    }

    @Test(
        "a client that comes back with a smaller receive maximum gets its messages again in portions, in order [MQTT-4.4.0-1] [MQTT-3.3.1-1]"
    )
    func smallerAfterwards() async throws {
        try await withBroker { broker in
            let (publisher, subscriber) = try Publish5Tests.pair(broker) { $0.sessionExpiryInterval = 1_000 }
            try subscriber.subscribe(("t", .atLeastOnce))
            for number in 0..<6 { try publisher.publish("t", "\(number)", qos: .atLeastOnce) }
            for number in 0..<6 { #expect(try subscriber.receivePublish().text == "\(number)") }
            subscriber.vanish()
            let again = try TestClient(port: broker.port, version: .v5_0)
            try again.connect("subscriber", clean: false) {
                $0.receiveMaximum = 2
                $0.sessionExpiryInterval = 1_000
            }
            try publisher.publish("t", "6", qos: .atLeastOnce)
            var open = [try again.receivePublish(), try again.receivePublish()]
            for number in 0..<7 {
                try again.ping()
                let publish = open.removeFirst()
                #expect(publish.text == "\(number)" && publish.dup == (number < 6))
                try again.send(.puback(Ack(packetID: publish.packetID)))
                if number < 5 { open.append(try again.receivePublish()) }
            }
            try again.ping()
        }
    }

    @Test(
        "a packet of the client's maximum size is sent, a larger one counts as delivered [MQTT-3.1.2-24] [MQTT-3.1.2-25]",
        arguments: QoS.allCases)
    func packetSize(qos: QoS) async throws {
        try await withBroker { broker in
            let (publisher, subscriber) = try Publish5Tests.pair(broker) {
                $0.maximumPacketSize = 100
                $0.receiveMaximum = 1
            }
            // Another one, so that the packets are shared.
            let witness = try TestClient(port: broker.port, version: .v5_0)
            try witness.connect("witness")
            try witness.subscribe(("t", .atMostOnce))
            try subscriber.subscribe(("t", qos))
            let overhead = qos == .atMostOnce ? 6 : 8
            for length in [101 - overhead, 100 - overhead, 5_000, 1] {
                try publisher.publish("t", String(repeating: "x", count: length), qos: qos)
                #expect(try witness.receivePublish().payload.readableBytes == length)
                guard length <= 100 - overhead else { continue }
                let publish = try subscriber.receivePublish()
                #expect(publish.payload.readableBytes == length && publish.qos == qos)
                try subscriber.acknowledge(publish)
            }
            #expect(broker.counters.messagesTooLarge.value == 2)
        }
    }
}
