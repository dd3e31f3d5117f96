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
            #expect(try await broker.accounting() == .init(live: leaked, unheld: leaked))
        }
    }
}
