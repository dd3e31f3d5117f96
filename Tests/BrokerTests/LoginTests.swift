import Foundation
import MQTT
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Broker

extension URL {
    /// Writes a file here, and returns its path.
    func write(_ name: String, _ text: String) throws -> String {
        let file = appending(path: name)
        try text.write(to: file, atomically: true, encoding: .utf8)
        return file.path
    }
}

@Suite("Who may connect, and do what", .mayBlock, .serialized)
struct LoginTests {
    static func passwords(_ users: [String: String]) throws -> String {
        try users.map { "\($0):\(try PasswordHash.make(Array($1.utf8), rounds: 10).text)\n" }.joined()
    }

    /// A broker whose only user is anna, with "secret".
    private func withAnna(_ body: (Broker) async throws -> Void) async throws {
        try await withTemporaryDirectory { directory in
            let file = try directory.write("passwd", Self.passwords(["anna": "secret"]))
            try await withBroker(
                {
                    $0.access.passwordFile = file
                    $0.access.failedLoginDelayMilliseconds = 1
                }, body)
        }
    }

    @Test("without a configuration the loopback listener admits everybody, and the log says so loudly")
    func demonstration() async throws {
        let log = LogCollector()
        try await withBroker(log: log.logger) { broker in
            let client = try TestClient(port: broker.port)
            #expect(try client.connect("anybody").code == .success)
        }
        #expect(log.lines.contains { $0.hasPrefix("warning anonymous access: every client that reaches 127.0.0.1:") })
    }

    @Test("a listener that others can reach must say who may connect")
    func nobody() async throws {
        for prepare: (inout Configuration) -> Void in [
            { $0.host = "0.0.0.0" },
            { $0.access.anonymous = false },
            {
                var listener = Configuration.Listener()
                // What comes through a balancer does not come from this machine.
                listener.proxyProtocol = true
                $0.listeners = [listener]
            },
        ] {
            var configuration = Configuration()
            prepare(&configuration)
            let error = #expect(throws: ConfigurationError.self) { try configuration.checkListeners() }
            #expect(error?.description.contains("nobody could connect: give passwordFile") == true)
            configuration.access.anonymous = true
            try configuration.checkListeners()
        }
    }

    @Test("with a password file its users come in, and nobody else")
    func passwordFile() async throws {
        try await withAnna { broker in
            let right = try TestClient(port: broker.port)
            #expect(try right.connect("a", user: "anna", password: "secret").code == .success)
            try right.ping()
            for (user, password) in [("anna", "wrong"), ("otto", "secret"), ("anna", nil), ("anna", "")] {
                let client = try TestClient(port: broker.port)
                #expect(try client.connect("b", user: user, password: password).code == .badUserNameOrPassword)
                try client.expectClosed()
            }
            let anonymous = try TestClient(port: broker.port)
            #expect(try anonymous.connect("c").code == .notAuthorized)
            try anonymous.expectClosed()
            #expect(broker.counters.loginsFailed.value == 4)
            // What the client sends before it has its answer waits for it.
            let eager = try TestClient(port: broker.port)
            try eager.send(
                .connect(
                    Connect(
                        version: .v3_1_1, clientID: "eager", username: "anna",
                        password: ByteBuffer(string: "secret"))), .pingreq)
            guard case .connack(let ack)? = try eager.receive() else {
                throw TestClient.Failure(description: "no CONNACK")
            }
            #expect(ack.code == .success)
            try eager.expect(.pingresp)
        }
    }

    @Test("refusals of an address come later each time, are counted, and stop no other client")
    func delays() async throws {
        let log = LogCollector()
        try await withTemporaryDirectory { directory in
            let file = try directory.write("passwd", Self.passwords(["anna": "secret"]))
            try await withBroker(
                {
                    $0.access.passwordFile = file
                    $0.access.failedLoginDelayMilliseconds = 100
                }, log: log.logger
            ) { broker in
                let guesser = try TestClient(port: broker.port)
                try guesser.send(
                    .connect(
                        Connect(version: .v3_1_1, clientID: "g", username: "anna", password: ByteBuffer(string: "x"))))
                try await broker.poll { broker.counters.loginsFailed.value == 1 }
                // Its answer is not there yet; others are served.
                let other = try TestClient(port: broker.port)
                #expect(try other.connect("other", user: "anna", password: "secret").code == .success)
                guard case .connack(let ack)? = try guesser.receive() else {
                    throw TestClient.Failure(description: "no CONNACK")
                }
                #expect(ack.code == .badUserNameOrPassword)
            }
        }
        #expect(
            log.lines.contains {
                $0.hasPrefix("notice login failed: wrong user name or password") && $0.contains("failures=1")
                    && $0.contains("user=anna")
            })
        #expect(!log.lines.contains { $0.contains("secret") })
    }

    @Test("a client that leaves while its password is hashed leaves nothing behind")
    func leaves() async throws {
        try await withTemporaryDirectory { directory in
            let hash = try PasswordHash.make(Array("secret".utf8), rounds: 20_000).text
            let file = try directory.write("passwd", "anna:\(hash)\n")
            try await withBroker({ $0.access.passwordFile = file }) { broker in
                for _ in 0..<20 {
                    let client = try TestClient(port: broker.port)
                    let packet = Connect(
                        version: .v3_1_1, clientID: "gone",
                        will: Will(topic: "w", payload: ByteBuffer(string: "will")), username: "anna",
                        password: ByteBuffer(string: "secret"))
                    try client.send(.connect(packet))
                    client.vanish()
                }
                try await broker.awaitNoConnections()
                try await broker.poll { broker.context.registry.count == 0 }
                // The last of them may not even have been accepted yet; what is left behind stays.
                try await broker.awaitNothingLeft()
            }
        }
    }

    @Test("more logins at once than the threads and their queue take are refused, and no loop waits")
    func flood() async throws {
        let threads = LoginThreads()
        defer { threads.stop() }
        let gate = DispatchSemaphore(value: 0)
        let refused = Atomic(0)
        var sent = 0
        while refused.value == 0 {
            threads.submit(.init(check: gate.pass, answer: { _ in }, refuse: { refused.increment() }), from: .v4(1))
            sent += 1
        }
        let taken = sent - 1
        #expect(taken >= Limits.maxWaitingLogins && taken <= Limits.maxWaitingLogins + Limits.loginThreads)
        // Full as it is, another source finds room, and costs the flood one.
        threads.submit(.init(check: gate.pass, answer: { _ in }, refuse: { Issue.record("refused") }), from: .v4(2))
        #expect(refused.value == 2)
        for _ in 0..<taken { gate.signal() }
    }

    @Test("what a thread finds out after the end is not posted: the loop that it is for may be gone")
    func lateAnswer() {
        let threads = LoginThreads()
        let (begun, gate) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let answered = Atomic(0)
        // As many as there are threads, and one that waits.
        for _ in 0...Limits.loginThreads {
            threads.submit(
                .init(
                    check: {
                        begun.signal()
                        return gate.pass()
                    }, answer: { _ in answered.increment() }, refuse: {}), from: .v4(1))
        }
        for _ in 0..<Limits.loginThreads { begun.wait() }
        gate.signal()
        begun.wait()
        let before = answered.value
        let gone = DispatchSemaphore(value: 0)
        threads.stop { gone.signal() }
        for _ in 0..<Limits.loginThreads { gate.signal() }
        gone.wait()
        #expect(before == 1 && answered.value == 1)
    }

    @Test("a flood of logins from one address shuts out nobody who comes from another, also behind a balancer")
    func floodAndUser() async throws {
        try await withTemporaryDirectory { directory in
            let slow = try PasswordHash.make(Array("x".utf8), rounds: 10).text
                .replacingOccurrences(of: "$7$10$", with: "$7$200000$")
            let file = try directory.write("passwd", "otto:\(slow)\n" + Self.passwords(["anna": "secret"]))
            try await withBroker(threads: 2) {
                $0.access.passwordFile = file
                $0.listeners = [Configuration.listener { $0.proxyProtocol = true }]
            } _: { broker in
                func client(from address: [UInt8]) throws -> TestClient {
                    let client = try TestClient(port: broker.port)
                    try client.send(raw: ProxyHeaderTests.header(address, port: 1))
                    return client
                }
                let guess = Packet.connect(
                    Connect(version: .v3_1_1, clientID: "", username: "otto", password: ByteBuffer(string: "y")))
                var flood: [TestClient] = []
                // As fast as they are looked at, or faster.
                let deadline = Patience.end
                while broker.context.loginThreads.waitingCount < Limits.maxWaitingLogins {
                    try #require(ContinuousClock.now < deadline, "no more than so many wait")
                    flood.append(try client(from: [10, 0, 0, 1]))
                    try flood.last?.send(guess)
                    guard flood.count > Limits.maxWaitingLogins else { continue }
                    for shard in broker.shards { try await shard.loop.submit {}.get() }
                }
                let user = try client(from: [10, 0, 0, 2])
                #expect(try user.connect("anna", user: "anna", password: "secret").code == .success)
                for client in flood { client.vanish() }
            }
        }
    }

    @Test("a password longer than any may be is refused like a wrong one, and waits for no thread")
    func longPassword() async throws {
        try await withAnna { broker in
            let client = try TestClient(port: broker.port)
            let password = String(repeating: "s", count: Limits.maxPasswordBytes + 1)
            #expect(try client.connect("a", user: "anna", password: password).code == .badUserNameOrPassword)
            #expect(broker.counters.loginsFailed.value == 1)
        }
    }

    @Test("access rules decide what is published, subscribed to and delivered")
    func accessRules() async throws {
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", Self.passwords(["anna": "a", "otto": "o"]))
            let rules = try directory.write(
                "acl", "user anna\ntopic readwrite #\nuser otto\ntopic read home/+\ntopic deny home/safe\n")
            try await withBroker({
                $0.access.passwordFile = passwords
                $0.access.aclFile = rules
            }) { broker in
                let anna = try TestClient(port: broker.port)
                try anna.connect("anna", user: "anna", password: "a")
                let otto = try TestClient(port: broker.port)
                try otto.connect("otto", user: "otto", password: "o")
                // Too wide a filter is granted, and brings what may be read. One that can bring nothing is refused.
                #expect(
                    try otto.subscribe(("#", .atLeastOnce), ("other/#", .atLeastOnce), ("home/safe", .atLeastOnce))
                        == [.grantedQoS1, .unspecifiedError, .unspecifiedError])
                try anna.publish("home/safe", "no", qos: .atLeastOnce, retain: true)
                try anna.publish("other/x", "no", qos: .atMostOnce)
                try anna.publish("home/door", "open", qos: .atLeastOnce)
                #expect(try otto.receivePublish().text == "open")
                // Acknowledged, as 3.1.1 has it, and not published.
                try anna.subscribe(("#", .atMostOnce))
                #expect(try anna.receivePublish().text == "no")
                try otto.publish("home/door", "forged", qos: .atLeastOnce)
                try otto.publish("home/door", "forged", qos: .exactlyOnce)
                try otto.publish("home/door", "forged", qos: .atMostOnce)
                try otto.ping()
                try anna.ping()
                #expect(broker.counters.accessDenied.value == 5)
                // The will of a client that may not write there is not published either.
                let dying = try TestClient(port: broker.port)
                try dying.connect(
                    "dying", will: Will(topic: "home/door", payload: ByteBuffer(string: "forged")), user: "otto",
                    password: "o")
                dying.vanish()
                try await broker.poll { broker.owningShard(of: "dying") == nil }
                try anna.ping()
            }
        }
    }

    @Test("a 5.0 client is told that it is not authorized: in CONNACK, SUBACK, PUBACK and PUBREC")
    func reasonCodes() async throws {
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", Self.passwords(["anna": "a"]))
            let rules = try directory.write("acl", "user anna\ntopic read in\ntopic write out\n")
            try await withBroker({
                $0.access.passwordFile = passwords
                $0.access.aclFile = rules
                $0.access.failedLoginDelayMilliseconds = 0
            }) { broker in
                for (user, password, code) in [
                    (nil, nil, ReasonCode.notAuthorized), ("anna", "b", .badUserNameOrPassword),
                ] {
                    let client = try TestClient(port: broker.port, version: .v5_0)
                    #expect(try client.connect("c", user: user, password: password).code == code)
                }
                let anna = try TestClient(port: broker.port, version: .v5_0)
                #expect(try anna.connect("anna", user: "anna", password: "a").code == .success)
                #expect(try anna.subscribe(("in", .atMostOnce), ("out", .atMostOnce)) == [.success, .notAuthorized])
                for (qos, packetID) in [(QoS.atLeastOnce, 7), (.exactlyOnce, 8)] as [(QoS, UInt16)] {
                    try anna.send(.publish(Publish(topic: "in", payload: "x", qos: qos, packetID: packetID)))
                    switch try anna.receive() {
                    case .puback(let ack)?, .pubrec(let ack)?:
                        #expect(ack.packetID == packetID && ack.code == .notAuthorized)
                    case let other: Issue.record("\(String(describing: other))")
                    }
                }
                // A refused QoS 2 message leaves its identifier free.
                try anna.ping()
            }
        }
    }

    @Test("a reload changes passwords and rules, also of clients that are connected, and closes no connection")
    func reload() async throws {
        let log = LogCollector()
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", Self.passwords(["anna": "a"]))
            let rules = try directory.write("acl", "user anna\ntopic readwrite one\n")
            try await withBroker(
                threads: 2,
                {
                    $0.access.passwordFile = passwords
                    $0.access.aclFile = rules
                    $0.access.failedLoginDelayMilliseconds = 1
                }, log: log.logger
            ) { broker in
                let anna = try TestClient(port: broker.port)
                try anna.connect("anna", user: "anna", password: "a")
                try anna.subscribe(("#", .atLeastOnce))
                _ = try directory.write("passwd", Self.passwords(["otto": "o"]))
                _ = try directory.write("acl", "user anna\ntopic readwrite two\nuser otto\ntopic readwrite #\n")
                #expect(try await broker.reload(broker.configuration) == [])
                try anna.publish("one", "no", qos: .atLeastOnce)
                let otto = try TestClient(port: broker.port)
                #expect(try otto.connect("otto", user: "otto", password: "o").code == .success)
                try otto.publish("one", "no", qos: .atLeastOnce)
                try otto.publish("two", "yes", qos: .atLeastOnce)
                #expect(try anna.receivePublish().text == "yes")
                let again = try TestClient(port: broker.port)
                #expect(try again.connect("x", user: "anna", password: "a").code == .badUserNameOrPassword)

                // A mistake changes nothing.
                _ = try directory.write("acl", "topik read #\n")
                await #expect(throws: ConfigurationError.self) { try await broker.reload(broker.configuration) }
                try otto.publish("two", "still", qos: .atLeastOnce)
                // What cannot change while the broker runs is named.
                _ = try directory.write("acl", "user anna\ntopic readwrite two\n")
                var changed = broker.configuration
                changed.limits.maxInflight = 7
                changed.nearPercent = 50
                #expect(try await broker.reload(changed) == ["nearPercent", "limits"])
            }
        }
        #expect(log.lines.contains { $0 == "notice configuration reloaded waiting_for_restart=nearPercent,limits" })
    }
}

extension LoginTests {
    @Test("a reload takes no half-written file for a permission: it opens nothing that was shut without being told to")
    func halfWritten() async throws {
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", Self.passwords(["anna": "a"]))
            let rules = try directory.write("acl", "user anna\ntopic readwrite one\n")
            try await withBroker {
                $0.access.passwordFile = passwords
                $0.access.aclFile = rules
                $0.access.failedLoginDelayMilliseconds = 1
            } _: { broker in
                func expectRefusal(_ text: String, _ change: (inout Configuration) -> Void) async throws {
                    var next = broker.configuration
                    change(&next)
                    let error = await #expect(throws: ConfigurationError.self) { try await broker.reload(next) }
                    #expect(error?.description.contains(text) == true, "\(String(describing: error))")
                    let stranger = try TestClient(port: broker.port)
                    #expect(try stranger.connect("stranger").code == .notAuthorized)
                    let anna = try TestClient(port: broker.port, version: .v5_0)
                    try anna.connect("anna", user: "anna", password: "a")
                    #expect(try anna.subscribe([Subscription(filter: "two", qos: .atMostOnce)]) == [.notAuthorized])
                }
                // Cut off before [access], and in the middle of it.
                try await expectRefusal("anonymous = true") { $0.access = Configuration.Access() }
                try await expectRefusal("aclFile is gone") { $0.access.aclFile = nil }
                // Begun, and nothing in it yet.
                _ = try directory.write("acl", "# who may do what\n")
                try await expectRefusal("the ACL file has no rules any more") { _ in }
                _ = try directory.write("acl", "user anna\ntopic readwrite one\n")
                _ = try directory.write("passwd", "")
                try await expectRefusal("the password file has no users any more") { _ in }
                _ = try directory.write("passwd", Self.passwords(["anna": "a"]))
                // Said, it is done.
                var open = broker.configuration
                open.access.anonymous = true
                _ = try directory.write("acl", "pattern readwrite #\n")
                try await broker.reload(open)
                #expect(try TestClient(port: broker.port).connect("stranger").code == .success)
            }
        }
    }

    @Test("a file of users or rules has its part of the memory, and no more")
    func largeFile() throws {
        let directory = FileManager.default.temporaryDirectory
        let path = directory.appending(path: "acl-\(UUID().uuidString)").path()
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(repeating: UInt8(ascii: "#"), count: 3 << 20).write(to: URL(filePath: path))
        var configuration = Configuration()
        configuration.access.aclFile = path
        configuration.access.anonymous = true
        configuration.memoryLimit = 128 << 20
        let error = #expect(throws: ConfigurationError.self) { try Broker.check(configuration) }
        #expect(error?.description.contains("larger than 2097152 bytes") == true, "\(String(describing: error))")
        configuration.memoryLimit = 256 << 20
        try Broker.check(configuration)
    }
}

extension DispatchSemaphore {
    fileprivate func pass() -> Bool {
        wait()
        return true
    }
}
