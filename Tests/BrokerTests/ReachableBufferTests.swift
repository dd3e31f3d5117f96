import Dispatch
import DumpFormat
import Foundation
import Ledger
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

@Suite("Who holds which buffer", .mayBlock, .serialized)
struct ReachableBufferTests {
    /// Buffers of exactly these sizes are followed by another's in their slab: a mistake by one byte names that.
    static let classSizes = [64, 80, 96, 112, 128, 256, 512, 1_024]

    @Test("while clients come and vanish, every buffer is reachable in every dump")
    func churn() async throws {
        try await withBroker(threads: 2, { $0.dumps.keepCount = 2 }) { broker in
            let port = broker.port
            try await broker.expectAllReachable(
                while: (0..<3).map { number in { _ in try Self.comeAndGo(port, name: "client-\(number)") } })
            try await broker.awaitNothingLeft()
        }
    }

    /// The ways to go: with DISCONNECT; without a byte; after one; without reading, which resets the connection; after
    /// half a packet.
    private static func comeAndGo(_ port: Int, name: String) throws {
        let polite = try TestClient(port: port)
        try polite.connect(name)
        try polite.disconnect()
        try TestClient(port: port).vanish()
        let brief = try TestClient(port: port)
        try brief.send(bytes: [0x10])
        brief.vanish()
        let rude = try TestClient(port: port)
        try rude.send(.connect(Connect(version: .v3_1_1, clientID: name)), .pingreq)
        rude.vanish()
        let cut = try TestClient(port: port)
        try cut.connect(name, will: Will(topic: "w/\(name)", payload: ByteBuffer()))
        try cut.send(bytes: [0x30, 0xE8, 0x07, 0x00, 0x01, 0x61])
        cut.vanish()
    }

    @Test("messages with an empty payload are held by those who keep them, and by nobody else")
    func emptyPayloads() async throws {
        try await withBroker { broker in
            let away = try TestClient(port: broker.port)
            try away.connect("away", clean: false)
            try away.subscribe(("e/#", .atLeastOnce))
            try away.disconnect()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            for size in Self.classSizes {
                // Copied into a buffer that the topic fills.
                try publisher.publish(Self.topic(size), "", qos: .atLeastOnce)
                // A packet that fills the buffer it is assembled in.
                try await Self.publishInParts(size, publisher, broker)
            }
            for size in [4_096, 65_536] { try await Self.publishInParts(size, publisher, broker) }
            var testators: [TestClient] = []
            for size in Self.classSizes {
                let client = try TestClient(port: broker.port)
                try client.connect("testator-\(size)", will: Will(topic: Self.topic(size), payload: ByteBuffer()))
                testators.append(client)
            }

            let snapshot = try await broker.snapshot()
            #expect(snapshot.totals.unreachableBuffers == 0)
            let referrers = try Self.referrers(snapshot)
            let queued = referrers.filter { $0.kind == .offlineQueue }
            #expect(queued.count == Self.classSizes.count * 2 + 2)
            #expect(queued.allSatisfy { $0.referrer == "away" && $0.owner == "away" })
            let wills = referrers.filter { $0.kind == .will }
            #expect(wills.map(\.referrer).sorted() == Self.classSizes.map { "testator-\($0)" }.sorted())
            #expect(wills.allSatisfy { $0.referrer == $0.owner })
            for client in testators { try client.disconnect() }
        }
    }

    private static func topic(_ size: Int) -> String { "e/" + String(repeating: "x", count: size - 2) }

    /// A QoS 1 PUBLISH of exactly `size` bytes without payload, whose second part comes in another read.
    private static func publishInParts(_ size: Int, _ client: TestClient, _ broker: Broker) async throws {
        let packetID = client.takePacketID()
        let header = size < 131 ? 2 : size < 16_387 ? 3 : 4
        let publish = Publish(topic: topic(size - header - 4), qos: .atLeastOnce, packetID: packetID)
        var bytes = ByteBuffer()
        Packet.publish(publish).encode(into: &bytes, version: .v3_1_1)
        try #require(bytes.readableBytes == size)
        try client.send(bytes: bytes.readBytes(length: 9)!)
        try await broker.awaitPartialPacket()
        try client.send(bytes: Array(bytes.readableBytesView))
        try client.expect(.puback(Ack(packetID: packetID)))
    }

    private struct Referrer {
        var kind: ReferrerKind
        var referrer: String
        /// Who answers for the buffer.
        var owner: String
    }

    private static func referrers(_ snapshot: Snapshot) throws -> [Referrer] {
        let (references, slots) = (try #require(snapshot.references), try #require(snapshot.slots))
        return try (0..<references.count).map { reference in
            let owner = slots.owner[Int(references.slotRow[reference])]
            return Referrer(
                kind: try #require(ReferrerKind(rawValue: references.referrerKind[reference])),
                referrer: snapshot.owners[Int(references.referrerOwner[reference])].name,
                owner: snapshot.owners[Int(owner)].name)
        }
    }

    @Test("a connection that ends while it sends a retained message leaves that to the retained store")
    func retainedWhileClosing() async throws {
        try await withBroker { broker in
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            for number in 0..<16 {
                let payload = String(repeating: "x", count: 900_000)
                try publisher.publish("big/\(number)", payload, qos: .atLeastOnce, retain: true)
            }
            // Takes nothing of it, so that it is still being written when the connection ends.
            let stalled = try TestClient(port: broker.port)
            try stalled.connect("stalled")
            let filter = Subscription(filter: "big/#", qos: .atLeastOnce)
            try stalled.send(.subscribe(Subscribe(packetID: 1, filters: [filter])))
            try publisher.ping()
            try stalled.send(.disconnect(Disconnect()))
            try await broker.poll { broker.owningShard(of: "stalled") == nil }

            let snapshot = try await broker.snapshot()
            let retained = try Self.referrers(snapshot).filter { $0.kind == .retained }
            #expect(retained.count == 16)
            #expect(retained.allSatisfy { $0.owner == "retained messages" })
            stalled.vanish()
        }
    }
}

extension Broker {
    /// Until the beginning of a packet has been read, where nobody else is in the middle of one.
    func awaitPartialPacket() async throws {
        let deadline = Patience.end
        while true {
            for shard in shards where try await shard.loop.submit({ shard.hasPartialPacket }).get() { return }
            try #require(ContinuousClock.now < deadline, "nobody is in the middle of a packet")
        }
    }
}

extension EventLoopShard {
    fileprivate var hasPartialPacket: Bool {
        var found = false
        connections.forEach { found = found || $0.hasPartialPacket }
        return found
    }
}

/// Clients on threads of their own.
private final class Clients: Sendable {
    let isOver = Atomic<Bool>(false)
    let rounds = Atomic<Int>(0)
    let left = DispatchSemaphore(value: 0)
}

extension Broker {
    /// Every buffer is reachable in a hundred dumps while these are done, each on a thread, round after round.
    func expectAllReachable(while actions: [@Sendable (_ round: Int) throws -> Void]) async throws {
        let clients = Clients()
        for action in actions {
            Thread {
                do {
                    var round = 0
                    while !clients.isOver.load(ordering: .relaxed) {
                        try action(round)
                        clients.rounds.add(1, ordering: .relaxed)
                        round += 1
                    }
                } catch {
                    Issue.record(error)
                }
                clients.left.signal()
            }.start()
        }
        for _ in 0..<100 {
            let snapshot = try await snapshot()
            let unreachable = snapshot.allocationGroups.filter { $0.unreachableBuffers > 0 }
            #expect(unreachable.map { snapshot.sites[Int($0.site)].label } == [])
            #expect(snapshot.totals.unreachableBuffers == 0)
        }
        clients.isOver.store(true, ordering: .relaxed)
        try await NIOThreadPool.singleton.runIfActive { for _ in actions { clients.left.wait() } }
        #expect(clients.rounds.load(ordering: .relaxed) > 0)
    }
}
