import Foundation
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// What a session has goes to the user that it belongs to, and to him only what he may read when it is sent.
@Suite("Whose a session is", .mayBlock, .serialized)
struct SessionOwnerTests {
    /// A broker that knows anna and bob, and admits others without a name.
    func withUsers(
        threads: Int = 2, rules: String, data: String? = nil, _ configure: (inout Configuration) -> Void = { _ in },
        _ body: (Broker, _ setRules: (String) async throws -> Void) async throws -> Void
    ) async throws {
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", LoginTests.passwords(["anna": "a", "bob": "b"]))
            let acl = try directory.write("acl", rules)
            try await withBroker(threads: threads) {
                $0.access.anonymous = true
                $0.access.passwordFile = passwords
                $0.access.aclFile = acl
                $0.dataDirectory = data
                configure(&$0)
            } _: { broker in
                try await body(broker) {
                    _ = try directory.write("acl", $0)
                    try await broker.reload(broker.configuration)
                }
            }
        }
    }

    /// CONNECT as a user, who keeps the session.
    func come(
        _ broker: Broker, as user: String?, version: ProtocolVersion = .v5_0, to name: String = "gw",
        clean: Bool = false, receiveMaximum: UInt16? = nil
    ) throws -> (client: TestClient, answer: ConnAck) {
        let client = try TestClient(port: broker.port, version: version)
        let answer = try client.connect(name, clean: clean, user: user, password: user.map { String($0.prefix(1)) }) {
            $0.sessionExpiryInterval = 3_600
            $0.receiveMaximum = receiveMaximum
        }
        return (client, answer)
    }

    static let all = "topic #\nuser anna\ntopic #\nuser bob\ntopic #\n"
    static let revoked = "topic #\nuser anna\ntopic open/#\nuser bob\ntopic #\n"

    // [MQTT-3.1.3-8] [3.1.1: MQTT-3.1.3-9]
    @Test(
        "another user gets nothing of a session, and cannot end it: neither when it comes again nor with a clean start",
        arguments: ProtocolVersion.allCases, [false, true])
    func otherUser(version: ProtocolVersion, isStored: Bool) async throws {
        func refused(_ broker: Broker) throws {
            for (user, clean) in [("bob", false), ("bob", true), (nil, false), (nil, true)] {
                let (thief, answer) = try come(broker, as: user, version: version, clean: clean)
                #expect(answer.code == .clientIdentifierNotValid && !answer.sessionPresent)
                try thief.expectClosed()
            }
        }
        func hasAll(_ broker: Broker) throws {
            let (anna, answer) = try come(broker, as: "anna", version: version)
            #expect(answer.sessionPresent)
            for number in 0..<3 {
                let message = try anna.receivePublish()
                #expect(message.text == "\(number)")
                try anna.send(.puback(Ack(packetID: message.packetID)))
            }
            // While she is there, too.
            try refused(broker)
            try anna.ping()
        }
        try await withDataDirectory { directory in
            let data = isStored ? directory : nil
            try await withUsers(rules: Self.all, data: data) { broker, _ in
                let (anna, answer) = try come(broker, as: "anna", version: version)
                #expect(answer.code == .success)
                try anna.subscribe(("secret/#", .atLeastOnce))
                try anna.disconnect()
                let bob = try come(broker, as: "bob", to: "bob", clean: true).client
                for number in 0..<3 { try bob.publish("secret/x", "\(number)", qos: .atLeastOnce) }
                try refused(broker)
                #expect(broker.counters.accessDenied.value == 4)
                if !isStored { try hasAll(broker) }
            }
            guard isStored else { return }
            try await withUsers(rules: Self.all, data: data) { broker, _ in
                try refused(broker)
                try hasAll(broker)
            }
        }
    }

    @Test("a session that nobody's name stands on gives its name to a user, and nothing else", arguments: [1, 2])
    func nobodys(threads: Int) async throws {
        try await withUsers(threads: threads, rules: Self.all) { broker, _ in
            let (nobody, _) = try come(broker, as: nil)
            try nobody.subscribe(("secret/#", .atLeastOnce))
            try nobody.disconnect()
            let bob = try come(broker, as: "bob", to: "bob", clean: true).client
            try bob.publish("secret/x", "for nobody", qos: .atLeastOnce)
            // Another without a name is the same.
            #expect(try come(broker, as: nil).answer.sessionPresent)
            let (anna, answer) = try come(broker, as: "anna")
            #expect(answer.code == .success && !answer.sessionPresent)
            try bob.publish("secret/x", "nobody has subscribed", qos: .atLeastOnce)
            try anna.ping()
            #expect(try come(broker, as: nil).answer.code == .clientIdentifierNotValid)
        }
    }

    @Test(
        "a session whose user nobody can log in as any more gives its name to the next one, and what is in it to nobody",
        arguments: [1, 2], [false, true])
    func removedOwner(threads: Int, isStored: Bool) async throws {
        try await withDataDirectory { directory in
            try await withTemporaryDirectory { files in
                let passwords = try files.write("passwd", LoginTests.passwords(["anna": "a", "bob": "b"]))
                try await withBroker(threads: threads) {
                    $0.access.passwordFile = passwords
                    if isStored { $0.dataDirectory = directory }
                } _: { broker in
                    let (anna, _) = try come(broker, as: "anna")
                    try anna.subscribe(("t", .exactlyOnce))
                    let bob = try come(broker, as: "bob", to: "bob").client
                    try bob.publish("t", "in flight", qos: .atLeastOnce)
                    #expect(try anna.receivePublish().text == "in flight")
                    anna.vanish()
                    try await broker.poll { broker.counters.clientsConnected.value == 1 }
                    for number in 0..<200 { try bob.publish("t", "\(number)", qos: .atLeastOnce) }
                    // A reload that leaves her in changes nothing.
                    try await broker.reload(broker.configuration)
                    #expect(try come(broker, as: "bob").answer.code == .clientIdentifierNotValid)
                    _ = try files.write("passwd", LoginTests.passwords(["bob": "b"]))
                    try await broker.reload(broker.configuration)
                    let (next, answer) = try come(broker, as: "bob")
                    #expect(answer.code == .success && !answer.sessionPresent)
                    #expect(broker.counters.messagesWithheld.value == 201)
                    try bob.publish("t", "nobody has subscribed", qos: .atLeastOnce)
                    try next.ping()
                    // From now on it is his.
                    _ = try files.write("passwd", LoginTests.passwords(["anna": "a", "bob": "b"]))
                    try await broker.reload(broker.configuration)
                    #expect(try come(broker, as: "anna").answer.code == .clientIdentifierNotValid)
                }
            }
            if isStored { #expect(try StoreFile(in: directory).count("entry") == 0) }
        }
    }

    @Test("what another user asks for does not come before what the owner has asked for")
    func order() async throws {
        try await withUsers(rules: Self.all) { broker, _ in
            try come(broker, as: "anna").client.disconnect()
            let registry = broker.context.registry
            let session = try #require(registry.find("gw"))
            func claim(_ user: String?, _ number: UInt64) -> SessionRegistry.Claim {
                var number = number
                return registry.claim(
                    "gw", of: user, number: &number, isPersistent: true, limit: 9, isKnown: { _ in true },
                    make: { _ in session })
            }
            guard case .foreign = claim("bob", .max), case .foreign = claim(nil, .max),
                case .existing(_, .owner) = claim("anna", 1_000)
            else { throw Missing(what: "the session") }
        }
    }

    @Test("users are told apart byte for byte")
    func spelling() {
        let session = Session(
            clientID: "c", userName: "e\u{301}", owner: .process, expiryInterval: 0, owningShard: 0,
            heap: HeapAccount(),
            rpcTopics: RPCTopics(Configuration.RPC()))
        func title(_ user: String?) -> Session.Title { session.title(of: user) { UTF8Key($0) == UTF8Key("e\u{301}") } }
        #expect(title("\u{e9}") == .none && title(nil) == .none)
        #expect(title("e\u{301}") == .owner)
    }

    @Test("what waited for the disk and may not be read any more makes room for what is behind it")
    func heldAndRevoked() async throws {
        let window = 4
        try await withDataDirectory { directory in
            try await withUsers(threads: 1, rules: Self.all, data: directory, { $0.limits.maxInflight = window }) {
                broker, setRules in
                let (client, _) = try come(broker, as: "anna")
                try client.subscribe([
                    Subscription(filter: "secret/#", qos: .exactlyOnce),
                    Subscription(filter: "open/#", qos: .atLeastOnce),
                ])
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                let disk = try await SlowDisk(#require(broker.context.store))
                for number in 1...window {
                    try publisher.send(
                        .publish(
                            Publish(
                                topic: "secret/\(number)", payload: "s", qos: .exactlyOnce, packetID: UInt16(number))))
                }
                for number in 0..<3 {
                    let packetID = UInt16(window + 1 + number)
                    try publisher.send(
                        .publish(Publish(topic: "open/x", payload: "\(number)", qos: .atLeastOnce, packetID: packetID)))
                }
                let session = try #require(broker.context.registry.find("gw"))
                try await broker.poll { session.state.queuedCount == 3 }
                try await setRules(Self.revoked)
                disk.letGo()
                for number in 0..<3 { #expect(try client.receivePublish().text == "\(number)") }
                #expect(broker.context.counters.messagesWithheld.value == window)
            }
        }
    }

    @Test(
        "a right that was revoked holds for what is queued and in flight, and nothing of it is left",
        arguments: [false, true], [false, true])
    func revoked(isStored: Bool, isRestarted: Bool) async throws {
        guard isStored || !isRestarted else { return }
        let secrets = 200
        try await withDataDirectory { directory in
            let data = isStored ? directory : nil
            func before(_ broker: Broker) async throws {
                let (anna, _) = try come(broker, as: "anna")
                try anna.subscribe(("secret/#", .exactlyOnce), ("open/#", .exactlyOnce))
                let bob = try come(broker, as: "bob", to: "bob", clean: true).client
                try bob.publish("secret/x", "one", qos: .atLeastOnce)
                try bob.publish("secret/x", "two", qos: .exactlyOnce)
                try bob.publish("open/x", "in flight", qos: .exactlyOnce)
                // In the window, and without an answer.
                for text in ["one", "two", "in flight"] { #expect(try anna.receivePublish().text == text) }
                anna.vanish()
                try await broker.poll { broker.counters.clientsConnected.value == 1 }
                // More than is kept in memory where there is a store.
                for _ in 0..<secrets { try bob.publish("secret/x", "queued", qos: .atLeastOnce) }
                try bob.publish("open/x", "last", qos: .atLeastOnce)
            }
            func after(_ broker: Broker) async throws {
                let (anna, answer) = try come(broker, as: "anna")
                #expect(answer.sessionPresent)
                var (texts, releases) = ([String](), 0)
                while texts.last != "last" || releases < 2 {
                    switch try anna.receive() {
                    case .publish(let message)?:
                        texts.append(message.text)
                        if message.qos == .exactlyOnce {
                            try anna.send(.pubrec(Ack(packetID: message.packetID)))
                        } else {
                            try anna.send(.puback(Ack(packetID: message.packetID)))
                        }
                    // Once without a message: the identifier of the one that she may not have is given up.
                    case .pubrel(let release)?:
                        releases += 1
                        try anna.send(.pubcomp(Ack(packetID: release.packetID)))
                    case let other: throw Missing(what: "PUBLISH, got \(String(describing: other))")
                    }
                }
                #expect(texts == ["in flight", "last"])
                try anna.ping()
                #expect(broker.counters.messagesWithheld.value == secrets + 2)
                let session = try #require(broker.context.registry.find("gw"))
                let left = try await broker.shards[session.owningShard].loop.submit {
                    [session.state.inflightCount, session.state.queuedCount]
                }.get()
                #expect(left == [0, 0])
                try await broker.awaitNothingLeft()
            }
            try await withUsers(rules: Self.all, data: data) { broker, setRules in
                try await before(broker)
                if isRestarted { return }
                try await setRules(Self.revoked)
                try await after(broker)
            }
            if isRestarted {
                try await withUsers(rules: Self.revoked, data: data) { broker, _ in try await after(broker) }
            }
            if isStored { #expect(try StoreFile(in: directory).count("entry") == 0) }
        }
    }

    @Test("a right that was revoked holds for retained messages that wait for acknowledgements")
    func revokedRetained() async throws {
        try await withUsers(rules: Self.all) { broker, setRules in
            let bob = try come(broker, as: "bob", to: "bob", clean: true).client
            for number in 0..<5 { try bob.publish("secret/\(number)", "kept", qos: .atLeastOnce, retain: true) }
            try bob.publish("open/1", "kept", qos: .atLeastOnce, retain: true)
            let (anna, _) = try come(broker, as: "anna", receiveMaximum: 1)
            try anna.subscribe(("secret/#", .atLeastOnce), ("open/#", .atLeastOnce))
            let first = try anna.receivePublish()
            #expect(first.topicString.hasPrefix("secret/"))
            try await setRules(Self.revoked)
            try anna.send(.puback(Ack(packetID: first.packetID)))
            #expect(try anna.receivePublish().topicString == "open/1")
        }
    }

    @Test("a right that was revoked holds for what waits in the backlog of a client that does not read")
    func revokedBacklog() async throws {
        let count = 200
        try await withUsers(
            threads: 1, rules: Self.all,
            {
                $0.limits.maxBacklogMessages = 1_000
                $0.limits.maxBacklogBytes = 64 << 20
            }
        ) { broker, setRules in
            let (anna, _) = try come(broker, as: "anna")
            try anna.subscribe(("secret/#", .atMostOnce), ("open/#", .atMostOnce))
            let bob = try come(broker, as: "bob", to: "bob", clean: true).client
            let text = String(repeating: "s", count: 100_000)
            for _ in 0..<count { try bob.publish("secret/x", text) }
            try bob.ping()
            try await setRules(Self.revoked)
            try bob.publish("open/x", "last")
            try bob.ping()
            var seen = 0
            while case let message = try anna.receivePublish(), message.text != "last" { seen += 1 }
            #expect(broker.counters.messagesWithheld.value > 0)
            #expect(seen + broker.counters.messagesWithheld.value == count)
        }
    }

    @Test("a long queue that may not be read any more is given up over many ticks; what may be read behind it comes")
    func longQueue() async throws {
        let count = 3 * Limits.withheldPerTick
        try await withUsers(rules: Self.all, { $0.limits.maxQueuedMessages = 100_000 }) { broker, setRules in
            let (anna, _) = try come(broker, as: "anna")
            try anna.subscribe(("#", .atLeastOnce))
            try anna.disconnect()
            let bob = try come(broker, as: "bob", to: "bob", clean: true).client
            for number in 1...UInt16(count) {
                try bob.send(.publish(Publish(topic: "secret/x", payload: "s", qos: .atLeastOnce, packetID: number)))
            }
            for _ in 0..<count { guard case .puback? = try bob.receive() else { throw Missing(what: "PUBACK") } }
            try bob.publish("open/x", "last", qos: .atLeastOnce)
            try await setRules(Self.revoked)
            let (back, _) = try come(broker, as: "anna")
            #expect(try back.receivePublish().text == "last")
            #expect(broker.counters.messagesWithheld.value == count)
            let shard = broker.shards[try #require(broker.owningShard(of: "gw"))]
            let most = try await shard.loop.submit { shard.work.mostWithheld }.get()
            #expect(most == Limits.withheldPerTick)
        }
    }

    @Test("a reload that comes between a connection and its CONNECT holds for it")
    func reloadBefore() async throws {
        try await withUsers(rules: Self.all) { broker, setRules in
            let anna = try TestClient(port: broker.port, version: .v5_0)
            try await broker.poll { broker.counters.connectionsAccepted.value == 1 }
            try await setRules(Self.revoked)
            try anna.connect("gw", user: "anna", password: "a")
            try anna.subscribe(("#", .atLeastOnce))
            let bob = try come(broker, as: "bob", to: "bob", clean: true).client
            try bob.publish("secret/x", "no", qos: .atLeastOnce)
            try anna.ping()
        }
    }

    @Test("a user who was removed cannot log in by a connection that is older")
    func removedUser() async throws {
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", LoginTests.passwords(["anna": "a", "bob": "b"]))
            try await withBroker {
                $0.access.passwordFile = passwords
                $0.access.failedLoginDelayMilliseconds = 1
            } _: { broker in
                let (anna, bob) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
                try await broker.poll { broker.counters.connectionsAccepted.value == 2 }
                _ = try directory.write("passwd", LoginTests.passwords(["anna": "a"]))
                try await broker.reload(broker.configuration)
                #expect(try bob.connect("bob", user: "bob", password: "b").code == .badUserNameOrPassword)
                #expect(try anna.connect("anna", user: "anna", password: "a").code == .success)
            }
        }
    }

    @Test("a session that a reload did not find, since it was on its way to another loop, arrives with today's rules")
    func reloadOnTheWay() async throws {
        try await withUsers(rules: Self.all) { broker, _ in
            try come(broker, as: "anna").client.disconnect()
            let session = try #require(broker.context.registry.find("gw"))
            let (owningShard, other) = (broker.shards[session.owningShard], broker.shards[1 - session.owningShard])
            // Where there was a connection before, one can be gone.
            var visitors: [TestClient] = []
            while try await other.loop.submit({ other.connections.count }).get() == 0 {
                visitors.append(try TestClient(port: broker.port))
                try visitors.last!.connect("visitor-\(visitors.count)")
            }
            let topic = try TopicName("secret/x")
            let before = try await owningShard.loop.submit { session.mayReceive(topic) }.get()
            #expect(before)
            // What a reload does, but for the sessions that it finds.
            var configuration = broker.configuration
            try withTemporaryDirectory { directory in
                configuration.access.aclFile = try directory.write("acl", Self.revoked)
                let listener = broker.context.listeners[0]
                listener.settings = try Listener.Settings(listener.settings.configuration, in: configuration)
            }
            try await owningShard.loop.submit {
                let gone = ConnectionReference(shard: other.index, index: 0, generation: .max)
                owningShard.takeOver(
                    session, for: SessionWaiter(connection: gone, discard: false, number: session.claim))
            }.get()
            let deadline = Patience.end
            while try await other.loop.submit({ session.owningShard != other.index || session.isInTransit }).get() {
                try #require(ContinuousClock.now < deadline, "the session did not come")
            }
            let after = try await other.loop.submit { session.mayReceive(topic) }.get()
            #expect(!after)
        }
    }

    @Test("a will that was due before the client came back is published by the rights that it was left with")
    func dueWill() async throws {
        try await withTemporaryDirectory { directory in
            let strict = try directory.write("acl", "topic read #\n")
            var listeners = [Configuration.Listener(), Configuration.Listener()]
            for index in listeners.indices { listeners[index].port = 0 }
            listeners[0].aclFile = strict
            try await withBroker({ $0.listeners = listeners }) { broker in
                let ports = broker.ports.compactMap { $0 }
                let watcher = try TestClient(port: ports[1])
                try watcher.connect("watcher")
                try watcher.subscribe(("plant/#", .atMostOnce))
                let mallory = try TestClient(port: ports[0], version: .v5_0)
                var will = Will(topic: "plant/stop", payload: ByteBuffer(string: "now"), retain: true)
                will.properties.delayInterval = 600
                try mallory.connect("gw", will: will) { $0.sessionExpiryInterval = 600 }
                mallory.vanish()
                let session = try await broker.awaitAway("gw")
                let shard = broker.shards[0]
                try await shard.loop.submit {
                    // Due, and the timer has not come to it.
                    shard.isTimeRunning = false
                    shard.update(session) { $0.will = $0.will?.due(at: .now() - .seconds(1)) }
                }.get()
                let gateway = try TestClient(port: ports[1], version: .v5_0)
                #expect(try gateway.connect("gw", clean: false).sessionPresent)
                try watcher.ping()
                #expect(broker.counters.accessDenied.value == 1 && broker.context.retained.count == 0)
            }
        }
    }

    struct Missing: Error { let what: String }
}
