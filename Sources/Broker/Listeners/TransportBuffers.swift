import Arena
import ArenaNIO
import Ledger
import NIOCore
import NIOSSL

/// The buffers of a connection that is not plain TCP: between the socket and the broker stand handlers that keep some of
/// their own. This is the outermost of them, and names at a safepoint what they and the socket have.
///
///     socket  <->  TransportBuffers  <->  ProxyHeader  <->  TLS  <->  WebSocketHandler  <->  ConnectionHandler
///                  what is not written     a beginning       (1)      a beginning             all else
///
/// (1) The TLS handler keeps two buffers of the arena as long as it lives, and says so to nobody: see ``TLSBuffers``.
/// It may outlive its connection by the time it waits for the peer's goodbye, so this stays with the shard until it
/// has gone.
final class TransportBuffers: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let shard: EventLoopShard
    private let reads: ReadBufferSource
    let owner: OwnerID
    /// All that was ever handed to the socket, by the connection and by the handlers between.
    private(set) var totalBytes = 0
    /// Handed to the socket and not known to be written.
    private var unwritten: [ByteBuffer] = []
    /// How many have been in `unwritten` and are not any more: to know later which were in it now.
    private var forgotten = 0
    private var isWatching = false
    private var context: ChannelHandlerContext?
    private var isRemoved = false

    private weak var tls: NIOSSLHandler?
    weak var proxy: ProxyHeader?
    weak var webSocket: WebSocketHandler?
    /// Whose reading stops while its peer takes nothing.
    weak var connection: ConnectionHandler?

    init(shard: EventLoopShard, listener: Listener, reads: ReadBufferSource) {
        self.shard = shard
        self.reads = reads
        owner = shard.context.pool.openOwner(.transport, name: "transport", parent: listener.owner)
    }

    /// Adds the TLS handler, whose own buffers are recorded under this connection's transport.
    func addTLS(_ tls: NIOSSLServerHandler, to pipeline: ChannelPipeline.SynchronousOperations) throws {
        self.tls = tls
        try shard.arena.withContext(owner: owner, "tls buffer") { try pipeline.addHandler(tls) }
        shard.context.checkTLSBuffers(of: tls)
    }

    /// Nil without TLS.
    var areTLSBuffersKnown: Bool? { tls.map(TLSBuffers.areKnown) }

    /// Whether nothing is left to name.
    var isGone: Bool { isRemoved && tls == nil }

    /// The certificate that the client has shown and proved to have.
    var peerCertificate: NIOSSLCertificate? { tls?.peerCertificate }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        shard.transports[ObjectIdentifier(self)] = self
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
        forget(unwritten.count)
        isRemoved = true
    }

    func channelInactive(context: ChannelHandlerContext) {
        forget(unwritten.count)
        context.fireChannelInactive()
    }

    /// Called by the shard when this ``isGone``.
    func closeOwner() { shard.context.pool.closeOwner(owner) }

    // What NIO's handlers allocate on the way in and out is theirs: recorded as such.

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        reads.took(unwrapInboundIn(data))
        shard.updatePressure()
        connection?.stopWithoutReserve()
        shard.arena.withContext(owner: owner, "tls buffer") { context.fireChannelRead(data) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        shard.arena.withContext(owner: owner, "tls buffer") { context.fireChannelReadComplete() }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let buffer = unwrapOutboundIn(data)
        totalBytes += buffer.readableBytes
        if buffer.readableBytes > 0 { unwritten.append(buffer) }
        context.write(data, promise: promise)
    }

    func flush(context: ChannelHandlerContext) {
        context.flush()
        settle()
    }

    /// Runs `body` when all that has been handed to the socket is written, or given up. In place of a write by the
    /// connection itself, which would end in the handlers between.
    func whenWritten(_ body: @escaping () -> Void) {
        guard let context else { return }
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { _ in body() }
        context.writeAndFlush(wrapOutboundOut(Output.none), promise: promise)
    }

    private func settle() {
        guard let context, !unwritten.isEmpty else { return }
        let bytes = (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
        connection?.noteUnwritten(bytes)
        guard bytes > 0 else { return forget(unwritten.count) }
        guard !isWatching else { return }
        isWatching = true
        let last = forgotten + unwritten.count
        whenWritten { [self] in
            isWatching = false
            forget(min(last - forgotten, unwritten.count))
            settle()
        }
    }

    private func forget(_ count: Int) {
        guard count > 0 else { return }
        forgotten += count
        if count == unwritten.count {
            unwritten.removeAll(keepingCapacity: count <= 8)
        } else {
            unwritten.removeFirst(count)
        }
    }

    func visit(_ visitor: inout HeldBufferVisitor) {
        for buffer in unwritten { visitor.hold(buffer, owner: owner, kind: .transportWrite) }
        if let buffer = proxy?.beginning.bytes { visitor.hold(buffer, owner: owner, kind: .readBuffer) }
        if let buffer = webSocket?.beginning.bytes { visitor.hold(buffer, owner: owner, kind: .readBuffer) }
        for buffer in webSocket?.unflushed ?? [] { visitor.hold(buffer, owner: owner, kind: .outbound) }
        guard let tls else { return }
        TLSBuffers.forEach(of: tls) { visitor.hold($0, owner: owner, kind: .transport) }
    }
}

/// The buffers of the arena that a TLS handler of swift-nio-ssl keeps: the plaintext it decrypts into, the ciphertext it
/// encrypts into, and ciphertext that has not been decrypted yet.
///
/// They are private to the library, so they are read by reflection: some microseconds a connection, at safepoints only.
/// Asking beats guessing: a rule such as "what TLS allocated, TLS holds" would excuse every plaintext that is forgotten.
/// ``areKnown`` tells whether the library still has its buffers where they are looked for; it is tested, and warned of
/// in the log.
enum TLSBuffers {
    private static let plaintext = "plaintextReadBuffer"
    private static let ciphertext = ["inboundBuffer", "outboundBuffer"]

    /// Whether this version of the library can be looked into.
    static func areKnown(in handler: NIOSSLHandler) -> Bool {
        guard let fields = fields(of: handler), fields.contains(where: { $0.label == plaintext }),
            let bio = bio(fields)
        else { return false }
        let labels = Set(Mirror(reflecting: bio).children.compactMap(\.label))
        return labels.isSuperset(of: ciphertext)
    }

    static func forEach(of handler: NIOSSLHandler, _ body: (ByteBuffer) -> Void) {
        guard let fields = fields(of: handler) else { return }
        for field in fields where field.label == plaintext {
            if let buffer = buffer(field.value) { body(buffer) }
        }
        guard let bio = bio(fields) else { return }
        for field in Mirror(reflecting: bio).children where ciphertext.contains(field.label ?? "") {
            if let buffer = buffer(field.value) { body(buffer) }
        }
    }

    /// Of the class that server and client handlers have in common.
    private static func fields(of handler: NIOSSLHandler) -> Mirror.Children? {
        var mirror: Mirror? = Mirror(reflecting: handler)
        while let next = mirror, next.subjectType != NIOSSLHandler.self { mirror = next.superclassMirror }
        return mirror?.children
    }

    private static func bio(_ fields: Mirror.Children) -> Any? {
        guard let connection = fields.first(where: { $0.label == "connection" })?.value,
            let bio = Mirror(reflecting: connection).children.first(where: { $0.label == "bio" })?.value
        else { return nil }
        // An optional reflects as its one child, or none.
        return Mirror(reflecting: bio).children.first?.value
    }

    /// All its memory, whatever part of it is in use.
    private static func buffer(_ value: Any) -> ByteBuffer? {
        guard var buffer = value as? ByteBuffer, buffer.storageCapacity > 0 else { return nil }
        buffer.moveReaderIndex(to: 0)
        buffer.moveWriterIndex(to: buffer.capacity)
        return buffer
    }
}

/// The beginning of a connection, kept until there is enough of it to be understood.
struct Beginning {
    private(set) var bytes: ByteBuffer?

    /// Takes over what has arrived, behind what there was.
    mutating func append(_ part: inout ByteBuffer, shard: EventLoopShard, owner: OwnerID) throws(ArenaError) {
        let capacity = (bytes?.readableBytes ?? 0) + part.readableBytes
        try shard.checkRoom(capacity)
        var buffer = try shard.arena.buffer(capacity: capacity, owner: owner, "beginning of a connection")
        if let bytes { buffer.writeImmutableBuffer(bytes) }
        buffer.writeBuffer(&part)
        bytes = buffer
    }

    mutating func take() -> ByteBuffer {
        defer { bytes = nil }
        return bytes ?? Output.none
    }
}
