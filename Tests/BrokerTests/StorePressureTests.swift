import Arena
import Foundation
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// A store that is slow, full or damaged, and an arena that is full.
@Suite("The store under pressure", .mayBlock, .serialized)
struct StorePressureTests {
    /// A broker whose disk has come to a halt, a client that is away and owed what is published to `t`, and one that publishes.
    private func withSlowDisk(
        in directory: String, _ configure: (inout Configuration) -> Void,
        _ body: (Broker, Store, SlowDisk, _ publisher: TestClient) async throws -> Void
    ) async throws {
        try await withBroker(threads: 1) {
            $0.dataDirectory = directory
            $0.limits.maxQueuedMessages = 100_000
            configure(&$0)
        } _: { broker in
            let device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("t", .atLeastOnce))
            try device.disconnect()
            let store = try #require(broker.context.store)
            let disk = try await SlowDisk(store)
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try await body(broker, store, disk, publisher)
        }
    }

    @Test("while the disk is slow, what waits for it is bounded: publishers are not read, others are served")
    func slowDisk() async throws {
        let bound = 256 << 10
        try await withDataDirectory { directory in
            try await withSlowDisk(in: directory) {
                $0.limits.maxWaitingStoreBytes = bound
                $0.limits.maxQueuedBytes = 64 << 20
            } _: { broker, store, disk, client in
                let port = broker.port
                // One thread sends, this one receives.
                nonisolated(unsafe) let publisher = client
                let count = 20_000
                let sender = Thread {
                    for number in 1...count {
                        try? publisher.send(
                            .publish(
                                Publish(
                                    topic: "t", payload: String(repeating: "x", count: 1_000), qos: .atLeastOnce,
                                    packetID: UInt16(number))))
                    }
                }
                sender.start()
                let shard = broker.shards[0]
                try await broker.poll { store.isFull }
                // The loop stops reading at the next packet that it gets.
                let deadline = Patience.end
                while try await shard.loop.submit({ shard.waitingForStore.count }).get() != 1 {
                    try #require(ContinuousClock.now < deadline, "the publisher is still read")
                }
                // One read of a socket on top.
                #expect(store.waitingBytes < bound + 4 * Limits.readBufferBytes)
                let witness = try TestClient(port: port)
                try witness.connect("witness")
                try witness.subscribe(("u", .atLeastOnce))
                let other = try TestClient(port: port)
                try other.connect("other")
                try other.publish("u", "x", qos: .atLeastOnce)
                #expect(try witness.receivePublish().text == "x")
                #expect(store.waitingBytes < bound + 4 * Limits.readBufferBytes)
                disk.letGo()
                for number in 1...count { try publisher.expect(.puback(Ack(packetID: UInt16(number)))) }
                #expect(store.waitingBytes == 0)
            }
            #expect(try StoreFile(in: directory).count("entry") == 20_000)
        }
    }

    @Test("what waits for the disk is memory like any other: publishers wait before it and the arena pass the limit")
    func waitingIsCharged() async throws {
        let limit = 64 << 20
        try await withDataDirectory { directory in
            try await withSlowDisk(in: directory) {
                $0.memoryLimit = limit
                $0.limits.maxWaitingStoreBytes = limit
                $0.limits.maxQueuedBytes = 1 << 30
            } _: { broker, store, disk, client in
                nonisolated(unsafe) let publisher = client
                let count = limit / 8_192
                let packet = { @Sendable (number: Int) in
                    Packet.publish(
                        Publish(
                            topic: "t", payload: String(repeating: "x", count: 8_192), qos: .atLeastOnce,
                            packetID: UInt16(number)))
                }
                Thread {
                    do { for number in 1...count { try publisher.send(packet(number)) } } catch { Issue.record(error) }
                }.start()
                try await broker.poll { broker.counters.publisherPauses.value > 0 }
                // Of all that is outside the arena's chunks, this is what made memory short.
                #expect(store.waitingBytes > limit / 4 && !store.isFull)
                let shard = broker.shards[0]
                let used = try await shard.loop.submit { shard.context.pool.counterBytes - shard.arena.freeBytes }.get()
                #expect(store.waitingBytes + used < limit)
                disk.letGo()
                for number in 1...count { try publisher.expect(.puback(Ack(packetID: UInt16(number)))) }
                #expect(store.waitingBytes == 0)
            }
            #expect(try StoreFile(in: directory).count("entry") == limit / 8_192)
        }
    }

    @Test("a QoS 2 message that the arena has no room for may be sent again, and is forwarded then")
    func refusedCopy() async throws {
        for isStored in [false, true] {
            try await withDataDirectory { directory in
                try await withBroker(threads: 1) {
                    $0.dataDirectory = isStored ? directory : nil
                    $0.memoryLimit = 30 << 20
                    $0.limits.maxPacketBytes = 32 << 20
                    $0.limits.maxQueuedBytes = 64 << 20
                } _: { broker in
                    let device = try TestClient(port: broker.port)
                    try device.connect("device", clean: false)
                    try device.subscribe(("t", .exactlyOnce))
                    // The packet fits, and a copy of it to retain does not.
                    let large = String(repeating: "x", count: 9 << 20)
                    let first = try TestClient(port: broker.port)
                    try first.connect("publisher", clean: false)
                    try first.send(
                        .publish(Publish(topic: "t", payload: large, qos: .exactlyOnce, retain: true, packetID: 5)))
                    try first.expectClosed()
                    #expect(broker.counters.allocationFailures.value > 0)
                    #expect(broker.context.retained.count == 0)

                    let second = try TestClient(port: broker.port)
                    #expect(try second.connect("publisher", clean: false).sessionPresent)
                    try second.send(
                        .publish(
                            Publish(
                                topic: "t", payload: "small", qos: .exactlyOnce, retain: true, dup: true, packetID: 5)))
                    try second.expect(.pubrec(Ack(packetID: 5)))
                    #expect(try device.receivePublish().text == "small")
                    #expect(broker.context.retained.count == 1)
                }
            }
        }
    }

    @Test("a delayed will is published by the broker that comes after a kill")
    func delayedWill() async throws {
        try await withDataDirectory { directory in
            let killed = try BrokerChild(dataDirectory: directory)
            let device = try TestClient(port: killed.port)
            try device.connect("device", clean: false)
            try device.subscribe(("will", .atLeastOnce))
            let client = try TestClient(port: killed.port, version: .v5_0)
            var will = Will(topic: "will", payload: ByteBuffer(string: "gone"), qos: .atLeastOnce)
            will.properties.delayInterval = 1
            try client.connect("client", will: will) { $0.sessionExpiryInterval = 3_600 }
            // Answered when all before it is safe.
            try client.subscribe(("other", .atLeastOnce))
            killed.kill()
            let broker = try BrokerChild(dataDirectory: directory)
            let back = try TestClient(port: broker.port)
            #expect(try back.connect("device", clean: false).sessionPresent)
            #expect(try back.receivePublish().text == "gone")
        }
    }

    @Test("a data directory without room is an error at the start that says so")
    func fullAtStart() async throws {
        try await withDataDirectory { directory in
            let process = Process()
            process.executableURL = URL(filePath: "/bin/sh")
            process.arguments = [
                "-c", "ulimit -f 1; exec \"$0\" --port 0 --data-directory \"$1\" --dump-directory \"$1\"",
                Program.path("arena-broker"), directory,
            ]
            let output = Pipe()
            process.standardError = output
            process.standardOutput = FileHandle.nullDevice
            try process.start()
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            #expect(process.waitForEnd() == 1)
            #expect(text.contains("\(directory)/arena-broker.sqlite: "), "\(text)")
        }
    }

    @Test("a database that is damaged inside is an error at the start that says so")
    func damaged() async throws {
        try await withDataDirectory { directory in
            try await withBroker {
                $0.dataDirectory = directory
            } _: { broker in
                let client = try TestClient(port: broker.port)
                try client.connect("client")
                for number in 0..<50 {
                    try client.publish(
                        "r/\(number)", String(repeating: "x", count: 2_000), qos: .atLeastOnce, retain: true)
                }
            }
            let file = try FileHandle(forUpdating: URL(filePath: StoreFile(in: directory).path))
            let size = try file.seekToEnd()
            // All but the first page, where the tables are named.
            try file.seek(toOffset: 4_096)
            try file.write(contentsOf: Data(repeating: 0x55, count: Int(size) - 4_096))
            try file.close()
            let error = try await #require(throws: StartError.self) {
                try await withBroker {
                    $0.dataDirectory = directory
                } _: { _ in
                }
            }
            #expect(error.description.contains("damaged"), "\(error)")
        }
    }
}
