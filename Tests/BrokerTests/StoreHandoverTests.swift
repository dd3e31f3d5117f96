import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Shared subscriptions whose messages are in the store, and members whose sessions end.
@Suite("The store and shared subscriptions", .mayBlock, .serialized)
struct StoreHandoverTests {
    private let group = "$share/workers/jobs"

    /// Members of the group that are away.
    private func join(_ names: [String], _ port: Int, _ qos: QoS = .exactlyOnce) throws {
        for name in names {
            let worker = try TestClient(port: port)
            try worker.connect(name, clean: false)
            try worker.subscribe((group, qos))
            try worker.disconnect()
        }
    }

    /// Numbers, every second one with QoS 2.
    private func publish(_ count: Int, bytes: Int, _ port: Int) throws {
        let publisher = try TestClient(port: port)
        try publisher.connect("publisher")
        for number in 0..<count {
            let text = "\(number) " + String(repeating: "x", count: bytes)
            try publisher.publish("jobs", text, qos: number % 4 < 2 ? .atLeastOnce : .exactlyOnce)
        }
        try publisher.disconnect()
    }

    /// Takes messages, by the rules of their QoS, until `count` different ones have come and all is answered.
    private func receive(_ count: Int, _ worker: TestClient, into numbers: inout [Int]) throws {
        var (seen, open) = (Set(numbers), 0)
        while seen.count < count || open > 0 {
            switch try worker.receive() {
            case .publish(let publish):
                let number = try #require(publish.text.split(separator: " ").first.flatMap { Int($0) })
                seen.insert(number)
                numbers.append(number)
                if publish.qos == .exactlyOnce { open += 1 }
                let ack = Ack(packetID: publish.packetID)
                try worker.send(publish.qos == .exactlyOnce ? .pubrec(ack) : .puback(ack))
            case .pubrel(let ack):
                open -= 1
                try worker.send(.pubcomp(ack))
            case let packet: throw TestClient.Failure(description: "the worker got \(String(describing: packet))")
            }
        }
    }

    private func queued(_ name: String, _ broker: Broker) async throws -> Int {
        guard let session = broker.context.registry.find(name) else { return 0 }
        return try await broker.shards[session.owningShard].loop.submit { session.state.queuedCount }.get()
    }

    @Test("a group's queue is in the store, and goes to another member in order and by pages when a session ends")
    func handover() async throws {
        let count = 1_200
        try await withDataDirectory { directory in
            try await withBroker(threads: 2) {
                $0.dataDirectory = directory
                $0.limits.maxQueuedMessages = 10_000
                $0.limits.maxQueuedBytes = 64 << 20
            } _: { broker in
                try join(["a", "b"], broker.port)
                try publish(count, bytes: 2_048, broker.port)
                // Each has the memory of any session, and no more.
                var accounting = try await broker.accounting()
                #expect(accounting.live <= 2 * Limits.queueMemoryMessages + 8 && accounting.unreachable == 0)
                #expect(try await queued("a", broker) == count / 2)

                let clean = try TestClient(port: broker.port)
                #expect(try !clean.connect("a", clean: true).sessionPresent)
                try clean.disconnect()
                let deadline = Patience.end
                while try await queued("b", broker) < count { try #require(ContinuousClock.now < deadline) }
                accounting = try await broker.accounting()
                #expect(accounting.live <= Limits.queueMemoryMessages + 8 && accounting.unreachable == 0)
                #expect(try await broker.unreachable() == [])

                let worker = try TestClient(port: broker.port)
                try worker.connect("b", clean: false)
                var numbers: [Int] = []
                try receive(count, worker, into: &numbers)
                // Its own, in order, and behind them those of the other one, in order.
                #expect(numbers.count == count)
                #expect(Array(numbers.prefix(count / 2)) == numbers.prefix(count / 2).sorted())
                #expect(Array(numbers.suffix(count / 2)) == numbers.suffix(count / 2).sorted())
                #expect(broker.counters.queueDrops.value == 0)
            }
            let stored = StoreFile(in: directory)
            #expect(try stored.count("entry") == 0 && stored.count("message") == 0)
        }
    }

    @Test("a kill while a queue is handed over loses nothing of it, and gives nothing of QoS 2 twice", arguments: 0..<5)
    func kill(round: Int) async throws {
        let count = 400
        try await withDataDirectory { directory in
            let first = try BrokerChild(dataDirectory: directory, "--threads", "2")
            try join(["a", "b"], first.port)
            try publish(count, bytes: 100, first.port)
            // The first pages are on their way when it is told that its session is gone.
            let clean = try TestClient(port: first.port)
            #expect(try !clean.connect("a", clean: true).sessionPresent)
            for _ in 0..<round { try clean.ping() }
            first.kill()

            let second = try BrokerChild(dataDirectory: directory, "--threads", "2")
            let worker = try TestClient(port: second.port)
            #expect(try worker.connect("b", clean: false).sessionPresent)
            var numbers: [Int] = []
            try receive(count, worker, into: &numbers)
            #expect(Set(numbers) == Set(0..<count))
            let twice = Dictionary(grouping: numbers, by: { $0 }).filter { $0.value.count > 1 }.keys
            #expect(twice.allSatisfy { $0 % 4 < 2 }, "QoS 2 twice: \(twice.sorted())")
            try worker.disconnect()
            #expect(second.end() == 0)
            #expect(try StoreFile(in: directory).count("entry") == 0)
        }
    }

    @Test(
        "what was sent with QoS 2 stays its client's, and ends with its session; QoS 1 without an answer is passed on")
    func sent() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            try await withBroker(threads: 2, configure) { broker in
                try join(["a"], broker.port)
                try publish(4, bytes: 1, broker.port)
                let a = try TestClient(port: broker.port)
                try a.connect("a", clean: false)
                // 0 and 1 with QoS 1, 2 and 3 with QoS 2; nothing is answered.
                for _ in 0..<4 { _ = try a.receivePublish() }
                try join(["b"], broker.port)
                let clean = try TestClient(port: broker.port)
                try clean.connect("a", clean: true)
                let b = try TestClient(port: broker.port)
                try b.connect("b", clean: false)
                var numbers: [Int] = []
                try receive(2, b, into: &numbers)
                #expect(numbers == [0, 1])
                try b.ping()
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
        }
    }

    @Test("where there is no other member, what the last one leaves is given up, and counted")
    func nobody() async throws {
        try await withDataDirectory { directory in
            try await withBroker {
                $0.dataDirectory = directory
            } _: { broker in
                try join(["a"], broker.port)
                try publish(150, bytes: 1, broker.port)
                let clean = try TestClient(port: broker.port)
                try clean.connect("a", clean: true)
                try await broker.poll { broker.counters.sharedUndeliverable.value == 150 }
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
            #expect(try StoreFile(in: directory).count("message") == 0)
        }
    }

    @Test("a member that is away and takes QoS 0 only does not get what another one would keep")
    func qosZeroMember() async throws {
        try await withBroker(threads: 2) { broker in
            try join(["a"], broker.port)
            try join(["b"], broker.port, .atMostOnce)
            try publish(20, bytes: 1, broker.port)
            let a = try TestClient(port: broker.port)
            try a.connect("a", clean: false)
            var numbers: [Int] = []
            try receive(20, a, into: &numbers)
            #expect(numbers == Array(0..<20))
        }
    }
}
