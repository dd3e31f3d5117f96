import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// What is below `$SYS` is the broker's: no client can have anything published there, in whatever way.
@Suite("Reserved topics", .mayBlock, .serialized)
struct ReservedTopicTests {
    private static let topics = ["$SYS/broker/uptime", "$SYS/broker/mine", "$SYS/other", "$SYS", "$SYS/"]

    @Test("a will there is refused at CONNECT, retained or not", arguments: topics, ProtocolVersion.allCases)
    func will(topic: String, version: ProtocolVersion) async throws {
        try await withBroker(threads: 2) { broker in
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe((topic, .atLeastOnce))
            for retain in [true, false] {
                let client = try TestClient(port: broker.port, version: version)
                let ack = try client.connect(
                    "client", will: Will(topic: topic, payload: ByteBuffer(string: "forged"), retain: retain))
                #expect(ack.code == (version == .v5_0 ? .topicNameInvalid : .notAuthorized))
                try client.expectClosed()
            }
            #expect(broker.counters.accessDenied.value == 2)
            #expect(broker.context.retained.count == 0 && broker.context.registry.find("client") == nil)
            // Whatever else begins with a dollar is like any other topic.
            let client = try TestClient(port: broker.port, version: version)
            try client.connect(
                "client", will: Will(topic: "$SYSTEM/x", payload: ByteBuffer(string: "gone"), retain: true))
            client.vanish()
            try await broker.poll { broker.context.retained.count == 1 }
        }
    }

    @Test(
        "a publish there reaches nobody, by its name, by an alias, or by a response of the bridge", arguments: [1, 2])
    func publish(threads: Int) async throws {
        try await withBroker(
            threads: threads,
            {
                $0.rpc.requirePending = false
                // A device that is called $SYS would make one.
                $0.rpc.responseTopic = "{device}/broker/{id}"
                $0.rpc.requestTopic = "{device}/request/{id}"
            }
        ) { broker in
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            // Those of the broker come too, but for these two.
            try watcher.subscribe(("$SYS/broker/1", .atLeastOnce), ("$share/g/$SYS/broker/1", .atLeastOnce))
            let client = try TestClient(port: broker.port, version: .v5_0)
            try client.connect("$SYS")
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                let direct = try client.publish("$SYS/broker/1", "forged", qos: qos, retain: true) { $0.topicAlias = 1 }
                #expect(direct == .notAuthorized)
                #expect(
                    try client.publish("", "forged", qos: qos, retain: true) { $0.topicAlias = 1 } == .notAuthorized)
                try client.publish("me/broker/1", "forged", qos: qos, retain: true) { _ in }
            }
            try client.ping()
            try watcher.ping()
            #expect(broker.counters.messagesUnsendable.value == 2)
            #expect(broker.context.retained.count == 0)
        }
    }

    @Test("what an older broker has kept there is dropped at the start: retained, and wills")
    func stored() async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                var will = Will(topic: "w", payload: ByteBuffer(string: "forged"), qos: .atLeastOnce, retain: true)
                will.properties.delayInterval = 600
                try client.connect("client", will: will) { $0.sessionExpiryInterval = 1_200 }
                try client.publish("kept", "kept", qos: .atLeastOnce, retain: true) { _ in }
                client.vanish()
                try await broker.awaitAway("client")
            }
            let file = StoreFile(in: directory)
            try file.change(
                "UPDATE will SET topic = CAST('$SYS/broker/uptime' AS BLOB), checksum = NULL, due = due - 600000")
            try file.change(
                "INSERT INTO retained VALUES (CAST('$SYS/broker/version' AS BLOB), NULL, x'61', 1, NULL, NULL, NULL)")
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                try await broker.poll { broker.counters.accessDenied.value == 1 }
                #expect(broker.context.retained.count == 1)
                #expect(broker.counters.messagesUnsendable.value == 1)
            }
            #expect(try file.count("retained") == 1 && file.count("will") == 0)
        }
    }
}
