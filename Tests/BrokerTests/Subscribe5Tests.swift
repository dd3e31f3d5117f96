import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("5.0: SUBSCRIBE and UNSUBSCRIBE", .mayBlock, .serialized)
struct Subscribe5Tests {
    static func client(_ broker: Broker, _ name: String) throws -> TestClient {
        let client = try TestClient(port: broker.port, version: .v5_0)
        try client.connect(name)
        return client
    }

    @Test(
        "overlapping subscriptions deliver once, with the highest QoS and all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]",
        arguments: [1, 2])
    func overlapping(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let (subscriber, publisher) = (try Self.client(broker, "s"), try Self.client(broker, "p"))
            try subscriber.subscribe([Subscription(filter: "a/+", qos: .atMostOnce)], identifier: 1)
            try subscriber.subscribe([Subscription(filter: "a/#", qos: .atLeastOnce)], identifier: 268_435_455)
            try subscriber.subscribe([Subscription(filter: "a/b", qos: .atMostOnce)])
            try publisher.publish("a/b", "x", qos: .exactlyOnce)
            let publish = try subscriber.receivePublish()
            #expect(publish.qos == .atLeastOnce)
            #expect(Set(publish.properties?.subscriptionIdentifiers ?? []) == [1, 268_435_455])
            try subscriber.send(.puback(Ack(packetID: publish.packetID)))
            // The identifier goes with its subscription, and may be given anew [MQTT-3.8.4-3].
            try subscriber.subscribe([Subscription(filter: "a/#", qos: .atMostOnce)], identifier: 5)
            try subscriber.unsubscribe5("a/+", .success)
            try publisher.publish("a/b", "x", qos: .exactlyOnce)
            let second = try subscriber.receivePublish()
            #expect(second.qos == .atMostOnce && second.properties?.subscriptionIdentifiers == [5])
            try subscriber.ping()
        }
    }

    @Test("No Local keeps a client from what it published itself, also as its will [MQTT-3.8.3-3]")
    func noLocal() async throws {
        try await withBroker { broker in
            let (client, other) = (try Self.client(broker, "client"), try Self.client(broker, "other"))
            try client.subscribe([Subscription(filter: "t", qos: .atLeastOnce, noLocal: true)])
            try other.subscribe([Subscription(filter: "t", qos: .atMostOnce, noLocal: true)])
            try client.publish("t", "mine", qos: .atLeastOnce)
            #expect(try other.receivePublish().text == "mine")
            try other.publish("t", "theirs", qos: .atLeastOnce)
            #expect(try client.receivePublish().text == "theirs")
        }
    }

    @Test("an overlapping subscription with No Local lends nothing to what the client published itself [MQTT-3.8.3-3]")
    func noLocalOverlap() async throws {
        try await withBroker { broker in
            let (client, other) = (try Self.client(broker, "client"), try Self.client(broker, "other"))
            try client.subscribe(
                [Subscription(filter: "t", qos: .atLeastOnce, noLocal: true, retainAsPublished: true)], identifier: 1)
            try client.subscribe([Subscription(filter: "+", qos: .atMostOnce)], identifier: 2)
            try client.subscribe([Subscription(filter: "#", qos: .atMostOnce)], identifier: 3)
            try client.subscribe(
                [Subscription(filter: "t/#", qos: .exactlyOnce, noLocal: true, retainAsPublished: true)], identifier: 4)
            try other.publish("t", "theirs", qos: .exactlyOnce, retain: true)
            let theirs = try client.receivePublish()
            #expect(theirs.qos == .exactlyOnce && theirs.retain)
            #expect(theirs.properties.map { Set($0.subscriptionIdentifiers) } == [1, 2, 3, 4])
            try client.send(
                .publish(Publish(topic: "t", payload: "mine", qos: .exactlyOnce, retain: true, packetID: 9)))
            try client.expect(.pubrec(Ack(packetID: 9)))
            let mine = try client.receivePublish()
            #expect(mine.text == "mine" && mine.qos == .atMostOnce && !mine.retain)
            #expect(mine.properties.map { Set($0.subscriptionIdentifiers) } == [2, 3])
        }
    }

    @Test(
        "RETAIN is as published for who asks, and clear for others; what comes for a subscription has it [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.3.1-8]",
        arguments: [1, 2])
    func retainAsPublished(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let (asking, plain) = (try Self.client(broker, "asking"), try Self.client(broker, "plain"))
            let publisher = try Self.client(broker, "publisher")
            try asking.subscribe([Subscription(filter: "t", retainAsPublished: true)])
            try plain.subscribe([Subscription(filter: "t")])
            for retain in [true, false] {
                try publisher.publish("t", "\(retain)", qos: .atLeastOnce, retain: retain)
                #expect(try asking.receivePublish().retain == retain)
                #expect(try plain.receivePublish().retain == false)
            }
            let late = try Self.client(broker, "late")
            try late.subscribe([Subscription(filter: "t")])
            let publish = try late.receivePublish()
            #expect(publish.retain && publish.text == "true", "RETAIN 0 left the retained message alone")
        }
    }

    @Test("retain handling: always, for a new subscription, never [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]")
    func retainHandling() async throws {
        try await withBroker { broker in
            let client = try Self.client(broker, "client")
            try client.publish("t", "kept", qos: .atLeastOnce, retain: true)
            func subscribe(_ handling: RetainHandling, gets: Bool) throws {
                try client.subscribe([Subscription(filter: "t", retainHandling: handling)], identifier: 9)
                if gets {
                    let publish = try client.receivePublish()
                    #expect(publish.text == "kept" && publish.retain)
                    #expect(publish.properties?.subscriptionIdentifiers == [9])
                }
                try client.ping()
            }
            try subscribe(.doNotSend, gets: false)
            try subscribe(.sendIfNew, gets: false)
            // A subscription that is replaced gets them again [MQTT-3.8.4-4].
            try subscribe(.sendAtSubscribe, gets: true)
            try subscribe(.sendAtSubscribe, gets: true)
            try client.unsubscribe5("t", .success)
            try subscribe(.sendIfNew, gets: true)
        }
    }

    @Test(
        "every filter has its code, in order [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]"
    )
    func codes() async throws {
        try await withBroker({
            $0.limits.maxSubscriptionsPerSession = 3
            $0.limits.maxTopicLevels = 4
        }) { broker in
            let client = try Self.client(broker, "client")
            let codes = try client.subscribe([
                Subscription(filter: "a", qos: .exactlyOnce), Subscription(filter: "a/b/c/d/e"),
                Subscription(filter: "b", qos: .atLeastOnce), Subscription(filter: "c"), Subscription(filter: "d"),
            ])
            #expect(codes == [.grantedQoS2, .topicFilterInvalid, .grantedQoS1, .grantedQoS0, .quotaExceeded])
        }
    }

    @Test(
        "UNSUBACK says what there was; nothing new is delivered, what is under way is completed [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]"
    )
    func unsubscribe() async throws {
        try await withBroker { broker in
            let (client, publisher) = (try Self.client(broker, "client"), try Self.client(broker, "publisher"))
            try client.subscribe(("a", .exactlyOnce), ("b/#", .atLeastOnce))
            try publisher.publish("a", "under way", qos: .exactlyOnce)
            let publish = try client.receivePublish()
            try client.send(.unsubscribe(Unsubscribe(packetID: 77, filters: ["a", "c", "b/+", "b/#"])))
            try client.expect(
                .unsuback(
                    UnsubAck(
                        packetID: 77, codes: [.success, .noSubscriptionExisted, .noSubscriptionExisted, .success])))
            try publisher.publish("a", "no longer", qos: .exactlyOnce)
            try publisher.publish("b/1", "no longer", qos: .atMostOnce)
            try client.send(.pubrec(Ack(packetID: publish.packetID)))
            try client.expect(.pubrel(Ack(packetID: publish.packetID)))
            try client.send(.pubcomp(Ack(packetID: publish.packetID)))
            try client.ping()
        }
    }
}

extension TestClient {
    func unsubscribe5(_ filter: String, _ code: ReasonCode) throws {
        let packetID = takePacketID()
        try send(.unsubscribe(Unsubscribe(packetID: packetID, filters: [filter])))
        try expect(.unsuback(UnsubAck(packetID: packetID, codes: [code])))
    }
}

@Suite("Shared subscriptions", .mayBlock, .serialized)
struct SharedSubscriptionTests {
    static func members(
        _ broker: Broker, _ count: Int, _ qos: QoS = .atLeastOnce, versions: [ProtocolVersion] = [.v5_0]
    ) throws -> [TestClient] {
        try (0..<count).map { index in
            let client = try TestClient(port: broker.port, version: versions[index % versions.count])
            try client.connect("member-\(index)", clean: client.version == .v5_0) { $0.sessionExpiryInterval = 1_000 }
            try client.subscribe(("$share/group/work/+", qos))
            return client
        }
    }

    @Test(
        "each message goes to one member, and all get their share, of either version [MQTT-4.8.2-3]",
        arguments: [1, 3])
    func fairness(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let members = try Self.members(broker, 4, versions: [.v5_0, .v3_1_1])
            let single = try Subscribe5Tests.client(broker, "single")
            try single.subscribe(("work/#", .atMostOnce))
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            for number in 0..<200 { try publisher.publish("work/1", "\(number)", qos: .atLeastOnce) }
            var received: [Int] = []
            for member in members {
                for _ in 0..<50 {
                    let publish = try member.receivePublish()
                    received.append(Int(publish.text)!)
                    try member.send(.puback(Ack(packetID: publish.packetID)))
                }
                try member.ping()
            }
            #expect(received.sorted() == Array(0..<200))
            for number in 0..<200 { #expect(try single.receivePublish().text == "\(number)") }
            #expect(broker.context.router.sharedSubscriptionCount == 4)
        }
    }

    @Test("groups have shares of their own; a member's other subscriptions are in addition; no retained messages")
    func groups() async throws {
        try await withBroker { broker in
            let (one, two) = (try Subscribe5Tests.client(broker, "one"), try Subscribe5Tests.client(broker, "two"))
            try one.publish("t", "retained", qos: .atLeastOnce, retain: true)
            try one.subscribe([Subscription(filter: "$share/a/t")], identifier: 1)
            try two.subscribe([Subscription(filter: "$share/b/t")], identifier: 2)
            try two.subscribe([Subscription(filter: "$share/b/#")], identifier: 3)
            try one.ping()
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            try publisher.publish("t", "x", qos: .atLeastOnce)
            #expect(try one.receivePublish().properties?.subscriptionIdentifiers == [1])
            let both = [try two.receivePublish(), try two.receivePublish()]
            #expect(Set(both.flatMap { $0.properties?.subscriptionIdentifiers ?? [] }) == [2, 3])
            try two.unsubscribe5("$share/b/t", .success)
            try two.unsubscribe5("$share/b/t", .noSubscriptionExisted)
            #expect(broker.context.router.sharedSubscriptionCount == 2)
        }
    }

    @Test("members that are away, or have messages waiting, are passed over while another is free")
    func presence() async throws {
        try await withBroker({ $0.limits.maxInflight = 5 }) { broker in
            let members = try Self.members(broker, 3)
            try members[0].disconnect()
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            // The second acknowledges nothing: after its window and one more it has messages waiting.
            for number in 0..<40 {
                try publisher.publish("work/1", "\(number)", qos: .atLeastOnce)
                if let publish = try members[2].receiveIfAny() {
                    try members[2].send(.puback(Ack(packetID: publish.packetID)))
                    try members[2].ping()
                }
            }
            for _ in 0..<5 { _ = try members[1].receivePublish() }
            try members[1].ping()
            let stalled = try #require(broker.context.registry.find("member-1"))
            #expect(stalled.presence == .busy)
            try members[1].disconnect()
            try members[2].disconnect()
            // Nobody is there: what may wait waits for one of them, the rest is lost and counted.
            try publisher.publish("work/1", "lost", qos: .atMostOnce)
            try publisher.publish("work/1", "waits", qos: .atLeastOnce)
            #expect(broker.counters.sharedUndeliverable.value == 1)
            #expect(try await broker.unreachable() == [])
        }
    }

    @Test("a member whose peer has gone, and whose packets are yet to be handled, is away")
    func peerGone() async throws {
        try await withBroker { broker in
            let members = try Self.members(broker, 2)
            let session = try #require(broker.context.registry.find("member-0"))
            let shard = broker.shards[0]
            try await shard.loop.submit {
                let connection = try #require(session.connection)
                connection.pauseReading(.store)
                connection.channelRead(
                    context: connection.channelContext, data: NIOAny(ByteBuffer(bytes: [0xC0, 0x00])))
            }.get()
            members[0].vanish()
            let deadline = Patience.end
            while try await shard.loop.submit({ session.connection?.isPeerGone == false }).get() {
                try #require(ContinuousClock.now < deadline, "the client is still there")
            }
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            for number in 0..<20 { try publisher.publish("work/1", "\(number)", qos: .atMostOnce) }
            for number in 0..<20 { #expect(try members[1].receivePublish().text == "\(number)") }
            try await shard.loop.submit { try #require(session.connection).goOnAfterStore() }.get()
        }
    }

    @Test("a message looks at so many members, however many are away, and whoever is there is found by and by")
    func looks() async throws {
        let count = 2_000
        try await withBroker { broker in
            let shard = broker.shards[0]
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            // Sessions that nobody comes for.
            let away = (0..<count).map { number in
                Session(
                    clientID: "away-\(number)", userName: nil, owner: .process, expiryInterval: .max, owningShard: 0,
                    heap: broker.context.heap, rpcTopics: broker.context.rpcTopics)
            }
            try await shard.loop.submit {
                for session in away {
                    session.becomesMember()
                    broker.context.router.subscribe(
                        session, "$share/group/work/+", SubscriptionOptions(qos: .atMostOnce))
                }
            }.get()
            func publish(_ messages: Int) async throws -> Int {
                func steps() async throws -> Int {
                    try publisher.ping()
                    return try await broker.steps(of: 0).total
                }
                // Who gets it is remembered from here on.
                try publisher.publish("work/1", "first")
                let before = try await steps()
                for number in 0..<messages { try publisher.publish("work/1", "\(number)") }
                return try await steps() - before
            }
            let messages = 200
            #expect(try await publish(messages) <= 140 * messages)
            let lost = broker.counters.sharedUndeliverable.value
            #expect(lost == messages + 1)
            // Two are there.
            let members = try Self.members(broker, 2, .atMostOnce)
            _ = try await publish(messages)
            let round = count / 64 + 1
            #expect(broker.counters.sharedUndeliverable.value <= lost + round)
            let before = broker.counters.sharedUndeliverable.value
            _ = try await publish(messages)
            #expect(broker.counters.sharedUndeliverable.value == before)
            withExtendedLifetime(members) {}
        }
    }

    @Test("a look at a member whose queue is full counts, where publishers are refused for that")
    func fullQueues() async throws {
        let count = 300
        try await withBroker({
            $0.limits.queuePolicy = .reject
            $0.limits.maxQueuedMessages = 1
        }) { broker in
            for index in 0..<count {
                let member = try TestClient(port: broker.port, version: .v5_0)
                try member.connect("member-\(index)") { $0.sessionExpiryInterval = 60 }
                try member.subscribe([Subscription(filter: "$share/group/work", qos: .atLeastOnce)])
                try member.disconnect()
            }
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            var refused = 0
            for _ in 0..<4 * count where refused == 0 {
                if try publisher.publish("work", "x", qos: .atLeastOnce, { _ in }) == .quotaExceeded { refused += 1 }
            }
            #expect(refused == 1)
            let before = try await broker.steps(of: 0).total
            #expect(try publisher.publish("work", "x", qos: .atLeastOnce) { _ in } == .quotaExceeded)
            #expect(try await broker.steps(of: 0).total - before >= count)
        }
    }

    @Test(
        "when a member's session ends, what it had not acknowledged goes to another: QoS 1, but not QoS 2 that was sent [MQTT-4.8.2-5]",
        arguments: [1, 3])
    func redelivery(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let members = try Self.members(broker, 2, .exactlyOnce)
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            for number in 0..<20 {
                try publisher.publish("work/1", "\(number)", qos: number < 10 ? .atLeastOnce : .exactlyOnce)
            }
            var first: [String] = []
            for _ in 0..<10 { first.append(try members[0].receivePublish().text) }
            try members[0].ping()
            var second: [String] = []
            for _ in 0..<10 {
                let publish = try members[1].receivePublish()
                second.append(publish.text)
                if publish.qos == .atLeastOnce { try members[1].send(.puback(Ack(packetID: publish.packetID))) }
            }
            #expect(try await broker.unreachable() == [])
            // The session of the first ends with this connection.
            var goodbye = Disconnect()
            goodbye.properties.sessionExpiryInterval = 0
            try members[0].send(.disconnect(goodbye))
            try members[0].expectClosed()
            let moved = first.filter { Int($0)! < 10 }
            #expect(moved.count == 5)
            for _ in moved {
                let publish = try members[1].receivePublish()
                second.append(publish.text)
                #expect(!publish.dup, "it is new to this client")
                try members[1].send(.puback(Ack(packetID: publish.packetID)))
            }
            try members[1].ping()
            #expect(Set(second) == Set((0..<20).map { "\($0)" }).subtracting(first.filter { Int($0)! >= 10 }))
            #expect(try await broker.unreachable() == [])
        }
    }

    @Test(
        "a member that comes back is sent again what it had, QoS 2 completed, and nobody else gets it [MQTT-4.8.2-4] [MQTT-4.8.2-6]"
    )
    func comesBack() async throws {
        try await withBroker { broker in
            let members = try Self.members(broker, 2, .exactlyOnce)
            let publisher = try Subscribe5Tests.client(broker, "publisher")
            for number in 0..<2 { try publisher.publish("work/1", "\(number)", qos: .exactlyOnce) }
            let publish = try members[0].receivePublish()
            members[0].vanish()
            let again = try TestClient(port: broker.port, version: .v5_0)
            try again.connect("member-0", clean: false) { $0.sessionExpiryInterval = 1_000 }
            let repeated = try again.receivePublish()
            #expect(repeated.dup && repeated.text == publish.text && repeated.packetID == publish.packetID)
            // A refusal is the end of the message.
            try again.send(.pubrec(Ack(packetID: repeated.packetID, code: .unspecifiedError)))
            try again.ping()
            _ = try members[1].receivePublish()
            try members[1].ping()
        }
    }
}

extension TestClient {
    /// A message that has come already.
    func receiveIfAny() throws -> Publish? {
        try send(.pingreq)
        var found: Publish?
        while let packet = try receive() {
            if case .publish(let publish) = packet { found = publish }
            if case .pingresp = packet { return found }
        }
        return found
    }
}
