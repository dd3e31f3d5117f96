import Arena
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Long queues: in the store, not in memory.
@Suite("Queues in the store", .mayBlock, .serialized)
struct StoreQueueTests {
    private func publish(_ numbers: Range<Int>, to topic: String, bytes: Int = 1, _ broker: Broker) throws {
        let publisher = try TestClient(port: broker.port)
        try publisher.connect("publisher")
        let text = { (number: Int) in "\(number)" + String(repeating: " ", count: max(0, bytes - 8)) }
        for start in stride(from: numbers.lowerBound, to: numbers.upperBound, by: 100) {
            let part = start..<min(start + 100, numbers.upperBound)
            for number in part {
                let qos: QoS = number % 2 == 0 ? .atLeastOnce : .exactlyOnce
                let packetID = UInt16(number % 60_000) + 1
                try publisher.send(
                    .publish(Publish(topic: topic, payload: text(number), qos: qos, packetID: packetID)))
            }
            for number in part {
                let ack = Ack(packetID: UInt16(number % 60_000) + 1)
                try publisher.expect(number % 2 == 0 ? .puback(ack) : .pubrec(ack))
            }
            for number in part where number % 2 == 1 {
                try publisher.send(.pubrel(Ack(packetID: UInt16(number % 60_000) + 1)))
                try publisher.expect(.pubcomp(Ack(packetID: UInt16(number % 60_000) + 1)))
            }
        }
        try publisher.disconnect()
    }

    private func subscribe(_ name: String, _ broker: Broker) throws {
        let device = try TestClient(port: broker.port)
        try device.connect(name, clean: false)
        try device.subscribe(("t", .exactlyOnce))
        try device.disconnect()
    }

    /// Receives these numbers in this order, and what comes until each is complete.
    ///
    /// - Returns: the next number.
    @discardableResult
    private func receive(_ numbers: Range<Int>, _ device: TestClient) throws -> Int {
        var expected = numbers.lowerBound
        var open = 0
        while expected < numbers.upperBound || open > 0 {
            switch try device.receive() {
            case .publish(let publish):
                #expect(publish.text.split(separator: " ").first == "\(expected)")
                expected += 1
                if publish.qos == .atLeastOnce {
                    try device.send(.puback(Ack(packetID: publish.packetID)))
                } else {
                    open += 1
                    try device.send(.pubrec(Ack(packetID: publish.packetID)))
                }
            case .pubrel(let ack):
                open -= 1
                try device.send(.pubcomp(ack))
            case let packet: throw TestClient.Failure(description: "the device got \(String(describing: packet))")
            }
        }
        try device.send(.pingreq)
        while let packet = try device.receive(), packet != .pingresp {}
        return expected
    }

    @Test("a long queue is in the store only, beyond a few messages, and comes back in its order")
    func spills() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in
                configuration.dataDirectory = directory
                configuration.limits.maxQueuedMessages = 10_000
                configuration.limits.maxQueuedBytes = 64 << 20
            }
            var next = 0
            try await withBroker(threads: 2, configure) { broker in
                try subscribe("device", broker)
                try publish(0..<2_000, to: "t", bytes: 2_048, broker)
                let session = try #require(broker.context.registry.find("device"))
                let counts = try await broker.shards[session.owningShard].loop.submit {
                    (session.state.queuedCount, session.state.queuedBytes, session.state.spilledBytes)
                }.get()
                #expect(counts.0 == 2_000)
                #expect(counts.1 <= Limits.queueMemoryBytes && counts.2 > 2_000 * 1_800)
                let accounting = try await broker.accounting()
                #expect(accounting.live <= Limits.queueMemoryMessages + 8 && accounting.unreachable == 0)
                // Some now, the rest from the next broker.
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                while next < 500 {
                    switch try device.receive() {
                    case .publish(let publish):
                        #expect(publish.text.split(separator: " ").first == "\(next)")
                        next += 1
                        let ack = Ack(packetID: publish.packetID)
                        try device.send(publish.qos == .atLeastOnce ? .puback(ack) : .pubrec(ack))
                    case .pubrel(let ack): try device.send(.pubcomp(ack))
                    case let packet: throw TestClient.Failure(description: "\(String(describing: packet))")
                    }
                }
                try device.send(.disconnect(Disconnect()))
                while try device.receive() != nil {}
            }
            try await withBroker(threads: 2, configure) { broker in
                let accounting = try await broker.accounting()
                #expect(accounting.live <= Limits().maxInflight + 8 && accounting.unreachable == 0)
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                // What was sent and not answered comes first, and again.
                var seen: [Int] = []
                while seen.last != 1_999 {
                    switch try device.receive() {
                    case .publish(let publish):
                        seen.append(try #require(Int(publish.text.split(separator: " ")[0])))
                        let ack = Ack(packetID: publish.packetID)
                        try device.send(publish.qos == .atLeastOnce ? .puback(ack) : .pubrec(ack))
                    case .pubrel(let ack): try device.send(.pubcomp(ack))
                    case let packet: throw TestClient.Failure(description: "\(String(describing: packet))")
                    }
                }
                #expect(seen.first == next && seen.count == 2_000 - next && seen == seen.sorted())
            }
        }
    }

    @Test("a client that is there, and slower than its publishers, is served from the store too", arguments: [1, 2])
    func slow(threads: Int) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: threads) {
                $0.dataDirectory = directory
                $0.limits.maxQueuedMessages = 10_000
            } _: { broker in
                let device = try TestClient(port: broker.port, version: .v5_0)
                try device.connect("device") {
                    $0.sessionExpiryInterval = 3_600
                    $0.receiveMaximum = 3
                }
                try device.subscribe(("t", .exactlyOnce))
                try publish(0..<1_000, to: "t", broker)
                #expect(try await broker.accounting().live <= Limits.queueMemoryMessages + 16)
                try receive(0..<1_000, device)
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
            #expect(try StoreFile(in: directory).count("message") == 0)
        }
    }

    @Test("what is safe comes out of the store while the disk is busy with what others publish", arguments: [1, 2])
    func busyDisk(threads: Int) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: threads) {
                $0.dataDirectory = directory
                $0.limits.maxQueuedMessages = 10_000
            } _: { broker in
                let device = try TestClient(port: broker.port, version: .v5_0)
                try device.connect("device") { $0.sessionExpiryInterval = 3_600 }
                try device.subscribe(("t", .atLeastOnce))
                try device.disconnect()
                try publish(0..<1_000, to: "t", broker)
                let disk = try await SlowDisk(#require(broker.context.store))
                let again = try TestClient(port: broker.port, version: .v5_0)
                try again.connect("device", clean: false) { $0.sessionExpiryInterval = 3_600 }
                try receive(0..<1_000, again)
                disk.letGo()
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
        }
    }

    @Test("what is delivered while the disk is busy is bounded, since its removal waits for the disk")
    func readAhead() async throws {
        let most = (Limits.maxOverflowBatchesAhead + 1) * Limits.queueMemoryMessages
        try await withDataDirectory { directory in
            try await withBroker(threads: 1) {
                $0.dataDirectory = directory
                $0.limits.maxQueuedMessages = 2 * most
            } _: { broker in
                let device = try TestClient(port: broker.port, version: .v5_0)
                try device.connect("device") { $0.sessionExpiryInterval = 3_600 }
                try device.subscribe(("t", .atLeastOnce))
                try device.disconnect()
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                let all = most + 500
                for start in stride(from: 0, to: all, by: 500) {
                    let part = start..<min(start + 500, all)
                    for number in part {
                        try publisher.send(
                            .publish(
                                Publish(
                                    topic: "t", payload: "\(number)", qos: .atLeastOnce, packetID: UInt16(number + 1))))
                    }
                    for number in part { try publisher.expect(.puback(Ack(packetID: UInt16(number + 1)))) }
                }
                let store = try #require(broker.context.store)
                let disk = try await SlowDisk(store)
                let again = try TestClient(port: broker.port, version: .v5_0)
                try again.connect("device", clean: false) { $0.sessionExpiryInterval = 3_600 }
                // What it takes up is about to be written, and is not: nothing is from here on.
                try await broker.poll { store.isWriting.load(ordering: .relaxed) }
                var next = 0
                let take = {
                    let publish = try again.receivePublish()
                    #expect(publish.text == "\(next)")
                    next += 1
                    try again.send(.puback(Ack(packetID: publish.packetID)))
                }
                // The first messages were in memory when the client left.
                while store.overflowBatchesAhead.load(ordering: .relaxed) <= Limits.maxOverflowBatchesAhead, next < most
                { try take() }
                try await broker.poll {
                    store.overflowBatchesAhead.load(ordering: .relaxed) > Limits.maxOverflowBatchesAhead
                }
                #expect(store.waitingBytes < 16 << 20)
                disk.letGo()
                while next < all { try take() }
                // The broker has all of its answers.
                try again.ping()
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
        }
    }

    @Test("a broker that ends while queues are read ends as it should, and nothing is lost", arguments: [1, 2])
    func ends(threads: Int) async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in
                configuration.dataDirectory = directory
                configuration.limits.maxQueuedMessages = 10_000
            }
            let names = (0..<12).map { "device-\($0)" }
            try await withBroker(threads: threads, configure) { broker in
                for name in names { try subscribe(name, broker) }
                try publish(0..<600, to: "t", broker)
                // All want pages when the broker ends.
                var devices: [TestClient] = []
                for name in names {
                    let device = try TestClient(port: broker.port)
                    devices.append(device)
                    try device.connect(name, clean: false)
                    for _ in 0..<100 {
                        guard case .publish(let publish)? = try device.receive(), publish.qos == .atLeastOnce else {
                            continue
                        }
                        try device.send(.puback(Ack(packetID: publish.packetID)))
                    }
                }
            }
            try await withBroker(threads: threads, configure) { broker in
                for name in names {
                    let device = try TestClient(port: broker.port)
                    try device.connect(name, clean: false)
                    var seen: Set<String> = []
                    while !seen.contains("599") {
                        switch try device.receive() {
                        case .publish(let publish):
                            seen.insert(publish.text)
                            let ack = Ack(packetID: publish.packetID)
                            try device.send(publish.qos == .atLeastOnce ? .puback(ack) : .pubrec(ack))
                        case .pubrel(let ack): try device.send(.pubcomp(ack))
                        case let packet: throw TestClient.Failure(description: "got \(String(describing: packet))")
                        }
                    }
                }
            }
        }
    }

    @Test("a session that moves between loops while its queue is read loses nothing and keeps the order")
    func moves() async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: 2) {
                $0.dataDirectory = directory
                $0.limits.maxQueuedMessages = 10_000
            } _: { broker in
                try subscribe("device", broker)
                try publish(0..<1_500, to: "t", broker)
                var next = 0
                var owningShards: Set<Int> = []
                var open: Set<UInt16> = []
                while next < 1_500 || !open.isEmpty {
                    // Takes over from the connection before, in the middle of its traffic.
                    let device = try TestClient(port: broker.port)
                    try device.connect("device", clean: false)
                    owningShards.insert(try #require(broker.owningShard(of: "device")))
                    for _ in 0..<150 where next < 1_500 || !open.isEmpty {
                        switch try device.receive() {
                        case .publish(let publish):
                            let number = try #require(Int(publish.text))
                            // What was not answered in time comes again, nothing else is left out or overtaken.
                            #expect(number == next || (publish.dup && number < next))
                            next = max(next, number + 1)
                            if publish.qos == .exactlyOnce { open.insert(publish.packetID) }
                            let ack = Ack(packetID: publish.packetID)
                            try device.send(publish.qos == .atLeastOnce ? .puback(ack) : .pubrec(ack))
                        case .pubrel(let ack):
                            open.remove(ack.packetID)
                            try device.send(.pubcomp(ack))
                        case let packet: throw TestClient.Failure(description: "\(String(describing: packet))")
                        }
                    }
                }
                #expect(owningShards.count == 2)
                #expect(try await broker.unreachable() == [])
            }
        }
    }

    @Test("a session taken up for one connection only still has its queue, and does not come back after it")
    func lastConnection() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            for isConnected in [false, true] {
                try await withBroker(threads: 2, configure) { broker in
                    try subscribe("device", broker)
                    try publish(0..<300, to: "t", broker)
                    let device = try TestClient(port: broker.port, version: .v5_0)
                    #expect(try device.connect("device", clean: false).sessionPresent)
                    try receive(0..<300, device)
                    if !isConnected { try device.disconnect() }
                }
                try await withBroker(threads: 2, configure) { broker in
                    #expect(broker.context.registry.find("device") == nil)
                }
                #expect(try StoreFile(in: directory).count("entry") == 0)
                #expect(try StoreFile(in: directory).count("session") == 0)
            }
        }
    }

    @Test("a queue of which the part in memory expires goes on with what is in the store", arguments: [1, 2])
    func memoryExpires(threads: Int) async throws {
        try await withDataDirectory { directory in
            try await withBroker(threads: threads) {
                $0.dataDirectory = directory
            } _: { broker in
                let device = try TestClient(port: broker.port, version: .v5_0)
                try device.connect("device", clean: false) {
                    $0.sessionExpiryInterval = 600
                    $0.receiveMaximum = 1
                }
                try device.subscribe(("t", .atLeastOnce))
                let publisher = try TestClient(port: broker.port, version: .v5_0)
                try publisher.connect("publisher")
                // The first is in the window; as many as there is memory for expire; the others are in the store.
                let expiring = 1...Limits.queueMemoryMessages
                let all = 0..<expiring.upperBound + 10
                for number in all {
                    try publisher.publish("t", "\(number)", qos: .atLeastOnce) {
                        if expiring.contains(number) { $0.messageExpiryInterval = 1 }
                    }
                }
                let first = try device.receivePublish()
                try await broker.poll { broker.counters.messagesExpired.value == expiring.count }
                try device.send(.puback(Ack(packetID: first.packetID)))
                for number in all.dropFirst(expiring.upperBound + 1) {
                    let next = try device.receivePublish()
                    #expect(next.text == "\(number)")
                    try device.send(.puback(Ack(packetID: next.packetID)))
                }
            }
        }
    }

    @Test("a full queue drops its oldest, or the newest, whichever part of it is in the store")
    func bounds() async throws {
        for (policy, kept) in [(QueuePolicy.dropOldest, 50..<350), (.dropNewest, 0..<300)] {
            try await withDataDirectory { directory in
                let configure = { (configuration: inout Configuration) in
                    configuration.dataDirectory = directory
                    configuration.limits.maxQueuedMessages = 300
                    configuration.limits.queuePolicy = policy
                }
                try await withBroker(threads: 2, configure) { broker in
                    try subscribe("device", broker)
                    try publish(0..<350, to: "t", broker)
                    // What others' loops have got is counted there.
                    try await broker.poll { broker.counters.queueDrops.value >= 50 }
                    #expect(broker.counters.queueDrops.value == 50)
                }
                #expect(try StoreFile(in: directory).count("entry") == 300)
                try await withBroker(threads: 2, configure) { broker in
                    let device = try TestClient(port: broker.port)
                    try device.connect("device", clean: false)
                    try receive(kept, device)
                }
            }
        }
    }

    @Test("the bound in bytes counts what is in the store")
    func byteBound() async throws {
        try await withDataDirectory { directory in
            try await withBroker {
                $0.dataDirectory = directory
                $0.limits.maxQueuedBytes = 1 << 20
            } _: { broker in
                try subscribe("device", broker)
                try publish(0..<400, to: "t", bytes: 4_096, broker)
                let dropped = broker.counters.queueDrops.value
                #expect((140...150).contains(dropped), "\(dropped)")
            }
        }
    }

    @Test(
        "with the policy reject, who publishes to a full queue is refused, and the queue takes messages again when read"
    )
    func rejects() async throws {
        for isStored in [true, false] {
            try await withDataDirectory { directory in
                try await withBroker {
                    $0.dataDirectory = isStored ? directory : nil
                    $0.limits.maxQueuedMessages = 100
                    $0.limits.queuePolicy = .reject
                } _: { broker in
                    try subscribe("device", broker)
                    try publish(0..<100, to: "t", broker)
                    let publisher = try TestClient(port: broker.port, version: .v5_0)
                    try publisher.connect("fifth")
                    #expect(try publisher.publish("t", "x", qos: .atLeastOnce) { _ in } == .quotaExceeded)
                    #expect(try publisher.publish("t", "x", qos: .exactlyOnce) { _ in } == .quotaExceeded)
                    #expect(try publisher.publish("u", "x", qos: .atLeastOnce) { _ in } == .noMatchingSubscribers)
                    try publisher.publish("t", "x", qos: .atMostOnce)
                    let third = try TestClient(port: broker.port)
                    try third.connect("third")
                    try third.send(.publish(Publish(topic: "t", payload: "x", qos: .atLeastOnce, packetID: 1)))
                    try third.expectClosed()
                    #expect(broker.counters.publishesRefused.value == 3)
                    #expect(broker.counters.queueDrops.value == 0)

                    let device = try TestClient(port: broker.port)
                    try device.connect("device", clean: false)
                    try receive(0..<100, device)
                    #expect(try publisher.publish("t", "100", qos: .atLeastOnce) { _ in } == .success)
                    try receive(100..<101, device)
                }
            }
        }
    }

    @Test("what expires in the store is given up there, and makes room")
    func expiry() async throws {
        try await withDataDirectory { directory in
            try await withBroker {
                $0.dataDirectory = directory
                $0.limits.maxQueuedMessages = 200
            } _: { broker in
                try subscribe("device", broker)
                let publisher = try TestClient(port: broker.port, version: .v5_0)
                try publisher.connect("publisher")
                for number in 0..<200 {
                    try publisher.publish("t", "\(number)", qos: .atLeastOnce) {
                        if number % 2 == 1 { $0.messageExpiryInterval = 1 }
                    }
                }
                try await broker.poll { broker.counters.messagesExpired.value == 100 }
                try publisher.publish("t", "200", qos: .atLeastOnce)
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                for number in stride(from: 0, through: 200, by: 2) {
                    let publish = try device.receivePublish()
                    #expect(publish.text == "\(number)")
                    try device.send(.puback(Ack(packetID: publish.packetID)))
                }
                try device.ping()
                #expect(broker.counters.queueDrops.value == 0)
            }
            #expect(try StoreFile(in: directory).count("entry") == 0)
        }
    }
}
