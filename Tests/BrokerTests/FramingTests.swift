import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Framing and malformed packets", .mayBlock, .serialized)
struct FramingTests {
    /// Sent after a proper CONNECT. Each must cost its sender the connection, and nobody else anything.
    static let malformed: [(name: String, bytes: [UInt8])] = [
        ("reserved packet type 0", [0x00, 0x00]),
        ("AUTH is not 3.1.1", [0xF0, 0x00]),
        ("a remaining length of five bytes", [0x30, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("QoS 3 [3.1.1: MQTT-3.3.1-4]", [0x36, 0x05, 0x00, 0x01, 0x61, 0x00, 0x01]),
        ("DUP with QoS 0 [3.1.1: MQTT-3.3.1-2]", [0x38, 0x03, 0x00, 0x01, 0x61]),
        ("a wildcard in a topic name [3.1.1: MQTT-3.3.2-2] [3.1.1: MQTT-4.7.1-1]", [0x30, 0x03, 0x00, 0x01, 0x23]),
        ("an empty topic name [3.1.1: MQTT-4.7.3-1]", [0x30, 0x02, 0x00, 0x00]),
        ("a topic longer than the packet", [0x30, 0x03, 0x00, 0x09, 0x61]),
        ("invalid UTF-8 in a topic [3.1.1: MQTT-3.3.2-1]", [0x30, 0x04, 0x00, 0x02, 0xC3, 0x28]),
        ("U+0000 in a topic [3.1.1: MQTT-4.7.3-2]", [0x30, 0x04, 0x00, 0x02, 0x61, 0x00]),
        ("packet identifier 0 [3.1.1: MQTT-2.3.1-1]", [0x32, 0x05, 0x00, 0x01, 0x61, 0x00, 0x00]),
        (
            "wrong flags in SUBSCRIBE [3.1.1: MQTT-3.8.1-1] [3.1.1: MQTT-2.2.2-2] [3.1.1: MQTT-2.2.2-1]",
            [0x80, 0x06, 0x00, 0x01, 0x00, 0x01, 0x61, 0x00]
        ),
        ("SUBSCRIBE without filters [3.1.1: MQTT-3.8.3-3]", [0x82, 0x02, 0x00, 0x01]),
        (
            "a filter with # in the middle [3.1.1: MQTT-4.7.1-2]",
            [0x82, 0x08, 0x00, 0x01, 0x00, 0x03, 0x23, 0x2F, 0x61, 0x00]
        ),
        ("a subscription QoS of 3 [3.1.1: MQTT-3-8.3-4]", [0x82, 0x06, 0x00, 0x01, 0x00, 0x01, 0x61, 0x03]),
        ("UNSUBSCRIBE without filters [3.1.1: MQTT-3.10.3-2]", [0xA2, 0x02, 0x00, 0x01]),
        ("wrong flags in PUBREL [3.1.1: MQTT-3.6.1-1]", [0x60, 0x02, 0x00, 0x01]),
        ("PUBACK of three bytes", [0x40, 0x03, 0x00, 0x01, 0x00]),
        ("wrong flags in UNSUBSCRIBE [3.1.1: MQTT-3.10.1-1]", [0xA0, 0x05, 0x00, 0x01, 0x00, 0x01, 0x61]),
        ("wrong flags in DISCONNECT [3.1.1: MQTT-3.14.1-1]", [0xE1, 0x00]),
        ("+ in a level [3.1.1: MQTT-4.7.1-3]", [0x82, 0x07, 0x00, 0x01, 0x00, 0x02, 0x61, 0x2B, 0x00]),
        (
            "invalid UTF-8 in a filter [3.1.1: MQTT-3.8.3-1]",
            [0x82, 0x07, 0x00, 0x01, 0x00, 0x02, 0xC3, 0x28, 0x00]
        ),
        (
            "invalid UTF-8 in a filter to end [3.1.1: MQTT-3.10.3-1]", [0xA2, 0x06, 0x00, 0x01, 0x00, 0x02, 0xC3, 0x28]
        ),
        ("PINGREQ with a body", [0xC0, 0x01, 0x00]),
        ("CONNACK from a client", [0x20, 0x02, 0x00, 0x00]),
        ("a second CONNECT [3.1.1: MQTT-3.1.0-2]", [0x10, 0x0D, 0, 4, 0x4D, 0x51, 0x54, 0x54, 4, 2, 0, 0, 0, 1, 0x78]),
        ("a packet over the limit", [0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
    ]

    // [3.1.1: MQTT-4.8.0-1]
    @Test("a malformed packet closes its connection, and the broker goes on", arguments: malformed)
    func isClosed(name: String, bytes: [UInt8]) async throws {
        try await withBroker { broker in
            let witness = try TestClient(port: broker.port)
            try witness.connect("witness")
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.send(bytes: bytes)
            try client.expectClosed()
            try witness.ping()
        }
    }

    // [MQTT-3.1.0-1] [3.1.1: MQTT-3.1.0-1]
    @Test("the first packet must be CONNECT")
    func firstPacket() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.send(.pingreq)
            try client.expectClosed()
        }
    }

    // [MQTT-3.1.2-1] [MQTT-3.1.2-2] [3.1.1: MQTT-3.1.2-1] [3.1.1: MQTT-3.1.2-2] [3.1.1: MQTT-3.1.3-6]
    // [3.1.1: MQTT-3.1.3-7] [3.1.1: MQTT-3.1.3-8] [3.1.1: MQTT-3.2.2-4] [3.1.1: MQTT-3.2.2-5] [3.1.1: MQTT-3.1.4-5]
    @Test("what cannot be served is refused with its return code")
    func refusals() async throws {
        try await withBroker { broker in
            // The level of a version that is not there yet.
            let newer = try TestClient(port: broker.port)
            try newer.send(bytes: [0x10, 0x0E, 0, 4, 0x4D, 0x51, 0x54, 0x54, 6, 2, 0, 0, 0, 0, 1, 0x78])
            try newer.expect(.connack(ConnAck(code: .unsupportedProtocolVersion)))
            try newer.expectClosed()

            let older = try TestClient(port: broker.port)
            try older.send(
                bytes: [0x10, 0x0F, 0, 6, 0x4D, 0x51, 0x49, 0x73, 0x64, 0x70, 3, 2, 0, 0, 0, 1, 0x78])
            try older.expect(.connack(ConnAck(code: .unsupportedProtocolVersion)))
            try older.expectClosed()

            let nameless = try TestClient(port: broker.port)
            #expect(try nameless.connect("", clean: false).code == .clientIdentifierNotValid)
            try nameless.expectClosed()

            let anonymous = try TestClient(port: broker.port)
            #expect(try anonymous.connect("").code == .success)
        }
    }

    @Test("a packet is understood however its bytes trickle in", arguments: [1, 2, 3, 7])
    func trickle(step: Int) async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            var bytes = ByteBuffer()
            let packets: [Packet] = [
                .connect(Connect(version: .v3_1_1, clientID: "slow")),
                .subscribe(Subscribe(packetID: 1, filters: [Subscription(filter: "t", qos: .atLeastOnce)])),
                .pingreq,
                .publish(
                    Publish(topic: "t", payload: String(repeating: "x", count: 200), qos: .atLeastOnce, packetID: 2)),
            ]
            for packet in packets { packet.encode(into: &bytes, version: .v3_1_1) }
            while let part = bytes.readBytes(length: min(step, bytes.readableBytes)), !part.isEmpty {
                try client.send(bytes: part)
                // The broker has read this part when it has done something else since.
                for shard in broker.shards { try await shard.loop.submit {}.get() }
            }
            try client.expect(.connack(ConnAck(code: .success)))
            try client.expect(.suback(SubAck(packetID: 1, codes: [.grantedQoS1])))
            try client.expect(.pingresp)
            #expect(try client.receivePublish().payload.readableBytes == 200)
            try client.expect(.puback(Ack(packetID: 2)))
        }
    }

    @Test("a packet of exactly the limit passes, one byte more is refused before it is buffered")
    func packetLimit() async throws {
        try await withBroker({ $0.limits.maxPacketBytes = 10_000 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.subscribe(("t", .atMostOnce))
            // Three bytes of fixed header, three of topic.
            try client.publish("t", String(repeating: "x", count: 10_000 - 6))
            #expect(try client.receivePublish().payload.readableBytes == 9_994)
            try client.send(bytes: [0x30, 0x8E, 0x4E])  // 9,998 + 3
            try client.expectClosed()
        }
    }

    // [3.1.1: MQTT-4.8.0-2]
    @Test("a packet the arena has no room for closes its connection only")
    func noMemory() async throws {
        try await withBroker({
            $0.memoryLimit = 20 << 20
            $0.limits.maxPacketBytes = 64 << 20
        }) { broker in
            let witness = try TestClient(port: broker.port)
            try witness.connect("witness")
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.send(bytes: [0x30, 0x80, 0x80, 0x80, 0x10, 0x00, 0x01, 0x61])  // 32 MiB announced
            try client.expectClosed()
            #expect(broker.counters.allocationFailures.value == 1)
            try witness.ping()
        }
    }
}
