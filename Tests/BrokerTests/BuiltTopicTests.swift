import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Topics that the broker makes itself, out of what clients are called and what it has stored: one that is none is dropped
/// and counted, and never ends the broker.
@Suite("Topics that the broker builds", .mayBlock, .serialized)
struct BuiltTopicTests {
    private static let request = "v1/devices/x/rpc/request/"

    @Test(
        "a command whose topic grows beyond 65,535 bytes is not delivered; one byte less is",
        arguments: ProtocolVersion.allCases, [QoS.atMostOnce, .atLeastOnce, .exactlyOnce])
    func longCommand(version: ProtocolVersion, qos: QoS) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: 2, { $0.dataDirectory = directory }) { broker in
                let device = try TestClient(port: broker.port, version: version)
                try device.connect("x", clean: false) { $0.sessionExpiryInterval = 600 }
                try device.subscribe(("v1/devices/me/rpc/request/+", qos))
                let backEnd = try TestClient(port: broker.port, version: version)
                try backEnd.connect("back-end")
                // `x` becomes `me`: 65,535 bytes become 65,536.
                for character in ["i", "é", "€"] {
                    let room = 65_535 - Self.request.utf8.count
                    let most = String(repeating: character, count: room / character.utf8.count)
                    let padding = String(repeating: "p", count: room - most.utf8.count)
                    try backEnd.publish(Self.request + padding + most, "too long", qos: qos)
                }
                let longest = Self.request + String(repeating: "i", count: 65_534 - Self.request.utf8.count)
                try backEnd.publish(longest, "as long as can be", qos: qos)
                let command = try device.receivePublish()
                #expect(command.text == "as long as can be" && command.topic?.byteCount == 65_535)
                #expect(broker.counters.commandsUndeliverable.value == 3)
                #expect(try await broker.accounting().unreachable == 0)
            }
            // What was acknowledged and not answered is there again, and ends nothing.
            try await withBroker(threads: 2, { $0.dataDirectory = directory }) { broker in
                let device = try TestClient(port: broker.port, version: version)
                try device.connect("x", clean: false) { $0.sessionExpiryInterval = 600 }
                if qos != .atMostOnce { #expect(try device.receivePublish().topic?.byteCount == 65_535) }
                try device.ping()
            }
        }
    }

    @Test(
        "a response whose topic grows beyond 65,535 bytes is dropped, one byte less is not",
        arguments: ProtocolVersion.allCases, [(65_509, 1), (65_510, 1), (3, 65_507), (3, 65_508)])
    func longResponse(version: ProtocolVersion, _ size: (name: Int, id: Int)) async throws {
        try await withBroker(threads: 2, { $0.rpc.requirePending = false }) { broker in
            let name = String(repeating: "d", count: size.name)
            let device = try TestClient(port: broker.port, version: version)
            try device.connect(name)
            let backEnd = try TestClient(port: broker.port, version: version)
            try backEnd.connect("back-end")
            try backEnd.subscribe(("v1/devices/+/rpc/response/+", .atLeastOnce))
            let id = String(repeating: "r", count: size.id)
            try device.publish("v1/devices/me/rpc/response/\(id)", "answer", qos: .atLeastOnce)
            let fits = 25 + size.name + size.id <= 65_535
            if fits { #expect(try backEnd.receivePublish().topic?.byteCount == 65_535) }
            try backEnd.ping()
            #expect(broker.counters.messagesUnsendable.value == (fits ? 0 : 1))
        }
    }

    // [MQTT-3.3.2-2]
    @Test(
        "what a device is called reaches no topic but its own: neither as a wildcard nor as a level of its own making",
        arguments: ["+", "#", "a/+", "other/rpc/response/1", "/", "me", "x\u{301}/y"])
    func names(name: String) async throws {
        try await withBroker({ $0.rpc.requirePending = false }) { broker in
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe(("#", .atLeastOnce), ("v1/devices/other/rpc/response/#", .atLeastOnce))
            let device = try TestClient(port: broker.port)
            try device.connect(name)
            try device.publish("v1/devices/me/rpc/response/1", "forged", qos: .atLeastOnce)
            #expect(broker.counters.messagesUnsendable.value == 1)
            try watcher.ping()
        }
    }

    @Test("who waits for a response over HTTP gets it, whatever the device is called")
    func awaited() async throws {
        try await withBroker { broker in
            let device = try TestClient(port: broker.port)
            try device.connect("+/#")
            try device.subscribe(("v1/devices/me/rpc/request/+", .atLeastOnce))
            // A content type that no property can hold, too.
            async let outcome = broker.send(
                CommandRequest(
                    payload: ByteBuffer(string: "do it"), contentType: String(repeating: "t", count: 70_000),
                    timeout: .seconds(Int64(Patience.seconds))), to: "+/#")
            let command = try device.receivePublish()
            let id = command.topicString.split(separator: "/").last ?? ""
            try device.publish("v1/devices/me/rpc/response/\(id)", "done")
            guard case .response(let ticket, _) = await outcome else { throw Missing() }
            #expect(String(buffer: ticket.payload) == "done")
        }
    }

    private struct Missing: Error {}

    @Test("the longest topic goes through everything: retained, aliased, shared, as a will", arguments: [1, 2])
    func longest(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let topic = String(repeating: "€", count: 21_844) + "/ab"
            let reader = try TestClient(port: broker.port, version: .v5_0)
            try reader.connect("reader") { $0.topicAliasMaximum = 2 }
            try reader.subscribe((topic, .atLeastOnce))
            let member = try TestClient(port: broker.port)
            try member.connect("member")
            // With its prefix the filter is as long as a filter can be.
            let filter = "$share/g/" + "+/" + String(repeating: "f", count: 65_524)
            try member.subscribe(("$share/g/+/ab", .atLeastOnce), (filter, .atLeastOnce))
            let writer = try TestClient(port: broker.port, version: .v5_0)
            try writer.connect("writer", will: Will(topic: topic, payload: ByteBuffer(string: "gone")))
            try writer.publish(topic, "one", qos: .atLeastOnce, retain: true) { $0.topicAlias = 1 }
            try writer.publish("", "two", qos: .atLeastOnce) { $0.topicAlias = 1 }
            writer.vanish()
            for text in ["one", "two", "gone"] {
                let publish = try reader.receivePublish()
                #expect(publish.text == text)
                if publish.qos != .atMostOnce { try reader.send(.puback(Ack(packetID: publish.packetID))) }
                #expect(try member.receivePublish().topicString == topic)
            }
            let late = try TestClient(port: broker.port)
            try late.connect("late")
            try late.subscribe((topic, .atLeastOnce))
            #expect(try late.receivePublish().topic?.byteCount == 65_535)
        }
    }

    // MARK: - What the store has

    /// A topic that none is, as SQL.
    private static let poisons = [
        "CAST(replace(hex(zeroblob(32768)), '0', 'a') AS BLOB)", "CAST('a/+/b' AS BLOB)", "CAST('a/#' AS BLOB)",
        "x''", "x'61C3'", "x'6100'", "zeroblob(65536)",
    ]

    @Test(
        "a data directory with messages that nobody can be sent starts, drops and counts them, and serves the rest",
        arguments: poisons, [1, 2])
    func poisonedStore(poison: String, threads: Int) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: threads, { $0.dataDirectory = directory }) { broker in
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                // In the window: not acknowledged.
                let window = try TestClient(port: broker.port)
                try window.connect("window", clean: false)
                try window.subscribe(("t/+", .exactlyOnce))
                // In the queue.
                let queue = try TestClient(port: broker.port)
                try queue.connect("queue", clean: false)
                try queue.subscribe(("t/+", .exactlyOnce))
                try queue.disconnect()
                // Left to a group.
                let left = try TestClient(port: broker.port)
                try left.connect("left", clean: false)
                try left.subscribe(("$share/g/s", .atLeastOnce))
                try left.disconnect()
                try publisher.publish("t/1", "one", qos: .exactlyOnce, retain: true)
                try publisher.publish("t/bad", "bad", qos: .exactlyOnce)
                try publisher.publish("t/2", "two", qos: .exactlyOnce)
                try publisher.publish("s", "shared", qos: .atLeastOnce)
                for _ in 0..<3 { _ = try window.receivePublish() }
                let dying = try TestClient(port: broker.port, version: .v5_0)
                var will = Will(topic: "w", payload: ByteBuffer(string: "gone"), qos: .atLeastOnce)
                will.properties.delayInterval = 600
                try dying.connect("dying", clean: false, will: will) { $0.sessionExpiryInterval = 600 }
                dying.vanish()
                window.vanish()
                try await broker.poll { broker.counters.clientsConnected.value == 1 }
            }
            let file = StoreFile(in: directory)
            try file.change(
                "UPDATE message SET topic = \(poison), checksum = NULL WHERE CAST(payload AS TEXT) IN ('bad', 'shared')"
            )
            try file.change("UPDATE will SET topic = \(poison), checksum = NULL")
            try file.change("INSERT INTO retained VALUES (\(poison), NULL, x'61', 1, NULL, NULL, NULL)")
            // What was shared has no session any more, as after a kill between its end and the handover.
            try file.change("DELETE FROM session WHERE client = 'left'; UPDATE state SET sessions = sessions - 1")
            try await withBroker(threads: threads, { $0.dataDirectory = directory }) { broker in
                for name in ["window", "queue"] {
                    let client = try TestClient(port: broker.port)
                    #expect(try client.connect(name, clean: false).sessionPresent)
                    let publishes = try [client.receivePublish(), client.receivePublish()]
                    #expect(publishes.map(\.text) == ["one", "two"])
                    for publish in publishes {
                        try client.send(.pubrec(Ack(packetID: publish.packetID)))
                        try client.expect(.pubrel(Ack(packetID: publish.packetID)))
                        try client.send(.pubcomp(Ack(packetID: publish.packetID)))
                    }
                    try client.ping()
                    try client.disconnect()
                }
                let late = try TestClient(port: broker.port)
                try late.connect("late")
                try late.subscribe(("#", .atLeastOnce))
                #expect(try late.receivePublish().text == "one")
                try late.ping()
                try await broker.poll { broker.counters.messagesUnsendable.value == 5 }
                #expect(try await broker.accounting().unreachable == 0)
            }
            // They are gone for good.
            #expect(try file.count("entry") == 0)
            #expect(try file.count("will") == 0)
            #expect(try file.count("retained") == 1)
        }
    }

    @Test("stored properties that are none are dropped with their message; filters that are none are not restored")
    func poisonedProperties() async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port)
                try client.connect("client", clean: false)
                try client.subscribe(("t", .atLeastOnce), ("u", .atLeastOnce), ("v", .atLeastOnce), ("x", .atLeastOnce))
                try client.disconnect()
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                try publisher.publish("t", "bad", qos: .atLeastOnce)
                try publisher.publish("t", "good", qos: .atLeastOnce)
            }
            let file = StoreFile(in: directory)
            try file.change(
                "UPDATE message SET properties = x'FF00', checksum = NULL WHERE CAST(payload AS TEXT) = 'bad'")
            try file.change("UPDATE subscription SET filter = 'a/#/b', checksum = NULL WHERE filter = 'u'")
            try file.change("UPDATE subscription SET identifier = 4294967295 WHERE filter = 'v'")
            try file.change("UPDATE subscription SET filter = CAST(x'FF' AS TEXT), checksum = NULL WHERE filter = 'x'")
            let log = LogCollector()
            try await withBroker({ $0.dataDirectory = directory }, log: log.logger) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client", clean: false) { $0.sessionExpiryInterval = 600 }
                #expect(try client.receivePublish().text == "good")
                #expect(broker.counters.messagesUnsendable.value == 1)
                #expect(broker.context.router.subscriptionCount == 1)
                #expect(broker.counters.subscriptionsUnusable.value == 3)
            }
            let line = "warning stored subscriptions that are none are left out client=client count=3"
            #expect(log.lines.contains(line))
            #expect(try file.count("subscription") == 1)
        }
    }
}
