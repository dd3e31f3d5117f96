import Arena
import ArenaNIO
import DumpFormat
import Foundation
import Ledger
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Where the memory is, on a live broker", .mayBlock, .serialized)
struct LiveMemoryTests {
    /// Every list adds up to its total, to the byte.
    private static func checkSums(_ memory: LiveMemory) {
        #expect(memory.parts.reduce(0) { $0 + $1.bytes } == memory.counterBytes)
        for list in [memory.sizeClasses, memory.owners, memory.referrers] {
            #expect(list.reduce(0) { $0 + $1.bytes } == memory.liveBytes)
            #expect(list.reduce(0) { $0 + $1.buffers } == memory.liveBuffers)
        }
        let parts = Dictionary(uniqueKeysWithValues: memory.parts.map { ($0.name, $0.bytes) })
        #expect(parts["requested"]! + parts["internal fragmentation"]! == memory.liveBytes)
    }

    private static func fill(_ broker: Broker) throws -> TestClient {
        let away = try TestClient(port: broker.port)
        try away.connect("away", clean: false)
        try away.subscribe(("queue/#", .atLeastOnce))
        try away.disconnect()
        let client = try TestClient(port: broker.port)
        try client.connect("publisher")
        for number in 0..<50 {
            try client.publish("queue/\(number)", String(repeating: "q", count: 900), qos: .atLeastOnce)
        }
        for number in 1...30 {
            try client.publish(
                "retained/\(number)", String(repeating: "r", count: number * 1_000), qos: .atLeastOnce, retain: true)
        }
        return client
    }

    @Test("all lists add up to the counter; queues, clients and retained topics are named, by bytes held")
    func report() async throws {
        try await withHTTPBroker(threads: 2) { broker, http in
            let client = try Self.fill(broker)
            let answer = try await http.get("/v1/memory")
            #expect(answer.status == 200)
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            let memory = try decoder.decode(LiveMemory.self, from: answer.body)
            Self.checkSums(memory)
            #expect(memory.limitBytes == 128 << 20)
            #expect(memory.pauseNanoseconds > 0)
            // 905 to 908 bytes asked for, of a class of 1,024 bytes.
            #expect(memory.queues == [.init(name: "away", buffers: 50, bytes: 50 * 1_024)])
            #expect(memory.clients.first { $0.name == "away" }?.bytes == 50 * 1_024)
            #expect(memory.referrers.first { $0.name == "offline queue" }?.buffers == 50)
            #expect(memory.referrers.first { $0.name == "unreachable" } == nil)
            #expect(memory.retained.count == LiveMemory.topCount)
            // 28,672 bytes are the next class below: 29 and 30 are of the same, and come in the order of their names.
            #expect(memory.retained.first == .init(name: "retained/29", buffers: 1, bytes: 32_768))
            #expect(Set(memory.retained.map(\.name)) == Set((11...30).map { "retained/\($0)" }))
            #expect(memory.retained.map(\.bytes) == memory.retained.map(\.bytes).sorted(by: >))
            try client.disconnect()
        }
    }

    /// What a dump says of the moment of a live report, buffer by buffer, read back from its bytes.
    private struct Dumped {
        var classes: [String: LiveMemory.Share] = [:]
        var owners: [String: LiveMemory.Share] = [:]
        var referrers: [String: LiveMemory.Share] = [:]
        var queues: [String: LiveMemory.Share] = [:]
        var states: Set<UInt8> = []

        init(_ contents: SnapshotContents, references: [[LedgerReference]]) throws {
            let ledger = LedgerSnapshot(contents.ledger, references: references)
            let sink = MemorySink()
            try DumpWriter(sink: sink).write(
                ledger.tables, runs: ledger.runs, slots: ledger.slots, references: ledger.references)
            let dump = try DumpReader.read(bytes: sink.bytes, name: "of the same moment", .everything)
            #expect(dump.completeness.isComplete)
            let slots = try #require(dump.slots)
            let references = try #require(dump.references)
            var reached: [Int: (kinds: Set<UInt8>, queues: [UInt32])] = [:]
            for reference in 0..<references.count {
                let row = Int(references.slotRow[reference])
                reached[row, default: ([], [])].kinds.insert(references.referrerKind[reference])
                if [ReferrerKind.offlineQueue, .inflight].map(\.rawValue).contains(references.referrerKind[reference]) {
                    reached[row]?.queues.append(references.referrerOwner[reference])
                }
            }
            states = Set(slots.state)
            for row in 0..<slots.count {
                let (kinds, referrers) = reached[row] ?? ([], [])
                let isHuge = slots.sizeClass[row] == Snapshot.SlotColumns.hugeClass
                add(\.classes, isHuge ? "huge" : "\(slots.capacity[row])", slots.capacity[row])
                add(\.owners, dump.owners[Int(slots.owner[row])].kind.name, slots.capacity[row])
                let referrer =
                    slots.state[row] == 2
                    ? "freed"
                    : kinds.isEmpty
                        ? "unreachable" : kinds.count > 1 ? "several" : ReferrerKind(rawValue: kinds.first!)!.name
                add(\.referrers, referrer, slots.capacity[row])
                for queue in referrers { add(\.queues, dump.owners[Int(queue)].name, slots.capacity[row]) }
            }
        }

        private mutating func add(
            _ list: WritableKeyPath<Self, [String: LiveMemory.Share]>, _ name: String, _ bytes: UInt64
        ) {
            self[keyPath: list][name, default: .init(name: name)].buffers += 1
            self[keyPath: list][name]!.bytes += bytes
        }
    }

    private final class MemorySink: DumpSink {
        private(set) var bytes: [UInt8] = []
        func write(_ more: UnsafeRawBufferPointer) throws(DumpError) { bytes.append(contentsOf: more) }
    }

    @Test("with 20,000 buffers, some freed by another loop: figure by figure what a dump of the same moment says")
    func scale() async throws {
        try await withBroker(threads: 2, { $0.memoryLimit = 512 << 20 }) { broker in
            for number in 0..<25 {
                let away = try TestClient(port: broker.port)
                try away.connect("away-\(number)", clean: false)
                try away.subscribe(("queue/#", .atLeastOnce))
                try away.disconnect()
            }
            let client = try TestClient(port: broker.port)
            try client.connect("publisher")
            for number in 0..<100 {
                try client.publish(
                    "queue/\(number)", String(repeating: "q", count: 40 + number * 37 % 3_000), qos: .atLeastOnce)
            }
            let shards = broker.shards
            let sizes = [300, 700, 5_000, 100_000, 20 << 20]
            let owner = shards[0].owner
            let (foreign, many) = try await shards[0].loop.submit {
                func allocate(_ size: Int) throws -> UInt {
                    let location = CodeLocation("test", file: #fileID, line: #line, function: #function)
                    return UInt(bitPattern: try shards[0].arena.allocate(size, owner: owner, at: location))
                }
                return (try (sizes + sizes).map(allocate), try (0..<20_000).map { try allocate(40 + $0 * 37 % 9_000) })
            }.get()
            let slots = many.compactMap { broker.pool.slot(at: UnsafeRawPointer(bitPattern: $0)!) }
            // The second loop frees half of them when the first has taken back what others had freed.
            let firstHasVisited = DispatchSemaphore(value: 0)
            var compared = false
            _ = try broker.pool.takeSnapshot(loops: shards.map(\.loop)) { index, visitor in
                shards[index].visitReachableBuffers(&visitor)
                if index == 0 {
                    for (number, slot) in slots.enumerated() {
                        let kind = ReferrerKind.allCases[number % ReferrerKind.allCases.count]
                        visitor.hold(SlotIndex(rawValue: UInt32(slot)), bytes: 1, owner: owner, kind: kind)
                    }
                    firstHasVisited.signal()
                    return
                }
                firstHasVisited.wait()
                for pointer in foreign.prefix(sizes.count) { Arena.free(UnsafeMutableRawPointer(bitPattern: pointer)!) }
            } _: { contents in
                let references = contents.takeReferences()
                let memory = LiveMemory(
                    LedgerSnapshot(contents.ledger, references: references), pauseNanoseconds: 0, retained: [],
                    heap: nil,
                    mallocBytes: 0)
                let dump = try Dumped(contents, references: references)
                Self.checkSums(memory)
                #expect(memory.liveBuffers > 20_000)
                #expect(dump.states == [1, 2])
                #expect(memory.sizeClasses.count > 15)
                #expect(memory.sizeClasses.last?.name == "huge")
                #expect(Self.byName(memory.sizeClasses) == dump.classes)
                #expect(Self.byName(memory.owners) == dump.owners)
                #expect(Self.byName(memory.referrers) == dump.referrers)
                #expect(dump.referrers["freed"]?.buffers == UInt64(sizes.count))
                #expect(dump.referrers["unreachable"]?.buffers == UInt64(sizes.count))
                // The report names the largest of them.
                #expect(memory.queues.count == LiveMemory.topCount)
                for queue in memory.queues { #expect(queue == dump.queues[queue.name]) }
                compared = true
            }
            #expect(compared)
            try await shards[0].loop.submit {
                for pointer in foreign.dropFirst(sizes.count) + many {
                    Arena.free(UnsafeMutableRawPointer(bitPattern: pointer)!)
                }
            }.get()
        }
    }

    private static func byName(_ shares: [LiveMemory.Share]) -> [String: LiveMemory.Share] {
        Dictionary(uniqueKeysWithValues: shares.map { ($0.name, $0) })
    }

    @Test("what a fault forgets is unreachable")
    func unreachable() async throws {
        try await withBroker({ $0.faults.rpcResponseLeakPercent = 100 }) { broker in
            let (device, backEnd) = try RPCBridgeTests.parties(broker)
            for id in 1...7 { try RPCBridgeTests.exchange(id, device, backEnd) }
            let memory = try await broker.memory()
            Self.checkSums(memory)
            #expect(memory.referrers.first { $0.name == "unreachable" }?.buffers == 7)
        }
    }

    @Test("who asks while an answer is being made gets that one")
    func together() async throws {
        try await withBroker { broker in
            // The first answer waits for the loop until all have asked.
            let busy = BusyLoop(broker.shards[0])
            let times = try await withThrowingTaskGroup(of: UInt64.self) { group in
                for _ in 0..<50 { group.addTask { try await broker.memory().wallTime } }
                let deadline = Patience.end
                while broker.memoryReporter.waitingCount < 50, ContinuousClock.now < deadline { await Task.yield() }
                busy.letGo()
                return try await group.reduce(into: Set<UInt64>()) { $0.insert($1) }
            }
            #expect(times.count < 50)
        }
    }

    @Test("over $SYS: the report, and each figure under a name of its own, while somebody listens")
    func sysTopics() async throws {
        try await withBroker({ $0.limits.sysIntervalSeconds = 1 }) { broker in
            let client = try Self.fill(broker)
            try client.subscribe(("$SYS/broker/memory/#", .atMostOnce))
            var values: [String: String] = [:]
            while values["report"] == nil || values["referrers/offline-queue"] == nil || values["parts/ledger"] == nil {
                let publish = try client.receivePublish()
                values[String(publish.topicString.dropFirst("$SYS/broker/memory/".count))] = publish.text
            }
            #expect(values["referrers/offline-queue"] == "\(50 * 1_024)")
            let decoder = JSONDecoder()
            decoder.keyDecodingStrategy = .convertFromSnakeCase
            Self.checkSums(try decoder.decode(LiveMemory.self, from: Data(values["report"]!.utf8)))
        }
    }

    @Test("figures for Prometheus, each with its help and its type")
    func prometheus() async throws {
        try await withHTTPBroker { broker, http in
            let client = try Self.fill(broker)
            let answer = try await http.get("/metrics")
            #expect(answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
            var samples: [String: Int] = [:]
            var described: Set<Substring> = []
            for line in answer.text.split(separator: "\n") {
                let words = line.split(separator: " ")
                if line.hasPrefix("# TYPE ") {
                    described.insert(words[2])
                } else if !line.hasPrefix("#") {
                    let name = line[..<(line.lastIndex(of: " ")!)]
                    #expect(described.contains(name.prefix { $0 != "{" }))
                    samples[String(name)] = Int(words.last!)
                }
            }
            #expect(samples["arena_limit_bytes"] == 128 << 20)
            #expect(samples["arena_counter_bytes"] == broker.pool.counterBytes)
            #expect(samples["broker_clients"] == 1)
            #expect(samples["broker_sessions"] == 2)
            #expect(samples["broker_retained_messages"] == 30)
            #expect(samples["broker_publishes_received_total"] == 80)
            #expect(samples["arena_site_live_bytes{site=\"queued message\"}"] == 50 * 1_024)
            _ = client
        }
    }

    @Test("a dump can be asked for, and the answer says where it is")
    func dump() async throws {
        try await withHTTPBroker { _, http in
            let answer = try await http.request("POST", "/v1/dumps")
            #expect(answer.status == 201)
            let path = try #require(answer.object["path"] as? String)
            #expect(FileManager.default.fileExists(atPath: path))
        }
    }

    @Test("dumps that are asked for while one is being written are one, and have a while between them")
    func manyDumps() async throws {
        try await withHTTPBroker { broker, http in
            let begin = ContinuousClock.now
            let first = try await http.request("POST", "/v1/dumps")
            try await withThrowingTaskGroup(of: String?.self) { group in
                // As many as the client has connections.
                for _ in 0..<5 {
                    group.addTask {
                        let answer = try await http.request("POST", "/v1/dumps")
                        #expect(answer.status == 201)
                        return answer.object["path"] as? String
                    }
                }
                var paths: Set<String?> = [first.object["path"] as? String]
                for try await path in group { paths.insert(path) }
                // Some may have come when the second had begun: then there is a third, some seconds later.
                let seconds = (ContinuousClock.now - begin).components.seconds
                #expect(!paths.contains(nil))
                #expect(2...3 ~= paths.count && paths.count == broker.dumper.written.load(ordering: .relaxed))
                #expect(Int(seconds) >= (paths.count - 1) * Limits.httpDumpIntervalSeconds)
            }
        }
    }
}
