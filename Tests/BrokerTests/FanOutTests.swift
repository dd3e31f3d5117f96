import Arena
import Ledger
import MQTT
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Broker

/// A message that goes to more sessions than a tick has steps for.
@Suite("A message to many", .mayBlock, .serialized)
struct FanOutTests {
    private static let groups = 1_200

    @Test("is delivered piece by piece, in order, and what comes behind it waits")
    func pieces() async throws {
        let (count, messages) = (30_000, 3)
        try await withBroker({ $0.memoryLimit = 512 << 20 }) { broker in
            let sessions = try await broker.keepSessions(count, filter: "x")
            let (member, publisher) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
            try member.connect("member")
            try member.subscribe(("x", .atLeastOnce))
            try publisher.connect("publisher")
            // Who gets it is looked up once, in one piece.
            try publisher.publish("x", "first")
            #expect(try member.receivePublish().text == "first")
            let shard = broker.shards[0]
            try await shard.loop.submit { shard.steps = StepBudget() }.get()
            for number in 0..<messages {
                try publisher.send(
                    .publish(
                        Publish(topic: "x", payload: "\(number)", qos: .atLeastOnce, packetID: UInt16(number + 1))))
            }
            try publisher.send(.pingreq)
            for number in 0..<messages { try publisher.expect(.puback(Ack(packetID: UInt16(number + 1)))) }
            try publisher.expect(.pingresp)
            for number in 0..<messages { #expect(try member.receivePublish().text == "\(number)") }
            try await broker.poll {
                sessions.allSatisfy { $0.state.queuedCount == messages }
            }
            #expect(
                try await broker.steps(of: 0).mostPerTick <= DeferredWorkTests.most + 2 * Limits().receiversPerPiece)
            #expect(try await broker.accounting().unreachable == 0)
            try await shard.loop.submit { for session in sessions { shard.end(session) } }.get()
        }
    }

    @Test("few of them wait, whoever publishes more meanwhile, and however much waits for its turn already")
    func bounded() async throws {
        let (busy, many, publishes) = (100, 20, 300)
        try await withBroker({ $0.memoryLimit = 512 << 20 }) { broker in
            let shard = broker.shards[0]
            let sessions = try await broker.keepSessions(2_000, filter: "x")
            let clients = try (0..<busy + many).map { number in
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(number)")
                return client
            }
            // All have sent before the loop looks at any: more than may wait, and messages to many.
            try BusyLoop.during(shard) {
                for (number, client) in clients.enumerated() {
                    let topic = number % 6 == 0 ? "x" : "nobody/reads/this"
                    let packet = Publish(topic: topic, payload: String(repeating: "x", count: 180), qos: .atMostOnce)
                    var packets = ByteBuffer()
                    for _ in 0..<publishes { Packet.publish(packet).encode(into: &packets, version: .v3_1_1) }
                    try client.send(bytes: Array(packets.readableBytesView))
                }
            }
            for client in clients { try client.ping() }
            try await broker.poll { shard.traffic.publishesReceived.value == (busy + many) * publishes }
            let (most, waited) = try await shard.loop.submit { (shard.work.mostFanOuts, shard.work.mostInputBytes) }
                .get()
            #expect(waited > Limits.waitingInputBytes / 2)
            #expect((1...4).contains(most))
            try await shard.loop.submit { for session in sessions { shard.end(session) } }.get()
        }
    }

    @Test("who publishes to many sessions of another loop waits while that has more to deliver than it should")
    func mailboxMessages() async throws {
        let (count, publishes) = (2_000, 400)
        try await withBroker(threads: 2, { $0.memoryLimit = 256 << 20 }) { broker in
            // All on the first loop.
            let sessions = try await broker.keepSessions(count, filter: "x")
            let (here, there) = (broker.shards[0], broker.shards[1])
            var clients: [TestClient] = []
            for number in 0..<4 {
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(number)")
                if broker.owningShard(of: "client-\(number)") == 1 { clients.append(client) }
            }
            try #require(clients.count >= 2)
            try BusyLoop.during(here) {
                for _ in 0..<publishes { try clients[0].publish("x", "a message") }
                // Whoever does not publish to them is served.
                let deadline = Patience.end
                while !there.wantsMailboxRoom.load(ordering: .sequentiallyConsistent) {
                    try #require(ContinuousClock.now < deadline, "nobody waits")
                    try clients[1].ping()
                }
                for _ in 0..<10 { try clients[1].ping() }
                #expect(here.mailboxLoad.load(ordering: .relaxed) <= there.mostMailboxLoad + 2 * Limits.stepsPerTick)
                #expect(there.traffic.publishesReceived.value < publishes)
            }
            try await broker.poll { there.traffic.publishesReceived.value == publishes }
            try await broker.poll { here.mailboxLoad.load(ordering: .relaxed) == 0 }
            try clients[0].ping()
            try await here.loop.submit { for session in sessions { here.end(session) } }.get()
        }
    }

    @Test("wills of many that go at once come to many, a few at a time")
    func wills() async throws {
        let count = 200
        try await withBroker({ $0.memoryLimit = 512 << 20 }) { broker in
            let shard = broker.shards[0]
            let sessions = try await broker.keepSessions(2_000, filter: "will")
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe(("will", .atMostOnce))
            let clients = try (0..<count).map { number in
                let client = try TestClient(port: broker.port)
                let will = Will(topic: "will", payload: ByteBuffer(string: "\(number)"), qos: .atLeastOnce)
                try client.connect("client-\(number)", clean: false, will: will)
                return client
            }
            for client in clients { client.vanish() }
            var texts: Set<String> = []
            for _ in 0..<count { texts.insert(try watcher.receivePublish().text) }
            #expect(texts.count == count)
            try await broker.poll { sessions.allSatisfy { $0.state.queuedCount == count } }
            #expect(try await shard.loop.submit { shard.work.mostFanOuts }.get() <= 4)
            try await shard.loop.submit { for session in sessions { shard.end(session) } }.get()
        }
    }

    @Test("is delivered before the broker ends")
    func end() async throws {
        var member: TestClient?
        try await withBroker({ $0.memoryLimit = 512 << 20 }) { broker in
            _ = try await broker.keepSessions(20_000, filter: "x")
            let client = try TestClient(port: broker.port)
            try client.connect("member")
            try client.subscribe(("x", .atMostOnce))
            member = client
            let shard = broker.shards[0]
            try await shard.loop.submit {
                var message = Message(
                    topic: try TopicName("x"), payload: ByteBuffer(string: "last"), qos: .atMostOnce, ownsBuffer: false)
                try shard.publish(&message, retain: false, from: nil)
                #expect(!shard.work.fanOuts.isEmpty)
                shard.closeConnections()
            }.get()
        }
        #expect(try #require(member).receivePublish().text == "last")
    }

    @Test("and to many groups: each has it once")
    func shares() async throws {
        try await withBroker({ $0.limits.maxSharedSubscriptionsPerSession = Self.groups }) { broker in
            let (member, publisher) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
            try member.connect("member")
            try member.subscribe(
                (0..<Self.groups).map { Subscription(filter: "$share/\($0)/x", qos: .atMostOnce) })
            try member.subscribe(("x", .atMostOnce))
            try publisher.connect("publisher")
            for number in 0..<2 {
                try publisher.publish("x", "\(number)", qos: .atLeastOnce)
                for _ in 0...Self.groups { #expect(try member.receivePublish().text == "\(number)") }
            }
            try member.ping()
        }
    }

    /// A broker with a store, and ten thousand groups of `x` whose one member is away.
    private static func withGroups(_ qos: QoS, _ body: (Broker, EventLoopShard) async throws -> Void) async throws {
        try await withDataDirectory { directory in
            try await withBroker({
                $0.dataDirectory = directory
                $0.limits.maxSharedSubscriptionsPerSession = manyGroups
                $0.limits.maxQueuedMessages = 2 * manyGroups
            }) { broker in
                let member = try TestClient(port: broker.port)
                try member.connect("member", clean: false)
                try member.subscribe((0..<manyGroups).map { Subscription(filter: "$share/\($0)/x", qos: qos) })
                try member.disconnect()
                let shard = broker.shards[0]
                try await body(broker, shard)
                // It is noted for all, then delivered piece by piece.
                let deadline = Patience.end
                while try await broker.owed("member") < manyGroups { try #require(ContinuousClock.now < deadline) }
                #expect(try await broker.owed("member") == manyGroups)
                #expect(try await shard.loop.submit { shard.steps.mostPerTick }.get() <= DeferredWorkTests.most + 256)
            }
        }
    }

    private static let manyGroups = 10_000

    @Test(
        "with a store members of groups are chosen piece by piece too, and it is acknowledged when they are",
        arguments: [QoS.atLeastOnce, .exactlyOnce])
    func storedShares(qos: QoS) async throws {
        try await Self.withGroups(qos) { broker, _ in
            // Not before: it must connect in time.
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher", clean: false)
            try publisher.publish("x", "first", qos: qos)
        }
    }

    @Test("a will to many groups too, and the store keeps it until it knows whom it is for")
    func storedWill() async throws {
        try await Self.withGroups(.atLeastOnce) { broker, shard in
            let leaving = try TestClient(port: broker.port)
            let will = Will(topic: "x", payload: ByteBuffer(string: "gone"), qos: .atLeastOnce)
            try leaving.connect("leaving", clean: false, will: will)
            let session = try #require(broker.context.registry.find("leaving"))
            leaving.vanish()
            let deadline = Patience.end
            while try await shard.loop.submit({ () -> Bool in
                // What is noted of it is safe as a whole or not at all.
                #expect(shard.work.fanOuts.isEmpty || session.isWillStored || shard.work.fanOuts[0].hasBegun)
                return session.isWillStored
            }).get() { try #require(ContinuousClock.now < deadline) }
        }
    }

    @Test("a broker that is killed on the way has it once for each group when its publisher sends it again")
    func killedOnTheWay() async throws {
        let groups = 3_000
        var acknowledged = 0
        for round in 0..<8 {
            try await withDataDirectory { directory in
                func start() throws -> BrokerChild {
                    try BrokerChild(
                        dataDirectory: directory, "--threads", "2",
                        "--set", "limits.maxSharedSubscriptionsPerSession=\(groups)",
                        "--set", "limits.maxInflight=\(2 * groups)", "--set", "limits.maxQueuedMessages=\(2 * groups)")
                }
                let broker = try start()
                for name in ["first", "second"] {
                    let member = try TestClient(port: broker.port)
                    try member.connect(name, clean: false)
                    try member.subscribe(
                        (0..<groups).map { Subscription(filter: "$share/\($0)-\(name)/x", qos: .exactlyOnce) })
                    try member.subscribe(("x", .exactlyOnce))
                    try member.disconnect()
                }
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher", clean: false)
                try publisher.send(.publish(Publish(topic: "x", payload: "once", qos: .exactlyOnce, packetID: 1)))
                // Not waited for anything: whatever it has come to by then must do.
                try await Task.sleep(for: .milliseconds(round * 25))
                broker.kill()
                // Nothing, the end or half a packet: then it was not acknowledged.
                if case .pubrec? = try? publisher.receive() { acknowledged += 1 }

                let again = try start()
                let back = try TestClient(port: again.port)
                try back.connect("publisher", clean: false)
                var publish = Publish(topic: "x", payload: "once", qos: .exactlyOnce, packetID: 1)
                publish.dup = true
                try back.send(.publish(publish))
                try back.expect(.pubrec(Ack(packetID: 1)))
                try back.send(.pubrel(Ack(packetID: 1)))
                try back.expect(.pubcomp(Ack(packetID: 1)))
                for name in ["first", "second"] {
                    let member = try TestClient(port: again.port)
                    try member.connect(name, clean: false)
                    for _ in 0...groups { #expect(try member.receivePublish().text == "once") }
                    try member.ping()
                }
                #expect(again.end() == 0)
            }
        }
        print("acknowledged before the kill: \(acknowledged) of 8")
    }

    @Test("is owed to each group before it is acknowledged", arguments: [QoS.atLeastOnce, .exactlyOnce])
    func storedGroups(qos: QoS) async throws {
        try await withDataDirectory { directory in
            func start() throws -> BrokerChild {
                try BrokerChild(
                    dataDirectory: directory, "--threads", "1",
                    "--set", "limits.maxSharedSubscriptionsPerSession=\(Self.groups)",
                    "--set", "limits.maxInflight=\(Self.groups)", "--set", "limits.maxQueuedMessages=\(2 * Self.groups)"
                )
            }
            let broker = try start()
            let member = try TestClient(port: broker.port)
            try member.connect("member", clean: false)
            try member.subscribe((0..<Self.groups).map { Subscription(filter: "$share/\($0)/x", qos: qos) })
            try member.disconnect()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher", clean: false)
            let publish = Publish(topic: "x", payload: "owed", qos: qos, packetID: 1)
            try publisher.send(.publish(publish))
            try publisher.expect(qos == .atLeastOnce ? .puback(Ack(packetID: 1)) : .pubrec(Ack(packetID: 1)))
            broker.kill()

            let again = try start()
            let back = try TestClient(port: again.port)
            try back.connect("member", clean: false)
            for _ in 0..<Self.groups { #expect(try back.receivePublish().text == "owed") }
            #expect(again.end() == 0)
        }
    }

    @Test("is owed to each of them before it is acknowledged, but to its publisher if he asked for that")
    func stored() async throws {
        let count = Limits().receiversPerPiece + 100
        try await withDataDirectory { directory in
            let broker = try BrokerChild(dataDirectory: directory, "--threads", "1")
            for number in 0..<count {
                let client = try TestClient(port: broker.port)
                try client.connect("kept-\(number)", clean: false)
                try client.subscribe(("x", .atLeastOnce))
            }
            let publisher = try TestClient(port: broker.port, version: .v5_0)
            try publisher.connect("publisher", clean: false) { $0.sessionExpiryInterval = 3_600 }
            try publisher.subscribe([Subscription(filter: "x", qos: .atLeastOnce, noLocal: true)])
            #expect(try publisher.publish("x", "owed", qos: .atLeastOnce) { _ in } == .success)
            broker.kill()

            let again = try BrokerChild(dataDirectory: directory, "--threads", "1")
            for number in 0..<count {
                let client = try TestClient(port: again.port)
                try client.connect("kept-\(number)", clean: false)
                #expect(try client.receivePublish().text == "owed")
            }
            let back = try TestClient(port: again.port, version: .v5_0)
            try back.connect("publisher", clean: false) { $0.sessionExpiryInterval = 3_600 }
            try back.ping()
            #expect(again.end() == 0)
        }
    }
}

extension Broker {
    /// Sessions of the first loop whose clients are away.
    fileprivate func keepSessions(_ count: Int, filter: String) async throws -> [Session] {
        var sessions: [Session] = []
        // Each piece in a tick of its own, whose steps are few.
        for start in stride(from: 0, to: count, by: 500) {
            sessions += try await shards[0].loop.submit { [context, shard = shards[0]] in
                (start..<min(start + 500, count)).map { number in
                    let session = Session(
                        clientID: "kept-\(number)", userName: nil,
                        owner: context.pool.openOwner(.session, name: "kept-\(number)", parent: context.listenerOwner),
                        expiryInterval: 3_600, owningShard: 0, heap: context.heap, rpcTopics: context.rpcTopics)
                    session.came(by: context.listeners[0])
                    shard.sessions[ObjectIdentifier(session)] = session
                    _ = shard.subscribe(session, Subscription(filter: filter, qos: .atLeastOnce), identifier: nil)
                    return session
                }
            }.get()
        }
        return sessions
    }
}
