public import Arena
import ArenaNIO
import Ledger
public import Logging
import NIOCore
import NIOPosix
import Version

/// An MQTT broker whose every network buffer lives in an arena that records who has it.
///
/// One event loop shard a thread; a listener whose connections are spread over them.
public final class Broker: Sendable {
    public static let version = programVersion

    public let configuration: Configuration
    /// All memory of all loops, with the counter and the limit.
    public let pool: ArenaPool
    /// One for each event loop.
    public let shards: [EventLoopShard]
    /// The port that the first listener with one has: the configured one, or the one that the system chose for 0.
    public let port: Int
    let context: BrokerContext
    let dumper: Dumper
    let memoryReporter: MemoryReporter
    private let parts: BrokerParts
    private var sockets: [ListeningSocket] { parts.sockets }

    public var counters: Counters { context.counters }

    private init(
        _ parts: BrokerParts, configuration: Configuration, context: BrokerContext, dumper: Dumper,
        memoryReporter: MemoryReporter
    ) {
        self.parts = parts
        self.memoryReporter = memoryReporter
        self.configuration = configuration
        self.dumper = dumper
        self.context = context
        self.pool = context.pool
        self.shards = parts.shards
        self.port = parts.sockets.first { $0.port != nil }?.port ?? configuration.port
    }

    /// Starts loops and listener.
    ///
    /// - Parameter authenticators: the methods of enhanced authentication that 5.0 clients may ask for.
    /// - Throws: `StartError`, `ConfigurationError`, or `ArenaError` if the limit does not hold the arenas.
    public static func start(
        _ configuration: Configuration, log: Logger = Logger(label: "arena-broker"),
        authenticators: [any EnhancedAuthenticator] = []
    ) async throws -> Broker {
        let threads = try configuration.eventLoopCount()
        try configuration.checkListeners()
        try configuration.checkHTTP()
        let settings = try configuration.effectiveListeners.map { try Listener.Settings($0, in: configuration) }
        let dumps = try DumpDirectory(configuration.dumpDirectory)
        var arenas = ArenaPool.Configuration(limitBytes: configuration.memoryLimit)
        arenas.closedOwnerMemory = min(
            arenas.closedOwnerMemory, configuration.memoryLimit / Limits.closedOwnerShare / OwnerRecord.stride)
        arenas.nearPercent = configuration.nearPercent
        arenas.maximumArenas = max(arenas.maximumArenas, threads + 1)
        arenas.flightRecorder = FlightRecorder(configuration)
        var parts = BrokerParts(pool: try ArenaPool(arenas))
        do {
            return try await start(&parts, configuration, settings, dumps, threads, log, authenticators)
        } catch {
            await parts.abandon(log)
            throw error
        }
    }

    private static func start(
        _ parts: inout BrokerParts, _ configuration: Configuration, _ settings: [Listener.Settings],
        _ dumps: DumpDirectory, _ threads: Int, _ log: Logger, _ authenticators: [any EnhancedAuthenticator]
    ) async throws -> Broker {
        let pool = parts.pool
        let store = try configuration.dataDirectory.map {
            try Store(
                directory: $0, maximumBytes: configuration.limits.maxWaitingStoreBytes,
                acceptsDamage: configuration.acceptsDamagedStore, log: log)
        }
        parts.store = store
        let context = BrokerContext(
            configuration: configuration, settings: settings, pool: pool, store: store, log: log,
            authenticators: authenticators)
        parts.context = context
        let ticks = LoopTicks()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: threads, metricsDelegate: ticks)
        parts.group = group
        let shards = try group.makeIterator().enumerated().map { index, loop in
            try EventLoopShard(
                index: index, loop: loop, arena: pool.makeArena(name: "loop-\(index)"), context: context)
        }
        ticks.tell(shards)
        for shard in shards {
            try await shard.loop.submit {
                ArenaPool.prepareThreadForCrash()
                shard.start(peers: shards)
            }.get()
            parts.shards.append(shard)
        }
        if let store { try await restore(from: store, to: shards, log) }
        let dumper = Dumper(
            pool: pool, pressureEpisode: context.pressureEpisode, shards: shards, configuration: configuration,
            directory: dumps,
            log: log)
        parts.dumper = dumper
        dumper.start()
        let memory = MemoryReporter(context: context, dumper: dumper)
        for shard in shards { try await shard.loop.submit { shard.memory = memory }.get() }
        for listener in context.listeners {
            parts.sockets.append(try await ListeningSocket.open(listener, shards, group, pool, log))
        }
        let broker = Broker(
            parts, configuration: configuration, context: context, dumper: dumper, memoryReporter: memory)
        broker.logStart()
        pool.recordEvent(.program, "arena-broker \(version) started", value: UInt64(threads))
        return broker
    }

    /// Stops accepting, closes all connections, and returns when the loops have ended.
    public func shutdown() async throws {
        try await parts.end()
        context.log.info("shut down")
    }

    /// Asks for a dump, as SIGUSR1 does, and returns at once; the log says where it is. Any thread.
    public func requestDump() { dumper.request(.signal) }

    /// The port of each listener, in the order of the configuration; nil for Unix sockets.
    public var ports: [Int?] { sockets.map(\.port) }

    private func warnOfAnonymous(_ listener: Configuration.Listener, _ socket: ListeningSocket) {
        let policy = configuration.policy(of: listener)
        guard policy.allowsAnonymous else { return }
        let rights =
            policy.aclFile == nil ? "may publish and subscribe to everything" : "has the rights of the ACL file"
        let reason =
            policy.isDemonstration
            ? "; nothing says who may connect, which is well for trying it out on the loopback interface only"
            : " (anonymous = true)"
        context.log.warning("anonymous access: every client that reaches \(socket.address) \(rights)\(reason)")
    }

    private func logStart() {
        let log = context.log
        if context.rpcFault.isOn {
            log.warning(
                """
                FAULT INJECTION IS ON: the RPC response handler forgets \
                \(configuration.faults.rpcResponseLeakPercent) % of its buffers (faults.rpcResponseLeakPercent). \
                This broker will run short of memory, as it is meant to: publishes are refused then, and the limit holds.
                """)
        }
        if let path = pool.flightRecorderPath {
            log.info("the flight recorder writes to \(path); arena-analyze reads it when the broker has gone")
        }
        if configuration.memoryLimit > MemoryLimit.physicalBytes {
            log.warning(
                """
                the memory limit of \(configuration.memoryLimit) bytes is more than the \
                \(MemoryLimit.physicalBytes) bytes this machine has: the system will end the broker before the limit does
                """)
        }
        for (socket, listener) in zip(sockets, context.listeners) {
            let settings = listener.settings
            warnOfAnonymous(settings.configuration, socket)
            var metadata: Logger.Metadata = [:]
            let listener = settings.configuration
            if !listener.name.isEmpty { metadata["listener"] = "\(listener.name)" }
            if listener.scheme != "tcp" { metadata["protocol"] = "\(listener.scheme)" }
            log.info("listening on \(socket.address)", metadata: metadata)
        }
    }
}

/// Why the broker does not start, in one line for the user.
public struct StartError: Error, CustomStringConvertible {
    public let description: String

    package init(_ description: String) { self.description = description }
}
