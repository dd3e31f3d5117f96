import Glibc
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// A client that has said goodbye has said so before it comes again, however busy the loop was in between.
@Suite("What comes before a take-over", .mayBlock, .serialized)
struct TakeOverTests {
    private static let goodbye: [UInt8] = [0xE0, 0x00]

    /// A client with a will, and a watcher of it; `body` on their loop.
    private func withClient(
        _ body: @escaping @Sendable (EventLoopShard, Session, ConnectionHandler) throws -> Void,
        then: (Broker, TestClient) async throws -> Void
    ) async throws {
        try await withBroker { broker in
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe(("will", .atMostOnce))
            let client = try TestClient(port: broker.port, version: .v5_0)
            let will = Will(topic: "will", payload: ByteBuffer(string: "gone"))
            try client.connect("client", will: will) { $0.sessionExpiryInterval = 600 }
            let session = try #require(broker.context.registry.find("client"))
            let shard = broker.shards[0]
            try await shard.loop.submit { try body(shard, session, #require(session.connection)) }.get()
            try await then(broker, client)
            // It has said goodbye: no will.
            try watcher.ping()
        }
    }

    /// Read, when the tick has no steps left.
    private static func read(_ bytes: [UInt8], _ shard: EventLoopShard, _ connection: ConnectionHandler) {
        shard.steps.take(4 * Limits.stepsPerTick)
        connection.channelRead(context: connection.channelContext, data: NIOAny(ByteBuffer(bytes: bytes)))
        #expect(connection.hasInput)
    }

    private static func claim(_ session: Session, _ shard: EventLoopShard) {
        let gone = ConnectionReference(shard: shard.index, index: 0, generation: .max)
        shard.takeOver(session, for: SessionWaiter(connection: gone, discard: false, number: session.claim))
    }

    private static func awaitAway(_ broker: Broker) async throws {
        try await broker.poll { broker.context.registry.find("client")?.presence ?? .ended <= .away }
    }

    @Test("a DISCONNECT that waits for its turn is not overtaken by the next CONNECT", arguments: [nil, UInt32(0)])
    func turn(expiry: UInt32?) async throws {
        var packet = ByteBuffer()
        var disconnect = Disconnect()
        disconnect.properties.sessionExpiryInterval = expiry
        Packet.disconnect(disconnect).encode(into: &packet, version: .v5_0)
        let bytes = Array(packet.readableBytesView)
        try await withClient { shard, session, connection in
            Self.read(bytes, shard, connection)
            Self.claim(session, shard)
            #expect(session.connection === connection)
        } then: { broker, client in
            try client.expectClosed()
            let next = try TestClient(port: broker.port, version: .v5_0)
            let answer = try next.connect("client", clean: false) { $0.sessionExpiryInterval = 600 }
            // Its expiry is taken, too.
            #expect(answer.sessionPresent == (expiry == nil))
        }
    }

    @Test("nor by a connection that comes while the store has too much to do")
    func store() async throws {
        try await withClient { shard, session, connection in
            connection.pauseReading(.store)
            connection.channelRead(context: connection.channelContext, data: NIOAny(ByteBuffer(bytes: Self.goodbye)))
            Self.claim(session, shard)
            #expect(session.connection === connection)
            connection.goOnAfterStore()
        } then: { broker, client in
            try client.expectClosed()
        }
    }

    @Test("who hangs up while what he sent waits for the store, or for its turn, has said goodbye all the same")
    func hangsUp() async throws {
        try await withClient { shard, session, connection in
            connection.pauseReading(.store)
            connection.channelRead(context: connection.channelContext, data: NIOAny(ByteBuffer(bytes: Self.goodbye)))
        } then: { broker, client in
            client.vanish()
            let session = try #require(broker.context.registry.find("client"))
            let deadline = Patience.end
            while try await broker.shards[0].loop.submit({ session.connection?.isPeerGone == false }).get() {
                try #require(ContinuousClock.now < deadline, "the client is still there")
            }
            try await broker.shards[0].loop.submit { session.connection?.goOnAfterStore() }.get()
            try await Self.awaitAway(broker)
        }
        try await withClient { shard, session, connection in
            Self.read(Self.goodbye, shard, connection)
            connection.errorCaught(
                context: connection.channelContext, error: IOError(errnoCode: ECONNRESET, reason: "read"))
            #expect(session.connection === connection)
        } then: { broker, client in
            try await Self.awaitAway(broker)
        }
    }

    @Test("a DISCONNECT that waits for its turn counts when the broker ends")
    func end() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            let will = Will(topic: "will", payload: ByteBuffer(string: "gone"), retain: true)
            try client.connect("client", will: will)
            let session = try #require(broker.context.registry.find("client"))
            let shard = broker.shards[0]
            try await shard.loop.submit {
                Self.read(Self.goodbye, shard, try #require(session.connection))
                shard.closeConnections()
            }.get()
            #expect(broker.context.retained.count == 0)
        }
    }

    @Test("a session whose time has come is over, though its timer has not come to it", arguments: [false, true])
    func expired(isStored: Bool) async throws {
        try await withDataDirectory { directory in
            try await withBroker({ if isStored { $0.dataDirectory = directory } }) { broker in
                let watcher = try TestClient(port: broker.port)
                try watcher.connect("watcher")
                try watcher.subscribe(("will", .atMostOnce))
                let client = try TestClient(port: broker.port, version: .v5_0)
                var will = Will(topic: "will", payload: ByteBuffer(string: "gone"))
                will.properties.delayInterval = 1_000
                try client.connect("client", will: will) { $0.sessionExpiryInterval = 600 }
                client.vanish()
                let session = try await broker.awaitAway("client")
                let shard = broker.shards[0]
                try await shard.loop.submit {
                    shard.isTimeRunning = false
                    shard.update(session) { $0.endsAt = .now() - .seconds(1) }
                }.get()
                let next = try TestClient(port: broker.port, version: .v5_0)
                #expect(try !next.connect("client", clean: false).sessionPresent)
                // Due at the end of its session [MQTT-3.1.2-8].
                #expect(try watcher.receivePublish().text == "gone")
                #expect(broker.counters.sessionsExpired.value == 1)
            }
        }
    }
}
