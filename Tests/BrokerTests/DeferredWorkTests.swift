import Arena
import MQTT
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Broker

/// What a peer can order much of is done a bounded number of steps at a time, with a look at the sockets in between.
/// Nothing here measures time: steps are counted between two ends of a loop's tick, where NIO polls.
@Suite("Deferred work", .mayBlock, .serialized)
struct DeferredWorkTests {
    /// Of a tick, but for what its last piece takes beyond.
    static let most = Limits.stepsPerTick + Limits.deferredStepsPerTick

    @Test("a packet of ten thousand filters is taken piece by piece, in steps that grow with its length only")
    func subscribe() async throws {
        let count = 10_000
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("many")
            let filters = (0..<count).map { Subscription(filter: "f/\($0)", qos: .atMostOnce) }
            let before = try await broker.steps(of: 0).total
            #expect(try client.subscribe(filters).allSatisfy { $0 == .grantedQoS0 })
            #expect(broker.context.router.subscriptionCount == count)
            try client.ping()
            let after = try await broker.steps(of: 0)
            #expect(after.mostPerTick <= Self.most + 256)
            #expect((10 * count...32 * count).contains(after.total - before))
            // And back.
            try client.send(.unsubscribe(Unsubscribe(packetID: 7, filters: filters.map(\.filter))))
            try client.expect(.unsuback(UnsubAck(packetID: 7)))
            #expect(broker.context.router.subscriptionCount == 0)
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + 256)
        }
    }

    @Test("large pieces of one client do not keep what else was deferred waiting")
    func turns() async throws {
        let (groups, messages, filters) = (10_000, 300, 4_000)
        try await withBroker({
            $0.limits.maxSharedSubscriptionsPerSession = groups
        }) { broker in
            let (hostile, watcher) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
            try hostile.connect("hostile")
            // Each message to all of them takes more steps than a tick's deferred work has.
            try hostile.subscribe((0..<groups).map { Subscription(filter: "$share/\($0)/x", qos: .atMostOnce) })
            try watcher.connect("watcher")
            // What has come of the messages before, one by one.
            try watcher.subscribe(("will", .atMostOnce), ("x", .atMostOnce))
            let leaver = try TestClient(port: broker.port)
            try leaver.connect("leaver", will: Will(topic: "will", payload: ByteBuffer(string: "w"), qos: .atMostOnce))
            try leaver.subscribe((0..<filters).map { Subscription(filter: "f/\($0)", qos: .atMostOnce) })
            // The loop looks at all of that, and then at the end of the other: more subscriptions end with it than a tick
            // takes, so that it waits for its turn.
            try BusyLoop.during(broker.shards[0]) {
                for number in 0..<messages {
                    try hostile.send(.publish(Publish(topic: "x", payload: "\(number)", qos: .atMostOnce)))
                }
                leaver.vanish()
            }
            var before = 0
            while try watcher.receivePublish().text != "w" { before += 1 }
            #expect(before < messages)
        }
    }

    @Test("another client's ping is answered while a long packet is being done")
    func ping() async throws {
        let count = 10_000
        try await withBroker({ $0.limits.maxSharedSubscriptionsPerSession = count }) { broker in
            let (hostile, other) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
            try hostile.connect("hostile")
            try other.connect("other")
            // Both have sent before the loop looks at either.
            try BusyLoop.during(broker.shards[0]) {
                try hostile.send(
                    .subscribe(
                        Subscribe(
                            packetID: 1,
                            filters: (0..<count).map { Subscription(filter: "$share/\($0)/x", qos: .atMostOnce) })))
                try other.send(.pingreq)
            }
            try other.expect(.pingresp)
            _ = try hostile.receive()
            #expect(broker.context.router.sharedSubscriptionCount == count)
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + 256)
        }
    }

    @Test("small packets to many groups wait for their turn, and come in their order", arguments: [1, 2])
    func groups(threads: Int) async throws {
        let (groups, messages) = (2_000, 40)
        try await withBroker({
            $0.threads = threads
            $0.limits.maxSharedSubscriptionsPerSession = groups
        }) { broker in
            let (client, publisher) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
            try client.connect("member")
            try publisher.connect("publisher")
            try client.subscribe((0..<groups).map { Subscription(filter: "$share/\($0)/x", qos: .atLeastOnce) })
            let publishes = (0..<messages).map { Publish(topic: "x", payload: "\($0)", qos: .atMostOnce) }
            for publish in publishes { try publisher.send(.publish(publish)) }
            // It has said all it has to say.
            publisher.vanish()
            var last = 0
            for number in 0..<groups * messages {
                let text = try client.receivePublish().text
                #expect(text == "\(number / groups)")
                last = number
            }
            #expect(last == groups * messages - 1)
            for shard in 0..<threads {
                // One message to all groups is a piece.
                #expect(try await broker.steps(of: shard).mostPerTick <= Self.most + 3 * groups)
            }
        }
    }

    /// Retains a message for each of these topics.
    private static func retain(_ topics: [String], _ broker: Broker) async throws {
        let shard = broker.shards[0]
        try await shard.loop.submit {
            for topic in topics {
                let message = Message(
                    topic: try TopicName(topic), payload: ByteBuffer(string: "x"), qos: .atMostOnce, ownsBuffer: false)
                _ = try shard.retain(message)
            }
        }.get()
    }

    @Test("a search of the retained tree that finds nothing is no less bounded than one that finds much")
    func retained() async throws {
        let (topics, filters) = (5_000, 200)
        try await withBroker { broker in
            try await Self.retain((0..<topics).map { "a/\($0)/b" }, broker)
            let client = try TestClient(port: broker.port)
            try client.connect("searcher")
            let before = try await broker.steps(of: 0).total
            try client.subscribe((0..<filters).map { Subscription(filter: "+/+/\($0)", qos: .atMostOnce) })
            try client.subscribe(("+/+/b", .atMostOnce))
            for _ in 0..<topics { #expect(try client.receivePublish().text == "x") }
            let after = try await broker.steps(of: 0)
            #expect(after.total - before >= filters * topics)
            #expect(after.mostPerTick <= Self.most + 1_024)
        }
    }

    @Test("a session has so many shared subscriptions, since each is a message of its own; others beside them")
    func shared() async throws {
        try await withBroker({ $0.limits.maxSharedSubscriptionsPerSession = 2 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("member")
            #expect(
                try client.subscribe(("$share/a/x", .atMostOnce), ("$share/b/x", .atMostOnce), ("x", .atMostOnce))
                    == [.grantedQoS0, .grantedQoS0, .grantedQoS0])
            // 3.1.1 has one code for all refusals; one that is there may be replaced, and one that is gone makes room.
            #expect(try client.subscribe(("$share/c/x", .atMostOnce))[0].isError)
            #expect(try client.subscribe(("$share/a/x", .atLeastOnce)) == [.grantedQoS1])
            try client.unsubscribe("$share/a/x")
            #expect(try client.subscribe(("$share/c/x", .atMostOnce)) == [.grantedQoS0])
            #expect(broker.context.router.sharedSubscriptionCount == 2)
        }
    }

    @Test("a search that passes over names that begin with $ is no less bounded")
    func dollar() async throws {
        let (topics, filters) = (5_000, 200)
        try await withBroker { broker in
            try await Self.retain((0..<topics).map { "$\($0)" }, broker)
            let client = try TestClient(port: broker.port)
            try client.connect("searcher")
            let before = try await broker.steps(of: 0).total
            try client.subscribe((0..<filters).map { Subscription(filter: "+/\($0)", qos: .atMostOnce) })
            // It is done when all has been visited for each of them.
            let deadline = Patience.end
            while try await broker.steps(of: 0).total - before < filters * topics {
                try #require(ContinuousClock.now < deadline)
            }
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + 1_024)
        }
    }

    @Test("a packet that takes several ticks is answered though its last part changes nothing that is stored")
    func lastPartUnstored() async throws {
        let (filters, most) = (12_000, 2_000)
        try await withDataDirectory { directory in
            try await withBroker({
                $0.dataDirectory = directory
                $0.limits.maxSubscriptionsPerSession = most
            }) { broker in
                let client = try TestClient(port: broker.port)
                try client.connect("kept", clean: false)
                let codes = try client.subscribe(
                    (0..<filters).map { Subscription(filter: "f/\($0)", qos: .atMostOnce) })
                #expect(codes.count == filters && codes.filter { !$0.isError }.count == most)
                // And one of which nothing is there.
                try client.send(
                    .unsubscribe(Unsubscribe(packetID: 7, filters: (0..<filters).map { "f/\(filters - 1 - $0)" })))
                try client.expect(.unsuback(UnsubAck(packetID: 7)))
            }
        }
    }

    @Test("kept sessions that end at once end in turn")
    func expiry() async throws {
        let (sessions, subscriptions) = (60, 500)
        try await withBroker({ $0.limits.maxSessionExpirySeconds = 1 }) { broker in
            for index in 0..<sessions {
                let client = try TestClient(port: broker.port)
                try client.connect("kept-\(index)", clean: false)
                try client.subscribe(
                    (0..<subscriptions).map { Subscription(filter: "kept/\(index)/\($0)", qos: .atMostOnce) })
                try client.disconnect()
            }
            // A session leaves the registry first.
            try await broker.poll { broker.context.registry.count + broker.context.router.subscriptionCount == 0 }
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + 16 * subscriptions)
        }
    }

    @Test("a kept session with many subscriptions ends piece by piece: by its expiry, and for a clean start")
    func largeEnd() async throws {
        let subscriptions = 10_000
        try await withBroker { broker in
            for (round, expiry) in [UInt32(1), 1_000].enumerated() {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("kept") { $0.sessionExpiryInterval = expiry }
                try client.subscribe(
                    (0..<subscriptions).map { Subscription(filter: "\(round)/\($0)", qos: .atMostOnce) })
                try client.disconnect()
                if expiry > 1 { try TestClient(port: broker.port).connect("kept") }
                try await broker.poll { broker.context.router.subscriptionCount == 0 }
            }
            #expect(broker.counters.sessionsExpired.value == 1)
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + 256)
        }
    }

    @Test("a long queue that a session leaves to its group is given away piece by piece, and held until then")
    func longLeftToGroup() async throws {
        let (members, messages) = (64, 4_000)
        try await withBroker({ $0.limits.maxQueuedMessages = messages }) { broker in
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            func join(_ name: String) throws {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect(name) { $0.sessionExpiryInterval = 1_000 }
                try client.subscribe([Subscription(filter: "$share/g/x", qos: .atLeastOnce)])
                try client.disconnect()
            }
            try join("leaver")
            for number in 1...messages {
                try publisher.send(
                    .publish(
                        Publish(topic: "x", payload: "\(number)", qos: .atLeastOnce, packetID: UInt16(number))))
            }
            for _ in 0..<messages { _ = try publisher.receive() }
            for number in 0..<members { try join("member-\(number)") }
            let again = try TestClient(port: broker.port)
            try again.connect("leaver")
            let sessions = try (0..<members).map { try #require(broker.context.registry.find("member-\($0)")) }
            let deadline = Patience.end
            var (given, unreachable) = (0, [String]())
            while given < messages {
                try #require(ContinuousClock.now < deadline, "\(given) messages were given")
                if unreachable.isEmpty { unreachable = try await broker.unreachable() }
                given = try await broker.shards[0].loop.submit { sessions.reduce(0) { $0 + $1.state.queuedCount } }
                    .get()
            }
            #expect(unreachable == [])
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + messages + 256)
        }
    }

    @Test("retained messages that expire in the same second go in turn")
    func retainedExpiry() async throws {
        let count = 40_000
        try await withBroker { broker in
            let shard = broker.shards[0]
            try await shard.loop.submit {
                for index in 0..<count {
                    var message = Message(
                        topic: try TopicName("t/\(index)"), payload: ByteBuffer(string: "x"), qos: .atMostOnce,
                        ownsBuffer: false)
                    message.expiresAt = .now() + .seconds(1)
                    _ = try shard.retain(message)
                }
            }.get()
            try await broker.poll { broker.context.retained.count == 0 }
            #expect(broker.context.retained.nodeCount == 0)
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + 256)
        }
    }

    @Test("a topic that a thousand wildcards match costs what is visited for it")
    func wildcards() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("wild")
            // Every mixture of names and wildcards: a name of ten levels visits two nodes for each node above.
            let filters = (0..<1_024).map { mask in
                (0..<10).map { mask >> $0 & 1 == 0 ? "+" : "a" }.joined(separator: "/")
            }
            try client.subscribe(filters.map { Subscription(filter: $0, qos: .atMostOnce) })
            try client.ping()
            let before = try await broker.steps(of: 0).total
            let topic = Array(repeating: "a", count: 10).joined(separator: "/")
            try client.publish(topic, "x")
            #expect(try client.receivePublish().text == "x")
            try client.ping()
            #expect(try await broker.steps(of: 0).total - before >= 2_047 + 1_024)
        }
    }

    @Test("what a session leaves to its group costs a look at the members, not one for each message")
    func leftToGroup() async throws {
        let (members, messages) = (100, 200)
        try await withBroker { broker in
            let publisher = try TestClient(port: broker.port)
            let leaver = try TestClient(port: broker.port, version: .v5_0)
            try publisher.connect("publisher")
            try leaver.connect("leaver") { $0.sessionExpiryInterval = 60 }
            try leaver.subscribe([Subscription(filter: "$share/g/x", qos: .atLeastOnce)])
            leaver.vanish()
            let session = try #require(broker.context.registry.find("leaver"))
            try await broker.poll { session.presence == .away }
            for number in 0..<messages { try publisher.publish("x", "\(number)", qos: .atLeastOnce) }
            var clients: [TestClient] = []
            for number in 0..<members {
                clients.append(try TestClient(port: broker.port))
                try clients[number].connect("member-\(number)")
                try clients[number].subscribe(("$share/g/x", .atMostOnce))
            }
            let before = try await broker.steps(of: 0).total
            let again = try TestClient(port: broker.port)
            try again.connect("leaver")
            var texts: Set<String> = []
            for client in clients {
                for _ in 0..<messages / members { texts.insert(try client.receivePublish().text) }
            }
            #expect(texts.count == messages)
            let taken = try await broker.steps(of: 0).total - before
            #expect(taken < messages * members / 2)
        }
    }

    @Test("a filter that was unsubscribed before its SUBACK was due gets nothing that is retained")
    func unsubscribedMeanwhile() async throws {
        try await withBroker { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client")
            for topic in ["a", "b"] { try client.publish(topic, topic, qos: .atLeastOnce, retain: true) }
            try client.subscribe(("b", .atMostOnce))
            #expect(try client.receivePublish().text == "b")
            // As if SUBACK had waited for the store, and UNSUBSCRIBE of "a" not.
            let shard = broker.shards[0]
            try await shard.loop.submit {
                let connection = try #require(broker.context.registry.find("client")?.connection)
                let filters = [
                    Subscription(filter: "a", qos: .atMostOnce), Subscription(filter: "b", qos: .atMostOnce),
                ]
                let progress = SubscribeProgress(Subscribe(packetID: 9, filters: filters))
                progress.outcomes = [(.grantedQoS0, true), (.grantedQoS0, true)]
                connection.begin(.retained(progress))
            }.get()
            var texts: [String] = []
            texts.append(try client.receivePublish().text)
            #expect(texts == ["b"])
            try client.ping()
        }
    }

    @Test("when much waits for its turn, packets are handled as they come, within twice a tick")
    func waitingInput() async throws {
        let (count, publishes) = (200, 600)
        try await withBroker { broker in
            let shard = broker.shards[0]
            let clients = try (0..<count).map { number in
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(number)")
                return client
            }
            // All have sent more than a tick's worth before the loop looks at any.
            let packet = Publish(
                topic: "nobody/reads/this", payload: String(repeating: "x", count: 80), qos: .atMostOnce)
            var packets = ByteBuffer()
            for _ in 0..<publishes { Packet.publish(packet).encode(into: &packets, version: .v3_1_1) }
            try BusyLoop.during(shard) {
                for client in clients { try client.send(bytes: Array(packets.readableBytesView)) }
            }
            for client in clients { try client.ping() }
            try await broker.poll { broker.shards[0].traffic.publishesReceived.value == count * publishes }
            let (most, left) = try await shard.loop.submit { (shard.work.mostInputBytes, shard.work.inputBytes) }.get()
            #expect(most > Limits.waitingInputBytes / 2)
            #expect(left == 0)
            // Beyond that they are handled as they come, in a tick that is twice as long at most.
            #expect(try await broker.steps(of: 0).mostPerTick <= Self.most + Limits.stepsPerTick + 1_024)
            #expect(most < count * Limits.readBufferBytes * 3 / 4)
        }
    }

    // MARK: - The lists

    @Test("a keyed list compares as often for the last of many elements as for the first")
    func keyedList() {
        struct Key: Hashable {
            static let comparisons = Atomic<Int>(0)
            let value: Int

            static func == (a: Key, b: Key) -> Bool {
                comparisons.increment()
                return a.value == b.value
            }

            func hash(into hasher: inout Hasher) { hasher.combine(value) }
        }
        struct Element: KeyedElement {
            let key: Key
            var text = ""
        }
        var list = KeyedList<Element>()
        let count = 10_000
        let values = 0..<count
        let added = values.filter { list.insert(Element(key: Key(value: $0))) }
        let addedAgain = values.filter { list.insert(Element(key: Key(value: $0), text: "\($0)")) }
        #expect(added.count == count && addedAgain.isEmpty)
        let even = values.filter { $0 % 2 == 0 && list.remove(Key(value: $0)) }
        #expect(even.count == count / 2)
        #expect(values.allSatisfy { list[Key(value: $0)]?.text == ($0 % 2 == 0 ? nil : "\($0)") })
        let odd = values.filter { list.remove(Key(value: $0)) }
        #expect(odd.count == count / 2 && list.isEmpty)
        #expect(Key.comparisons.value < 16 * 5 * count)
    }

    private static func delivery(_ filter: String) -> RetainedDelivery {
        RetainedDelivery(filter: UTF8Key(filter), qos: .atMostOnce, route: Route(identifiers: [7]), lastNumber: 0)
    }

    @Test("retained deliveries keep their order, whichever are given up, and nothing of those")
    func deliveries() throws {
        let heap = HeapAccount()
        var list = RetainedDeliveries(heap: heap)
        for index in 0..<100 { list.append(Self.delivery("\(index)")) }
        for index in 0..<50 { list.remove(UTF8Key("\(2 * index)")) }
        // Asked for again: behind the others.
        list.append(Self.delivery("1"))
        var order: [String] = []
        while let first = list.first {
            order.append(first.filter.text)
            list.removeFirst()
        }
        #expect(order == (1..<50).map { "\(2 * $0 + 1)" } + ["1"])
        #expect(heap.bytes(of: .subscriptions) == 0)
        list.append(Self.delivery("first"))
        for _ in 0..<100_000 { list.append(Self.delivery("again")) }
        let (count, waiting) = (list.count, list.waiting)
        #expect(count == 2 && waiting < 64)
        list.removeAll()
        #expect(heap.bytes(of: .subscriptions) == 0)
    }

    @Test("what is counted for retained deliveries is what the C library gives for them, to a tenth")
    func deliveryBytes() async {
        // It is asked what it has given to all: a process of its own.
        await #expect(processExitsWith: .success) {
            let heap = HeapAccount()
            var list = RetainedDeliveries(heap: heap)
            let deliveries = (0..<20_000).map { Self.delivery("a/filter/\($0)") }
            let before = HeapSize.inUse
            for delivery in deliveries { list.append(delivery) }
            let (used, counted) = (HeapSize.inUse - before, heap.bytes(of: .subscriptions))
            // Their routes are in what came before.
            let routes = deliveries.count * 96
            #expect(abs(counted - routes - used) < used / 10, "\(counted) counted, \(used) used")
            list.removeAll()
        }
    }
}

extension Broker {
    func steps(of shard: Int) async throws -> StepBudget {
        try await shards[shard].loop.submit { [shard = shards[shard]] in shard.steps }.get()
    }
}
