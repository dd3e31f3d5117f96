import Foundation
import Glibc
import MQTT
import NIOCore
import SeededRandom
import TestSupport
import Testing

@testable import Broker

/// A broker that is killed while clients publish, again and again. `ARENA_FAULT_ROUNDS` says how often.
@Suite("The store and kill -9", .mayBlock, .serialized)
struct StoreFaultTests {
    @Test("kill -9 under load loses nothing that was acknowledged, and QoS 2 comes once")
    func kills() async throws {
        let rounds = ProcessInfo.processInfo.environment["ARENA_FAULT_ROUNDS"].flatMap(Int.init) ?? 10
        let seed = UInt64.random(in: .min ... .max)
        try await withDataDirectory { directory in
            var random = SeededGenerator(seed: seed)
            var publisher = NumberingPublisher()
            var device = CountingDevice()
            for round in 0..<rounds {
                let broker = try BrokerChild(
                    dataDirectory: directory, "--threads", "2", "--set", "limits.maxQueuedMessages=1000000")
                try device.connect(broker.port, isFirst: round == 0)
                try publisher.connect(broker.port, isFirst: round == 0)
                // All that is under way ends well: then the device is owed just what was sent.
                try publisher.finish()
                try device.receive(upTo: Int(random.next() % UInt64(publisher.sent - device.seen.count + 1)))
                try publisher.publish(untilAcknowledged: 1 + Int(random.next() % 400))
                broker.kill()
                publisher.takeRest()
                device.takeRest()
            }
            let broker = try BrokerChild(dataDirectory: directory, "--threads", "2")
            try device.connect(broker.port, isFirst: false)
            try publisher.connect(broker.port, isFirst: false)
            try publisher.finish()
            try device.receive(upTo: publisher.sent - device.seen.count)
            try device.finish()
            #expect(broker.end() == 0)
            #expect(device.seen.count == publisher.sent, "seed \(seed)")
            let twice = device.seen.filter { $0.value > 1 && $0.key % 2 == 1 }
            #expect(twice.isEmpty, "QoS 2 twice, seed \(seed): \(twice)")
            let repeated = device.seen.filter { $0.value > 1 }.count
            print("\(rounds) kills, \(publisher.sent) messages, \(repeated) of QoS 1 came more than once")
        }
    }

    @Test("where the disk is full, what must be kept is not acknowledged, the rest is served; and it ends")
    func fullDisk() async throws {
        try await withDataDirectory { directory in
            let broker = try BrokerChild(dataDirectory: directory)
            let device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("kept", .atLeastOnce))
            try device.disconnect()
            try broker.limitFiles(to: 1)
            // The one that meets the full disk gets no answer until there is room.
            let first = try TestClient(port: broker.port, version: .v5_0)
            try first.connect("first")
            try first.send(.publish(Publish(topic: "kept", payload: "1", qos: .atLeastOnce, packetID: 1)))
            _ = try broker.line { $0.contains("cannot be written") }
            let second = try TestClient(port: broker.port, version: .v5_0)
            try second.connect("second")
            #expect(try second.publish("kept", "2", qos: .atLeastOnce) { _ in } == .quotaExceeded)
            #expect(try second.publish("kept", "2", qos: .exactlyOnce) { _ in } == .quotaExceeded)
            #expect(try second.publish("kept", "2", qos: .atLeastOnce, retain: true) { _ in } == .quotaExceeded)
            #expect(try second.publish("other", "2", qos: .atLeastOnce) { _ in } == .noMatchingSubscribers)
            let third = try TestClient(port: broker.port)
            try third.connect("third")
            try third.send(.publish(Publish(topic: "kept", payload: "3", qos: .atLeastOnce, packetID: 1)))
            try third.expectClosed()

            try broker.limitFiles(to: nil)
            _ = try broker.line { $0.contains("can be written again") }
            try first.expect(.puback(Ack(packetID: 1)))
            #expect(try second.publish("kept", "4", qos: .atLeastOnce) { _ in } == .success)
            broker.kill()

            let again = try BrokerChild(dataDirectory: directory)
            let back = try TestClient(port: again.port)
            #expect(try back.connect("device", clean: false).sessionPresent)
            #expect(try back.receivePublish().text == "1")
            #expect(try back.receivePublish().text == "4")
            try back.ping()
        }
    }

    @Test("a will that is due while the disk is full is kept, and published when it can be stored")
    func willOnFullDisk() async throws {
        try await withDataDirectory { directory in
            let broker = try BrokerChild(dataDirectory: directory)
            let device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("wills/+", .atLeastOnce))
            try device.disconnect()
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe(("wills/+", .atMostOnce), ("other/+", .atMostOnce))
            let clients = try (0..<3).map { number in
                let client = try TestClient(port: broker.port)
                let topic = number == 2 ? "other/2" : "wills/\(number)"
                let will = Will(
                    topic: topic, payload: ByteBuffer(string: "gone"), qos: .atLeastOnce, retain: number == 0)
                try client.connect("client-\(number)", will: will)
                return client
            }
            try broker.limitFiles(to: 1)
            let first = try TestClient(port: broker.port)
            try first.connect("first")
            try first.send(.publish(Publish(topic: "wills/first", payload: "1", qos: .atLeastOnce, packetID: 1)))
            _ = try broker.line { $0.contains("cannot be written") }
            #expect(try watcher.receivePublish().topicString == "wills/first")
            for client in clients {
                client.vanish()
                _ = try broker.line { $0.contains("connection closed") }
            }
            // Nobody has to be kept this one.
            #expect(try watcher.receivePublish().topicString == "other/2")
            try broker.limitFiles(to: nil)
            _ = try broker.line { $0.contains("can be written again") }
            // Each once.
            let topics = try (0..<2).map { _ in try watcher.receivePublish().topicString }
            #expect(Set(topics) == ["wills/0", "wills/1"])
            try watcher.ping()
            let late = try TestClient(port: broker.port)
            try late.connect("late")
            try late.subscribe(("wills/#", .atMostOnce))
            #expect(try late.receivePublish().topicString == "wills/0")
            try late.ping()
            let back = try TestClient(port: broker.port)
            #expect(try back.connect("device", clean: false).sessionPresent)
            let owed = try (0..<3).map { _ in try back.receivePublish().topicString }
            #expect(owed.first == "wills/first" && Set(owed.dropFirst()) == ["wills/0", "wills/1"])
            try back.ping()
        }
    }
}

/// Publishes numbers, the odd ones with QoS 2, and goes on after a lost connection as a client must (MQTT-4.4.0-1).
private struct NumberingPublisher {
    private var client: TestClient?
    private(set) var sent = 0
    /// Numbers of messages without an answer, and of those with PUBREC but without PUBCOMP, by packet identifier.
    private var open: [UInt16: Int] = [:]
    private var released: Set<UInt16> = []
    private static let window = 50

    mutating func connect(_ port: Int, isFirst: Bool) throws {
        let client = try TestClient(port: port)
        #expect(try client.connect("publisher", clean: false).sessionPresent == !isFirst)
        for (packetID, number) in open.sorted(by: { $0.value < $1.value }) {
            try client.send(.publish(packet(number, packetID, dup: true)))
        }
        for packetID in released { try client.send(.pubrel(Ack(packetID: packetID))) }
        self.client = client
    }

    mutating func finish() throws {
        while !open.isEmpty || !released.isEmpty { _ = try take(client!.receive()) }
    }

    mutating func publish(untilAcknowledged target: Int) throws {
        var count = 0
        while count < target {
            while open.count + released.count < Self.window {
                sent += 1
                let packetID = UInt16(sent % 60_000) + 1
                open[packetID] = sent
                try client!.send(.publish(packet(sent, packetID, dup: false)))
            }
            if try take(client!.receive()) { count += 1 }
        }
    }

    /// What the broker said before it was killed.
    mutating func takeRest() {
        while let packet = try? client?.receive(), (try? take(packet)) != nil {}
        client = nil
    }

    /// - Returns: whether a message was acknowledged.
    private mutating func take(_ packet: Packet?) throws -> Bool {
        switch packet {
        case .puback(let ack):
            #expect(open.removeValue(forKey: ack.packetID) != nil)
            return true
        case .pubrec(let ack):
            #expect(open.removeValue(forKey: ack.packetID) != nil || released.contains(ack.packetID))
            released.insert(ack.packetID)
            // The broker may be dead by now.
            try? client?.send(.pubrel(ack))
            return true
        case .pubcomp(let ack):
            #expect(released.remove(ack.packetID) != nil)
            return false
        default: throw TestClient.Failure(description: "the publisher got \(String(describing: packet))")
        }
    }

    private func packet(_ number: Int, _ packetID: UInt16, dup: Bool) -> Publish {
        Publish(
            topic: "load/\(number % 7)", payload: "\(number)", qos: number % 2 == 0 ? .atLeastOnce : .exactlyOnce,
            dup: dup, packetID: packetID)
    }
}

/// Takes numbers, and knows how often each came: QoS 2 by its rules, so that a repeated packet does not count.
private struct CountingDevice {
    private var client: TestClient?
    private(set) var seen: [Int: Int] = [:]
    private var unreleased: Set<UInt16> = []

    mutating func connect(_ port: Int, isFirst: Bool) throws {
        let client = try TestClient(port: port)
        #expect(try client.connect("device", clean: false).sessionPresent == !isFirst)
        if isFirst { try client.subscribe(("load/#", .exactlyOnce)) }
        self.client = client
    }

    mutating func receive(upTo count: Int) throws {
        let goal = seen.count + count
        while seen.count < goal { _ = try take(client!.receive()) }
    }

    /// Until the broker has nothing more to say.
    mutating func finish() throws {
        repeat { try client!.send(.pingreq) } while try !answersAtOnce()
    }

    private mutating func answersAtOnce() throws -> Bool {
        var isFirst = true
        while try !take(client!.receive()) { isFirst = false }
        return isFirst
    }

    mutating func takeRest() {
        while let packet = try? client?.receive(), (try? take(packet)) != nil {}
        client = nil
    }

    /// - Returns: whether it was the answer to a ping.
    private mutating func take(_ packet: Packet?) throws -> Bool {
        switch packet {
        case .publish(let publish):
            guard let number = Int(publish.text) else { throw TestClient.Failure(description: publish.text) }
            if publish.qos == .atLeastOnce {
                seen[number, default: 0] += 1
                try? client?.send(.puback(Ack(packetID: publish.packetID)))
            } else {
                if unreleased.insert(publish.packetID).inserted { seen[number, default: 0] += 1 }
                try? client?.send(.pubrec(Ack(packetID: publish.packetID)))
            }
        case .pubrel(let ack):
            unreleased.remove(ack.packetID)
            try? client?.send(.pubcomp(ack))
        case .pingresp: return true
        default: throw TestClient.Failure(description: "the device got \(String(describing: packet))")
        }
        return false
    }
}
