import Foundation
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("The store", .mayBlock, .serialized)
struct StoreTests {
    /// Runs one broker after another on the same data directory, each shut down in order.
    private func withRestarts(
        _ configure: (inout Configuration) -> Void = { _ in },
        lives: [(Broker) async throws -> Void]
    ) async throws {
        try await withDataDirectory { directory in
            for live in lives {
                try await withBroker(threads: 2) {
                    $0.dataDirectory = directory
                    configure(&$0)
                } _: {
                    try await live($0)
                }
            }
        }
    }

    @Test("a kept session comes back with its subscriptions and its queue, in order")
    func queue() async throws {
        try await withRestarts(lives: [
            { broker in
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                try device.subscribe(("c/+", .exactlyOnce), ("d", .atLeastOnce))
                try device.disconnect()
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                for number in 0..<20 {
                    try publisher.publish(
                        "c/\(number)", "\(number)", qos: number % 2 == 0 ? .atLeastOnce : .exactlyOnce)
                }
                try publisher.publish("c/x", "not kept")
            },
            { broker in
                #expect(try await broker.accounting().unreachable == 0)
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                for number in 0..<20 {
                    let publish = try device.receivePublish()
                    #expect(publish.text == "\(number)" && publish.topicString == "c/\(number)" && !publish.dup)
                    #expect(publish.qos == (number % 2 == 0 ? .atLeastOnce : .exactlyOnce))
                    if publish.qos == .atLeastOnce { try device.send(.puback(Ack(packetID: publish.packetID))) }
                }
                try device.ping()
                // The subscriptions are there too.
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                try publisher.publish("d", "new", qos: .atLeastOnce)
                #expect(try device.receivePublish().text == "new")
            },
            { broker in
                // What was answered is gone; what was not comes again with its identifiers.
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                for number in stride(from: 1, to: 20, by: 2) {
                    let publish = try device.receivePublish()
                    #expect(publish.text == "\(number)" && publish.dup && publish.qos == .exactlyOnce)
                    #expect(publish.packetID == UInt16(number) + 1)
                }
                #expect(try device.receivePublish().text == "new")
                try device.ping()
            },
        ])
    }

    @Test("QoS 2 goes on where it stood, in both directions")
    func exactlyOnce() async throws {
        try await withRestarts(lives: [
            { broker in
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                try device.subscribe(("c", .exactlyOnce))
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher", clean: false)
                try publisher.send(.publish(Publish(topic: "c", payload: "once", qos: .exactlyOnce, packetID: 7)))
                try publisher.expect(.pubrec(Ack(packetID: 7)))
                let publish = try device.receivePublish()
                try device.send(.pubrec(Ack(packetID: publish.packetID)))
                try device.expect(.pubrel(Ack(packetID: publish.packetID)))
            },
            { broker in
                let publisher = try TestClient(port: broker.port)
                #expect(try publisher.connect("publisher", clean: false).sessionPresent)
                try publisher.send(
                    .publish(Publish(topic: "c", payload: "once", qos: .exactlyOnce, dup: true, packetID: 7)))
                try publisher.expect(.pubrec(Ack(packetID: 7)))
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                // The identifier only: neither has the message come again, nor was it forwarded again.
                try device.expect(.pubrel(Ack(packetID: 1)))
                try device.send(.pubcomp(Ack(packetID: 1)))
                try device.ping()
                try publisher.send(.pubrel(Ack(packetID: 7)))
                try publisher.expect(.pubcomp(Ack(packetID: 7)))
            },
            { broker in
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                try device.ping()
                // Released: the identifier stands for a new message now.
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher", clean: false)
                try publisher.send(.publish(Publish(topic: "c", payload: "next", qos: .exactlyOnce, packetID: 7)))
                try publisher.expect(.pubrec(Ack(packetID: 7)))
                #expect(try device.receivePublish().text == "next")
            },
        ])
    }

    @Test("retained messages come back with their properties, and those that were cleared do not")
    func retained() async throws {
        try await withRestarts(lives: [
            { broker in
                let publisher = try TestClient(port: broker.port, version: .v5_0)
                try publisher.connect("publisher")
                for number in 0..<600 {
                    try publisher.publish("r/\(number)", "\(number)", qos: .atLeastOnce, retain: true) {
                        $0.contentType = "text/plain"
                    }
                }
                try publisher.publish("r/7", "", qos: .atLeastOnce, retain: true)
                try publisher.publish("r/8", "newer", qos: .atLeastOnce, retain: true)
                try publisher.publish("r/9", "soon gone", qos: .atLeastOnce, retain: true) {
                    $0.messageExpiryInterval = 3_600
                }
            },
            { broker in
                #expect(broker.context.retained.count == 599)
                #expect(try await broker.accounting().unreachable == 0)
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client")
                try client.subscribe(
                    ("r/5", .atLeastOnce), ("r/7", .atLeastOnce), ("r/8", .atLeastOnce), ("r/9", .atMostOnce))
                let five = try client.receivePublish()
                #expect(five.text == "5" && five.retain && five.properties?.contentType == "text/plain")
                #expect(try client.receivePublish().text == "newer")
                let nine = try client.receivePublish()
                #expect(nine.text == "soon gone")
                #expect(try #require(nine.properties?.messageExpiryInterval) <= 3_600)
            },
        ])
    }

    @Test("a session that ended, and one that was to end with its connection, do not come back")
    func ended() async throws {
        try await withRestarts(lives: [
            { broker in
                for name in ["a", "b"] {
                    let client = try TestClient(port: broker.port)
                    try client.connect(name, clean: false)
                    try client.subscribe(("t", .atLeastOnce))
                    try client.disconnect()
                }
                let clean = try TestClient(port: broker.port)
                try clean.connect("a", clean: true)
                try clean.disconnect()
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                try publisher.publish("t", "1", qos: .atLeastOnce)
                try publisher.disconnect()
            },
            { broker in
                let a = try TestClient(port: broker.port)
                #expect(try !a.connect("a", clean: false).sessionPresent)
                let b = try TestClient(port: broker.port)
                #expect(try b.connect("b", clean: false).sessionPresent)
                #expect(try b.receivePublish().text == "1")
                #expect(broker.context.registry.find("publisher") == nil)
            },
        ])
    }

    @Test("a message to many sessions is stored once, and gone with the last of them")
    func shared() async throws {
        try await withDataDirectory { directory in
            let file = StoreFile(in: directory)
            try await withBroker(threads: 2) {
                $0.dataDirectory = directory
            } _: { broker in
                for number in 0..<10 {
                    let client = try TestClient(port: broker.port)
                    try client.connect("device-\(number)", clean: false)
                    try client.subscribe(("t", .atLeastOnce))
                    try client.disconnect()
                }
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                try publisher.publish("t", "all", qos: .atLeastOnce)
            }
            #expect(try file.count("entry") == 10)
            // One for each event loop that a subscriber is on, at most: here one publisher, one copy.
            #expect(try file.count("message") == 1)
            try await withBroker(threads: 2) {
                $0.dataDirectory = directory
            } _: { broker in
                for number in 0..<10 {
                    let client = try TestClient(port: broker.port)
                    try client.connect("device-\(number)", clean: false)
                    let publish = try client.receivePublish()
                    try client.send(.puback(Ack(packetID: publish.packetID)))
                    try client.ping()
                }
            }
            #expect(try file.count("entry") == 0)
            #expect(try file.count("message") == 0)
        }
    }

    @Test("what promises nothing does not wait for the store, nor touch it")
    func noObligation() async throws {
        try await withRestarts(lives: [
            { broker in
                let subscriber = try TestClient(port: broker.port)
                try subscriber.connect("subscriber")
                try subscriber.subscribe(("t", .exactlyOnce))
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                for _ in 0..<10 {
                    try publisher.publish("t", "x", qos: .atLeastOnce)
                    try publisher.publish("t", "y", qos: .exactlyOnce)
                }
                try #require(broker.context.store).finishWriting()
                #expect(broker.context.store?.commits.value == 0)
            }
        ])
    }

    @Test("publishers wait while the store has more to do than it may, and all is kept")
    func backPressure() async throws {
        try await withRestarts(
            { $0.limits.maxWaitingStoreBytes = 1 },
            lives: [
                { broker in
                    let device = try TestClient(port: broker.port)
                    try device.connect("device", clean: false)
                    try device.subscribe(("t", .exactlyOnce))
                    try device.disconnect()
                    let publisher = try TestClient(port: broker.port)
                    try publisher.connect("publisher")
                    for number in 1...500 {
                        try publisher.send(
                            .publish(
                                Publish(topic: "t", payload: "\(number)", qos: .atLeastOnce, packetID: UInt16(number)))
                        )
                    }
                    for number in 1...500 { try publisher.expect(.puback(Ack(packetID: UInt16(number)))) }
                    #expect(try await broker.accounting().unreachable == 0)
                },
                { broker in
                    let device = try TestClient(port: broker.port)
                    try device.connect("device", clean: false)
                    for number in 1...500 {
                        let publish = try device.receivePublish()
                        #expect(publish.text == "\(number)")
                        try device.send(.puback(Ack(packetID: publish.packetID)))
                    }
                },
            ])
    }

    @Test("a database that is damaged, newer, not ours or in use is an error that says so")
    func refusals() async throws {
        try await withDataDirectory { directory in
            let stored = StoreFile(in: directory)
            try await withBroker {
                $0.dataDirectory = directory
            } _: { _ in
                let error = try await #require(throws: StartError.self) {
                    try await withBroker {
                        $0.dataDirectory = directory
                    } _: { _ in
                    }
                }
                #expect(error.description.contains("in use by another process"))
            }
            let refusal = { () async throws -> String in
                try await #require(throws: StartError.self) {
                    try await withBroker {
                        $0.dataDirectory = directory
                    } _: { _ in
                    }
                }.description
            }
            try stored.change("PRAGMA user_version = 99")
            #expect(
                try await refusal().contains("newer arena-broker (layout 99, this one knows \(StoreSchema.version))"))
            try stored.change("PRAGMA application_id = 1")
            #expect(try await refusal().contains("a database of another program"))
            try Data(repeating: 0x55, count: 8_192).write(to: URL(filePath: stored.path))
            #expect(try await refusal().contains("damaged"))
            let file = "\(directory)/file"
            try Data().write(to: URL(filePath: file))
            let error = try await #require(throws: StartError.self) {
                try await withBroker {
                    $0.dataDirectory = file
                } _: { _ in
                }
            }
            #expect(error.description == "data directory \(file): not a directory")
        }
    }
}

/// A data directory that is gone when `body` is done.
func withDataDirectory(_ body: (String) async throws -> Void) async throws { try await withFolder(body) }
