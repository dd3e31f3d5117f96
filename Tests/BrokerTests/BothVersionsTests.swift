import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("What both versions ask for", .mayBlock, .serialized)
struct BothVersionsTests {
    private static func client(_ broker: Broker, _ name: String, _ version: ProtocolVersion) throws -> TestClient {
        let client = try TestClient(port: broker.port, version: version)
        #expect(try client.connect(name).code == .success)
        return client
    }

    // [MQTT-1.5.4-3] [MQTT-3.1.3-5] [3.1.1: MQTT-1.5.3-3] [3.1.1: MQTT-3.1.3-5]
    @Test(
        "U+FEFF is kept as any character, and 23 letters and digits are a client identifier",
        arguments: ProtocolVersion.allCases)
    func text(version: ProtocolVersion) async throws {
        try await withBroker { broker in
            let letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
            for start in [0, 23, 39] {
                let name = String(letters.dropFirst(start).prefix(23))
                let client = try Self.client(broker, name, version)
                #expect(broker.context.registry.find(name) != nil)
                let topic = "\u{FEFF}\(name)\u{FEFF}"
                try client.subscribe((topic, .atMostOnce), (name, .atMostOnce))
                try client.publish(topic, "x", qos: .atMostOnce)
                let publish = try client.receivePublish()
                #expect(Array(publish.topicString.utf8) == Array(topic.utf8))
                try client.ping()
            }
        }
    }

    // [MQTT-3.3.1-3] [MQTT-4.3.2-5] [3.1.1: MQTT-3.3.1-3] [3.1.1: MQTT-4.3.2-2]
    @Test(
        "DUP is not passed on; after PUBACK an identifier is a new message's, whatever its DUP says",
        arguments: ProtocolVersion.allCases)
    func dup(version: ProtocolVersion) async throws {
        try await withBroker { broker in
            let subscriber = try Self.client(broker, "subscriber", version)
            try subscriber.subscribe(("t", .atLeastOnce))
            let publisher = try Self.client(broker, "publisher", version)
            for text in ["1", "2"] {
                try publisher.send(
                    .publish(Publish(topic: "t", payload: text, qos: .atLeastOnce, dup: true, packetID: 7)))
                try publisher.expect(.puback(Ack(packetID: 7)))
                let publish = try subscriber.receivePublish()
                #expect(publish.text == text && !publish.dup)
                try subscriber.send(.puback(Ack(packetID: publish.packetID)))
            }
        }
    }

    // [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-4.6.0-4] [MQTT-2.2.1-5]
    // [3.1.1: MQTT-4.6.0-2] [3.1.1: MQTT-4.6.0-3] [3.1.1: MQTT-4.6.0-4] [3.1.1: MQTT-2.3.1-6]
    @Test(
        "acknowledgements come in the order of what they acknowledge, with its identifiers",
        arguments: ProtocolVersion.allCases)
    func order(version: ProtocolVersion) async throws {
        try await withBroker { broker in
            let subscriber = try Self.client(broker, "subscriber", version)
            try subscriber.subscribe(("t", .exactlyOnce))
            let publisher = try Self.client(broker, "publisher", version)
            let identifiers: [UInt16] = [9, 3, 7, 1, 65_535, 4]
            func qos(_ identifier: UInt16) -> QoS { identifier % 3 == 0 ? .atLeastOnce : .exactlyOnce }
            for identifier in identifiers {
                try publisher.send(.publish(Publish(topic: "t", qos: qos(identifier), packetID: identifier)))
            }
            for identifier in identifiers {
                let ack = Ack(packetID: identifier)
                try publisher.expect(qos(identifier) == .atLeastOnce ? .puback(ack) : .pubrec(ack))
            }
            let exactlyOnce = identifiers.filter { qos($0) == .exactlyOnce }
            for identifier in exactlyOnce { try publisher.send(.pubrel(Ack(packetID: identifier))) }
            for identifier in exactlyOnce { try publisher.expect(.pubcomp(Ack(packetID: identifier))) }
            var sent: [UInt16] = []
            for _ in identifiers {
                let publish = try subscriber.receivePublish()
                if publish.qos == .exactlyOnce { sent.append(publish.packetID) }
            }
            for identifier in sent { try subscriber.send(.pubrec(Ack(packetID: identifier))) }
            for identifier in sent { try subscriber.expect(.pubrel(Ack(packetID: identifier))) }
        }
    }

    // [MQTT-3.12.4-1] [MQTT-3.2.0-2] [3.1.1: MQTT-3.12.4-1] [3.1.1: MQTT-3.2.0-1] [3.1.1: MQTT-3.1.4-4]
    @Test("CONNACK comes once and first, then a PINGRESP for each PINGREQ", arguments: ProtocolVersion.allCases)
    func pings(version: ProtocolVersion) async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port, version: version)
            try client.send(.connect(Connect(version: version, clientID: "client")), .pingreq, .pingreq, .pingreq)
            guard case .connack? = try client.receive() else {
                Issue.record("expected CONNACK")
                return
            }
            for _ in 1...3 { try client.expect(.pingresp) }
        }
    }

    // [MQTT-3.3.1-5] [3.1.1: MQTT-3.3.1-7] [3.1.1: MQTT-3.3.1-12] [3.1.1: MQTT-3.1.2-7]
    @Test(
        "a retained message of QoS 0 replaces the one there is, one without RETAIN does not; they outlive sessions",
        arguments: ProtocolVersion.allCases)
    func retained(version: ProtocolVersion) async throws {
        try await withBroker { broker in
            let publisher = try Self.client(broker, "publisher", version)
            try publisher.publish("t", "first", qos: .atLeastOnce, retain: true)
            try publisher.publish("t", "second", qos: .atMostOnce, retain: true)
            try publisher.publish("t", "third", qos: .atLeastOnce)
            try publisher.disconnect()
            let subscriber = try Self.client(broker, "subscriber", version)
            try subscriber.subscribe(("t", .exactlyOnce))
            let publish = try subscriber.receivePublish()
            #expect(publish.text == "second" && publish.qos == .atMostOnce && publish.retain)
            try subscriber.ping()
        }
    }

    @Test("the exchange of QoS 2 is completed for a message that has expired [MQTT-4.3.3-13]")
    func expired() async throws {
        try await withBroker { broker in
            let subscriber = try Self.client(broker, "subscriber", .v5_0)
            try subscriber.subscribe(("t", .exactlyOnce))
            let publisher = try Self.client(broker, "publisher", .v5_0)
            #expect(try publisher.publish("t", qos: .exactlyOnce) { $0.messageExpiryInterval = 0 } == .success)
            try subscriber.ping()
        }
    }
}

/// In 3.1.1 a CONNECT that is not in order has no answer: the connection is closed.
@Suite("3.1.1: CONNECT", .mayBlock, .serialized)
struct Connect311Tests {
    static let malformed: [(name: String, bytes: [UInt8])] = [
        ("reserved connect flag [3.1.1: MQTT-3.1.2-3]", connect(flags: 0x03)),
        ("will QoS without a will [3.1.1: MQTT-3.1.2-13] [3.1.1: MQTT-3.1.2-11]", connect(flags: 0x0A)),
        ("will QoS 3 [3.1.1: MQTT-3.1.2-14]", connect(flags: 0x1E, tail: [0, 1, 0x77, 0, 0])),
        ("will retain without a will [3.1.1: MQTT-3.1.2-15]", connect(flags: 0x22)),
        ("a will that is not there [3.1.1: MQTT-3.1.2-9]", connect(flags: 0x06)),
        ("a user name that is not there [3.1.1: MQTT-3.1.2-19]", connect(flags: 0x82)),
        ("a user name without its flag [3.1.1: MQTT-3.1.2-18]", connect(flags: 0x02, tail: [0, 1, 0x78])),
        ("a password that is not there [3.1.1: MQTT-3.1.2-21]", connect(flags: 0xC2, tail: [0, 1, 0x78])),
        (
            "a password without its flag [3.1.1: MQTT-3.1.2-20]",
            connect(flags: 0x82, tail: [0, 1, 0x78, 0, 1, 0x78])
        ),
        ("a password without a user name [3.1.1: MQTT-3.1.2-22]", connect(flags: 0x42, tail: [0, 1, 0x78])),
        ("no client identifier [3.1.1: MQTT-3.1.3-3]", [0x10, 0x0A, 0, 4, 0x4D, 0x51, 0x54, 0x54, 4, 2, 0, 0]),
        (
            "an ill-formed client identifier [3.1.1: MQTT-3.1.3-4] [3.1.1: MQTT-1.5.3-1]",
            connect(flags: 2, id: [0xC3, 0x28])
        ),
        ("U+0000 in the client identifier [3.1.1: MQTT-1.5.3-2]", connect(flags: 2, id: [0x61, 0])),
        (
            "an ill-formed will topic [3.1.1: MQTT-3.1.3-10]", connect(flags: 0x06, tail: [0, 2, 0xC3, 0x28, 0, 0])
        ),
        ("an ill-formed user name [3.1.1: MQTT-3.1.3-11]", connect(flags: 0x82, tail: [0, 2, 0xC3, 0x28])),
    ]

    private static func connect(flags: UInt8, id: [UInt8] = [0x78], tail: [UInt8] = []) -> [UInt8] {
        let body: [UInt8] = [0, 4, 0x4D, 0x51, 0x54, 0x54, 4, flags, 0, 0, 0, UInt8(id.count)] + id + tail
        return [0x10, UInt8(body.count)] + body
    }

    // [3.1.1: MQTT-2.3.1-7] [3.1.1: MQTT-3.8.4-1] [3.1.1: MQTT-3.8.4-2] [3.1.1: MQTT-3.10.4-3] [3.1.1: MQTT-3.10.4-5]
    // [3.1.1: MQTT-3.10.4-6]
    @Test("SUBACK and UNSUBACK answer, with their identifiers; what is under way is completed")
    func subscriptions() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            let filters = [Subscription(filter: "a", qos: .exactlyOnce), Subscription(filter: "b", qos: .atLeastOnce)]
            try client.send(.subscribe(Subscribe(packetID: 700, filters: filters)))
            try client.expect(.suback(SubAck(packetID: 700, codes: [.grantedQoS2, .grantedQoS1])))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try publisher.publish("a", "under way", qos: .exactlyOnce)
            let publish = try client.receivePublish()
            try client.send(.unsubscribe(Unsubscribe(packetID: 701, filters: ["a", "never", "b"])))
            try client.expect(.unsuback(UnsubAck(packetID: 701)))
            try client.send(.unsubscribe(Unsubscribe(packetID: 702, filters: ["a"])))
            try client.expect(.unsuback(UnsubAck(packetID: 702)))
            for topic in ["a", "b"] { try publisher.publish(topic, "no longer", qos: .atLeastOnce) }
            try client.send(.pubrec(Ack(packetID: publish.packetID)))
            try client.expect(.pubrel(Ack(packetID: publish.packetID)))
            try client.send(.pubcomp(Ack(packetID: publish.packetID)))
            try client.ping()
        }
    }

    // [3.1.1: MQTT-3.1.4-1] [3.1.1: MQTT-3.2.2-6] [3.1.1: MQTT-4.8.0-1]
    @Test("one that is not in order closes the connection without a word", arguments: malformed)
    func isClosed(name: String, bytes: [UInt8]) async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.send(bytes: bytes + [0xC0, 0x00])
            try client.expectClosed()
            #expect(broker.context.registry.count == 0)
        }
    }
}
