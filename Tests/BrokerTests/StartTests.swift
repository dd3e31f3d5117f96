import DumpFormat
import Foundation
import Logging
import MQTT
import TestSupport
import Testing

@testable import Arena
@testable import Broker

@Suite("start and end of the broker", .mayBlock)
struct StartTests {
    @Test("64 loops beside the arena that other threads share, and as many as a slot can name")
    func manyLoops() async throws {
        var configuration = Configuration()
        configuration.memoryLimit = 2 << 30
        #expect(try configuration.eventLoopCount(cores: 64) == 64)
        configuration.memoryLimit = 64 << 30
        #expect(try configuration.eventLoopCount(cores: 1_000) == Limits.maxEventLoops)
        configuration.threads = Limits.maxEventLoops + 1
        #expect(throws: ConfigurationError.self) { try configuration.eventLoopCount() }

        try await withBroker(threads: 64, { $0.memoryLimit = 2 << 30 }) { broker in
            #expect(broker.shards.count == 64)
            let client = try TestClient(port: broker.port)
            try client.connect("one")
            try client.ping()
        }
    }

    /// Names of this process's threads that NIO has started: loops and thread pools.
    private static func loopThreads() -> [String] {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
        return tasks.compactMap { try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8) }
            .filter { $0.hasPrefix("NIO-") || $0.hasPrefix("TP-") }
    }

    /// Waits until there are so many; the last of a pool's threads ends a moment after the pool.
    private static func expectLoopThreads(_ count: Int, _ comment: Comment) async throws {
        let deadline = Patience.end
        while loopThreads().count != count, ContinuousClock.now < deadline {
            try await Task.sleep(for: .milliseconds(10))
        }
        #expect(loopThreads().count == count, comment)
    }

    private static func configuration(_ directory: String) -> Configuration {
        var configuration = Configuration()
        configuration.port = 0
        configuration.threads = 2
        configuration.memoryLimit = 64 << 20
        configuration.dumpDirectory = directory
        configuration.dataDirectory = "\(directory)/data"
        configuration.flightRecorder = "\(directory)/flight"
        return configuration
    }

    /// Everything of a broker has its log: when that is gone, so are loops, dumper, store and reports.
    private static func weakly(_ body: (Logger) async throws -> Void) async throws {
        weak var log: LogCollector?
        do {
            let collector = LogCollector()
            log = collector
            try await body(collector.logger)
        }
        let deadline = Patience.end
        while log != nil, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(10)) }
        #expect(log == nil, "something of a broker that has ended is alive")
    }

    @Test("of a broker that has ended no thread and no object stays")
    func ended() async {
        // Threads are counted: a process of its own.
        await #expect(processExitsWith: .success) {
            try await withFolder { directory in
                try await StartTests.weakly { log in
                    let broker = try await Broker.start(StartTests.configuration(directory), log: log)
                    #expect(StartTests.loopThreads().count > 2)
                    try await broker.shutdown()
                }
                try await StartTests.expectLoopThreads(0, "after the end")
            }
        }
    }

    @Test("of a broker that cannot listen no thread and no object stays, and its recorder says that it ended in order")
    func failedBind() async {
        await #expect(processExitsWith: .success) {
            try await withFolder { directory in
                var configuration = StartTests.configuration(directory)
                configuration.listeners = [
                    Configuration.listener { $0.path = "\(directory)/socket" },
                    // A directory is no place for a socket.
                    Configuration.listener { $0.path = directory },
                ]
                try await StartTests.weakly { log in
                    await #expect(throws: StartError.self) { _ = try await Broker.start(configuration, log: log) }
                }
                try await StartTests.expectLoopThreads(0, "after the failure")
                #expect(PoolRegistry.pools.isEmpty)
                #expect(!FileManager.default.fileExists(atPath: "\(directory)/socket"))
                let recorded = try DumpReader.read(path: "\(directory)/flight")
                #expect(recorded.ending?.hasPrefix("the process ended in order") == true)
            }
        }
    }

    @Test("a broker that cannot listen gives its memory back, also what it had read of its data directory")
    func failedBindWithRetained() async {
        await #expect(processExitsWith: .success) {
            try await withFolder { directory in
                var configuration = StartTests.configuration(directory)
                // The first broker's pool has it still.
                configuration.flightRecorder = nil
                let broker = try await Broker.start(configuration, log: LogCollector().logger)
                let client = try TestClient(port: broker.port)
                try client.connect("publisher", clean: false)
                try client.subscribe(("t", .atLeastOnce))
                for number in 0..<100 {
                    try client.publish("r/\(number)", "retained", qos: .atLeastOnce, retain: true)
                }
                try client.disconnect()
                let other = try TestClient(port: broker.port)
                try other.connect("other")
                try other.publish("t", "queued", qos: .atLeastOnce)
                try await broker.shutdown()
                let pool = broker.pool
                #expect(PoolRegistry.pools.map(ObjectIdentifier.init) == [ObjectIdentifier(pool)])

                configuration.listeners = [Configuration.listener { $0.path = directory }]
                try await StartTests.weakly { [configuration] log in
                    await #expect(throws: StartError.self) { _ = try await Broker.start(configuration, log: log) }
                }
                #expect(
                    PoolRegistry.pools.map(ObjectIdentifier.init) == [ObjectIdentifier(pool)],
                    "the second broker's pool is still there")
            }
        }
    }

    @Test("what goes wrong while a broker that cannot start is ended is in the log, and its memory is given back")
    func failedEnd() async {
        await #expect(processExitsWith: .success) {
            let log = LogCollector()
            let parts = BrokerParts(pool: try ArenaPool(ArenaPool.Configuration(limitBytes: 64 << 20)))
            await parts.abandon(log.logger) { _ in throw StartError("the loops do not end") }
            #expect(log.lines.contains { $0.contains("did not end in order") && $0.contains("the loops do not end") })
            #expect(PoolRegistry.pools.isEmpty)
        }
    }

    @Test("a broker whose data directory cannot be used leaves nothing either")
    func failedStore() async {
        await #expect(processExitsWith: .success) {
            try await withFolder { directory in
                try "no directory".write(toFile: "\(directory)/data", atomically: true, encoding: .utf8)
                try await StartTests.weakly { log in
                    await #expect(throws: StartError.self) {
                        _ = try await Broker.start(StartTests.configuration(directory), log: log)
                    }
                }
                try await StartTests.expectLoopThreads(0, "after the failure")
                #expect(PoolRegistry.pools.isEmpty)
                let recorded = try DumpReader.read(path: "\(directory)/flight")
                #expect(recorded.ending?.hasPrefix("the process ended in order") == true)
            }
        }
    }
}
