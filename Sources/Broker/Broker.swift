public import Arena
import ArenaNIO
import Ledger
public import Logging
import NIOCore
import NIOPosix

/// An MQTT broker whose every network buffer lives in an arena that records who has it.
///
/// One event loop shard a thread; a listener whose connections are spread over them.
public final class Broker: Sendable {
    public static let version = "0.1.0"

    public let configuration: Configuration
    /// All memory of all loops, with the counter and the limit.
    public let pool: ArenaPool
    /// One for each event loop.
    public let shards: [EventLoopShard]
    /// The port that is listened on: the configured one, or the one that the system chose for 0.
    public let port: Int
    let context: BrokerContext
    let dumper: Dumper
    private let group: MultiThreadedEventLoopGroup
    private let listener: any Channel

    public var counters: Counters { context.counters }

    private init(
        configuration: Configuration, context: BrokerContext, shards: [EventLoopShard],
        group: MultiThreadedEventLoopGroup, listener: any Channel, dumper: Dumper
    ) {
        self.configuration = configuration
        self.dumper = dumper
        self.context = context
        self.pool = context.pool
        self.shards = shards
        self.group = group
        self.listener = listener
        self.port = listener.localAddress?.port ?? configuration.port
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
        var arenas = ArenaPool.Configuration(limitBytes: configuration.memoryLimit)
        arenas.nearPercent = configuration.nearPercent
        arenas.flightRecorder = FlightRecorder(configuration)
        let pool = try ArenaPool(arenas)
        let context = BrokerContext(
            configuration: configuration, pool: pool, log: log, authenticators: authenticators)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: threads)
        do {
            var shards: [EventLoopShard] = []
            for (index, loop) in group.makeIterator().enumerated() {
                let arena = try pool.makeArena(name: "loop-\(index)")
                shards.append(EventLoopShard(index: index, loop: loop, arena: arena, context: context))
            }
            for shard in shards {
                try await shard.loop.submit { [shards] in
                    ArenaPool.prepareThreadForCrash()
                    shard.start(peers: shards)
                }.get()
            }
            let dumper = Dumper(pool: pool, shards: shards, configuration: configuration, log: log)
            dumper.start()
            let listener = try await listen(configuration, shards, group, log)
            let broker = Broker(
                configuration: configuration, context: context, shards: shards, group: group, listener: listener,
                dumper: dumper)
            broker.logStart()
            pool.recordEvent(.program, "arena-broker \(version) started", value: UInt64(threads))
            return broker
        } catch {
            try? await group.shutdownGracefully()
            pool.noteEnd()
            throw error
        }
    }

    /// Stops accepting, closes all connections, and returns when the loops have ended.
    public func shutdown() async throws {
        try? await listener.close()
        dumper.stop()
        for shard in shards { try await shard.loop.submit { shard.stop() }.get() }
        try await group.shutdownGracefully()
        for shard in shards { shard.forgetPeers() }
        context.closeOwners()
        pool.noteEnd()
        context.log.info("shut down")
    }

    /// Asks for a dump, as SIGUSR1 does, and returns at once; the log says where it is. Any thread.
    public func requestDump() { dumper.request(.signal) }

    private static func listen(
        _ configuration: Configuration, _ shards: [EventLoopShard], _ group: MultiThreadedEventLoopGroup, _ log: Logger
    ) async throws -> any Channel {
        let bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 1_024)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelOption(.allocator, value: Arena.byteBufferAllocator)
            // Before NIO's own handlers, which keep such errors to themselves.
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(AcceptFailures(log: log))
                }
            }
            // One read a tick for each socket: `ReadBufferSource` has one buffer, and rounds are fair.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            .childChannelOption(
                .writeBufferWaterMark, value: .init(low: Limits.lowWatermark, high: Limits.highWatermark)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let shard = shards.first { $0.loop === channel.eventLoop }!
                    try channel.syncOptions?.setOption(.recvAllocator, value: ShardReadAllocator(source: shard.reads))
                    try channel.pipeline.syncOperations.addHandler(ConnectionHandler(shard: shard))
                }
            }
        do {
            return try await bootstrap.bind(host: configuration.host, port: configuration.port).get()
        } catch {
            let reason =
                switch error {
                case let error as IOError: SystemError.text(error.errnoCode)
                case let error as SocketAddressError.UnknownHost: error.errorDescription
                default: "\(error)"
                }
            throw StartError("cannot listen on \(configuration.address(port: configuration.port)): \(reason)")
        }
    }

    private func logStart() {
        let log = context.log
        if context.rpcFault.isOn {
            log.warning(
                """
                FAULT INJECTION IS ON: the RPC response handler forgets \
                \(configuration.faults.rpcResponseLeakPercent) % of its buffers (faults.rpcResponseLeakPercent). \
                This broker will run out of memory, as it is meant to.
                """)
        }
        log.warning("anonymous access: every client that reaches this port may publish and subscribe to everything")
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
        log.info("listening on \(configuration.address(port: port))")
    }
}

/// Why the broker does not start, in one line for the user.
public struct StartError: Error, CustomStringConvertible {
    public let description: String

    init(_ description: String) { self.description = description }
}
