import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("$SYS topics", .mayBlock, .serialized)
struct SysTopicTests {
    private static func read(_ client: TestClient, _ filter: String) throws -> [String: String] {
        try client.subscribe([Subscription(filter: filter)])
        var values: [String: String] = [:]
        try client.send(.pingreq)
        while let packet = try client.receive() {
            if case .publish(let publish) = packet {
                #expect(publish.retain)
                values[String(publish.topicString.dropFirst(SysTopics.prefix.count))] = publish.text
            }
            if case .pingresp = packet { break }
        }
        return values
    }

    @Test("a new subscription gets the figures of the moment, under the names that dashboards know")
    func figures() async throws {
        try await withBroker(threads: 2) { broker in
            let away = try TestClient(port: broker.port, version: .v5_0)
            try away.connect("away") { $0.sessionExpiryInterval = 1_000 }
            try away.subscribe(("a/#", .atLeastOnce), ("$share/g/b", .atLeastOnce))
            try away.disconnect()
            let client = try Subscribe5Tests.client(broker, "client")
            try client.publish("a/1", "12345", qos: .atLeastOnce, retain: true)
            let values = try Self.read(client, "$SYS/#")
            for (name, value) in [
                ("version", "arena-broker version \(Broker.version)"), ("clients/connected", "1"),
                ("clients/total", "2"), ("clients/disconnected", "1"), ("clients/maximum", "1"),
                ("clients/expired", "0"), ("retained messages/count", "1"), ("subscriptions/count", "3"),
                ("shared_subscriptions/count", "1"), ("publish/messages/received", "1"),
                ("publish/bytes/received", "5"), ("publish/messages/dropped", "0"),
            ] {
                #expect(values[name] == value, "\(name)")
            }
            #expect(values["uptime"]?.hasSuffix(" seconds") == true)
            #expect(Int(values["heap/current"] ?? "") ?? 0 > 0)
            // CONNECT, SUBSCRIBE, DISCONNECT; CONNECT, PUBLISH, SUBSCRIBE.
            #expect(values["messages/received"] == "6")
            #expect(Int(values["bytes/received"] ?? "") ?? 0 > 60)

            #expect(try Self.read(client, "$SYS/broker/clients/+").count == 7)
            #expect(try Self.read(client, "$SYS/broker/uptime").count == 1)
            #expect(try Self.read(client, "$SYS/broker/nothing").isEmpty)
            // They are not in the retained store, and not for those who want everything [MQTT-4.7.2-1].
            #expect(try Self.read(client, "#").keys.allSatisfy { !$0.hasPrefix("clients") })
            #expect(broker.context.retained.count == 1)
        }
    }

    @Test("what changes is published at the interval, with what is stored and the load")
    func updates() async throws {
        try await withBroker({ $0.limits.sysIntervalSeconds = 1 }) { broker in
            let away = try TestClient(port: broker.port, version: .v5_0)
            try away.connect("away") { $0.sessionExpiryInterval = 1_000 }
            try away.subscribe(("q", .atLeastOnce))
            try away.disconnect()
            let client = try Subscribe5Tests.client(broker, "client")
            try client.publish("q", "12345", qos: .atLeastOnce)
            try client.subscribe(("$SYS/broker/store/messages/+", .atLeastOnce), ("$SYS/broker/load/#", .atLeastOnce))
            var stored: [String: String] = [:]
            var load: [String: Double] = [:]
            while stored["count"] != "1" || stored["bytes"] != "6" || load["publish/received/1min"] ?? 0 <= 0 {
                let publish = try client.receivePublish()
                #expect(publish.qos == .atMostOnce, "figures of the past are not worth a place in a queue")
                let name = publish.topicString
                if let range = name.firstRange(of: "store/messages/") {
                    stored[String(name[range.upperBound...])] = publish.text
                }
                if let range = name.firstRange(of: "load/") {
                    load[String(name[range.upperBound...])] = Double(publish.text)
                }
            }
        }
    }

    @Test("averages fade: a minute after a burst the first is at a third, the fifteenth is smooth")
    func averages() {
        var loads = LoadAverages()
        loads.update([("bytes/sent", 600)], seconds: 10)
        for _ in 1...6 { loads.update([("bytes/sent", 600)], seconds: 10) }
        let texts = loads.values.map(\.text)
        #expect(loads.values.map(\.name) == ["load/bytes/sent/1min", "load/bytes/sent/5min", "load/bytes/sent/15min"])
        // 3600 a minute for 10 s: (1 - exp(-10/60)) * exp(-1), and so on.
        #expect(texts == ["203.31", "96.63", "37.21"])
    }

    @Test("they can be turned off")
    func off() async throws {
        try await withBroker({ $0.limits.sysIntervalSeconds = 0 }) { broker in
            let client = try Subscribe5Tests.client(broker, "client")
            #expect(try Self.read(client, "$SYS/#").isEmpty)
        }
    }
}
