import Arena
import ArenaNIO
import Foundation
import Ledger
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

/// What clients see when memory gets short (docs/architecture.md, "Under pressure").
@Suite("Under pressure", .mayBlock, .serialized)
struct PressureTests {
    /// Three chunks and their ledger.
    private static let limit = 64 << 20

    @Test("each level is entered below its part of the memory and left above that")
    func levels() {
        var gauge = PressureGauge(share: 1_000, nearPercent: 85)
        func level(_ available: Int) -> ArenaPool.Level {
            _ = gauge.update(available: available)
            return gauge.level
        }
        #expect(gauge.comfortableBytes == 300)
        #expect(level(250) == .normal)
        #expect(level(249) == .elevated)
        #expect(level(299) == .elevated)
        #expect(level(149) == .near)
        #expect(level(199) == .near)
        #expect(level(200) == .elevated)
        #expect(level(-10) == .critical)
        #expect(level(99) == .critical)
        #expect(level(100) == .near)
        #expect(level(300) == .normal)
    }

    /// Comes again and again until it is turned away.
    private static func awaitRefusal(_ code: ReasonCode, _ broker: Broker, _ version: ProtocolVersion) throws {
        let deadline = Patience.end
        while true {
            let stranger = try TestClient(port: broker.port, version: version)
            if try stranger.connect("stranger").code == code { return try stranger.expectClosed() }
            try #require(ContinuousClock.now < deadline, "it is let in")
        }
    }

    @Test("a client that comes to fetch its messages is let in and served at the limit, while publishers hammer")
    func drain() async throws {
        try await withBroker({
            $0.memoryLimit = Self.limit
            $0.limits.maxQueuedMessages = 1_000_000
            $0.limits.maxQueuedBytes = 1 << 40
        }) { broker in
            func consumer() throws -> TestClient {
                let client = try TestClient(port: broker.port)
                try client.connect("consumer", clean: false)
                return client
            }
            let away = try consumer()
            try away.subscribe(("fleet/#", .atLeastOnce))
            try away.disconnect()

            let publishers = try (0..<4).map { try Hammer(broker.port, "publisher-\($0)", bytes: 100_000) }

            // Who does not make room must wait. (A dump that has been written gives back what it took: then there is room for a
            // moment, which the publishers fill.)
            try Self.awaitRefusal(.serverBusy, broker, .v5_0)
            try Self.awaitRefusal(.serverUnavailable, broker, .v3_1_1)
            // Each is when its next publish is looked at.
            try await broker.poll { broker.counters.publisherPauses.value > 0 }

            // More than fits in the memory: what is drained makes room for what comes.
            let back = try TestClient(port: broker.port)
            #expect(try back.connect("consumer", clean: false) == ConnAck(sessionPresent: true, code: .success))
            let count = 2 * Self.limit / 100_000
            for _ in 0..<count { try back.acknowledge(try back.receivePublish()) }
            for publisher in publishers { publisher.stop() }
            #expect(broker.counters.queueDrops.value == 0)

            // Back to normal: the rest comes, and anybody may connect.
            try await broker.poll { broker.counters.clientsConnected.value == 1 }
            repeat { try back.ping { try back.acknowledge($0) } } while try await broker.owed("consumer") > 0
            try await broker.awaitLevel(.normal)
            try TestClient(port: broker.port).connect("stranger")
        }
    }

    @Test(
        "a publish that cannot be kept is not acknowledged with success, and is forwarded once when it is tried again",
        arguments: [ProtocolVersion.v3_1_1, .v5_0])
    func refused(version: ProtocolVersion) async throws {
        try await withBroker({ $0.memoryLimit = Self.limit }) { broker in
            let subscriber = try TestClient(port: broker.port)
            try subscriber.connect("subscriber")
            try subscriber.subscribe(("t", .exactlyOnce))
            func publisher(_ name: String) throws -> TestClient {
                let client = try TestClient(port: broker.port, version: version)
                try client.connect(name, clean: false) { if version == .v5_0 { $0.sessionExpiryInterval = 60 } }
                return client
            }
            let publishers = try (0..<3).map { try publisher("publisher-\($0)") }
            let ballast = Ballast()
            try await broker.fill(ballast, to: .critical)
            for (publisher, qos) in zip(publishers, [QoS.atMostOnce, .atLeastOnce, .exactlyOnce]) {
                let publish = Publish(topic: "t", payload: "no \(qos)", qos: qos, packetID: qos == .atMostOnce ? 0 : 7)
                try publisher.send(.publish(publish))
                switch (qos, version) {
                case (.atMostOnce, _): try await broker.poll { broker.counters.publishesRefused.value == 1 }
                case (.atLeastOnce, .v5_0): try publisher.expect(.puback(Ack(packetID: 7, code: .quotaExceeded)))
                case (.exactlyOnce, .v5_0): try publisher.expect(.pubrec(Ack(packetID: 7, code: .quotaExceeded)))
                case (_, .v3_1_1): try publisher.expectClosed()
                }
            }
            #expect(broker.counters.publishesRefused.value == 3)

            try await broker.empty(ballast)
            for (index, qos) in [QoS.atMostOnce, .atLeastOnce, .exactlyOnce].enumerated() {
                let isClosed = version == .v3_1_1 && qos != .atMostOnce
                let client = isClosed ? try publisher("publisher-\(index)") : publishers[index]
                try client.publish("t", "yes \(qos)", qos: qos)
                let publish = try subscriber.receivePublish()
                #expect(publish.text == "yes \(qos)")
                try subscriber.acknowledge(publish)
            }
            try subscriber.ping()
        }
    }

    @Test("a client that begins its session anew while memory is short has one afterwards", arguments: [1, 2])
    func anew(threads: Int) async throws {
        try await withBroker(threads: threads, { $0.memoryLimit = Self.limit }) { broker in
            let names = (0..<4).map { "kept-\($0)" }
            for name in names {
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect(name) { $0.sessionExpiryInterval = 60 }
                try client.disconnect()
            }
            let ballast = Ballast()
            try await broker.fill(ballast, to: .near)
            for name in names {
                let client = try TestClient(port: broker.port, version: .v5_0)
                #expect(try client.connect(name, clean: true) { $0.sessionExpiryInterval = 60 }.code == .success)
            }
            #expect(broker.context.registry.count == names.count)
            try await broker.empty(ballast)
        }
    }

    @Test("a publisher is not read while memory is short, and is served again without a word of it")
    func paused() async throws {
        try await withBroker({ $0.memoryLimit = Self.limit }) { broker in
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher", keepAlive: 60)
            let ballast = Ballast()
            try await broker.fill(ballast, to: .near)
            // Taken: there is still what is kept for what has been read already.
            try publisher.publish("t", "first", qos: .atLeastOnce)
            #expect(broker.counters.publisherPauses.value == 1)
            try publisher.send(.publish(Publish(topic: "t", payload: "second", qos: .atLeastOnce, packetID: 9)))
            // Longer than its keep alive: it is the broker that is silent.
            let session = try #require(broker.context.registry.find("publisher"))
            try await broker.shards[0].loop.submit {
                try #require(session.connection).check(.silence, .now() + .hours(1))
            }.get()
            for _ in 0..<2 { try await broker.awaitTick() }
            #expect(broker.shards[0].traffic.publishesReceived.value == 1)
            try await broker.empty(ballast)
            try publisher.expect(.puback(Ack(packetID: 9)))
            try publisher.ping()
        }
    }

    @Test("a client that publishes and owes acknowledgements is read for these while memory is short")
    func acknowledgements() async throws {
        try await withBroker({
            $0.memoryLimit = Self.limit
            $0.limits.maxInflight = 1
        }) { broker in
            let both = try TestClient(port: broker.port)
            try both.connect("both")
            try both.subscribe(("in", .atLeastOnce))
            let other = try TestClient(port: broker.port)
            try other.connect("other")
            try other.publish("in", "1", qos: .atLeastOnce)
            try other.publish("in", "2", qos: .atLeastOnce)
            let first = try both.receivePublish()
            let ballast = Ballast()
            try await broker.fill(ballast, to: .near)
            try both.publish("out", "x", qos: .atLeastOnce)
            #expect(broker.counters.publisherPauses.value == 1)
            try both.acknowledge(first)
            #expect(try both.receivePublish().text == "2")
            try await broker.empty(ballast)
        }
    }

    /// Their lists are full at the same message, and grow together.
    @Test(
        "the queues of thousands that subscribe to the same stay within the limit, whichever loops they are of",
        arguments: [1, 2])
    func crowd(threads: Int) async throws {
        let (count, messages) = (2_600, 500)
        try await withBroker(threads: threads, { $0.memoryLimit = Self.limit }) { broker in
            let sessions = (0..<count).map { number in
                Session(
                    clientID: "away-\(number)", userName: nil, owner: .process, expiryInterval: .max,
                    owningShard: number % threads, heap: broker.context.heap, rpcTopics: broker.context.rpcTopics)
            }
            for session in sessions {
                broker.context.router.subscribe(session, "crowd", SubscriptionOptions(qos: .atLeastOnce))
            }
            let publisher = try TestClient(port: broker.port, version: .v5_0)
            try publisher.connect("publisher")
            // All that there is to say before anybody stops reading.
            var bytes = ByteBuffer()
            for number in 1...messages {
                Packet.publish(Publish(topic: "crowd", payload: "x", qos: .atLeastOnce, packetID: UInt16(number)))
                    .encode(into: &bytes, version: .v5_0)
            }
            try publisher.send(raw: Array(buffer: bytes))
            let deadline = Patience.end
            while broker.counters.publishesRefused.value == 0 {
                try #require(ContinuousClock.now < deadline, "no publish was refused")
                // Free pages are given back to the system while memory is short.
                var used = broker.pool.externalBytes + broker.context.heap.bytes(of: .queues)
                used += broker.pool.counterBytes - broker.pool.snapshotBufferBytes
                for shard in broker.shards { used -= try await shard.loop.submit { shard.arena.freeBytes }.get() }
                #expect(used <= Self.limit)
            }
            #expect(broker.context.heap.bytes(of: .queues) > Self.limit / 4)
            withExtendedLifetime(sessions) {}
        }
    }

    @Test("what malloc has kept of freed memory goes back to the system where the process comes to its limit by it")
    func heapTrim() async {
        // In a process of its own: resident memory is the whole process's.
        await #expect(processExitsWith: .success) {
            let blocks = (0..<400_000).map { _ in
                let block = malloc(200)!
                memset(block, 1, 200)
                return block
            }
            // What is kept of them keeps malloc from giving back the rest by itself.
            for (number, block) in blocks.enumerated() where number % 100 > 0 { free(block) }
            let before = ProcessFigures.ownResidentBytes
            precondition(before > 80 << 20)
            let far = HeapTrim(limitBytes: before * 2)
            far.look()
            let trim = HeapTrim(limitBytes: before)
            let deadline = Patience.end
            while ProcessFigures.ownResidentBytes > before - (40 << 20) {
                precondition(ContinuousClock.now < deadline, "nothing is given back")
                trim.look()
                usleep(1_000)
            }
        }
    }

    @Test("what the heap takes beyond the free chunks comes out of free pages, however many there are")
    func freePages() async throws {
        try await withBroker({ $0.memoryLimit = Self.limit }) { broker in
            let shard = broker.shards[0]
            let here = CodeLocation("test", file: #fileID, line: #line, function: #function)
            // All chunks are taken, and all but a few pages of them free.
            let kept = try await shard.loop.submit { () throws -> [Int] in
                var all: [UnsafeMutableRawPointer] = []
                while let pointer = try? shard.arena.allocate(1 << 20, owner: .process, at: here) {
                    memset(pointer, 1, 1 << 20)
                    all.append(pointer)
                }
                var kept: [Int] = []
                for (number, pointer) in all.enumerated() {
                    if number % 8 == 0 { kept.append(Int(bitPattern: pointer)) } else { Arena.free(pointer) }
                }
                #expect(shard.arena.freeBytes > Self.limit / 2)
                return kept
            }.get()
            try await broker.awaitLevel(.normal)
            let queues = broker.pool.unclaimedBytes + 8 << 20
            func residentPages() throws -> Int {
                var pages = [UInt8](repeating: 0, count: 256)
                return try kept.reduce(0) { sum, address in
                    // Behind each that is kept one is free.
                    let place = UnsafeMutableRawPointer(bitPattern: address + 1 << 20)!
                    try #require(mincore(place, 1 << 20, &pages) == 0)
                    return sum + pages.count { $0 & 1 == 1 }
                }
            }
            let before = try residentPages()
            #expect(before > 0)
            broker.context.heap.add(queues, to: .queues)
            defer { broker.context.heap.add(-queues, to: .queues) }
            let deadline = Patience.end
            while try residentPages() > before / 4 {
                try #require(ContinuousClock.now < deadline, "pages stay resident")
            }
            #expect(try await shard.loop.submit { shard.pressure.gauge.level }.get() == .normal)
            // Nor is there room for a copy of the ledger then.
            #expect(broker.pool.makeSnapshotBuffer(besideBytes: broker.context.passingBytes) == nil)
            try await shard.loop.submit {
                for address in kept { Arena.free(UnsafeMutableRawPointer(bitPattern: address)!) }
            }.get()
        }
    }

    @Test("when memory is critical, the consumer that is furthest behind is disconnected and told why")
    func shed() async throws {
        try await withBroker({
            $0.memoryLimit = Self.limit
            $0.limits.maxBacklogMessages = 1_000_000
            $0.limits.maxBacklogBytes = 1 << 40
            $0.limits.lingerSeconds = 600
        }) { broker in
            let slow = try TestClient(port: broker.port, version: .v5_0)
            try slow.connect("slow")
            try slow.subscribe(("t", .atMostOnce))
            let quick = try TestClient(port: broker.port, version: .v5_0)
            try quick.connect("quick")
            try quick.subscribe(("t", .atMostOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            let payload = String(repeating: "x", count: 100_000)
            // Until the socket takes no more and messages wait here.
            var count = 0
            var behind = 0
            while behind < 1 << 20 {
                try publisher.publish("t", payload, qos: .atMostOnce)
                try publisher.ping()
                try #require(try quick.receivePublish().text.utf8.count == payload.utf8.count)
                behind = try await broker.bytesBehind("slow")
                count += 1
            }
            let ballast = Ballast()
            try await broker.fill(ballast, to: .critical)
            try await broker.poll { broker.counters.consumersShed.value == 1 }
            // It reads on, and finds the reason behind what was written.
            var received = 0
            while case .publish? = try slow.receive(until: { $0 == .quotaExceeded }) { received += 1 }
            #expect(received < count)
            try slow.expectClosed()
            try await broker.empty(ballast)
            try quick.ping()
            #expect(broker.counters.consumersShed.value == 1)
        }
    }

    @Test("a client that reads nothing for the time allowed is disconnected, however much memory there is")
    func stalled() async throws {
        try await withBroker({
            $0.limits.slowConsumerSeconds = 1
            $0.limits.lingerSeconds = 600
        }) { broker in
            let stalled = try TestClient(port: broker.port, version: .v5_0)
            try stalled.connect("stalled")
            try stalled.subscribe(("t", .atMostOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            let payload = String(repeating: "x", count: 100_000)
            // More than its socket takes, for as long as it is there.
            let deadline = Patience.end
            while broker.counters.consumersStalled.value == 0 {
                try #require(ContinuousClock.now < deadline, "it is not disconnected")
                try publisher.publish("t", payload)
                try publisher.ping()
            }
            try await broker.poll { broker.counters.consumersStalled.value == 1 }
            while case .publish? = try stalled.receive(until: { $0 == .quotaExceeded }) {}
            try stalled.expectClosed()
            try publisher.ping()
        }
    }
}

/// A client that publishes QoS 1 as fast as the broker reads it, on a thread of its own.
final class Hammer: Sendable {
    private let client: TestClientBox

    private struct TestClientBox: @unchecked Sendable {
        let client: TestClient
    }

    init(_ port: Int, _ name: String, bytes: Int) throws {
        let client = try TestClient(port: port)
        try client.connect(name)
        self.client = TestClientBox(client: client)
        var publish = ByteBuffer()
        Packet.publish(
            Publish(
                topic: "fleet/\(name)", payload: String(repeating: "x", count: bytes), qos: .atLeastOnce, packetID: 1)
        ).encode(into: &publish, version: .v3_1_1)
        let packet = Array(publish.readableBytesView)
        let box = self.client
        for body: @Sendable () -> Void in [
            // Ends when the socket is shut down.
            { while (try? box.client.send(raw: packet)) != nil {} },
            { while ((try? box.client.receiveRaw()) ?? nil) != nil {} },
        ] {
            Thread.detachNewThread(body)
        }
    }

    func stop() { client.client.vanish() }
}

/// Memory that is taken, on behalf of nobody.
final class Ballast: @unchecked Sendable {
    fileprivate var buffers: [ByteBuffer] = []

    /// On the loop that took it.
    func drop() { buffers = [] }
}

extension Broker {
    /// Takes memory on the first loop until its level is this.
    func fill(_ ballast: Ballast, to level: ArenaPool.Level) async throws {
        let shard = shards[0]
        try await shard.loop.submit {
            while shard.pressure.gauge.level < level {
                ballast.buffers.append(try shard.arena.buffer(capacity: 100_000, owner: shard.owner, "ballast"))
                shard.updatePressure()
            }
        }.get()
    }

    /// Takes memory on the first loop until it has so much left.
    func fill(_ ballast: Ballast, toAvailable bytes: Int) async throws {
        let shard = shards[0]
        try await shard.loop.submit {
            while shard.availableBytes(cachedChunks: 0) >= bytes {
                ballast.buffers.append(try shard.arena.buffer(capacity: 100_000, owner: shard.owner, "ballast"))
            }
            shard.updatePressure()
        }.get()
    }

    func empty(_ ballast: Ballast) async throws {
        try await shards[0].loop.submit { ballast.buffers = [] }.get()
        try await awaitLevel(.normal)
    }

    func awaitLevel(_ level: ArenaPool.Level) async throws {
        let deadline = Patience.end
        while try await shards[0].loop.submit({ [shard = shards[0]] in shard.pressure.gauge.level }).get() != level {
            try #require(ContinuousClock.now < deadline, "the level did not become \(level)")
        }
    }

    /// Until the first loop has looked at its timers once more.
    func awaitTick() async throws {
        let loop = shards[0].loop
        try await loop.scheduleTask(in: .milliseconds(Int64(Limits.tickMilliseconds))) {}.futureResult.get()
    }

    /// Messages that wait for a client, or for its acknowledgement.
    func owed(_ clientID: String) async throws -> Int {
        let session = try #require(context.registry.find(clientID))
        return try await shards[session.owningShard].loop.submit {
            session.state.queuedCount + session.state.inflightCount
        }
        .get()
    }

    /// What is kept for a client because it does not read.
    func bytesBehind(_ clientID: String) async throws -> Int {
        try #require(try await bytesBehindIfThere(clientID))
    }

    /// The same; nil if it is gone.
    func bytesBehindIfThere(_ clientID: String) async throws -> Int? {
        guard let session = context.registry.find(clientID) else { return nil }
        return try await shards[session.owningShard].loop.submit { session.connection?.bytesBehind ?? 0 }.get()
    }
}

extension TestClient {
    /// All that was sent before has been handled when this returns; what comes meanwhile is given to `body`.
    func ping(_ body: (Publish) throws -> Void) throws {
        try send(.pingreq)
        while let packet = try receive() {
            guard case .publish(let publish) = packet else { break }
            try body(publish)
        }
    }

    /// The next packet; nil for a DISCONNECT of the kind that is waited for.
    func receive(until isExpected: (ReasonCode) -> Bool) throws -> Packet? {
        let packet = try receive()
        guard case .disconnect(let disconnect)? = packet, isExpected(disconnect.code) else {
            if packet == nil { throw Failure(description: "closed without DISCONNECT") }
            return packet
        }
        return nil
    }
}
