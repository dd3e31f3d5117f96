import Arena
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Clients that mean no good, or a thousand that mean well.
@Suite("Floods", .mayBlock, .serialized)
struct FloodTests {
    @Test("packets that are announced and not sent cost what has come of them, not what was announced")
    func giants() async throws {
        // Together twice the limit.
        let (count, size) = (128, 1 << 20)
        try await withBroker({ $0.memoryLimit = 64 << 20 }) { broker in
            let subscriber = try TestClient(port: broker.port)
            try subscriber.connect("subscriber")
            try subscriber.subscribe(("t", .atMostOnce))
            var packet = ByteBuffer()
            Packet.publish(Publish(topic: "t", payload: String(repeating: "x", count: size - 100)))
                .encode(into: &packet, version: .v3_1_1)
            let bytes = Array(packet.readableBytesView)
            var clients: [TestClient] = []
            for index in 0..<count {
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(index)")
                try client.send(bytes: Array(bytes[..<100]))
                clients.append(client)
            }
            try subscriber.ping()
            #expect(broker.counters.allocationFailures.value == 0)
            #expect(broker.pool.metrics().pinnedBytes < count * 32 << 10)
            // One that is sent after all, in pieces.
            var rest = bytes[100...]
            while !rest.isEmpty {
                try clients[0].send(bytes: Array(rest.prefix(30_000)))
                rest = rest.dropFirst(30_000)
            }
            #expect(try subscriber.receivePublish().payload.readableBytes == size - 100)
        }
    }

    @Test("topics of thousands of levels are passed on; as filters and retained they are refused")
    func deepTopics() async throws {
        try await withBroker { broker in
            let subscriber = try TestClient(port: broker.port, version: .v5_0)
            try subscriber.connect("subscriber")
            let deepest = String(repeating: "/", count: 65_535)
            let codes = try subscriber.subscribe(
                ("#", .atLeastOnce), ("+/+/#", .atLeastOnce), (deepest, .atLeastOnce),
                (String(repeating: "+/", count: 5_000) + "#", .atLeastOnce))
            #expect(codes == [.grantedQoS1, .grantedQoS1, .topicFilterInvalid, .topicFilterInvalid])
            let publisher = try TestClient(port: broker.port, version: .v5_0)
            try publisher.connect("publisher")
            for levels in [1_000, 10_000, 65_535] {
                let topic = String(repeating: "/", count: levels)
                try publisher.publish(topic, "deep", qos: .atLeastOnce)
                let publish = try subscriber.receivePublish()
                #expect(publish.topic?.byteCount == levels && publish.text == "deep")
                try subscriber.acknowledge(publish)
            }
            try publisher.send(
                .publish(Publish(topic: deepest, payload: "kept", qos: .atLeastOnce, retain: true, packetID: 9)))
            try publisher.expectDisconnect(.topicNameInvalid)
            #expect(broker.context.retained.nodeCount == 0)
        }
    }

    @Test("connections that say nothing, a byte, or half a CONNECT cost next to nothing, and do not keep others out")
    func halfOpen() async throws {
        try await withBroker { broker in
            let before = broker.pool.metrics().pinnedBytes
            let connect: [UInt8] = [0x10, 0xFF, 0x7F, 0, 4, 0x4D, 0x51, 0x54, 0x54, 4]
            var clients: [TestClient] = []
            for index in 0..<300 {
                let client = try TestClient(port: broker.port)
                if index % 3 > 0 { try client.send(bytes: index % 3 == 1 ? [0x10] : connect) }
                clients.append(client)
            }
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            try client.ping()
            // Of each that has sent part of a packet, a first buffer.
            #expect(broker.pool.metrics().pinnedBytes - before < 100 * 20 << 10)
            clients.removeAll()
            try await broker.poll { broker.counters.connectionsOpen.value == 1 }
            try client.ping()
        }
    }
}
