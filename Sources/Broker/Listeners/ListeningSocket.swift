import Arena
import ArenaNIO
import Glibc
import Ledger
import Logging
import NIOCore
import NIOPosix

/// A socket that is listened on, and what is put into the pipeline of each connection it accepts.
struct ListeningSocket: Sendable {
    /// As it can be connected to, with the port that the system chose for 0.
    let address: String
    /// Nil for a Unix socket.
    let port: Int?
    private let channel: any Channel
    private let path: String?

    /// Connections that the system keeps until they are accepted.
    private static let backlog: CInt = 1_024

    /// - Throws: ``StartError``.
    static func open(
        _ listener: Listener, _ shards: [EventLoopShard], _ group: MultiThreadedEventLoopGroup, _ pool: ArenaPool,
        _ log: Logger
    ) async throws -> ListeningSocket {
        let configuration = listener.settings.configuration
        var bootstrap = ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: Self.backlog)
            .childChannelOption(.allocator, value: pool.byteBufferAllocator)
            // Before NIO's own handlers, which keep such errors to themselves.
            .serverChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.closesOnExec()
                    try channel.pipeline.syncOperations.addHandler(AcceptFailures(log: log))
                    try channel.pipeline.syncOperations.addHandler(AcceptRate(listener: listener))
                }
            }
            // One read a tick for each socket: `ReadBufferSource` has one buffer, and rounds are fair.
            .childChannelOption(.maxMessagesPerRead, value: 1)
            .childChannelOption(
                .writeBufferWaterMark, value: .init(low: Limits.lowWatermark, high: Limits.highWatermark)
            )
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.closesOnExec()
                    let shard = shards.first { $0.loop === channel.eventLoop }!
                    try fill(channel, shard, listener)
                }
            }
        do {
            if let path = configuration.path {
                try UnixSocketFile.prepare(path)
                let descriptor = try UnixSocketFile.bind(path, configuration.mode)
                let channel = try await bootstrap.withBoundSocket(descriptor).get()
                // As of the others: NIO has begun before it looks at the options.
                _ = listen(descriptor, Self.backlog)
                try UnixSocketFile.setMode(path, configuration.mode)
                return ListeningSocket(address: "unix:\(path)", port: nil, channel: channel, path: path)
            }
            bootstrap = bootstrap.serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
            let channel = try await bootstrap.bind(host: configuration.host, port: configuration.port).get()
            let port = channel.localAddress?.port ?? configuration.port
            return ListeningSocket(
                address: configuration.address(port: port), port: port, channel: channel, path: nil)
        } catch let error as StartError {
            throw error
        } catch {
            throw StartError(
                "cannot listen on \(configuration.address(port: configuration.port)): \(ListeningAddress.reason(error))"
            )
        }
    }

    /// Puts the handlers of a new connection into its pipeline: most often just the one.
    private static func fill(_ channel: any Channel, _ shard: EventLoopShard, _ listener: Listener) throws {
        let settings = listener.settings
        let configuration = settings.configuration
        let pipeline = channel.pipeline.syncOperations
        let reads = shard.reads(for: settings)
        try channel.syncOptions?.setOption(.recvAllocator, value: ShardReadAllocator(source: reads))
        guard configuration.isTLS || configuration.webSocket || configuration.proxyProtocol else {
            return try pipeline.addHandler(ConnectionHandler(shard: shard, listener: listener, policy: settings))
        }
        // What TLS takes for a connection, it does not ask for.
        guard shard.hasEgressMemory, !shard.pressure.isExhausted else {
            shard.context.counters.connectsRefused.increment()
            return try pipeline.addHandler(TurnedAway())
        }
        let transport = TransportBuffers(shard: shard, listener: listener, reads: reads)
        try pipeline.addHandler(transport)
        if configuration.proxyProtocol {
            let proxy = ProxyHeader(shard: shard, owner: transport.owner)
            transport.proxy = proxy
            try pipeline.addHandler(proxy)
        }
        if let tls = settings.tls { try transport.addTLS(tls, to: pipeline) }
        if configuration.webSocket {
            let webSocket = WebSocketHandler(shard: shard, owner: transport.owner, configuration: configuration)
            transport.webSocket = webSocket
            try pipeline.addHandler(webSocket)
        }
        try pipeline.addHandler(
            ConnectionHandler(shard: shard, listener: listener, policy: settings, transport: transport))
    }

    /// Closes a connection that there is no memory for.
    private final class TurnedAway: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        func channelActive(context: ChannelHandlerContext) { context.close(promise: nil) }
    }

    /// Stops accepting, and removes the file of a Unix socket.
    func close() async {
        // Closed already is closed too.
        try? await channel.close()
        if let path { unlink(path) }
    }
}

extension Channel {
    /// A program that this process runs, which could only be a backtracer, does not get the socket: NIO leaves that open.
    package func closesOnExec() throws {
        _ = try pipeline.syncOperations.withUnsafeTransportIfAvailable(of: NIOBSDSocket.Handle.self) {
            fcntl($0, F_SETFD, FD_CLOEXEC)
        }
    }
}

/// The file of a Unix socket: permissions, and what a broker that was killed has left.
enum UnixSocketFile {
    /// Removes a socket that nobody listens on.
    ///
    /// - Throws: ``StartError`` if the path is something else, or another broker's.
    static func prepare(_ path: String) throws(StartError) {
        try check(path)
        guard FileStatus(path, followsLinks: false) != nil else { return }
        guard !isAnswered(path) else {
            throw StartError("cannot listen on unix:\(path): another program listens there")
        }
        unlink(path)
    }

    /// Whether a socket could be made there, without making it. One that somebody listens on is no mistake here.
    ///
    /// - Throws: ``StartError``.
    static func check(_ path: String) throws(StartError) {
        func failure(_ reason: String) -> StartError { StartError("cannot listen on unix:\(path): \(reason)") }
        guard UnixAddress(path) != nil else { throw failure("the path of a socket has at most 107 bytes") }
        if let status = FileStatus(path, followsLinks: false), !status.isSocket {
            throw failure("there is a file, and it is no socket")
        }
        let directory = FileStatus.parent(of: path)
        if let reason = FileStatus.whyNotWritable(directory) {
            throw failure("no socket can be made in \(directory): \(reason)")
        }
    }

    private static func isAnswered(_ path: String) -> Bool {
        guard var address = UnixAddress(path) else { return false }
        let probe = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard probe >= 0 else { return false }
        defer { Glibc.close(probe) }
        return address.withPointer { connect(probe, $0, $1) } == 0
    }

    /// A socket whose file has no more permissions than `mode` from the first moment: Linux gives it those that the socket has.
    /// (The umask would be that of all threads.)
    ///
    /// - Throws: `IOError`.
    static func bind(_ path: String, _ mode: Int) throws -> CInt {
        func failure(_ doing: String) -> IOError { IOError(errnoCode: errno, reason: doing) }
        let type = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw failure("socket") }
        do {
            guard fchmod(descriptor, mode_t(mode)) == 0 else { throw failure("fchmod") }
            // NIO's own address takes four bytes less than the system.
            guard var address = UnixAddress(path), address.withPointer({ Glibc.bind(descriptor, $0, $1) }) == 0 else {
                throw failure("bind")
            }
        } catch {
            Glibc.close(descriptor)
            throw error
        }
        return descriptor
    }

    static func setMode(_ path: String, _ mode: Int) throws(StartError) {
        guard chmod(path, mode_t(mode)) == 0 else {
            throw StartError("cannot set the permissions of \(path): \(SystemError.text())")
        }
    }
}

/// The address of a Unix socket as the system takes it: that of a file.
struct UnixAddress {
    private var address = sockaddr_un()
    private var length: socklen_t

    /// Nil for a path that is empty or too long.
    ///
    /// - Parameter hasAbstract: a leading `@` is Linux's abstract namespace, as systemd writes it. A listener's is a file all
    ///   the same: a socket without a file has no permissions.
    init?(_ path: String, hasAbstract: Bool = false) {
        var bytes = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard !bytes.isEmpty, bytes.count < room else { return nil }
        let isAbstract = hasAbstract && bytes[0] == UInt8(ascii: "@")
        if isAbstract { bytes[0] = 0 }
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // The length is part of an abstract name.
        length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count + (isAbstract ? 0 : 1))
    }

    mutating func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        let length = length
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }
}
