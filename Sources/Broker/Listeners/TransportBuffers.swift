import Arena
import ArenaNIO
import Ledger
import NIOCore

/// The buffers of a connection that is not plain TCP: between the socket and the broker stand handlers that keep some of
/// their own. This is the outermost of them, and names at a safepoint what they and the socket have.
///
///     socket  <->  TransportBuffers  <->  ProxyHeader  <->  TLS  <->  WebSocketHandler  <->  ConnectionHandler
///                  what is not written     a beginning       (1)      a beginning             all else
///
/// (1) The TLS handler keeps two buffers of the arena as long as it lives, and says so to nobody: see ``TLSConnection``.
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

    private var tls: TLSConnection?
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
    func addTLS(_ context: TLSContext, to pipeline: ChannelPipeline.SynchronousOperations) throws {
        let tls = try shard.arena.withContext(owner: owner, "tls buffer") { try TLSConnection(context, pipeline) }
        self.tls = tls
        shard.context.checkBuffers(of: tls)
    }

    /// Nil without TLS.
    var areTLSBuffersKnown: Bool? { tls?.areBuffersKnown }

    /// Whether nothing is left to name.
    var isGone: Bool { isRemoved && tls?.isGone != false }

    /// What the certificate that the client has shown, and proved to have, says of it; nil without one.
    var peerName: TLSPeerName? { tls?.peerName }

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

    func visit(_ visitor: inout ReachableBufferVisitor) {
        for buffer in unwritten { visitor.hold(buffer, owner: owner, kind: .transportWrite) }
        if let buffer = proxy?.beginning.bytes { visitor.hold(buffer, owner: owner, kind: .readBuffer) }
        if let buffer = webSocket?.beginning.bytes { visitor.hold(buffer, owner: owner, kind: .readBuffer) }
        for buffer in webSocket?.unflushed ?? [] { visitor.hold(buffer, owner: owner, kind: .outbound) }
        tls?.forEachBuffer { visitor.hold($0, owner: owner, kind: .transport) }
    }
}

/// The beginning of a connection, kept until there is enough of it to be understood.
struct Accumulator {
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
