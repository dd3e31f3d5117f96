import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("5.0: CONNECT and CONNACK", .mayBlock, .serialized)
struct Connect5Tests {
    @Test(
        "CONNACK says only what differs from the defaults and from what was asked for [MQTT-3.1.4-5] [MQTT-3.2.2-2] [MQTT-3.2.2-22] [MQTT-2.2.2-1]"
    )
    func defaults() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            var expected = ConnAckProperties()
            expected.receiveMaximum = 4_096
            expected.maximumPacketSize = 1 << 20
            expected.topicAliasMaximum = 16
            let ack = try client.connect("client", keepAlive: 60) { $0.sessionExpiryInterval = 100 }
            #expect(ack == ConnAck(sessionPresent: false, code: .success, properties: expected))
        }
        try await withBroker({
            $0.limits.maxIncomingQoS2 = 65_535
            $0.limits.maxPacketBytes = 268_435_460
            $0.limits.maxTopicAliases = 0
        }) { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            #expect(try client.connect("client").properties == ConnAckProperties())
            try client.ping()
        }
    }

    @Test(
        "an empty client identifier gets one that is unique and is told, with and without Clean Start [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16]"
    )
    func assignedIdentifier() async throws {
        try await withBroker { broker in
            var names: Set<String> = []
            for clean in [true, false] {
                let client = try TestClient(port: broker.port, version: .v5_0)
                let ack = try client.connect("", clean: clean)
                let name = try #require(ack.properties.assignedClientIdentifier)
                #expect(broker.owningShard(of: name) == 0)
                names.insert(name)
                try client.disconnect()
            }
            #expect(names.count == 2)
        }
    }

    @Test("a keep alive beyond the limit, or none, is replaced, told and enforced [MQTT-3.1.2-22]")
    func serverKeepAlive() async throws {
        try await withBroker({ $0.limits.maxKeepAliveSeconds = 1 }) { broker in
            let none = try TestClient(port: broker.port, version: .v5_0)
            #expect(try none.connect("none", keepAlive: 0).properties.serverKeepAlive == 1)
            let asked = try TestClient(port: broker.port, version: .v5_0)
            #expect(try asked.connect("asked", keepAlive: 1).properties.serverKeepAlive == nil)
            let silent = try TestClient(port: broker.port, version: .v5_0)
            #expect(try silent.connect("silent", keepAlive: 600).properties.serverKeepAlive == 1)
            try await broker.awaitNoConnections()
            try silent.expectDisconnect(.keepAliveTimeout)
            try asked.expectDisconnect(.keepAliveTimeout)
            try none.expectDisconnect(.keepAliveTimeout)
        }
    }

    /// The first packet of a client, and the code it is refused with.
    static let refused: [(name: String, bytes: [UInt8], code: ReasonCode)] = [
        ("reserved connect flag [MQTT-3.1.2-3]", connect(flags: 0x03), .malformedPacket),
        ("will QoS without a will [MQTT-3.1.2-11]", connect(flags: 0x0A), .malformedPacket),
        ("will QoS 3 [MQTT-3.1.2-12]", connect(flags: 0x1E), .malformedPacket),
        ("will retain without a will [MQTT-3.1.2-13]", connect(flags: 0x22), .malformedPacket),
        ("a will that is not there [MQTT-3.1.2-9]", connect(flags: 0x06), .malformedPacket),
        ("a user name that is not there [MQTT-3.1.2-17]", connect(flags: 0x82), .malformedPacket),
        ("a password that is not there [MQTT-3.1.2-19]", connect(flags: 0x42), .malformedPacket),
        (
            "a user name without its flag [MQTT-3.1.2-16] [MQTT-3.1.2-18]", connect(flags: 0x02, tail: [0, 1, 0x78]),
            .malformedPacket
        ),
        (
            "an ill-formed client identifier [MQTT-3.1.3-4] [MQTT-1.5.4-1]", connect(flags: 2, id: [0xC3, 0x28]),
            .malformedPacket
        ),
        ("U+0000 in the client identifier [MQTT-1.5.4-2]", connect(flags: 2, id: [0x61, 0]), .malformedPacket),
        (
            "an ill-formed user name [MQTT-3.1.3-12]", connect(flags: 0x82, tail: [0, 2, 0xC3, 0x28]), .malformedPacket
        ),
        (
            "an ill-formed will topic [MQTT-3.1.3-11]",
            connect(flags: 0x06, tail: [0, 0, 2, 0xC3, 0x28, 0, 0]), .malformedPacket
        ),
        ("receive maximum 0", connect(flags: 2, properties: [0x21, 0, 0]), .protocolError),
        ("maximum packet size 0", connect(flags: 2, properties: [0x27, 0, 0, 0, 0]), .protocolError),
        ("a property twice", connect(flags: 2, properties: [0x22, 0, 1, 0x22, 0, 1]), .protocolError),
        ("a property of another packet", connect(flags: 2, properties: [0x23, 0, 1]), .protocolError),
        ("an unknown property", connect(flags: 2, properties: [0x7F, 0]), .malformedPacket),
        ("authentication data without a method", connect(flags: 2, properties: [0x16, 0, 1, 1]), .protocolError),
        (
            "a method nobody knows [MQTT-4.12.0-1]", connect(flags: 2, properties: [0x15, 0, 1, 0x78]),
            .badAuthenticationMethod
        ),
    ]

    private static func connect(
        flags: UInt8, properties: [UInt8] = [], id: [UInt8] = [0x78], tail: [UInt8] = []
    ) -> [UInt8] {
        let body: [UInt8] =
            [0, 4, 0x4D, 0x51, 0x54, 0x54, 5, flags, 0, 0, UInt8(properties.count)] + properties
            + [0, UInt8(id.count)] + id + tail
        return [0x10, UInt8(body.count)] + body
    }

    @Test(
        "a CONNECT that is not in order gets CONNACK with the exact reason, and the connection is closed [MQTT-3.1.4-1] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT-3.2.2-6] [MQTT-4.13.1-1]",
        arguments: refused)
    func isRefused(name: String, bytes: [UInt8], code: ReasonCode) async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.send(bytes: bytes)
            guard case .connack(let ack)? = try client.receive() else {
                Issue.record("no CONNACK for \(name)")
                return
            }
            #expect(ack.code == code && !ack.sessionPresent)
            #expect(ack.properties.reasonString?.isEmpty == false)
            try client.expectClosed()
        }
    }

    @Test("a second CONNECT is answered by DISCONNECT 0x82 [MQTT-3.1.0-2]")
    func secondConnect() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("client")
            try client.send(.connect(Connect(version: .v5_0, clientID: "client")))
            try client.expectDisconnect(.protocolError)
        }
    }

    @Test("who takes a client identifier over has the other told 0x8E [MQTT-3.1.4-3]", arguments: [1, 3])
    func takenOver(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            for _ in 1...6 {
                let first = try TestClient(port: broker.port, version: .v5_0)
                try first.connect("client")
                let second = try TestClient(port: broker.port, version: .v5_0)
                try second.connect("client")
                try first.expectDisconnect(.sessionTakenOver)
                try second.ping()
            }
        }
    }

    @Test("a shutdown is announced with 0x8B")
    func shutdown() async throws {
        var client: TestClient?
        try await withBroker { broker in
            client = try TestClient(port: broker.port, version: .v5_0)
            try client?.connect("client")
        }
        try client?.expectDisconnect(.serverShuttingDown)
    }

    // [MQTT-3.1.4-2]
    @Test("what cannot be kept is refused with 0x97")
    func quota() async throws {
        try await withBroker({ $0.limits.maxSessions = 0 }) { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            let ack = try client.connect("client") { $0.sessionExpiryInterval = 1 }
            #expect(ack.code == .quotaExceeded && ack.properties.reasonString?.contains("maxSessions") == true)
            try client.expectClosed()
        }
    }
}

/// Sent by a connected client. Each is answered by DISCONNECT with its reason, and costs nobody else anything.
@Suite("5.0: packets that are not in order", .mayBlock, .serialized)
struct Disconnect5Tests {
    static let wrong: [(name: String, bytes: [UInt8], code: ReasonCode)] = [
        ("reserved packet type 0", [0x00, 0x00], .malformedPacket),
        ("a remaining length of five bytes", [0x30, 0x80, 0x80, 0x80, 0x80, 0x01], .malformedPacket),
        ("QoS 3 [MQTT-3.3.1-4]", [0x36, 0x06, 0, 1, 0x61, 0, 1, 0], .malformedPacket),
        ("DUP with QoS 0 [MQTT-3.3.1-2]", [0x38, 0x04, 0, 1, 0x61, 0], .malformedPacket),
        ("a wildcard in a topic name [MQTT-3.3.2-2] [MQTT-4.7.0-1]", [0x30, 0x04, 0, 1, 0x23, 0], .topicNameInvalid),
        ("no topic and no alias [MQTT-4.7.3-1]", [0x30, 0x03, 0, 0, 0], .protocolError),
        ("an ill-formed topic [MQTT-3.3.2-1]", [0x30, 0x05, 0, 2, 0xC3, 0x28, 0], .malformedPacket),
        ("packet identifier 0 [MQTT-2.2.1-3]", [0x32, 0x06, 0, 1, 0x61, 0, 0, 0], .protocolError),
        ("topic alias 0 [MQTT-3.3.2-8]", [0x30, 0x07, 0, 1, 0x61, 3, 0x23, 0, 0], .topicAliasInvalid),
        ("topic alias 17 of 16 [MQTT-3.3.2-9]", [0x30, 0x07, 0, 1, 0x61, 3, 0x23, 0, 17], .topicAliasInvalid),
        ("an alias that stands for nothing", [0x30, 0x06, 0, 0, 3, 0x23, 0, 1], .protocolError),
        (
            "a subscription identifier from a client [MQTT-3.3.4-6]", [0x30, 0x06, 0, 1, 0x61, 2, 0x0B, 1],
            .protocolError
        ),
        (
            "a wildcard in the response topic [MQTT-3.3.2-14]", [0x30, 0x08, 0, 1, 0x61, 4, 0x08, 0, 1, 0x23],
            .topicNameInvalid
        ),
        (
            "an ill-formed response topic [MQTT-3.3.2-13]", [0x30, 0x09, 0, 1, 0x61, 5, 0x08, 0, 2, 0xC3, 0x28],
            .malformedPacket
        ),
        (
            "an ill-formed content type [MQTT-3.3.2-19]", [0x30, 0x09, 0, 1, 0x61, 5, 0x03, 0, 2, 0xC3, 0x28],
            .malformedPacket
        ),
        (
            "an ill-formed user property [MQTT-1.5.7-1]",
            [0x30, 0x0B, 0, 1, 0x61, 7, 0x26, 0, 2, 0xC3, 0x28, 0, 0], .malformedPacket
        ),
        ("payload format 2", [0x30, 0x06, 0, 1, 0x61, 2, 0x01, 2], .protocolError),
        ("a property of another packet", [0x30, 0x07, 0, 1, 0x61, 3, 0x21, 0, 1], .protocolError),
        ("a property twice", [0x30, 0x08, 0, 1, 0x61, 4, 0x01, 1, 0x01, 1], .protocolError),
        ("a property length in too many bytes [MQTT-1.5.5-1]", [0x30, 0x05, 0, 1, 0x61, 0x80, 0], .malformedPacket),
        (
            "wrong flags in SUBSCRIBE [MQTT-3.8.1-1] [MQTT-2.1.3-1]", [0x80, 0x07, 0, 1, 0, 0, 1, 0x61, 0],
            .malformedPacket
        ),
        ("SUBSCRIBE without filters [MQTT-3.8.3-2]", [0x82, 0x03, 0, 1, 0], .protocolError),
        (
            "an ill-formed filter [MQTT-3.8.3-1]", [0x82, 0x08, 0, 1, 0, 0, 2, 0xC3, 0x28, 0], .malformedPacket
        ),
        (
            "# in the middle [MQTT-4.7.1-1]", [0x82, 0x09, 0, 1, 0, 0, 3, 0x23, 0x2F, 0x61, 0], .topicFilterInvalid
        ),
        ("+ in a level [MQTT-4.7.1-2]", [0x82, 0x08, 0, 1, 0, 0, 2, 0x61, 0x2B, 0], .topicFilterInvalid),
        (
            "a share without a name [MQTT-4.8.2-1]",
            [0x82, 0x0F, 0, 1, 0, 0, 9] + Array("$share//a".utf8) + [0], .topicFilterInvalid
        ),
        (
            "a share with a wildcard in its name [MQTT-4.8.2-2]",
            [0x82, 0x10, 0, 1, 0, 0, 10] + Array("$share/+/a".utf8) + [0], .topicFilterInvalid
        ),
        (
            "No Local on a share [MQTT-3.8.3-4]", [0x82, 0x10, 0, 1, 0, 0, 10] + Array("$share/g/a".utf8) + [4],
            .protocolError
        ),
        ("reserved subscription options [MQTT-3.8.3-5]", [0x82, 0x07, 0, 1, 0, 0, 1, 0x61, 0x40], .malformedPacket),
        ("a subscription QoS of 3", [0x82, 0x07, 0, 1, 0, 0, 1, 0x61, 3], .malformedPacket),
        ("retain handling 3", [0x82, 0x07, 0, 1, 0, 0, 1, 0x61, 0x30], .protocolError),
        ("subscription identifier 0", [0x82, 0x09, 0, 1, 2, 0x0B, 0, 0, 1, 0x61, 0], .protocolError),
        ("wrong flags in UNSUBSCRIBE [MQTT-3.10.1-1]", [0xA0, 0x06, 0, 1, 0, 0, 1, 0x61], .malformedPacket),
        ("UNSUBSCRIBE without filters [MQTT-3.10.3-2]", [0xA2, 0x03, 0, 1, 0], .protocolError),
        ("an ill-formed filter [MQTT-3.10.3-1]", [0xA2, 0x07, 0, 1, 0, 0, 2, 0xC3, 0x28], .malformedPacket),
        ("wrong flags in PUBREL [MQTT-3.6.1-1]", [0x60, 0x02, 0, 1], .malformedPacket),
        ("an unknown code in PUBACK [MQTT-3.4.2-1]", [0x40, 0x03, 0, 1, 0x7F], .protocolError),
        ("an unknown code in PUBREC [MQTT-3.5.2-1]", [0x50, 0x03, 0, 1, 0x7F], .protocolError),
        ("an unknown code in PUBREL [MQTT-3.6.2-1]", [0x62, 0x03, 0, 1, 0x80], .protocolError),
        ("an unknown code in PUBCOMP [MQTT-3.7.2-1]", [0x70, 0x03, 0, 1, 0x80], .protocolError),
        ("PINGREQ with a body", [0xC0, 0x01, 0], .malformedPacket),
        ("wrong flags in DISCONNECT [MQTT-3.14.1-1]", [0xE1, 0x00], .malformedPacket),
        ("an unknown code in DISCONNECT [MQTT-3.14.2-1]", [0xE0, 0x01, 0x7F], .protocolError),
        ("wrong flags in AUTH [MQTT-3.15.1-1]", [0xF1, 0x00], .malformedPacket),
        ("AUTH without a method in CONNECT [MQTT-4.12.0-7]", [0xF0, 0x06, 0x18, 4, 0x15, 0, 1, 0x78], .protocolError),
        ("CONNACK from a client", [0x20, 0x03, 0, 0, 0], .protocolError),
        ("SUBACK from a client", [0x90, 0x04, 0, 1, 0, 0], .protocolError),
        ("a packet over the limit [MQTT-3.2.2-15]", [0x30, 0xFF, 0xFF, 0xFF, 0x7F], .packetTooLarge),
    ]

    // [MQTT-3.14.4-1] [MQTT-3.2.2-17]
    @Test(
        "is answered by DISCONNECT with its reason, then closed [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.4-2]",
        arguments: wrong)
    func isAnswered(name: String, bytes: [UInt8], code: ReasonCode) async throws {
        try await withBroker { broker in
            let witness = try TestClient(port: broker.port, version: .v5_0)
            try witness.connect("witness")
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("client")
            try client.send(bytes: bytes)
            guard case .disconnect(let disconnect)? = try client.receive() else {
                Issue.record("no DISCONNECT for \(name)")
                return
            }
            #expect(disconnect.code == code)
            #expect(disconnect.properties.reasonString?.isEmpty == false)
            #expect(disconnect.properties.sessionExpiryInterval == nil, "[MQTT-3.14.2-2]")
            try client.expectClosed()
            try witness.ping()
        }
    }

    @Test("more QoS 2 messages than the receive maximum are answered by 0x93 [MQTT-3.3.4-7]")
    func receiveMaximum() async throws {
        try await withBroker({ $0.limits.maxIncomingQoS2 = 2 }) { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            #expect(try client.connect("client").properties.receiveMaximum == 2)
            for packetID in UInt16(1)...2 {
                try client.send(.publish(Publish(topic: "t", qos: .exactlyOnce, packetID: packetID)))
                try client.expect(.pubrec(Ack(packetID: packetID, code: .noMatchingSubscribers)))
            }
            // One that is there already is not one more, and QoS 1 is complete at once.
            try client.send(.publish(Publish(topic: "t", qos: .exactlyOnce, dup: true, packetID: 1)))
            try client.expect(.pubrec(Ack(packetID: 1)))
            try client.send(.publish(Publish(topic: "t", qos: .atLeastOnce, packetID: 4)))
            try client.expect(.puback(Ack(packetID: 4, code: .noMatchingSubscribers)))
            try client.send(.publish(Publish(topic: "t", qos: .exactlyOnce, packetID: 3)))
            try client.expectDisconnect(.receiveMaximumExceeded)
        }
    }

    @Test("a reason that does not fit the client's maximum packet size is left out [MQTT-3.14.2-3] [MQTT-3.2.2-19]")
    func tightReason() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("client") { $0.maximumPacketSize = 24 }
            try client.send(bytes: [0x30, 0x03, 0, 0, 0])
            try client.expect(.disconnect(Disconnect(code: .protocolError)))
            try client.expectClosed()
            // Nor is a CONNACK sent that does not fit at all: without one there is nothing to wait for.
            let tiny = try TestClient(port: broker.port, version: .v5_0)
            var connect = Connect(version: .v5_0, clientID: "tiny")
            connect.properties.maximumPacketSize = 5
            try tiny.send(.connect(connect))
            try tiny.expectClosed()
        }
    }
}
