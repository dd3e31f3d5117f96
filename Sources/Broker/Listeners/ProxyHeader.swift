import Arena
import Ledger
import NIOCore

/// Reads the header that a balancer sends before a connection's own bytes (PROXY protocol, version 2), and then gets out
/// of the way. Whatever is no such header ends the connection.
///
///     [ signature: 12 | version, command: 1 | family, protocol: 1 | length: 2 | addresses, TLVs: length ]
///
/// How long the header may take is a matter of the connection's deadline for CONNECT. TLVs are skipped.
final class ProxyHeader: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer

    /// Sent inwards when the header has been read: who the peer is. Nil is the balancer itself, on its own behalf.
    struct Peer: Sendable {
        let address: SocketAddress?
    }

    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    private let shard: EventLoopShard
    private let owner: OwnerID
    private(set) var beginning = Accumulator()
    private var isDone = false

    init(shard: EventLoopShard, owner: OwnerID) {
        self.shard = shard
        self.owner = owner
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if isDone { return context.fireChannelRead(data) }
        var part = unwrapInboundIn(data)
        do {
            try beginning.append(&part, shard: shard, owner: owner)
            var bytes = beginning.bytes!
            guard let peer = try Self.parse(&bytes) else { return }
            isDone = true
            _ = beginning.take()
            context.fireUserInboundEventTriggered(peer)
            if bytes.readableBytes > 0 {
                context.fireChannelRead(wrapInboundOut(bytes))
                context.fireChannelReadComplete()
            }
            context.pipeline.syncOperations.removeHandler(context: context, promise: nil)
        } catch {
            isDone = true
            _ = beginning.take()
            context.fireErrorCaught(error)
            context.close(promise: nil)
        }
    }

    func handlerRemoved(context: ChannelHandlerContext) { _ = beginning.take() }

    private static let signature: [UInt8] = [
        0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A,
    ]
    private static let fixedBytes = 16

    /// Reads a header and leaves what follows.
    ///
    /// - Returns: nil while there is not enough; what is wrong is found at the first byte that is.
    static func parse(_ bytes: inout ByteBuffer) throws(Failure) -> Peer? {
        let view = bytes.readableBytesView
        guard view.prefix(signature.count).elementsEqual(signature.prefix(view.count)) else {
            throw Failure(description: "no PROXY protocol v2 header: the signature is wrong")
        }
        guard view.count >= fixedBytes else { return nil }
        var rest = bytes
        rest.moveReaderIndex(forwardBy: signature.count)
        let command: UInt8 = rest.readInteger()!
        let family: UInt8 = rest.readInteger()!
        let length = Int(rest.readInteger(as: UInt16.self)!)
        guard command >> 4 == 2, command & 0x0F <= 1 else {
            throw Failure(description: "no PROXY protocol v2 header: version and command are \(command)")
        }
        guard length <= Limits.maxProxyHeaderBytes else {
            throw Failure(description: "a PROXY protocol header of \(length) bytes")
        }
        guard var body = rest.readSlice(length: length) else { return nil }
        bytes = rest
        // LOCAL: a check of the balancer's own.
        guard command & 0x0F == 1 else { return Peer(address: nil) }
        switch family {
        case 0x11: return Peer(address: try address(&body, bytes: 4))
        case 0x21: return Peer(address: try address(&body, bytes: 16))
        // Unspecified, or a Unix socket of the balancer's machine: there is no better address than the socket's.
        case 0x00, 0x31: return Peer(address: nil)
        default: throw Failure(description: "a PROXY protocol header for family and protocol \(family)")
        }
    }

    /// The source's; the destination's follows.
    private static func address(_ body: inout ByteBuffer, bytes count: Int) throws(Failure) -> SocketAddress {
        guard body.readableBytes >= 2 * count + 4, let source = body.readSlice(length: count),
            body.readSlice(length: count) != nil, let port = body.readInteger(as: UInt16.self),
            let address = try? SocketAddress(packedIPAddress: source, port: Int(port))
        else { throw Failure(description: "a PROXY protocol header that is too short for its addresses") }
        return address
    }
}
