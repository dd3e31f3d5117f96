import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Keep alive", .mayBlock, .serialized)
struct KeepAliveTests {
    /// A client with a keep alive, and `body` on the loop of its connection.
    private func withConnection(
        _ body: @escaping @Sendable (EventLoopShard, ConnectionHandler) throws -> Void,
        whenDone: (TestClient) throws -> Void = { _ in }
    ) async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client", keepAlive: 60)
            let shard = broker.shards[0]
            try await shard.loop.submit {
                try body(shard, #require(broker.context.registry.find("client")?.connection))
            }.get()
            try whenDone(client)
            try client.ping()
        }
    }

    private static let pauses: [ConnectionHandler.Pauses] = [.memory, .store, .output]

    @Test("a client is not silent while it is not read, whatever it is not read for", arguments: pauses.indices)
    func paused(index: Int) async throws {
        try await withConnection { shard, connection in
            let pause = Self.pauses[index]
            connection.pauseReading(pause)
            connection.check(.silence, .now() + .hours(1))
            connection.resumeReading(pause)
            guard case .connected = connection.phase else { throw TestClient.Failure(description: "was closed") }
        }
    }

    @Test("nor is it when reading has just gone on", arguments: pauses.indices)
    func resumed(index: Int) async throws {
        try await withConnection { shard, connection in
            let pause = Self.pauses[index]
            connection.lastRead = .now() - .hours(1)
            connection.pauseReading(pause)
            connection.resumeReading(pause)
            connection.check(.silence, .now())
            guard case .connected = connection.phase else { throw TestClient.Failure(description: "was closed") }
        }
    }

    @Test("a pause in the middle of a packet adds its own length to the time for it, and no more")
    func middleOfPacket() async throws {
        try await withConnection { shard, connection in
            connection.channelRead(
                context: connection.channelContext, data: NIOAny(ByteBuffer(bytes: [UInt8(0xC0)])))
            let begun = try #require(connection.packetStart)
            let before = NIODeadline.now()
            for _ in 0..<3 {
                connection.pauseReading(.output)
                connection.resumeReading(.output)
            }
            let added = try #require(connection.packetStart) - begun
            #expect(added >= .nanoseconds(0) && added <= NIODeadline.now() - before)
            // The rest of PINGREQ.
            connection.channelRead(context: connection.channelContext, data: NIOAny(ByteBuffer(bytes: [UInt8(0)])))
            #expect(connection.packetStart == nil)
        } whenDone: { client in
            try client.expect(.pingresp)
        }
    }

    @Test("a client that is read, and silent, is disconnected")
    func silent() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client", keepAlive: 60)
            let shard = broker.shards[0]
            try await shard.loop.submit {
                try #require(broker.context.registry.find("client")?.connection).check(.silence, .now() + .hours(1))
            }.get()
            try client.expectClosed()
        }
    }

    @Test("the wheel has one entry for a connection's keep alive, and none is made for CONNECT once that has come")
    func entries() async throws {
        try await withConnection { shard, connection in
            #expect(shard.watches(of: connection.reference).filter { $0 == .silence }.count == 1)
            connection.check(.connect, .now() + .hours(1))
            #expect(shard.watches(of: connection.reference).count == 2)
        }
    }
}
