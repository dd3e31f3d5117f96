import Arena
import ArenaNIO
import DumpFormat
import Foundation
import Ledger
import Logging
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

/// Runs `body` with a broker on a free port, and shuts it down.
func withBroker(
    threads: Int = 1, _ configure: (inout Configuration) -> Void = { _ in },
    log: Logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
    authenticators: [any EnhancedAuthenticator] = [], _ body: (Broker) async throws -> Void
) async throws {
    // A broker at its limit may write a dump.
    try await withTemporaryDirectory { directory in
        var configuration = Configuration()
        configuration.port = 0
        configuration.threads = threads
        configuration.memoryLimit = 128 << 20
        configuration.dumpDirectory = directory.path
        // A dump is of all loops, however long one does not get a processor.
        configuration.dumps.loopWaitMilliseconds = 60_000
        configure(&configuration)
        let broker = try await Broker.start(configuration, log: log, authenticators: authenticators)
        do {
            try await body(broker)
        } catch {
            try await broker.shutdown()
            throw error
        }
        try await broker.shutdown()
    }
}

/// A log handler that remembers its lines, without the time.
final class LogCollector: LogHandler, Sendable {
    private let collected = Mutex<[String]>([])
    var logLevel: Logger.Level {
        get { .debug }
        set { preconditionFailure("not used") }
    }
    var metadata: Logger.Metadata {
        get { [:] }
        set { preconditionFailure("not used") }
    }
    subscript(metadataKey _: String) -> Logger.Metadata.Value? {
        get { nil }
        set { preconditionFailure("not used") }
    }

    var lines: [String] { collected.withLock { $0 } }

    var logger: Logger { Logger(label: "test") { _ in self } }

    func log(event: LogEvent) {
        let line = LogLines.line(event.level, "\(event.message)", event.metadata ?? [:])
        collected.withLock { $0.append(String(line.drop { $0 != " " }.dropFirst().dropLast())) }
    }
}

extension Broker {
    /// What is live in the arena, and what of it no structure of the broker holds.
    struct Accounting: Equatable {
        var live = 0
        var unreachable = 0
    }

    /// Looks at all loops one after the other: exact while nothing is sent.
    func accounting() async throws -> Accounting {
        var held: Set<UInt32> = []
        for shard in shards {
            let references = try await shard.loop.submit { [pool] in
                shard.trim()
                var visitor = ReachableBufferVisitor(pool: pool)
                shard.visitReachableBuffers(&visitor)
                return visitor.finish().flatMap { $0 }
            }.get()
            held.formUnion(references.map(\.slot))
        }
        // Frees that arrived from other loops while these were looked at.
        for shard in shards { try await shard.loop.submit { _ = shard.arena.drainRemoteFrees() }.get() }
        return pool.withLedger { image in
            let slots = image.records(.slots, of: SlotRecord.self)
            var accounting = Accounting()
            for index in 0..<image.rows(.slots) where slots[index].state == SlotRecord.State.live.rawValue {
                accounting.live += 1
                if !held.contains(UInt32(index)) { accounting.unreachable += 1 }
            }
            return accounting
        }
    }

    /// Where what no structure of the broker holds was allocated: a label for each buffer.
    func unreachable() async throws -> [String] {
        let snapshot = try await snapshot()
        return snapshot.allocationGroups.filter { $0.unreachableBuffers > 0 }.flatMap {
            Array(repeating: snapshot.sites[Int($0.site)].label, count: Int($0.unreachableBuffers))
        }
    }

    /// A dump written now, and read back whole.
    func snapshot() async throws -> Snapshot {
        let result = try await NIOThreadPool.singleton.runIfActive { [dumper] in dumper.dump(.request) }
        return try DumpReader.read(path: try #require(result).path, .everything)
    }

    /// Waits until the broker has noticed that every connection is gone.
    func awaitNoConnections() async throws {
        try await poll { self.counters.connectionsOpen.value == 0 }
    }

    /// Waits until no buffer is live, as it must be once all connections and sessions have gone.
    func awaitNothingLeft() async throws { try await awaitLeft(Accounting()) }

    /// The same where something is to be left: what follows from the end of connections takes its turn, and frees of other
    /// loops' buffers are on their way.
    func awaitLeft(_ expected: Accounting) async throws {
        let deadline = Patience.end
        var left = try await accounting()
        while left != expected, ContinuousClock.now < deadline { left = try await accounting() }
        #expect(left == expected)
    }

    /// Asks all loops in turn until `condition` holds; each question is a tick, so this waits for work, not for time.
    ///
    /// What holds may have come to hold in the middle of something: that is done too when this returns. What follows from
    /// it in a later tick may not be: ask for that, too.
    func poll(_ condition: @Sendable () -> Bool) async throws {
        let deadline = Patience.end
        while !condition() {
            try #require(ContinuousClock.now < deadline, "the condition did not come to hold")
            for shard in shards { try await shard.loop.submit {}.get() }
        }
        for shard in shards { try await shard.loop.submit {}.get() }
    }

    /// Waits until its session has nothing to do with a client that has vanished: what follows from its going takes its turn.
    @discardableResult
    func awaitAway(_ clientID: String) async throws -> Session {
        let session = try #require(context.registry.find(clientID))
        let shard = shards[session.owningShard]
        let deadline = Patience.end
        while try await shard.loop.submit({ session.connection != nil || session.isLeaving }).get() {
            try #require(ContinuousClock.now < deadline, "\(clientID) is still there")
        }
        return session
    }

    /// The shard on which a client is connected.
    func owningShard(of clientID: String) -> Int? { context.registry.find(clientID)?.owningShard }
}
