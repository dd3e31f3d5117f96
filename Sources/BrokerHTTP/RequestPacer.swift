import Broker
import NIOCore

/// Gives the decoder what a client has sent a piece at a time, a request to its end, and nothing while that waits for its
/// answer: what is decoded takes some fifty times the bytes it came in. The next one waits for its turn (``RequestTurns``).
/// Stands before the decoder, behind TLS.
///
/// What is not passed on waits here as it came, one read of the socket; more is not read then, or closes the connection.
final class RequestPacer: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer

    private let connection: HTTPConnection
    private let turns: RequestTurns
    private var context: ChannelHandlerContext?
    private var waiting = ByteBuffer()
    /// Somebody has asked for more than is passed on.
    private var isReadWanted = false
    /// The client has ended its side, behind what waits.
    private var isEnded = false
    private var isPassingOn = false
    /// One request has been answered, and there is more.
    private(set) var isTurnAwaited = false

    init(_ connection: HTTPConnection, _ turns: RequestTurns) {
        self.connection = connection
        self.turns = turns
    }

    /// A request has been answered, and no other waits behind it in the decoder.
    func answered() {
        guard let context else { return }
        if connection.isOver { waiting = ByteBuffer() }
        if waiting.readableBytes == 0 {
            if !isPassingOn { readOn(context) }
        } else if !isTurnAwaited {
            isTurnAwaited = true
            turns.wait(self, on: context.eventLoop)
        }
    }

    /// The loop has looked at its sockets.
    func takeTurn() {
        isTurnAwaited = false
        guard let context else { return }
        if passOn(context) { context.fireChannelReadComplete() }
        readOn(context)
    }

    private var mustWait: Bool { connection.owesAnswer || isTurnAwaited }

    /// What can be decoded without the beginning of a request behind another: a line of a head, or of a body as much as is
    /// left of it. Where a body of chunks ends the decoder finds out; so little can be passed on behind it.
    private var pieceBytes: Int {
        let most = min(waiting.readableBytes, Limits.httpDecodedBytes)
        guard connection.isReceiving else {
            let line = waiting.readableBytesView.prefix(most)
            return line.firstIndex(of: UInt8(ascii: "\n")).map { $0 - line.startIndex + 1 } ?? most
        }
        return min(most, connection.bodyBytesLeft ?? Limits.httpChunkedBytes)
    }

    /// - Returns: whether there was something.
    private func passOn(_ context: ChannelHandlerContext) -> Bool {
        isPassingOn = true
        defer { isPassingOn = false }
        var hasPassed = false
        while !mustWait, let piece = waiting.readSlice(length: pieceBytes), piece.readableBytes > 0 {
            hasPassed = true
            context.fireChannelRead(wrapInboundOut(piece))
        }
        return hasPassed
    }

    private func readOn(_ context: ChannelHandlerContext) {
        guard waiting.readableBytes == 0 else { return }
        waiting = ByteBuffer()
        if isEnded {
            isEnded = false
            context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        }
        if isReadWanted, !mustWait {
            isReadWanted = false
            context.read()
        }
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if connection.isOver { return }
        var bytes = unwrapInboundIn(data)
        if waiting.readableBytes == 0 { waiting = bytes } else { waiting.writeBuffer(&bytes) }
        guard waiting.readableBytes > Limits.httpWaitingBytes else { return }
        // A client that has ended its side is read to its end, whoever asks for that.
        if mustWait { context.close(promise: nil) } else { _ = passOn(context) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        _ = passOn(context)
        context.fireChannelReadComplete()
        readOn(context)
    }

    func read(context: ChannelHandlerContext) {
        if waiting.readableBytes > 0 || mustWait { isReadWanted = true } else { context.read() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if waiting.readableBytes > 0, case .inputClosed? = event as? ChannelEvent {
            isEnded = true
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }
}
