import Arena
import ArenaNIO
import Ledger
import NIOCore

/// MQTT over WebSocket (section 6): the opening request, then frames. Inwards go the payloads, as the bytes they are;
/// outwards each write becomes a binary frame.
///
/// Keeps no payload: what one read brought goes on in one buffer.
final class WebSocketHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        case opening
        case open
        case closed
    }

    private let shard: EventLoopShard
    private let owner: OwnerID
    private let path: String
    private var frames: WebSocketFrames
    private var state = State.opening
    /// Of the request.
    private(set) var beginning = Accumulator()
    /// Headers of frames that are written and not flushed: a TLS handler keeps them until then, and the end of the tick,
    /// which flushes, can come after a safepoint.
    private(set) var unflushed: [ByteBuffer] = []
    /// A pong is on its way that the socket has not taken, and the payload of the one that goes out then: a peer that sends
    /// pings and reads nothing has two at most written for it. Only the newest ping need be answered (RFC 6455, section 5.5.3).
    private var isPongOut = false
    private var nextPong: [UInt8]?

    init(shard: EventLoopShard, owner: OwnerID, configuration: Configuration.Listener) {
        self.shard = shard
        self.owner = owner
        path = configuration.webSocketPath
        frames = WebSocketFrames(maxFrameBytes: configuration.maxFrameBytes)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        _ = beginning.take()
        unflushed = []
    }

    // MARK: - Inwards

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var input = unwrapInboundIn(data)
        do {
            switch state {
            case .opening: try open(context, &input)
            case .open: try read(context, &input)
            case .closed: break
            }
        } catch let error as WebSocketHandshake.Refusal {
            answer(context, error.response)
            fail(context, error)
        } catch let error as WebSocketFrames.Failure {
            send(context) { WebSocketFrames.close(error.code, into: &$0) }
            fail(context, error)
        } catch {
            fail(context, error)
        }
    }

    private func open(_ context: ChannelHandlerContext, _ input: inout ByteBuffer) throws {
        try beginning.append(&input, shard: shard, owner: owner)
        var bytes = beginning.bytes!
        let head = WebSocketHandshake.headLength(bytes)
        guard head ?? bytes.readableBytes <= Limits.maxWebSocketRequestBytes else {
            throw WebSocketHandshake.Refusal(
                status: "431 Request Header Fields Too Large", description: "the request is too large")
        }
        guard let length = head else { return }
        _ = beginning.take()
        let handshake = try WebSocketHandshake(head: bytes.readString(length: length)!, path: path)
        answer(context, handshake.response)
        state = .open
        if bytes.readableBytes > 0 { try read(context, &bytes) }
    }

    private func read(_ context: ChannelHandlerContext, _ input: inout ByteBuffer) throws {
        var payload = try shard.arena.buffer(capacity: input.readableBytes, owner: owner, "websocket payload")
        var ping: [UInt8]?
        var isClosing = false
        let failure: WebSocketFrames.Failure?
        do throws(WebSocketFrames.Failure) {
            try frames.read(&input, into: &payload) { control in
                switch control {
                case .ping(let payload): if !isClosing { ping = payload }
                case .close: isClosing = true
                }
            }
            failure = nil
        } catch {
            failure = error
        }
        // What came before a mistake has come.
        if payload.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(payload)) }
        if let ping { pong(context, ping) }
        if isClosing { answerClose(context) }
        if let failure { throw failure }
    }

    private func pong(_ context: ChannelHandlerContext, _ payload: [UInt8]) {
        guard state == .open else { return }
        guard !isPongOut else { return nextPong = payload }
        isPongOut = true
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] result in
            isPongOut = false
            guard case .success = result, let payload = nextPong else { return nextPong = nil }
            nextPong = nil
            pong(context, payload)
        }
        send(context, promise) { WebSocketFrames.pong(payload, into: &$0) }
    }

    private func answerClose(_ context: ChannelHandlerContext) {
        guard state == .open else { return }
        send(context) { WebSocketFrames.close(.normalClosure, into: &$0) }
        state = .closed
        context.close(promise: nil)
    }

    private func fail(_ context: ChannelHandlerContext, _ error: any Error) {
        state = .closed
        context.fireErrorCaught(error)
        context.close(promise: nil)
    }

    // MARK: - Outwards

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard state == .open else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        let length = unwrapOutboundIn(data).readableBytes
        var header = buffer(context, WebSocketFrames.longestServerHeader)
        WebSocketFrames.binaryHeader(length: length, into: &header)
        unflushed.append(header)
        context.write(wrapOutboundOut(header), promise: nil)
        context.write(data, promise: promise)
    }

    func flush(context: ChannelHandlerContext) {
        unflushed.removeAll(keepingCapacity: unflushed.count <= 8)
        context.flush()
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if state == .open {
            send(context) { WebSocketFrames.close(.normalClosure, into: &$0) }
            state = .closed
        }
        context.close(mode: mode, promise: promise)
    }

    private func send(
        _ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>? = nil, _ write: (inout ByteBuffer) -> Void
    ) {
        var frame = buffer(context, 128)
        write(&frame)
        context.writeAndFlush(wrapOutboundOut(frame), promise: promise)
    }

    private func answer(_ context: ChannelHandlerContext, _ text: String) {
        var bytes = buffer(context, text.utf8.count)
        bytes.writeString(text)
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    }

    /// Small, and cannot be refused: out of the reserve at the limit.
    private func buffer(_ context: ChannelHandlerContext, _ capacity: Int) -> ByteBuffer {
        shard.arena.withContext(owner: owner, "websocket frame") {
            context.channel.allocator.buffer(capacity: capacity)
        }
    }
}
