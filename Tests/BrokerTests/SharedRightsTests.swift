import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

// A message of a shared subscription is lost for no member's want of rights, as long as another may read it.
extension SessionOwnerTests {
    private static let group = Subscription(filter: "$share/g/#", qos: .exactlyOnce)

    /// What a member gets, all of it answered, until a message says "last".
    private func takeAll(_ member: TestClient) throws -> [String] {
        var (texts, open) = ([String](), 0)
        while texts.last != "last" || open > 0 {
            switch try member.receive() {
            case .publish(let message)?:
                texts.append(message.text)
                let ack = Ack(packetID: message.packetID)
                if message.qos == .exactlyOnce { open += 1 }
                if message.qos == .atLeastOnce { try member.send(.puback(ack)) }
                if message.qos == .exactlyOnce { try member.send(.pubrec(ack)) }
            case .pubrel(let release)?:
                open -= 1
                try member.send(.pubcomp(Ack(packetID: release.packetID)))
            case let other: throw Missing(what: "PUBLISH, got \(String(describing: other))")
            }
        }
        return texts
    }

    @Test(
        "a member that may not read a message is passed over: by rules that were there first, or that came since",
        arguments: [1, 2], [false, true])
    func sharedPassedOver(threads: Int, isReloaded: Bool) async throws {
        try await withUsers(threads: threads, rules: isReloaded ? Self.all : Self.revoked) { broker, setRules in
            let members = try ["anna", "bob"].map { try come(broker, as: $0, to: $0).client }
            for member in members { try member.subscribe([Self.group]) }
            if isReloaded { try await setRules(Self.revoked) }
            let publisher = try come(broker, as: nil, to: "publisher").client
            let qos: [QoS] = [.atMostOnce, .atLeastOnce, .exactlyOnce]
            for number in 0..<60 { try publisher.publish("secret/x", "\(number)", qos: qos[number % 3]) }
            try publisher.ping()
            // Until each has had one, which only bob does at once.
            for _ in 0..<2 { try publisher.publish("open/x", "last", qos: .atLeastOnce) }
            #expect(try takeAll(members[0]) == ["last"])
            #expect(try takeAll(members[1]).dropLast().compactMap { Int($0) }.sorted() == Array(0..<60))
            #expect(broker.counters.messagesWithheld.value == 0 && broker.counters.sharedUndeliverable.value == 0)
            // Nobody is left who might.
            try members[1].disconnect()
            try publisher.publish("secret/x", "waits for bob", qos: .atLeastOnce)
            try publisher.publish("secret/x", "lost", qos: .atMostOnce)
            try await broker.poll { broker.counters.sharedUndeliverable.value == 1 }
            try members[0].ping()
        }
    }

    @Test(
        "what a member was given and may not read any more goes to another, from its queue and from the store",
        arguments: [1, 2], [false, true])
    func sharedPassedOn(threads: Int, isStored: Bool) async throws {
        // More than a page of the store, for each.
        let count = 400
        try await withDataDirectory { directory in
            try await withUsers(threads: threads, rules: Self.all, data: isStored ? directory : nil) {
                broker, setRules in
                for name in ["anna", "bob"] {
                    let member = try come(broker, as: name, to: name).client
                    try member.subscribe([Self.group])
                    try member.disconnect()
                }
                let publisher = try come(broker, as: nil, to: "publisher").client
                for number in 0..<count {
                    try publisher.publish("secret/x", "\(number)", qos: number % 4 < 2 ? .atLeastOnce : .exactlyOnce)
                }
                try await setRules(Self.revoked)
                let anna = try come(broker, as: "anna", to: "anna").client
                let (her, his) = (try broker.session("anna"), try broker.session("bob"))
                try await broker.awaitCount(0, { $0.queuedCount + $0.inflightCount }, of: her)
                try await broker.awaitCount(count, { $0.queuedCount }, of: his)
                try anna.disconnect()
                let bob = try come(broker, as: "bob", to: "bob").client
                try publisher.publish("secret/x", "last", qos: .atLeastOnce)
                #expect(try takeAll(bob).dropLast().compactMap { Int($0) }.sorted() == Array(0..<count))
                #expect(broker.counters.messagesWithheld.value == 0)
                #expect(try await broker.unreachable() == [])
            }
            if isStored { #expect(try StoreFile(in: directory).count("entry") == 0) }
        }
    }

    @Test("QoS 2 that a member has been sent is passed on to nobody, whatever it may read since [MQTT-4.8.2-5]")
    func sharedSent() async throws {
        try await withUsers(threads: 1, rules: Self.all) { broker, setRules in
            let anna = try come(broker, as: "anna", to: "anna").client
            try anna.subscribe([Self.group])
            let publisher = try come(broker, as: nil, to: "publisher").client
            try publisher.publish("secret/x", "1", qos: .atLeastOnce)
            try publisher.publish("secret/x", "2", qos: .exactlyOnce)
            for text in ["1", "2"] { #expect(try anna.receivePublish().text == text) }
            anna.vanish()
            let bob = try come(broker, as: "bob", to: "bob").client
            try bob.subscribe([Self.group])
            try await setRules(Self.revoked)
            let again = try come(broker, as: "anna", to: "anna").client
            let forwardedProperties = try bob.receivePublish()
            #expect(forwardedProperties.text == "1" && !forwardedProperties.dup)
            guard case .pubrel? = try again.receive() else { throw Missing(what: "PUBREL") }
            try bob.ping()
            #expect(broker.counters.messagesWithheld.value == 1)
        }
    }

    @Test("a message that was on its way to a member while its rights went comes to another", arguments: [false, true])
    func sharedOnItsWay(isStored: Bool) async throws {
        try await withDataDirectory { directory in
            try await withUsers(threads: 1, rules: Self.all, data: isStored ? directory : nil) { broker, setRules in
                let members = try ["anna", "bob"].map { try come(broker, as: $0, to: $0).client }
                for member in members { try member.subscribe([Self.group]) }
                let her = try broker.session("anna")
                try await setRules(Self.revoked)
                let shard = broker.shards[0]
                try await shard.loop.submit {
                    var message = Message(
                        topic: try TopicName("secret/x"), payload: ByteBuffer(string: "last"), qos: .atLeastOnce,
                        ownsBuffer: false)
                    let members = shard.match(message.topic).shares[0].members
                    message.route = try #require(members.first { $0.session === her }).route
                    // As the loop that has chosen her does.
                    if isStored { shard.writeBehind?.keep(&message, for: her) }
                    try shard.deliver(&message, to: her)
                }.get()
                #expect(try takeAll(members[1]) == ["last"])
                try members[0].ping()
            }
            if isStored { #expect(try StoreFile(in: directory).count("entry") == 0) }
        }
    }
}

extension Broker {
    fileprivate func session(_ clientID: String) throws -> Session { try #require(context.registry.find(clientID)) }

    fileprivate func awaitCount(
        _ count: Int, _ figure: @escaping @Sendable (borrowing SessionState) -> Int, of session: Session
    ) async throws {
        let deadline = Patience.end
        while true {
            let shard = shards[session.owningShard]
            let now = try await shard.loop.submit { figure(session.state) }.get()
            if now == count { return }
            try #require(ContinuousClock.now < deadline, "\(now) messages, not \(count)")
        }
    }
}
