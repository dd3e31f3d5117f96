import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("RPC bridge", .mayBlock, .serialized)
struct RPCBridgeTests {
    /// A device and a back end, both ready.
    static func parties(_ broker: Broker) throws -> (device: TestClient, backEnd: TestClient) {
        let device = try TestClient(port: broker.port)
        try device.connect("sensor-7")
        try device.subscribe(("v1/devices/me/rpc/request/+", .atLeastOnce))
        let backEnd = try TestClient(port: broker.port)
        try backEnd.connect("back-end")
        try backEnd.subscribe(("v1/devices/+/rpc/response/+", .atMostOnce))
        return (device, backEnd)
    }

    /// One command, its response, and the back end's receipt of that.
    static func exchange(_ id: Int, _ device: TestClient, _ backEnd: TestClient) throws {
        try backEnd.publish("v1/devices/sensor-7/rpc/request/\(id)", "do it")
        let command = try device.receivePublish()
        try #require(command.topicString == "v1/devices/me/rpc/request/\(id)" && command.text == "do it")
        try device.publish("v1/devices/me/rpc/response/\(id)", "done \(id)")
        let response = try backEnd.receivePublish()
        try #require(response.topicString == "v1/devices/sensor-7/rpc/response/\(id)" && response.text == "done \(id)")
    }

    @Test(
        "a command reaches its device, and the response the back end, on one loop and across loops", arguments: [1, 2])
    func roundTrip(threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let (device, backEnd) = try Self.parties(broker)
            for id in 1...100 { try Self.exchange(id, device, backEnd) }
            #expect(broker.counters.commandsDelivered.value == 100)
            #expect(broker.counters.responsesConverted.value == 100)
            #expect(broker.counters.responsesLeaked.value == 0)
        }
    }

    @Test("only two filters are for commands: those that can match one")
    func commandFilters() async throws {
        try await withBroker { broker in
            let device = try TestClient(port: broker.port)
            try device.connect("device")
            let prefix = "v1/devices/me/rpc/request/"
            for end in ["+", "#", "1/+", "1/#", "+/+"] { try device.subscribe((prefix + end, .atMostOnce)) }
            let shard = broker.shards[0]
            let count = try await shard.loop.submit {
                try #require(broker.context.registry.find("device")).commandFilters.count
            }.get()
            #expect(count == 2)
        }
    }

    @Test("a response nobody waits for is dropped and counted, or converted where the configuration says so")
    func unmatched() async throws {
        try await withBroker { broker in
            let (device, backEnd) = try Self.parties(broker)
            try device.publish("v1/devices/me/rpc/response/1", "unasked", qos: .atLeastOnce)
            #expect(broker.counters.responsesUnmatched.value == 1)
            try Self.exchange(2, device, backEnd)
        }
        try await withBroker({ $0.rpc.requirePending = false }) { broker in
            let (device, backEnd) = try Self.parties(broker)
            try device.publish("v1/devices/me/rpc/response/1", "unasked")
            #expect(try backEnd.receivePublish().text == "unasked")
        }
    }

    @Test("a device does not get the commands of another, nor what is published to its own command topic")
    func isolation() async throws {
        try await withBroker { broker in
            let (device, backEnd) = try Self.parties(broker)
            try backEnd.publish("v1/devices/sensor-8/rpc/request/1", "for another", qos: .atLeastOnce)
            try backEnd.publish("v1/devices/me/rpc/request/1", "forged", qos: .atLeastOnce)
            #expect(broker.counters.commandsUndeliverable.value == 1)
            try Self.exchange(2, device, backEnd)
        }
    }

    @Test(
        "a device does not get the commands of another by any subscription, as they are published or retained",
        arguments: ProtocolVersion.allCases, [1, 2])
    func otherCommands(version: ProtocolVersion, threads: Int) async throws {
        try await withBroker(threads: threads) { broker in
            let (device, backEnd) = try Self.parties(broker)
            let thief = try TestClient(port: broker.port, version: version)
            try thief.connect("thief")
            // What can bring nothing else is refused.
            for filter in [
                "v1/devices/sensor-7/rpc/request/+", "v1/devices/sensor-7/rpc/request/1", "v1/devices/+/rpc/request/#",
                "v1/devices/+/rpc/request/+", "$share/g/v1/devices/sensor-7/rpc/request/+",
            ] {
                let refusal = version == .v5_0 ? ReasonCode.notAuthorized : .unspecifiedError
                #expect(try thief.subscribe((filter, .exactlyOnce)) == [refusal], "\(filter)")
            }
            // What brings others too is granted.
            let wide = [
                "#", "v1/devices/#", "v1/devices/sensor-7/#", "v1/+/sensor-7/rpc/request/+", "v1/devices/+/rpc/+/+",
                "$share/g/v1/devices/sensor-7/rpc/#",
            ]
            for filter in wide { #expect(try thief.subscribe((filter, .exactlyOnce)) == [.granted(.exactlyOnce)]) }
            for (id, qos) in [(1, QoS.atMostOnce), (2, .atLeastOnce), (3, .exactlyOnce)] {
                try backEnd.publish("v1/devices/sensor-7/rpc/request/\(id)", "secret", qos: qos, retain: true)
                #expect(try device.receivePublish().text == "secret")
            }
            // Once more, for what is retained.
            #expect(try thief.subscribe(("#", .exactlyOnce)) == [.granted(.exactlyOnce)])
            try thief.ping()
            // By its own name it may.
            #expect(try thief.subscribe(("v1/devices/thief/rpc/request/+", .atMostOnce)) == [.granted(.atMostOnce)])
            try backEnd.publish("v1/devices/thief/rpc/request/1", "its own")
            #expect(try thief.receivePublish().text == "its own")
        }
    }

    @Test("nobody answers for a device, in any quality of service, retained or as a will")
    func otherResponses() async throws {
        try await withBroker(threads: 2) { broker in
            let (device, backEnd) = try Self.parties(broker)
            let topic = "v1/devices/sensor-7/rpc/response/1"
            try backEnd.publish("v1/devices/sensor-7/rpc/request/1", "do it")
            _ = try device.receivePublish()
            let old = try TestClient(port: broker.port)
            try old.connect("old", will: Will(topic: topic, payload: ByteBuffer(string: "forged"), retain: true))
            for qos in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce] { try old.publish(topic, "forged", qos: qos) }
            try old.publish(topic, "forged", retain: true)
            try old.ping()
            #expect(broker.counters.accessDenied.value == 4)
            old.vanish()
            let forger = try TestClient(port: broker.port, version: .v5_0)
            try forger.connect("forger")
            for qos in [QoS.atLeastOnce, .exactlyOnce] {
                #expect(try forger.publish(topic, "forged", qos: qos, { _ in }) == .notAuthorized)
            }
            try await broker.poll { broker.counters.accessDenied.value == 7 }
            #expect(broker.context.retained.count == 0)
            // For itself a device may, and its answer is not lost.
            try device.publish("v1/devices/me/rpc/response/1", "done", qos: .atLeastOnce)
            #expect(try backEnd.receivePublish().text == "done")
        }
    }

    @Test("an ACL decides for itself who watches commands, and who answers")
    func allowed() async throws {
        try await withTemporaryDirectory { directory in
            let acl = try directory.write("acl", "topic readwrite v1/devices/#\n")
            try await withBroker({ $0.access.aclFile = acl }) { broker in
                let (device, backEnd) = try Self.parties(broker)
                let watcher = try TestClient(port: broker.port)
                try watcher.connect("watcher")
                let codes = try watcher.subscribe(("v1/devices/+/rpc/request/+", .atMostOnce))
                #expect(codes == [.granted(.atMostOnce)])
                try backEnd.publish("v1/devices/sensor-7/rpc/request/1", "seen")
                #expect(try watcher.receivePublish().text == "seen")
                #expect(try device.receivePublish().text == "seen")
                try watcher.publish("v1/devices/sensor-7/rpc/response/1", "in its name", qos: .atLeastOnce)
                #expect(try backEnd.receivePublish().text == "in its name")
            }
        }
    }

    @Test("a command without a response times out")
    func timeout() async throws {
        try await withBroker({ $0.rpc.timeoutSeconds = 1 }) { broker in
            let (device, backEnd) = try Self.parties(broker)
            try backEnd.publish("v1/devices/sensor-7/rpc/request/1", "do it")
            _ = try device.receivePublish()
            try await broker.poll { broker.counters.commandsTimedOut.value == 1 }
            try device.publish("v1/devices/me/rpc/response/1", "late", qos: .atLeastOnce)
            #expect(broker.counters.responsesUnmatched.value == 1)
        }
    }

    @Test(
        "the fault forgets exactly its share of response buffers, and nothing holds them",
        arguments: [
            (percent: 0.0, leaked: 0), (percent: 12.5, leaked: 5), (percent: 50, leaked: 20),
            (percent: 100, leaked: 40),
        ])
    func leak(percent: Double, leaked: Int) async throws {
        try await withBroker(
            threads: 2,
            { $0.faults.rpcResponseLeakPercent = percent }
        ) { broker in
            let (device, backEnd) = try Self.parties(broker)
            for id in 1...40 { try Self.exchange(id, device, backEnd) }
            #expect(broker.counters.responsesLeaked.value == leaked)
            try device.disconnect()
            try backEnd.disconnect()
            try await broker.awaitNoConnections()
            try await broker.awaitLeft(.init(live: leaked, unreachable: leaked))
        }
    }
}
