import Foundation
import Glibc
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// What is kept for clients beside the arena: the account against what the C library has really given out, and what
/// becomes of a client that asks for more than there is.
@Suite("The account of the heap", .mayBlock, .serialized)
struct HeapAccountTests {
    /// A broker of its own, since only in a process without anything else does the C library tell what it takes.
    private struct Measured {
        let child: BrokerChild
        let http: HTTPTestClient

        struct Figures {
            /// What the account has, with the buffers' objects, and what malloc has given out.
            var estimate: Int
            var real: Int
            var counter: Int
            var liveBytes: Int

            /// NIO's object for a buffer.
            static let bufferObjectBytes = 128
        }

        init(limit: String, _ configuration: String, in directory: URL) throws {
            let (child, port) = try BrokerChild.withHTTP(configuration, in: directory, "--memory-limit", limit)
            self.child = child
            http = HTTPTestClient(port: port)
        }

        func figures() async throws -> Figures {
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            let memory = try decoder.decode(LiveMemory.self, from: try await http.get("/v1/memory").body)
            let heap = memory.heap.reduce(0) { $0 + Int($1.bytes) }
            return Figures(
                estimate: heap + Int(memory.liveBuffers) * Figures.bufferObjectBytes, real: Int(memory.mallocBytes),
                counter: Int(memory.counterBytes), liveBytes: Int(memory.liveBytes))
        }
    }

    /// - Parameters:
    ///   - configuration: more of it, sections at its end.
    ///   - accessRules: what is in its ACL file, if there is to be one.
    private static func withMeasured(
        _ limit: String, _ configuration: String = "", accessRules: String? = nil,
        _ body: (Measured) async throws -> Void
    ) async throws {
        try await withTemporaryDirectory { directory in
            var configuration = configuration
            if let accessRules {
                configuration += "[access]\naclFile = \"\(try directory.write("acl", accessRules))\"\n"
            }
            let broker = try Measured(limit: limit, configuration, in: directory)
            nonisolated(unsafe) let child = broker.child
            defer { child.kill() }
            // Lines that nobody reads would be kept by the broker, and be counted.
            Thread.detachNewThread { _ = try? child.line { _ in false } }
            try await body(broker)
        }
    }

    /// The account is right to a tenth where `work` is what makes it grow.
    private static func expectHonest(_ broker: Measured, _ work: () throws -> Void) async throws {
        // Whatever the first request makes for good.
        _ = try await broker.figures()
        let before = try await broker.figures()
        try work()
        // Connections that have just been closed still hold something.
        let deadline = Patience.end
        while true {
            let after = try await broker.figures()
            let (estimate, real) = (after.estimate - before.estimate, after.real - before.real)
            if abs(estimate - real) * 10 <= real { return }
            try #require(ContinuousClock.now < deadline, "estimated \(estimate), given out \(real)")
        }
    }

    /// Subscribes to `count` filters of one client after the other, a hundred in a packet.
    private static func subscribe(_ count: Int, _ client: TestClient, _ filter: (Int) -> String) throws -> [ReasonCode]
    {
        var codes: [ReasonCode] = []
        for start in stride(from: 0, to: count, by: 100) {
            codes += try client.subscribe(
                (start..<min(start + 100, count)).map { Subscription(filter: filter($0), qos: .atLeastOnce) })
        }
        return codes
    }

    @Test("subscriptions: what is counted is what they take, to a tenth", arguments: ["s", "a/longer/first/part"])
    func subscriptions(prefix: String) async throws {
        try await Self.withMeasured("1GiB") { broker in
            var clients: [TestClient] = []
            for _ in 0..<11 {
                clients.append(try TestClient(port: broker.child.port, version: .v5_0))
                try clients.last!.connect("client-\(clients.count)")
            }
            try await Self.expectHonest(broker) {
                for (number, client) in clients.enumerated() {
                    let codes = try Self.subscribe(10_000, client) { "\(prefix)/\(number)/\($0)/a level of twenty" }
                    #expect(codes.allSatisfy { $0 == .granted(.atLeastOnce) })
                }
            }
        }
    }

    @Test("sessions: what is counted is what they take, to a tenth")
    func sessions() async throws {
        try await Self.withMeasured("1GiB") { broker in
            // What connections leave for those that come later.
            try Self.keep(1_000, "early", port: broker.child.port)
            try await Self.expectHonest(broker) {
                try Self.keep(20_000, port: broker.child.port)
            }
        }
    }

    @Test("the access rules of sessions, those of one user and patterns: what is counted is what they take, to a tenth")
    func accessRules() async throws {
        let lines = (0..<100).map { "topic read site/\($0)/#" } + (0..<50).map { "pattern readwrite \($0)/of/%c/up" }
        try await Self.withMeasured("1GiB", accessRules: lines.joined(separator: "\n")) { broker in
            try Self.keep(1_000, "early", port: broker.child.port)
            let before = try await broker.figures().estimate
            try await Self.expectHonest(broker) {
                try Self.keep(2_000, port: broker.child.port)
            }
            #expect(try await broker.figures().estimate - before > 2_000 * 150 * 32)
        }
    }

    @Test("open commands: what is counted is what they take, to a tenth")
    func commands() async throws {
        try await Self.withMeasured("1GiB", "[limits]\nmaxPendingRPCPerDevice = 1000\n[rpc]\ntimeoutSeconds = 3600\n") {
            broker in
            let devices = try (0..<50).map { number in
                let device = try TestClient(port: broker.child.port)
                try device.connect("device-\(number)")
                try device.subscribe(("v1/devices/me/rpc/request/+", .atMostOnce))
                return device
            }
            let backEnd = try TestClient(port: broker.child.port)
            try backEnd.connect("back end")
            // Matches of topics are remembered, and take some room for good.
            for number in 0..<20_000 { try backEnd.publish("to/nobody/\(number)") }
            try backEnd.ping()
            try await Self.expectHonest(broker) {
                for command in 0..<1_000 {
                    for number in devices.indices {
                        try backEnd.publish(
                            "v1/devices/device-\(number)/rpc/request/a-long-name-of-a-command-\(command)")
                    }
                    try backEnd.ping()
                }
                // They take them, and do not answer.
                for device in devices { for _ in 0..<1_000 { _ = try device.receivePublish() } }
            }
        }
    }

    /// Makes sessions that are kept, a few hundred clients at a time.
    ///
    /// - Returns: how many were refused.
    @discardableResult
    private static func keep(_ count: Int, _ name: String = "kept-client", port: Int) throws -> Int {
        var refused = 0
        for start in stride(from: 0, to: count, by: 500) {
            let clients = try (start..<min(start + 500, count)).map { number in
                let client = try TestClient(port: port)
                try client.send(
                    .connect(
                        Connect(version: .v3_1_1, cleanStart: false, keepAlive: 0, clientID: "\(name)-\(number)")))
                return client
            }
            for client in clients {
                guard case .connack(let ack)? = try client.receive() else { continue }
                if ack.code != .success { refused += 1 }
            }
        }
        return refused
    }

    @Test("retained topics of eight levels: what is counted is what they take, to a tenth, and it is not much")
    func retained() async throws {
        try await Self.withMeasured("1GiB") { broker in
            let client = try TestClient(port: broker.child.port, version: .v5_0)
            try client.connect("client")
            var bytes = 0
            let before = try await broker.figures()
            try await Self.expectHonest(broker) {
                bytes = try Self.retain(100_000, client).count
            }
            let after = try await broker.figures()
            #expect(bytes == 0, "none refused")
            // A node was 460 bytes.
            #expect(after.estimate - before.estimate < 100_000 * 8 * 120)
        }
    }

    /// - Returns: what was said of those that were refused.
    private static func retain(_ count: Int, _ client: TestClient) throws -> [ReasonCode] {
        var refused: [ReasonCode] = []
        for start in stride(from: 0, to: count, by: 500) {
            for number in start..<min(start + 500, count) {
                var packet = Publish(
                    topic: "t/\(number)/c/d/e/f/g/h", payload: "x", qos: .atLeastOnce,
                    packetID: UInt16(number % 60_000) + 1)
                packet.retain = true
                try client.send(.publish(packet))
            }
            for _ in start..<min(start + 500, count) {
                guard case .puback(let ack)? = try client.receive() else {
                    throw TestClient.Failure(description: "no PUBACK")
                }
                if ack.code.isError { refused.append(ack.code) }
            }
        }
        return refused
    }

    @Test(
        "a flood of subscriptions, sessions and retained topics is refused in time: what is resident stays below the limit and a tenth"
    )
    func flood() async throws {
        try await Self.withMeasured("96MiB") { broker in
            let port = broker.child.port
            // The program itself, before it has kept anything.
            let program = try broker.child.residentBytes()
            #expect(try Self.floodSubscriptions(port: port) > 0)
            #expect(try Self.keep(1_000, port: port) > 0)
            // Whoever is there goes on, and may make room.
            let owner = try TestClient(port: port, version: .v5_0)
            #expect(try owner.connect("subscriber-0", clean: false).sessionPresent)
            let codes = try Self.retain(2_000, owner)
            #expect(codes.allSatisfy { $0 == .quotaExceeded } && !codes.isEmpty)
            try owner.ping()
            let figures = try await broker.figures()
            let resident = try broker.child.residentBytes() - program
            #expect(resident <= (96 << 20) / 10 * 11, "\(resident) resident, \(figures)")
        }
    }

    /// Kept sessions with as many subscriptions as they may have, until some are refused.
    ///
    /// - Returns: how many were.
    private static func floodSubscriptions(port: Int) throws -> Int {
        var refused = 0
        var number = 0
        while refused == 0, number < 40 {
            let client = try TestClient(port: port, version: .v5_0)
            try client.connect("subscriber-\(number)") { $0.sessionExpiryInterval = 1_000 }
            for code in try subscribe(10_000, client, { "flood/\(number)/\($0)/x" }) {
                if code == .quotaExceeded { refused += 1 } else { #expect(code == .granted(.atLeastOnce)) }
            }
            number += 1
        }
        return refused
    }

    @Test("what is counted for sessions, subscriptions and retained topics is given back with them")
    func givenBack() async throws {
        try await withBroker(threads: 2) { broker in
            let heap = broker.context.heap
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("client") { $0.sessionExpiryInterval = 1_000 }
            let session = try #require(broker.context.registry.find("client"))
            #expect(heap.bytes(of: .connections) == Limits.heapBytesPerConnection)
            let one = heap.bytes(of: .sessions)
            _ = try Self.subscribe(1_000, client) { "x/\($0)/a level of twenty/y" }
            #expect(heap.bytes(of: .subscriptions) > 1_000 * 200)
            for number in 0..<100 { try client.publish("r/\(number)/s", "x", qos: .atLeastOnce, retain: true) }
            #expect(heap.bytes(of: .retained) > 200 * 64)
            for number in 0..<100 { try client.publish("r/\(number)/s", "", qos: .atLeastOnce, retain: true) }
            #expect(heap.bytes(of: .retained) == 0)
            try client.disconnect()
            let again = try TestClient(port: broker.port, version: .v5_0)
            try again.connect("client", clean: true)
            try await broker.poll { heap.bytes(of: .sessions) == one || session.isEnded }
            try again.disconnect()
            // The tables keep their room.
            try await broker.poll {
                heap.bytes(of: .connections) == 0 && broker.context.router.subscriptionCount == 0
                    && heap.bytes(of: .subscriptions) < 1_000 * 400
            }
        }
    }
}
