import Broker
import HTTPTypes
import NIOCore
import NIOHTTP1
import NIOHTTPTypes
import NIOSSL

/// One HTTP connection as ``HTTPConnections`` sees it: what it is doing, and since when. Stands behind the decoder.
final class HTTPConnection: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    enum Phase {
        /// It has no request, or only the beginning of one's head.
        case waiting
        /// It has sent a head, and not all of the body.
        case receiving
        /// It does not take its answer.
        case stalled
        /// It waits for its answer.
        case answering
    }

    private let connections: HTTPConnections
    private var pacer: RequestPacer?
    private var context: ChannelHandlerContext?
    private(set) var source = SourceAddress.local
    /// It came when there was no place: it gets `/health`, and nothing else.
    var isReserved = false

    /// Those that are not answered, of each whether it is a HEAD: what would be the body of its answer is not sent.
    private var openRequests: [Bool] = []
    private var isHead: Bool { openRequests.first ?? false }
    /// A request has begun to come, and not ended.
    private(set) var isReceiving = false
    /// How much of its body is still to come; nil if that shows when it has.
    private(set) var bodyBytesLeft: Int?
    /// Its last request that had any had a good one.
    private(set) var hasShownToken = false
    private var isUnwritable = false
    private var hasBeenServed = false
    /// The newest request is its last.
    private var isLast = false
    /// That has been answered, or the connection was refused: whatever else the client sends is not looked at.
    private(set) var isOver = false
    private var answersInTick = (tick: UInt64(0), count: 0)
    private(set) var opened = NIODeadline.now()
    /// When it began to do what it does.
    private(set) var since = NIODeadline.now()

    init(_ connections: HTTPConnections) { self.connections = connections }

    var phase: Phase {
        if isReceiving { return .receiving }
        if openRequests.isEmpty, pacer?.isTurnAwaited != true { return .waiting }
        return isUnwritable ? .stalled : .answering
    }

    /// Whether a whole request waits for its answer: then the next can wait too.
    var owesAnswer: Bool { !openRequests.isEmpty && !isReceiving }

    /// Whether it has had the time there is for what it does.
    func isOverdue(_ now: NIODeadline, _ configuration: Configuration.HTTP) -> Bool {
        let seconds =
            switch phase {
            case .waiting where isOver && !isUnwritable: Limits.httpLingerSeconds
            case .waiting where isOver: configuration.bodyTimeoutSeconds
            case .waiting: hasBeenServed ? Limits.httpIdleSeconds : configuration.headerTimeoutSeconds
            case .receiving, .stalled: configuration.bodyTimeoutSeconds
            case .answering: Int(Int32.max)
            }
        return now >= since + .seconds(Int64(seconds))
    }

    /// Closes the socket now, whatever waits to be written.
    func cutOff() {
        guard let context else { return }
        // TLS would say goodbye first, and wait for the peer's.
        if let tls = try? context.pipeline.syncOperations.context(handlerType: NIOSSLServerHandler.self) {
            tls.close(promise: nil)
        } else {
            context.close(promise: nil)
        }
    }

    // MARK: - Channel events

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        try? context.channel.closesOnExec()
        if let options = context.channel.syncOptions {
            try? options.setOption(
                .recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: Limits.httpReadBytes))
            try? options.setOption(.maxMessagesPerRead, value: 1)
            // What is written waits for the socket to have taken what was written before.
            try? options.setOption(.writeBufferWaterMark, value: .init(low: 1, high: 1))
        }
        addHandlers(context)
        if context.channel.isActive { begin(context) }
    }

    private func addHandlers(_ context: ChannelHandlerContext) {
        let pacer = RequestPacer(self, connections.turns)
        let pipeline = context.pipeline.syncOperations
        let tls = try? pipeline.handler(type: NIOSSLServerHandler.self)
        // A pipeline that is made, and handlers of it: nothing that could fail.
        try? pipeline.addHandler(pacer, position: tls.map { .after($0) } ?? .first)
        if let decoder = try? pipeline.handler(type: ByteToMessageHandler<HTTPRequestDecoder>.self) {
            try? pipeline.addHandler(LastRequests(), position: .after(decoder))
        }
        self.pacer = pacer
    }

    /// The context refers to this object: without this the two would keep each other.
    func handlerRemoved(context: ChannelHandlerContext) {
        connections.closed(self)
        self.context = nil
        pacer = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        begin(context)
        context.fireChannelActive()
    }

    private func begin(_ context: ChannelHandlerContext) {
        if let address = context.remoteAddress { source = SourceAddress(address) }
        opened = .now()
        since = opened
        connections.opened(self)
    }

    func channelInactive(context: ChannelHandlerContext) {
        connections.closed(self)
        context.fireChannelInactive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if isOver { return }
        switch unwrapInboundIn(data) {
        case .head(let head):
            guard !isReserved || Self.isHealth(head) else { return refuse(context, head) }
            if let token = head.headerFields[.authorization] { hasShownToken = connections.accepts(token) }
            openRequests.append(head.method == .head)
            isReceiving = true
            isLast = head.headerFields[.connection] == "close"
            bodyBytesLeft = head.headerFields[.transferEncoding] == nil ? Self.bodyBytes(head) : nil
            since = .now()
        case .body(let bytes):
            if let left = bodyBytesLeft {
                bodyBytesLeft = left > bytes.readableBytes ? left - bytes.readableBytes : nil
            }
        case .end:
            isReceiving = false
            since = .now()
        }
        context.fireChannelRead(data)
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        switch unwrapOutboundIn(data) {
        case .head(let head): writeHead(context, head, promise)
        case .body where isHead: promise?.succeed()
        case .body: context.write(data, promise: promise)
        case .end:
            // What is no request at all is answered too.
            if !openRequests.isEmpty { openRequests.removeFirst() }
            hasBeenServed = true
            since = .now()
            if isLast, openRequests.isEmpty { (isOver, isReceiving) = (true, false) }
            countAnswer()
            context.write(data, promise: promise)
            if openRequests.isEmpty { pacer?.answered() }
        }
    }

    private func writeHead(
        _ context: ChannelHandlerContext, _ head: HTTPResponse, _ promise: EventLoopPromise<Void>?
    ) {
        var head = head
        if isLast, openRequests.count == 1 { head.headerFields[.connection] = "close" }
        guard let body = missingBody(head) else { return context.write(wrapOutboundOut(.head(head)), promise: promise) }
        head.headerFields[.contentType] = "application/json"
        head.headerFields[.contentLength] = "\(body.readableBytes)"
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        context.write(wrapOutboundOut(.body(body)), promise: promise)
    }

    private func countAnswer() {
        let tick = connections.turns.ticks
        answersInTick = (tick, tick == answersInTick.tick ? answersInTick.count + 1 : 1)
        connections.answered(inTick: answersInTick.count)
    }

    /// Of a request that says how long its body is.
    private static func bodyBytes(_ head: HTTPRequest) -> Int? {
        head.headerFields[.contentLength].flatMap(Int.init).flatMap { $0 > 0 ? $0 : nil }
    }

    /// What the library answers by itself, to what is no HTTP for example, has none: the body that our own errors have.
    private func missingBody(_ head: HTTPResponse) -> ByteBuffer? {
        guard head.status.code >= 400, !isHead, head.headerFields[.contentLength] == "0" else { return nil }
        return ByteBuffer(string: "{\"error\":\"\(head.status.reasonPhrase.lowercased())\"}\n")
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        isUnwritable = !context.channel.isWritable
        if phase != .receiving { since = .now() }
        context.fireChannelWritabilityChanged()
    }

    private static func isHealth(_ head: HTTPRequest) -> Bool {
        (head.method == .get || head.method == .head) && head.path?.prefix { $0 != "?" } == "/health"
    }

    /// Says that there is no place, and that is all: whatever else it sends is not read.
    private func refuse(_ context: ChannelHandlerContext, _ request: HTTPRequest) {
        isOver = true
        since = .now()
        let body = ByteBuffer(string: "{\"error\":\"too many connections are busy (http.maxConnections)\"}\n")
        let head = HTTPResponse(
            status: .serviceUnavailable,
            headerFields: [
                .contentType: "application/json", .contentLength: "\(body.readableBytes)", .retryAfter: "1",
                .connection: "close",
            ])
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if request.method != .head { context.write(wrapOutboundOut(.body(body)), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        // The rest when it has gone: unread bytes would make the system take the answer back.
        context.close(mode: .output, promise: nil)
    }
}
