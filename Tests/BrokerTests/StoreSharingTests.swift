import Foundation
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

/// What several loops have to do with each other, where the store is concerned.
@Suite("The store and several loops", .mayBlock, .serialized)
struct StoreSharingTests {
    @Test("of two messages to one topic, published on two loops, the store retains the one that the broker retains")
    func retainedOrder() async throws {
        try await withDataDirectory { directory in
            var kept: [String: String] = [:]
            try await withBroker(threads: 2) {
                $0.dataDirectory = directory
            } _: { broker in
                let clients = try (0..<2).map { number in
                    let client = try TestClient(port: broker.port)
                    try client.connect("publisher-\(number)")
                    return client
                }
                #expect(Set(clients.indices.compactMap { broker.owningShard(of: "publisher-\($0)") }).count == 2)
                // Both at once, each topic by both; some are cleared.
                for round in 0..<400 {
                    let topic = "r/\(round % 10)"
                    for (index, client) in clients.enumerated() {
                        let payload = (round + index) % 7 == 0 ? "" : "\(round) by \(index)"
                        try client.send(
                            .publish(
                                Publish(
                                    topic: topic, payload: payload, qos: .atLeastOnce, retain: true,
                                    packetID: UInt16(round + 1))))
                    }
                }
                for client in clients {
                    for round in 0..<400 { try client.expect(.puback(Ack(packetID: UInt16(round + 1)))) }
                }
                broker.context.retained.forEach { message in
                    kept[message.topic.text] = String(buffer: message.payload)
                }
            }
            #expect(!kept.isEmpty)
            try await withBroker(threads: 2) {
                $0.dataDirectory = directory
            } _: { broker in
                var found: [String: String] = [:]
                broker.context.retained.forEach { message in
                    found[message.topic.text] = String(buffer: message.payload)
                }
                #expect(found == kept)
            }
        }
    }

    @Test("a message of a shared subscription is its group's after a restart: if one member ends, another one gets it")
    func shared() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            try await withBroker(threads: 2, configure) { broker in
                for name in ["a", "b"] {
                    let worker = try TestClient(port: broker.port)
                    try worker.connect(name, clean: false)
                    try worker.subscribe(("$share/workers/jobs/+", .atLeastOnce))
                    try worker.disconnect()
                }
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                for number in 0..<200 { try publisher.publish("jobs/\(number)", "\(number)", qos: .atLeastOnce) }
            }
            #expect(try StoreFile(in: directory).count("entry WHERE share = '$share/workers/jobs/+'") == 200)
            try await withBroker(threads: 2, configure) { broker in
                // The subscription is there again, ...
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                try publisher.publish("jobs/200", "200", qos: .atLeastOnce)
                // ... and so is what each was given; b gives its share to a.
                let b = try TestClient(port: broker.port)
                try b.connect("b", clean: true)
                let a = try TestClient(port: broker.port)
                #expect(try a.connect("a", clean: false).sessionPresent)
                var numbers: Set<Int> = []
                while numbers.count < 201 {
                    let publish = try a.receivePublish()
                    numbers.insert(try #require(Int(publish.text)))
                    try a.send(.puback(Ack(packetID: publish.packetID)))
                }
                #expect(numbers == Set(0...200))
                try a.ping()
                try b.ping()
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
        }
    }

    @Test("the last words of a client are kept when the broker shuts down, for sessions on every loop")
    func wills() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            let names = (0..<8).map { "device-\($0)" }
            var clients: [TestClient] = []
            try await withBroker(threads: 4, configure) { broker in
                for name in names {
                    let device = try TestClient(port: broker.port)
                    try device.connect(name, clean: false)
                    try device.subscribe(("will/+", .atLeastOnce))
                    try device.disconnect()
                }
                #expect(Set(names.compactMap { broker.owningShard(of: $0) }).count > 1)
                for number in 0..<4 {
                    let client = try TestClient(port: broker.port)
                    try client.connect(
                        "client-\(number)",
                        will: Will(topic: "will/\(number)", payload: ByteBuffer(string: "gone"), qos: .atLeastOnce))
                    clients.append(client)
                }
            }
            clients = []
            try await withBroker(threads: 4, configure) { broker in
                for name in names {
                    let device = try TestClient(port: broker.port)
                    try device.connect(name, clean: false)
                    #expect(try Set((0..<4).map { _ in try device.receivePublish().topicString }).count == 4)
                }
            }
        }
    }

    @Test("what was acknowledged while the broker shut down is there when it is back", arguments: 0..<5)
    func shutdown(round: Int) async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in
                configuration.dataDirectory = directory
                configuration.limits.maxQueuedMessages = 1_000_000
            }
            let publishers = Publishers()
            try await withBroker(threads: 4, configure) { broker in
                for number in 0..<4 {
                    let device = try TestClient(port: broker.port)
                    try device.connect("device-\(number)", clean: false)
                    try device.subscribe(("t/#", .atLeastOnce))
                    try device.disconnect()
                }
                let port = broker.port
                for index in 0..<4 {
                    Thread {
                        do { try publishers.publish(as: index, port) } catch { Issue.record(error) }
                        publishers.left.signal()
                    }.start()
                }
                try await broker.poll { publishers.acknowledged.withLock { $0.count } > 200 }
                // The broker shuts down now, and they do not stop before.
            }
            try await NIOThreadPool.singleton.runIfActive { for _ in 0..<4 { publishers.left.wait() } }
            let all = publishers.acknowledged.withLock { $0 }
            #expect(all.count > 200)
            try await withBroker(threads: 4, configure) { broker in
                for number in 0..<4 {
                    let device = try TestClient(port: broker.port)
                    try device.connect("device-\(number)", clean: false)
                    var left = all
                    while !left.isEmpty {
                        let publish = try device.receivePublish()
                        left.remove(try #require(Int(publish.text)))
                        try device.send(.puback(Ack(packetID: publish.packetID)))
                    }
                }
            }
        }
    }

    private final class Publishers: Sendable {
        let acknowledged = Mutex<Set<Int>>([])
        let left = DispatchSemaphore(value: 0)

        /// Until the broker closes.
        func publish(as index: Int, _ port: Int) throws {
            let client = try TestClient(port: port)
            try client.connect("publisher-\(index)")
            for number in 1...60_000 {
                let name = index * 1_000_000 + number
                do {
                    let packet = Publish(
                        topic: "t/\(number % 3)", payload: "\(name)", qos: .atLeastOnce, packetID: UInt16(number))
                    try client.send(.publish(packet))
                    guard case .puback? = try client.receive() else { return }
                } catch is TestClient.Failure {
                    return
                }
                _ = acknowledged.withLock { $0.insert(name) }
            }
        }
    }
}
