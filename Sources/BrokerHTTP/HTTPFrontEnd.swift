public import Broker
import Hummingbird
import HummingbirdCore
import HummingbirdTLS
public import Logging
import NIOCore
import NIOPosix
import NIOSSL
import ServiceLifecycle
import Synchronization

/// HTTP beside MQTT: back ends send commands to devices, operators ask where the memory is.
///
/// It has a thread and memory of its own, which are not the arena's: a request's body is outside, bounded over all
/// connections (``BodyBudget``). What devices answer stays in the arena until it has been handed to the socket.
public final class HTTPFrontEnd: Sendable {
    /// The configured one, or the one that the system chose for 0.
    public let port: Int
    private let broker: Broker
    private let tokens: AccessTokens
    private let connections: HTTPConnections
    private let services: ServiceGroup
    private let running: Task<Void, any Error>
    private let work: WorkStream
    private let group: MultiThreadedEventLoopGroup
    private let hasStopped = Atomic(false)

    /// Ends when the library has done all that it has begun.
    private typealias WorkStream = (stream: AsyncStream<Never>, continuation: AsyncStream<Never>.Continuation)

    private init(
        port: Int, broker: Broker, tokens: AccessTokens, connections: HTTPConnections, services: ServiceGroup,
        running: Task<Void, any Error>, work: WorkStream, group: MultiThreadedEventLoopGroup
    ) {
        self.port = port
        self.broker = broker
        self.tokens = tokens
        self.connections = connections
        self.services = services
        self.running = running
        self.work = work
        self.group = group
    }

    /// - Returns: nil where the configuration has no HTTP.
    /// - Throws: ``ConfigurationError`` or ``StartError``.
    public static func start(_ broker: Broker, log: Logger) async throws -> HTTPFrontEnd? {
        let configuration = broker.configuration.http
        guard let port = configuration.port, let tokenFile = configuration.tokenFile else { return nil }
        let tokens = try broker.configuration.naming("http.tokenFile") { try AccessTokens(file: tokenFile) }
        var quiet = log
        // The library's own lines are about requests.
        quiet.logLevel = max(log.logLevel, .warning)
        let address = configuration.address(port: port)
        let tls = try TLSContext.ofHTTP(broker.configuration)
        let turns = RequestTurns()
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1, metricsDelegate: turns)
        let connections = HTTPConnections(configuration, tokens, turns, on: group.next())
        let server = try server(connections, tls)
        let bound = group.next().makePromise(of: Int.self)
        let application = Application(
            router: HTTPRoutes.router(broker, tokens), server: server,
            configuration: ApplicationConfiguration(
                address: .hostname(configuration.host, port: port), serverName: "arena-broker"),
            onServerRunning: { bound.succeed($0.localAddress?.port ?? port) }, eventLoopGroupProvider: .shared(group),
            logger: quiet)
        var setup = ServiceGroupConfiguration(services: [.init(service: application)], logger: quiet)
        setup.maximumGracefulShutdownDuration = .seconds(Limits.httpShutdownSeconds)
        let services = ServiceGroup(configuration: setup)
        let work = AsyncStream<Never>.makeStream()
        let running = Task {
            try await LibraryWork.$current.withValue(LibraryWork(work.continuation)) {
                do {
                    try await services.run()
                    bound.fail(CancellationError())
                } catch {
                    bound.fail(error)
                    throw error
                }
            }
        }
        do {
            let port = try await bound.futureResult.get()
            log.info(
                "listening on \(configuration.address(port: port))",
                metadata: ["protocol": "\(configuration.certificateFile == nil ? "http" : "https")"])
            return HTTPFrontEnd(
                port: port, broker: broker, tokens: tokens, connections: connections, services: services,
                running: running, work: work, group: group)
        } catch {
            try? await group.shutdownGracefully()
            throw StartError("cannot listen on \(address) for HTTP: \(error)")
        }
    }

    private static func server(_ connections: HTTPConnections, _ tls: TLSConfiguration?) throws -> HTTPServerBuilder {
        let http = HTTPServerBuilder.http1(
            configuration: .init(
                // It has the deadlines too.
                additionalChannelHandlers: [HTTPConnection(connections)], idleTimeout: nil,
                httpDecoderConfiguration: .init(
                    maxHeaderFieldSize: 8 << 10, maxHeaderListSize: 16 << 10, maxHeaderFieldCount: 100)))
        guard let tls else { return http }
        return try .tls(http, tlsConfiguration: tls)
    }

    /// Looks at what a start would read, without starting anything.
    ///
    /// - Throws: ``ConfigurationError``.
    public static func check(_ configuration: Configuration) throws {
        guard configuration.http.port != nil, let tokenFile = configuration.http.tokenFile else { return }
        _ = try configuration.naming("http.tokenFile") { try AccessTokens(file: tokenFile) }
        _ = try TLSContext.ofHTTP(configuration)
    }

    /// Tokens that have been read and found good.
    public struct Renewal: Sendable {
        fileprivate let digests: [[UInt8]]
    }

    /// Reads the tokens again, and changes nothing.
    ///
    /// - Throws: ``ConfigurationError``.
    public func renewal() throws -> Renewal {
        Renewal(digests: try broker.configuration.naming("http.tokenFile") { try tokens.readAgain() })
    }

    /// Puts them in force.
    public func take(_ renewal: Renewal) { tokens.take(renewal.digests) }

    /// Connections that are open.
    package var connectionCount: Int {
        get async throws { try await group.next().submit { [connections] in connections.count }.get() }
    }

    /// Those of them that have no request.
    var waitingCount: Int {
        get async throws { try await group.next().submit { [connections] in connections.waitingCount }.get() }
    }

    /// The most answers that any connection had between two looks of the loop at its sockets.
    var mostAnswersPerTick: Int {
        get async throws { try await group.next().submit { [connections] in connections.mostAnswersPerTick }.get() }
    }

    /// Answers the commands that are open, lets what is being answered end, for some seconds, and returns when all have.
    /// Once; another call does nothing.
    public func stop() async {
        guard !hasStopped.exchange(true, ordering: .relaxed) else { return }
        broker.endCommands()
        await services.triggerGracefulShutdown()
        connections.end()
        let cut = group.next().scheduleTask(in: .seconds(Int64(Limits.httpShutdownSeconds))) { [connections] in
            connections.cutOffAll()
        }
        // How it ended does not matter any more.
        _ = await running.result
        cut.cancel()
        let enough = group.next().scheduleTask(in: .seconds(Int64(Limits.httpShutdownSeconds))) { [work] in
            work.continuation.finish()
        }
        for await _ in work.stream {}
        enough.cancel()
        // Unless the loop has ended already.
        await (try? group.next().submit { [connections] in connections.turns.end() }.get())?.value
        try? await group.shutdownGracefully()
    }
}

/// Is there as long as anything runs that the HTTP library has begun: tasks inherit it, also those that nobody waits for. One of
/// them ends the server, and may be behind what it has brought about; it must not find its event loop gone.
private final class LibraryWork: Sendable {
    @TaskLocal static var current: LibraryWork?

    private let whenDone: AsyncStream<Never>.Continuation

    init(_ whenDone: AsyncStream<Never>.Continuation) { self.whenDone = whenDone }

    deinit { whenDone.finish() }
}
