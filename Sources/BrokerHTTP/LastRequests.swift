import NIOCore
import NIOHTTP1

/// Gives each request after which its connection is to be closed the one header that all behind look for. Stands behind
/// the decoder, before the codec, which knows no version: that of HTTP/1.0 says the same by itself, and a client may name
/// several options in `Connection`.
final class LastRequests: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(var head) = unwrapInboundIn(data), !head.isKeepAlive else {
            return context.fireChannelRead(data)
        }
        head.headers.replaceOrAdd(name: "connection", value: "close")
        context.fireChannelRead(wrapInboundOut(.head(head)))
    }
}
