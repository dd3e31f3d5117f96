import Arena
import DumpFormat
import Foundation
import Ledger
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// A broker that forgets what it has read keeps its limit, whatever comes over whichever transport, and goes on with all
/// that makes room or says what is wrong.
@Suite("The limit under a fault", .mayBlock, .serialized)
struct LimitUnderFaultTests {
    enum Transport: CaseIterable {
        case tcp, unix, tls, webSocket, secureWebSocket

        var isTLS: Bool { self == .tls || self == .secureWebSocket }

        func listener(_ certificates: Certificates?, _ directory: URL) throws -> Configuration.Listener {
            var listener = try isTLS ? TLSTests.listener(#require(certificates)) : Configuration.listener()
            listener.webSocket = self == .webSocket || self == .secureWebSocket
            if self == .unix { listener.path = directory.appending(path: "s").path }
            return listener
        }

        func client(_ broker: Broker, _ certificates: Certificates?, _ directory: URL) throws -> TestClient {
            let client: TestClient
            switch self {
            case .unix: client = try TestClient(path: directory.appending(path: "s").path)
            case .tls, .secureWebSocket:
                client = try TestClient(tlsPort: broker.ports.compactMap { $0 }[1], #require(certificates))
            case .tcp, .webSocket: client = try TestClient(port: broker.ports.compactMap { $0 }[1])
            }
            if self == .webSocket || self == .secureWebSocket { try client.openWebSocket() }
            return client
        }
    }

    private static let limit = 64 << 20
    private static let devices = 2

    @Test(
        "all answers of devices are forgotten: the counter stays within the limit, and who does not publish is served",
        arguments: Transport.allCases, [0, 64, 4_096, 1 << 20 - 100])
    func forgotten(transport: Transport, size: Int) async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try transport.isTLS ? Certificates(in: directory) : nil
            try certificates?.sign("server")
            let listeners = [Configuration.listener(), try transport.listener(certificates, directory)]
            try await withHTTPBroker({
                $0.memoryLimit = Self.limit
                $0.listeners = listeners
                $0.faults.rpcResponseLeakPercent = 100
                $0.rpc.requirePending = false
                $0.limits.maxPacketBytes = 1 << 20
            }) { broker, http in
                let probe = try TestClient(port: broker.port)
                try probe.connect("probe")
                let devices = try (0..<Self.devices).map { index in
                    let device = try transport.client(broker, certificates, directory)
                    try device.connect("device-\(index)")
                    return device
                }
                // It would take the devices long to fill all of it: publishers are paused at 15 %.
                let ballast = Ballast()
                try await broker.fill(ballast, toAvailable: Self.limit / 100 * 18)
                var packets = ByteBuffer()
                repeat {
                    Packet.publish(
                        Publish(topic: "v1/devices/me/rpc/response/1", payload: String(repeating: "x", count: size))
                    ).encode(into: &packets, version: .v3_1_1)
                } while packets.readableBytes < 2_000
                let bytes = Array(packets.readableBytesView)
                let floods = devices.map { Flood($0, $0.webSocket?.binary(bytes) ?? bytes) }
                // Without a payload nothing is forgotten, and nobody is paused.
                for _ in 0..<(size == 0 ? 1 : 12) where broker.counters.publisherPauses.value < Self.devices {
                    try await broker.awaitTick()
                    #expect(broker.pool.counterBytes <= Self.limit)
                }
                try await broker.poll { broker.counters.responsesLeaked.value > 0 }
                try await broker.awaitTick()
                try probe.ping()
                #expect(try await http.get("/health").status == 200)
                let dumps = broker.dumper.written.load(ordering: .relaxed)
                broker.requestDump()
                broker.dumper.finishRequests()
                #expect(broker.dumper.written.load(ordering: .relaxed) > dumps)
                #expect(broker.pool.counterBytes <= Self.limit)
                #expect(broker.pool.withLedger { $0.header.pointee.overLimitBytes } == 0)
                for flood in floods { flood.stop() }
                for device in devices { device.vanish() }
                try probe.ping()
                try await broker.shards[0].loop.submit { ballast.drop() }.get()
            }
        }
    }

    enum Hoard: CaseIterable {
        case unfinishedPackets, topicAliases
    }

    @Test(
        "what many clients have begun, or have remembered, leaves room for acknowledgements and pings",
        arguments: Hoard.allCases)
    func hoarded(what: Hoard) async throws {
        try await withBroker({ $0.memoryLimit = Self.limit }) { broker in
            let probe = try TestClient(port: broker.port)
            try probe.connect("probe")
            let hoarders = try (0..<80).map { index in
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("hoarder-\(index)")
                return client
            }
            let ballast = Ballast()
            try await broker.fill(ballast, to: .critical)
            var publish = Publish(topic: String(repeating: "t", count: 60_000), payload: "")
            publish.properties = PublishProperties()
            publish.properties?.topicAlias = 1
            if what == .unfinishedPackets {
                publish = Publish(topic: "t", payload: String(repeating: "x", count: 900_000))
            }
            var packet = ByteBuffer()
            Packet.publish(publish).encode(into: &packet, version: .v5_0)
            let bytes = Array(packet.readableBytesView.dropLast(what == .unfinishedPackets ? 1 : 0))
            for hoarder in hoarders {
                // Until it is closed.
                try? hoarder.send(bytes: bytes)
                try probe.ping()
            }
            try await broker.poll { broker.counters.allocationFailures.value > 0 }
            #expect(broker.pool.counterBytes <= Self.limit)
            let shard = broker.shards[0]
            #expect(try await shard.loop.submit { shard.hasEgressMemory }.get())
            try probe.ping()
            for hoarder in hoarders { hoarder.vanish() }
            try await shard.loop.submit { ballast.drop() }.get()
        }
    }

    @Test("a publish that is refused so that the arena need not brings a dump of its own, once")
    func refusal() async throws {
        try await withBroker({ $0.memoryLimit = Self.limit }) { broker in
            let ballast = Ballast()
            let publishers = try (0..<3).map { index in
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("publisher-\(index)")
                return client
            }
            try await broker.fill(ballast, to: .critical)
            for publisher in publishers {
                try publisher.send(.publish(Publish(topic: "t", payload: "x", qos: .atLeastOnce, packetID: 7)))
                try publisher.expect(.puback(Ack(packetID: 7, code: .quotaExceeded)))
            }
            broker.dumper.finishRequests()
            let names = try FileManager.default.contentsOfDirectory(atPath: broker.configuration.dumpDirectory)
            #expect(names.count { $0.contains("allocation-failure") } == 1)
            #expect(broker.pool.failedAllocations == publishers.count)
            // The dump says so: what a summary, a diff and a monitor go by.
            let dump = try #require(names.first { $0.contains("allocation-failure") })
            let snapshot = try DumpReader.read(path: broker.configuration.dumpDirectory + "/" + dump, .everything)
            #expect(snapshot.totals.failedAllocations >= 1)
            #expect(snapshot.events.contains { $0.kind == EventKind.refused.name })
            try await broker.empty(ballast)
        }
    }
}
