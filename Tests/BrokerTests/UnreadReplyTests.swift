import Arena
import Foundation
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// What a peer makes the broker write, and does not read: packets, and what the transport says by itself.
@Suite("Replies that nobody reads", .mayBlock, .serialized)
struct UnreadReplyTests {
    enum Way: CaseIterable {
        case tcp, webSocket

        func client(_ broker: Broker, version: ProtocolVersion = .v3_1_1) throws -> TestClient {
            let client = try TestClient(port: broker.ports.compactMap { $0 }[self == .tcp ? 0 : 1], version: version)
            if self == .webSocket { try client.openWebSocket() }
            return client
        }
    }

    private static func withListeners(_ body: (Broker) async throws -> Void) async throws {
        let listeners = [Configuration.listener(), Configuration.listener { $0.webSocket = true }]
        try await withBroker({
            $0.listeners = listeners
            $0.limits.connectTimeoutSeconds = 600
            $0.limits.sysIntervalSeconds = 0
        }) { broker in
            try await body(broker)
        }
    }

    private static func ping(_ number: Int) -> [UInt8] {
        WebSocketClientFrames.frame(0x89, Array("\(number)".utf8) + [UInt8](repeating: 0, count: 100))
    }

    /// A client to which more has been sent than its socket takes.
    private static func behind(
        _ broker: Broker, _ way: Way, version: ProtocolVersion = .v3_1_1
    ) async throws -> TestClient {
        let client = try way.client(broker, version: version)
        try client.connect("behind")
        try client.subscribe(("t", .atMostOnce))
        let publisher = try Way.tcp.client(broker)
        try publisher.connect("publisher")
        let payload = String(repeating: "x", count: 100_000)
        // Where that is so for long it may be disconnected meanwhile.
        while let bytes = try await broker.bytesBehindIfThere("behind"), bytes < Limits.highWatermark + 100_000 {
            try publisher.publish("t", payload)
            try publisher.ping()
        }
        return client
    }

    @Test(
        "of a flood of pings the newest is answered, so that a client that reads nothing costs nothing",
        arguments: [false, true])
    func pings(isConnected: Bool) async throws {
        try await Self.withListeners { broker in
            let client = try Way.webSocket.client(broker)
            if isConnected { try client.connect("client") }
            let before = broker.pool.metrics().pinnedBytes
            let (bursts, perBurst) = (20, 100)
            for burst in 0..<bursts {
                try client.send(raw: (0..<perBurst).flatMap { Self.ping(burst * perBurst + $0) })
            }
            let last = bursts * perBurst
            try client.send(raw: Self.ping(last))
            let other = try Way.tcp.client(broker)
            try other.connect("other")
            try other.ping()
            #expect(broker.pool.metrics().pinnedBytes - before < 1 << 20)
            // It reads now, and finds an answer to the last.
            while client.webSocket?.pongs.last != Array(Self.payload(last)) {
                let bytes = try #require(try client.receiveRaw())
                _ = try client.webSocket?.read(bytes)
            }
            #expect(try #require(client.webSocket?.pongs.count) < bursts * perBurst / 10)
            if isConnected { try client.ping() } else { try client.connect("client") }
        }
    }

    private static func payload(_ number: Int) -> [UInt8] {
        Array("\(number)".utf8) + [UInt8](repeating: 0, count: 100)
    }

    @Test(
        "to a client that takes nothing one pong is written, whatever it sends; the newest ping is answered when it reads"
    )
    func pongs() async throws {
        try await Self.withListeners { broker in
            let client = try await Self.behind(broker, .webSocket)
            let witness = try Way.tcp.client(broker)
            try witness.connect("witness")
            try witness.subscribe(("done", .atMostOnce))
            let before = broker.pool.metrics().pinnedBytes
            let count = 20_000
            for number in 1...count { try client.send(raw: Self.ping(number)) }
            try client.publish("done", "x")
            #expect(try witness.receivePublish().text == "x")
            #expect(broker.pool.metrics().pinnedBytes - before < 1 << 20)
            while client.webSocket?.pongs.last != Self.payload(count) {
                let bytes = try #require(try client.receiveRaw())
                _ = try client.webSocket?.read(bytes)
            }
            #expect(client.webSocket?.pongs.count == 2)
        }
    }

    @Test(
        "a client that takes no answers is read no further than to the bound, and again when it reads",
        arguments: Way.allCases)
    func answers(way: Way) async throws {
        try await Self.withListeners { broker in
            let client = try await Self.behind(broker, way, version: .v5_0)
            // PUBREL of a message that there is not: four bytes, which five answer. To an answer as long as the request there
            // are hundreds of thousands to the bound.
            let requests = [UInt8](repeatElement([0x62, 0x02, 0x00, 0x07], count: 2_500).joined())
            let bytes = client.webSocket?.binary(requests) ?? requests
            // More than is answered at once, and not as much as the system's buffers take: that is millions of packets.
            let sender = Flood(client, bytes, atMost: Limits.pauseReadingBytes)
            try await broker.poll { broker.isPaused("behind", .output) }
            let waiting = try await broker.waitingBytes("behind")
            // What one read brings is answered.
            #expect(
                waiting >= Limits.pauseReadingBytes && waiting < Limits.pauseReadingBytes + 2 * Limits.readBufferBytes)
            sender.stop()
            let witness = try Way.tcp.client(broker)
            try witness.connect("witness")
            try witness.subscribe(("done", .atMostOnce))
            // It reads on, and is read: to the end of what it has sent, and beyond.
            sender.discardAnswers()
            try await broker.poll { sender.isOver }
            try client.publish("done", "x")
            #expect(try witness.receivePublish().text == "x")
            try await broker.poll { !broker.isPaused("behind", .output) }
            client.vanish()
        }
    }

    @Test("a client that takes nothing is closed though it sends pings", arguments: [Way.webSocket])
    func stalled(way: Way) async throws {
        try await withBroker({
            $0.listeners = [Configuration.listener(), Configuration.listener { $0.webSocket = true }]
            $0.limits.slowConsumerSeconds = 1
        }) { broker in
            let client = try await Self.behind(broker, way)
            while broker.counters.consumersStalled.value == 0 {
                guard (try? client.send(raw: Self.ping(1))) != nil else { break }
                for shard in broker.shards { try await shard.loop.submit {}.get() }
            }
            try await broker.poll { broker.counters.consumersStalled.value == 1 }
        }
    }
}

/// Sends whole copies of the same bytes on a thread of its own until it is told to stop.
final class Flood: @unchecked Sendable {
    private let client: TestClient
    private let lock = NSLock()
    private var isStopped = false
    private var isDone = false

    /// - Parameter most: after how many bytes it ends, or soon after.
    init(_ client: TestClient, _ bytes: [UInt8], atMost most: Int = .max) {
        self.client = client
        Thread.detachNewThread { [self] in
            var sent = 0
            while sent < most, (try? self.client.send(raw: bytes)) != nil, !lock.withLock({ isStopped }) {
                sent += bytes.count
            }
            lock.withLock { isDone = true }
        }
    }

    var isOver: Bool { lock.withLock { isDone } }

    func stop() { lock.withLock { isStopped = true } }

    /// Reads whatever comes, on another thread, until the connection is closed.
    func discardAnswers() {
        Thread.detachNewThread { [self] in while ((try? client.receiveRaw()) ?? nil) != nil {} }
    }
}

extension Broker {
    fileprivate func waitingBytes(_ clientID: String) async throws -> Int {
        let session = try #require(context.registry.find(clientID))
        return try await shards[session.owningShard].loop.submit { session.connection?.output.unwrittenBytes ?? 0 }
            .get()
    }

    fileprivate func isPaused(_ clientID: String, _ reason: ConnectionHandler.Pauses) -> Bool {
        guard let session = context.registry.find(clientID) else { return false }
        return
            (try? shards[session.owningShard].loop.submit { session.connection?.pauses.contains(reason) ?? false }
            .wait())
            ?? false
    }
}
