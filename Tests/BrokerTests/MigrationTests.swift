import Foundation
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Sessions that move from one loop to another, for connections that may be gone before they arrive.
@Suite("Migration of sessions", .mayBlock, .serialized)
struct MigrationTests {
    private static func will(_ text: String, delay: UInt32) -> Will {
        var will = Will(topic: "will", payload: ByteBuffer(string: text), qos: .atLeastOnce)
        will.properties.delayInterval = delay
        return will
    }

    private static func watcher(_ broker: Broker) throws -> TestClient {
        let watcher = try TestClient(port: broker.port, version: .v5_0)
        try watcher.connect("watcher")
        try watcher.subscribe([Subscription(filter: "will", qos: .atMostOnce)])
        return watcher
    }

    /// A connection of that loop which is gone.
    private static func gone(on shard: Int) -> ConnectionReference {
        ConnectionReference(shard: shard, index: 0, generation: .max)
    }

    /// So many clients that every loop has one.
    private static func visitors(_ broker: Broker) async throws -> [TestClient] {
        var visitors: [TestClient] = []
        for shard in broker.shards {
            while try await shard.loop.submit({ shard.connections.count }).get() == 0 {
                visitors.append(try TestClient(port: broker.port))
                try visitors.last!.connect("visitor-\(visitors.count)")
            }
        }
        return visitors
    }

    /// Sessions that all loops together have entries for.
    private static func watchedSessions(_ broker: Broker) async throws -> Int {
        var count = 0
        for shard in broker.shards { count += try await shard.loop.submit { shard.watchedSessions }.get() }
        return count
    }

    /// Sessions that are at their homes without their clients, if there is no other connection than one.
    private static func awayAtOwningShard(_ broker: Broker) async throws -> Int {
        var (away, connections) = (0, 0)
        for shard in broker.shards {
            let found = try await shard.loop.submit {
                (
                    shard.sessions.values.count { $0.connection == nil && !$0.isLeaving && !$0.isInTransit },
                    shard.connections.count
                )
            }.get()
            away += found.0
            connections += found.1
        }
        return connections == 1 ? away : 0
    }

    /// Has the wills of those that are away fall due now, and their sessions end soon after. One that moves meanwhile is met the
    /// next time.
    private static func letTimePass(_ broker: Broker) async throws {
        for shard in broker.shards {
            try await shard.loop.submit {
                let now = NIODeadline.now()
                for session in shard.sessions.values where session.connection == nil {
                    shard.update(session) { core in
                        if let will = core.will, will.dueAt > now { core.will = will.due(at: now) }
                        core.endsAt = min(core.endsAt, now + .seconds(1))
                    }
                }
            }.get()
        }
    }

    @Test(
        "delayed wills come, once each, and sessions expire, where the connection that takes one up is gone at once",
        arguments: [1, 2, 3, 4])
    func goneAtOnce(threads: Int) async throws {
        let rounds = 400
        try await withBroker(threads: threads) { broker in
            let watcher = try Self.watcher(broker)
            for round in 0..<rounds {
                let name = "client-\(round)"
                let first = try TestClient(port: broker.port, version: .v5_0)
                try first.connect(name, will: Self.will(name, delay: 1_000)) { $0.sessionExpiryInterval = 2_000 }
                first.vanish()
                let second = try TestClient(port: broker.port, version: .v5_0)
                var connect = Connect(
                    version: .v5_0, cleanStart: false, keepAlive: 0, clientID: name,
                    will: Self.will(name, delay: 1_000))
                connect.properties.sessionExpiryInterval = 2_000
                try second.send(.connect(connect))
            }
            // When the last connection is gone, and what it has asked for is done: one look may miss a claim on its way.
            try await broker.poll { broker.counters.connectionsAccepted.value == 2 * rounds + 1 }
            let deadline = Patience.end
            var looks = 0
            while looks < 2 {
                try #require(ContinuousClock.now < deadline, "sessions are not at their homes")
                looks = try await Self.awayAtOwningShard(broker) == rounds ? looks + 1 : 0
            }
            let time = Task {
                while !Task.isCancelled {
                    try await Self.letTimePass(broker)
                    try await Task.sleep(for: .milliseconds(100))
                }
            }
            defer { time.cancel() }
            var wills: Set<String> = []
            for _ in 0..<rounds { wills.insert(try watcher.receivePublish().text) }
            #expect(wills.count == rounds)
            try await broker.poll { broker.context.registry.count == 1 }
            #expect(broker.counters.sessionsExpired.value == rounds)
            #expect(try await Self.watchedSessions(broker) == 0)
            try watcher.ping()
            try watcher.disconnect()
            try await broker.awaitNothingLeft()
            #expect(broker.context.heap.bytes(of: .queues) == 0)
        }
    }

    @Test(
        "of two connections that ask for a session at once, what the first leaves behind comes before the second has it"
    )
    func leftBetween() async throws {
        try await withBroker { broker in
            let watcher = try Self.watcher(broker)
            let (client, other) = (try TestClient(port: broker.port, version: .v5_0), try TestClient(port: broker.port))
            try client.connect("client", will: Self.will("first", delay: 0)) { $0.sessionExpiryInterval = 60 }
            try other.connect("other")
            let session = try #require(broker.context.registry.find("client"))
            let shard = broker.shards[0]
            try await shard.loop.submit {
                let connection = session.connection
                // As when another session's end waits before it.
                session.isLeaving = true
                shard.update(session) { $0.connection = nil }
                shard.adopt(session, for: Self.gone(on: 0), hasMoved: false)
                #expect(!session.isLeaving && session.endsAt != .distantFuture)
                connection?.close(.takenOver)
            }.get()
            #expect(try watcher.receivePublish().text == "first")
        }
    }

    @Test("a will and an expiry that fall due while the session is in transit happen when it has arrived")
    func dueInTransit() async throws {
        try await withBroker(threads: 3) { broker in
            let visitors = try await Self.visitors(broker)
            defer { for visitor in visitors { visitor.vanish() } }
            let watcher = try Self.watcher(broker)
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("client", will: Self.will("client", delay: 1_000)) { $0.sessionExpiryInterval = 2_000 }
            client.vanish()
            let session = try #require(broker.context.registry.find("client"))
            try await broker.poll { session.presence == .away }
            let old = session.owningShard
            let watching = try #require(broker.owningShard(of: "watcher"))
            // The loop that is neither the former owning shard nor the watcher's answers no barrier for now; the session goes to
            // it.
            let new = try #require((0..<3).first { $0 != old && $0 != watching })
            let busy = BusyLoop(broker.shards[new])
            let from = broker.shards[old]
            try await from.loop.submit {
                from.finishLeaving(session)
                let now = NIODeadline.now()
                from.update(session) { core in
                    core.will = core.will?.due(at: now + .seconds(1))
                    core.endsAt = now + .seconds(2)
                }
                from.takeOver(
                    session, for: SessionWaiter(connection: Self.gone(on: new), discard: false, number: .max))
            }.get()
            #expect(session.owningShard == new)
            let due = try await from.loop.submit { from.watchedSessions }.get()
            #expect(due == 0)
            // Until both are due: nothing else is to be seen of it.
            while NIODeadline.now() < session.endsAt { usleep(10_000) }
            busy.letGo()
            #expect(try watcher.receivePublish().text == "client")
            try await broker.poll { broker.context.registry.find("client") == nil }
            #expect(try await Self.watchedSessions(broker) == 0)
        }
    }

    @Test("a session that is in transit when the broker ends is in the store, with what came for it on the way")
    func shutdownInTransit() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            var ended: Broker?
            try await withBroker(threads: 3, configure) { broker in
                ended = broker
                let visitors = try await Self.visitors(broker)
                defer { for visitor in visitors { visitor.vanish() } }
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                try device.subscribe(("t", .atLeastOnce))
                device.vanish()
                let session = try #require(broker.context.registry.find("device"))
                try await broker.poll { session.presence == .away }
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                let publishing = try #require(broker.owningShard(of: "publisher"))
                try publisher.publish("t", "before", qos: .atLeastOnce)
                let from = broker.shards[session.owningShard]
                let new = try #require((0..<3).first { $0 != from.index && $0 != publishing })
                let busy = BusyLoop(broker.shards[new])
                try await from.loop.submit {
                    from.takeOver(
                        session, for: SessionWaiter(connection: Self.gone(on: new), discard: false, number: .max))
                }.get()
                try publisher.publish("t", "on the way", qos: .atLeastOnce)
                // When the others have begun to end, as far as they can before this one.
                Task.detached {
                    for shard in broker.shards.prefix(new) {
                        while try await !shard.loop.submit({ shard.isStopping }).get() {}
                    }
                    busy.letGo()
                }
            }
            let broker = try #require(ended)
            for shard in broker.shards { #expect(shard.migrations.isEmpty && shard.sessions.isEmpty) }
            #expect(broker.context.heap.bytes(of: .queues) == 0)
            try await withBroker(threads: 2, configure) { broker in
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                #expect(try device.receivePublish().text == "before")
                #expect(try device.receivePublish().text == "on the way")
            }
        }
    }

    @Test("a loop that ends gives no session up, and one that came later keeps it from one that came before")
    func waiters() async throws {
        try await withBroker(threads: 2) { broker in
            let visitors = try await Self.visitors(broker)
            defer { for visitor in visitors { visitor.vanish() } }
            let client = try TestClient(port: broker.port)
            try client.connect("client", clean: false)
            try client.disconnect()
            let back = try TestClient(port: broker.port)
            try back.connect("client", clean: false)
            let session = try #require(broker.context.registry.find("client"))
            let (owningShard, other) = (broker.shards[session.owningShard], broker.shards[1 - session.owningShard])
            // By the other loop, and before the client came back: its mailbox message was long on its way.
            try await owningShard.loop.submit {
                owningShard.takeOver(
                    session, for: SessionWaiter(connection: Self.gone(on: other.index), discard: true, number: 1))
            }.get()
            try back.ping()
            #expect(session.owningShard == owningShard.index)
            var number: UInt64 = 1
            guard
                case .superseded = broker.context.registry.claim(
                    "client", of: nil, number: &number, isPersistent: true, limit: 9, isKnown: { _ in true },
                    make: { _ in session })
            else { throw TestClient.Failure(description: "an old claim got a session") }
            try await owningShard.loop.submit {
                owningShard.closeConnections()
                owningShard.takeOver(
                    session, for: SessionWaiter(connection: Self.gone(on: other.index), discard: false, number: .max))
                #expect(owningShard.migrations.isEmpty && !session.isInTransit)
            }.get()
        }
    }
}
