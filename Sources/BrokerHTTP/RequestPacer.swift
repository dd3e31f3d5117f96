import Broker
import NIOCore

/// Gives the decoder what a client has sent a piece at a time, and nothing while a request waits for its answer: what is
/// decoded takes some fifty times the bytes it came in. Stands before the decoder, behind TLS.
///
/// What is not passed on waits here as it came, one read of the socket; more is not read then, or closes the connection.
final class RequestPacer: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer

    private let connection: HTTPConnection
    private var context: ChannelHandlerContext?
    private var waiting = ByteBuffer()
    /// Somebody has asked for more than is passed on.
    private var isReadWanted = false
    /// The client has ended its side, behind what waits.
    private var isEnded = false
    private var isPassingOn = false

    init(_ connection: HTTPConnection) { self.connection = connection }

    /// The next request, if it is its turn: to be called when one has been answered.
    func goOn() {
        guard let context, !isPassingOn else { return }
        if passOn(context) { context.fireChannelReadComplete() }
        readOn(context)
    }

    /// - Returns: whether there was something.
    private func passOn(_ context: ChannelHandlerContext) -> Bool {
        isPassingOn = true
        defer { isPassingOn = false }
        var hasPassed = false
        while !connection.owesAnswer,
            let piece = waiting.readSlice(length: min(waiting.readableBytes, Limits.httpDecodedBytes)),
            piece.readableBytes > 0
        {
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
        if isReadWanted, !connection.owesAnswer {
            isReadWanted = false
            context.read()
        }
    }

    func handlerAdded(context: ChannelHandlerContext) { self.context = context }

    func handlerRemoved(context: ChannelHandlerContext) { self.context = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        if waiting.readableBytes == 0 { waiting = bytes } else { waiting.writeBuffer(&bytes) }
        guard waiting.readableBytes > Limits.httpWaitingBytes else { return }
        // A client that has ended its side is read to its end, whoever asks for that.
        if connection.owesAnswer { context.close(promise: nil) } else { _ = passOn(context) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        _ = passOn(context)
        context.fireChannelReadComplete()
        readOn(context)
    }

    func read(context: ChannelHandlerContext) {
        if waiting.readableBytes > 0 || connection.owesAnswer { isReadWanted = true } else { context.read() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if waiting.readableBytes > 0, case .inputClosed? = event as? ChannelEvent {
            isEnded = true
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }
}
