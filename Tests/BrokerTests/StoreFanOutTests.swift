import Arena
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// A message that goes in pieces, and the store: it hears of all that belongs together at once, or a kill would leave a part.
@Suite("A message to many and the store", .mayBlock, .serialized)
struct StoreFanOutTests {
    /// Two that are away are owed what is published to `filter`; one is many.
    private static func withOwed(to filter: String, _ body: (Broker, EventLoopShard) async throws -> Void) async throws
    {
        try await withDataDirectory { directory in
            try await withBroker({
                $0.dataDirectory = directory
                $0.limits.receiversPerPiece = 1
            }) { broker in
                for name in ["first", "second"] {
                    let member = try TestClient(port: broker.port)
                    try member.connect(name, clean: false)
                    try member.subscribe((filter, .exactlyOnce))
                    try member.disconnect()
                }
                try await body(broker, broker.shards[0])
            }
        }
    }

    /// Runs `body` on the loop when nothing waits to be posted to the store.
    private static func quietly(_ shard: EventLoopShard, _ body: @escaping @Sendable () throws -> Void) async throws {
        let deadline = Patience.end
        while try await shard.loop.submit({ () -> Bool in
            guard shard.writeBehind?.hasChanges == false, shard.work.fanOuts.isEmpty else { return false }
            try body()
            return true
        }).get() == false { try #require(ContinuousClock.now < deadline, "there is always something") }
    }

    private static func leave(_ broker: Broker, retain: Bool = false) async throws -> Session {
        let client = try TestClient(port: broker.port, version: .v5_0)
        var will = Will(topic: "x", payload: ByteBuffer(string: "gone"), qos: .exactlyOnce)
        will.retain = retain
        will.properties.delayInterval = 3_600
        try client.connect("leaving", clean: false, will: will) { $0.sessionExpiryInterval = 7_200 }
        let session = try #require(broker.context.registry.find("leaving"))
        client.vanish()
        let deadline = Patience.end
        while try await broker.shards[0].loop.submit({ session.will?.dueAt == .distantFuture }).get() {
            try #require(ContinuousClock.now < deadline, "it is still there")
        }
        return session
    }

    @Test("a session that ends is there until the store knows whom its will is for")
    func end() async throws {
        try await Self.withOwed(to: "x") { broker, shard in
            let session = try await Self.leave(broker)
            try await Self.quietly(shard) {
                shard.end(session)
                #expect(shard.work.fanOuts.count == 1)
                #expect(shard.writeBehind?.hasChanges == false)
                shard.finishFanOuts()
                #expect(shard.writeBehind?.hasChanges == true)
            }
            #expect(try await broker.owed("first") == 1)
        }
    }

    @Test("a will that replaces one on its way does so when the store knows whom that is for")
    func replaced() async throws {
        try await Self.withOwed(to: "x") { broker, shard in
            let session = try await Self.leave(broker)
            try await Self.quietly(shard) {
                let will = try #require(session.will)
                shard.update(session) { $0.will = will.due(at: .now() - .seconds(1)) }
                shard.settleWill(of: session)
                shard.keep(will, of: session)
                #expect(shard.writeBehind?.hasChanges == false)
                shard.finishFanOuts()
                #expect(shard.writeBehind?.hasChanges == true)
                #expect(session.will != nil && session.isWillStored)
            }
            #expect(try await broker.owed("first") == 1)
        }
    }

    @Test("a will to many is retained once, whenever the broker is killed")
    func retained() async throws {
        try await Self.withOwed(to: "x") { broker, shard in
            let session = try await Self.leave(broker, retain: true)
            let store = StoreFile(in: try #require(broker.context.configuration.dataDirectory))
            try await Self.quietly(shard) {
                shard.end(session)
                #expect(shard.work.fanOuts.count == 1)
                // A kill would leave what is in this batch.
                shard.writeBehind?.post()
                let deadline = Patience.end
                while try store.count("retained WHERE topic = CAST('x' AS BLOB)") == 0 {
                    try #require(ContinuousClock.now < deadline, "it is not retained")
                }
                #expect(try store.count("will") == 1)
                #expect(try store.count("will WHERE retain = 1") == 0)
                #expect(try store.count("entry") == 0)
                shard.finishFanOuts()
            }
            #expect(try await broker.owed("first") == 1)
        }
    }

    @Test("a command is noted with what ordinary subscribers are owed of it")
    func command() async throws {
        try await Self.withOwed(to: "#") { broker, shard in
            let device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("v1/devices/me/rpc/request/+", .exactlyOnce))
            let backEnd = try TestClient(port: broker.port)
            try backEnd.connect("back-end", clean: false)
            let session = try #require(broker.context.registry.find("back-end"))
            try await Self.quietly(shard) {
                let topic = try TopicName("v1/devices/device/rpc/request/1")
                var message = Message(
                    topic: topic, payload: ByteBuffer(string: "do it"), qos: .exactlyOnce, ownsBuffer: false)
                let match = shard.match(topic)
                #expect(match.receivers == 2)
                let rpc = try #require(broker.context.rpcTopics.parse(topic))
                #expect(try shard.bridge(&message, match, rpc, from: session) == false)
                #expect(shard.writeBehind?.hasChanges == false)
                shard.finishFanOuts()
                #expect(shard.writeBehind?.hasChanges == true)
            }
            #expect(try device.receivePublish().text == "do it")
        }
    }

    @Test(
        "a command that has expired, to many who watch commands, ends nothing",
        arguments: [QoS.atMostOnce, .exactlyOnce])
    func expiredCommand(qos: QoS) async throws {
        try await Self.withOwed(to: "#") { broker, _ in
            let device = try TestClient(port: broker.port, version: .v5_0)
            try device.connect("device")
            try device.subscribe(("v1/devices/me/rpc/request/+", .atMostOnce))
            let topic = try TopicName("v1/devices/device/rpc/request/1")
            for seconds: UInt32 in [0, 60] {
                var publish = Publish(topic: topic, payload: ByteBuffer(string: "\(seconds)"), qos: qos)
                publish.packetID = qos == .atMostOnce ? 0 : UInt16(seconds + 1)
                var properties = PublishProperties()
                properties.messageExpiryInterval = seconds
                publish.properties = properties
                try device.send(.publish(publish))
            }
            var texts: [String] = []
            while !texts.contains("60") {
                if case .publish(let publish)? = try device.receive() { texts.append(publish.text) }
            }
        }
    }

    @Test("a response is acknowledged when the store has it", arguments: [QoS.atLeastOnce, .exactlyOnce])
    func response(qos: QoS) async throws {
        try await Self.withOwed(to: "v1/devices/+/rpc/response/+") { broker, shard in
            let (device, backEnd) = try RPCBridgeTests.parties(broker)
            try backEnd.publish("v1/devices/sensor-7/rpc/request/1", "do it")
            _ = try device.receivePublish()
            let disk = try await SlowDisk(#require(broker.context.store))
            var publish = Publish(topic: "v1/devices/me/rpc/response/1", payload: "done", qos: qos)
            publish.packetID = 7
            try device.send(.publish(publish))
            // The back end has it before the disk.
            #expect(try backEnd.receivePublish().text == "done")
            try device.ping()
            disk.letGo()
            try device.expect(qos == .atLeastOnce ? .puback(Ack(packetID: 7)) : .pubrec(Ack(packetID: 7)))
            #expect(try await broker.owed("first") == 1)
        }
    }
}
