import Foundation
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Clients that come while the disk has not written yet what their last connection did, and brokers that come while
/// another has the file.
@Suite("The store and take-over", .mayBlock, .serialized)
struct StoreTakeOverTests {
    /// Some turns of all loops: enough for what one has for another.
    private func turns(_ broker: Broker) async throws {
        for _ in 0..<10 { for shard in broker.shards { try await shard.loop.submit {}.get() } }
    }

    @Test("a clean start is answered when the end of the session before it is safe, not sooner", arguments: [1, 2])
    func cleanStart(threads: Int) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: threads) {
                $0.dataDirectory = directory
                // However long the turns of the loops take.
                $0.limits.connectTimeoutSeconds = 600
            } _: { broker in
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                try device.subscribe(("t", .atLeastOnce))
                try device.disconnect()
                let old = try #require(broker.context.registry.find("device"))
                let disk = try await SlowDisk(#require(broker.context.store))
                let again = try TestClient(port: broker.port, version: .v5_0)
                var connect = Connect(version: .v5_0, cleanStart: true, keepAlive: 0, clientID: "device")
                connect.properties.sessionExpiryInterval = 3_600
                try again.send(.connect(connect))
                try await broker.poll { broker.context.registry.find("device") !== old }
                try await turns(broker)
                #expect(broker.context.registry.find("device") == nil)
                disk.letGo()
                guard case .connack(let ack)? = try again.receive() else {
                    throw TestClient.Failure(description: "no CONNACK")
                }
                #expect(ack.code == .success && !ack.sessionPresent)
                #expect(broker.context.registry.find("device") != nil)
            }
            #expect(try StoreFile(in: directory).count("subscription") == 0)
            #expect(try StoreFile(in: directory).count("session") == 1)
        }
    }

    @Test(
        "a client that comes back before its QoS 2 message is safe, and repeats it, is answered once it is; it counts once",
        arguments: [1, 2])
    func repeated(threads: Int) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: threads) {
                $0.dataDirectory = directory
            } _: { broker in
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                try device.subscribe(("t", .exactlyOnce))
                try device.disconnect()
                let first = try TestClient(port: broker.port)
                try first.connect("publisher", clean: false)
                let session = try #require(broker.context.registry.find("publisher"))
                let disk = try await SlowDisk(#require(broker.context.store))
                var packet = Publish(topic: "t", payload: "once", qos: .exactlyOnce, packetID: 9)
                try first.send(.publish(packet))
                let deadline = Patience.end
                while try await broker.shards[session.owningShard].loop.submit({ session.state.incomingCount }).get()
                    == 0
                {
                    try #require(ContinuousClock.now < deadline)
                }
                let second = try TestClient(port: broker.port)
                #expect(try second.connect("publisher", clean: false).sessionPresent)
                packet.dup = true
                try second.send(.publish(packet))
                try second.send(.pingreq)
                // PINGRESP promises nothing; PUBREC does.
                try second.expect(.pingresp)
                disk.letGo()
                try second.expect(.pubrec(Ack(packetID: 9)))
                try second.send(.pubrel(Ack(packetID: 9)))
                try second.expect(.pubcomp(Ack(packetID: 9)))
                let back = try TestClient(port: broker.port)
                try back.connect("device", clean: false)
                #expect(try back.receivePublish().text == "once")
                try back.ping()
            }
            #expect(try StoreFile(in: directory).count("receipt") == 0)
        }
    }

    @Test("a retained message that was cleared, with an answer, does not come back after a kill", arguments: 0..<3)
    func clearedRetained(round: Int) async throws {
        try await withDataDirectory { directory in
            let killed = try BrokerChild(dataDirectory: directory)
            let client = try TestClient(port: killed.port)
            try client.connect("client")
            for number in 0..<20 { try client.publish("r/\(number)", "x", qos: .atLeastOnce, retain: true) }
            for number in 0..<19 { try client.publish("r/\(number)", "", qos: .exactlyOnce, retain: true) }
            killed.kill()
            let broker = try BrokerChild(dataDirectory: directory)
            let reader = try TestClient(port: broker.port)
            try reader.connect("reader")
            try reader.subscribe(("r/#", .atLeastOnce))
            #expect(try reader.receivePublish().topicString == "r/19")
            try reader.ping()
        }
    }

    @Test("a second broker on the same data directory ends with an error that says so, and harms nothing")
    func second() async throws {
        try await withDataDirectory { directory in
            let broker = try BrokerChild(dataDirectory: directory)
            let client = try TestClient(port: broker.port)
            try client.connect("client", clean: false)
            try client.subscribe(("t", .atLeastOnce))
            let second = try Program.run(
                Program.path("arena-broker"),
                ["--host", "127.0.0.1", "--port", "0", "--data-directory", directory, "--dump-directory", directory])
            #expect(second.status == 1)
            #expect(
                second.errors.contains("in use by another process; one broker a data directory"), "\(second.errors)")
            try client.publish("u", "x", qos: .atLeastOnce, retain: true)
        }
    }
}
