import Arena
import Foundation
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
        for list in [memory.sizeClasses, memory.owners, memory.holders] {
            #expect(list.reduce(0) { $0 + $1.bytes } == memory.liveBytes)
            #expect(list.reduce(0) { $0 + $1.buffers } == memory.liveBuffers)
        }
        let parts = Dictionary(uniqueKeysWithValues: memory.parts.map { ($0.name, $0.bytes) })
        #expect(parts["requested"]! + parts["slack"]! == memory.liveBytes)
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
            #expect(memory.holders.first { $0.name == "offline queue" }?.buffers == 50)
            #expect(memory.holders.first { $0.name == "unheld" } == nil)
            #expect(memory.retained.count == LiveMemory.topCount)
            // 28,672 bytes are the next class below: 29 and 30 are of the same, and come in the order of their names.
            #expect(memory.retained.first == .init(name: "retained/29", buffers: 1, bytes: 32_768))
            #expect(Set(memory.retained.map(\.name)) == Set((11...30).map { "retained/\($0)" }))
            #expect(memory.retained.map(\.bytes) == memory.retained.map(\.bytes).sorted(by: >))
            try client.disconnect()
        }
    }

    @Test("what a fault forgets is unheld")
    func unheld() async throws {
        try await withBroker({ $0.faults.rpcResponseLeakPercent = 100 }) { broker in
            let (device, backEnd) = try RPCBridgeTests.parties(broker)
            for id in 1...7 { try RPCBridgeTests.exchange(id, device, backEnd) }
            let memory = try await broker.memory()
            Self.checkSums(memory)
            #expect(memory.holders.first { $0.name == "unheld" }?.buffers == 7)
        }
    }

    @Test("who asks while an answer is being made gets that one")
    func together() async throws {
        try await withBroker { broker in
            let times = try await withThrowingTaskGroup(of: UInt64.self) { group in
                for _ in 0..<50 { group.addTask { try await broker.memory().wallTime } }
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
            while values["report"] == nil || values["holders/offline-queue"] == nil || values["parts/ledger"] == nil {
                let publish = try client.receivePublish()
                values[String(publish.topicString.dropFirst("$SYS/broker/memory/".count))] = publish.text
            }
            #expect(values["holders/offline-queue"] == "\(50 * 1_024)")
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
}
