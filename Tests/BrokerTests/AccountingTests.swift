import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Accounting for buffers", .mayBlock, .serialized)
struct AccountingTests {
    @Test("while sessions keep messages every live buffer is reachable; when all have gone none is live")
    func everyBufferIsReachable() async throws {
        try await withBroker(threads: 2) { broker in
            try await broker.awaitNothingLeft()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher", will: Will(topic: "will", payload: ByteBuffer(string: "w")))
            var subscribers: [TestClient] = []
            for index in 0..<6 {
                let client = try TestClient(port: broker.port)
                try client.connect("subscriber-\(index)", clean: index < 3)
                try client.subscribe(("t/#", .exactlyOnce))
                subscribers.append(client)
            }
            // Away, so that its messages wait in the queue; the others' stay in the window, unacknowledged.
            try subscribers[5].disconnect()
            for number in 0..<20 {
                try publisher.publish("t/\(number)", String(repeating: "x", count: number * 500), qos: .exactlyOnce)
                try publisher.publish("kept/\(number)", "retained", qos: .atLeastOnce, retain: true)
            }
            // Half a packet: an assembly buffer.
            try publisher.send(bytes: [0x30, 0xE8, 0x07, 0x00, 0x01, 0x61])
            try await broker.awaitPartialPacket()
            for client in subscribers[..<5] {
                for _ in 0..<20 { _ = try client.receivePublish() }
                try client.ping()
            }
            let busy = try await broker.accounting()
            // Each message once, however many loops its receivers are on; each retained one, the will, half a packet.
            #expect(busy.live == 20 + 20 + 2)
            #expect(busy.unreachable == 0)

            publisher.vanish()
            for client in subscribers { client.vanish() }
            try await broker.awaitNoConnections()
            // Kept sessions go when their clients ask for it, retained messages when they are cleared.
            let sweeper = try TestClient(port: broker.port)
            try sweeper.connect("sweeper")
            for number in 0..<20 { try sweeper.publish("kept/\(number)", "", qos: .atLeastOnce, retain: true) }
            try sweeper.disconnect()
            for index in 3..<6 {
                let client = try TestClient(port: broker.port)
                try client.connect("subscriber-\(index)", clean: true)
                try client.disconnect()
            }
            try await broker.awaitNoConnections()
            try await broker.poll { broker.context.registry.count == 0 }
            try await broker.awaitNothingLeft()
        }
    }

    @Test("an idle connection holds no buffer")
    func idleConnections() async throws {
        try await withBroker(threads: 2) { broker in
            let clients = try (0..<20).map { index in
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(index)")
                try client.ping()
                return client
            }
            try await broker.awaitNothingLeft()
            for client in clients { try client.disconnect() }
        }
    }
}
