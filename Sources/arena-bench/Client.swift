internal import Glibc
internal import MQTT
internal import NIOCore
internal import NIOPosix

/// One MQTT 3.1.1 client connection: connects, subscribes, publishes, and says what happens.
///
/// Lives on its event loop, and may be used there only. A client is good for one connection: who wants to reconnect
/// makes a new one.
final class Client: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Event {
        /// Connected, and all subscriptions granted.
        case ready
        case message(Publish)
        /// The end, always the last event: `reason` says who ended it and why.
        case closed(reason: String)
    }

    /// Largest packet accepted from the broker.
    private static let maximumPacketLength = 32 << 20
    /// Payloads up to this size are copied behind their header, larger ones are sent from where they lie.
    private static let copiedPayloadLength = 1024
    private static let version = ProtocolVersion.v3_1_1

    let id: String
    private(set) var isReady = false
    private let filters: [String]
    private let qos: QoS
    private let eventLoop: any EventLoop
    private let onEvent: (Client, Event) -> Void

    private var channel: (any Channel)?
    private var decoder = NIOSingleStepByteToMessageProcessor(PacketDecoder(maximumLength: maximumPacketLength))
    private var lastPacketID: UInt16 = 0
    private var closeReason: String?
    private var isClosed = false

    init(
        id: String, filters: [String], qos: QoS, eventLoop: any EventLoop,
        onEvent: @escaping (Client, Event) -> Void
    ) {
        self.id = id
        self.filters = filters
        self.qos = qos
        self.eventLoop = eventLoop
        self.onEvent = onEvent
    }

    /// Starts connecting; `.ready` or `.closed` follows.
    func connect(host: String, port: Int, timeout: TimeAmount) {
        let client = NIOLoopBound(self, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(client.value)
                }
            }
            .connect(host: host, port: port)
            .assumeIsolated()
            .whenFailure { error in
                self.finish("could not connect to \(host):\(port): \(Self.words(for: error))")
            }
    }

    /// Writes a PUBLISH; it leaves with the next ``flush()``, or at the end of the read that caused it.
    func publish(topic: String, payload: ByteBuffer) {
        guard let channel, isReady else { return }
        guard let name = try? TopicName(topic) else { return fail("\(topic) is no topic name") }
        var buffer = channel.allocator.buffer(capacity: 64 + topic.utf8.count + Self.copiedPayloadLength)
        let fits = Publish.encodeHeader(
            into: &buffer, topic: name, qos: qos,
            packetID: qos == .atMostOnce ? 0 : nextPacketID(), payloadLength: payload.readableBytes,
            version: Self.version)
        guard fits else { return fail("a payload of \(payload.readableBytes) bytes is more than a packet takes") }
        if payload.readableBytes <= Self.copiedPayloadLength {
            buffer.writeImmutableBuffer(payload)
            channel.write(buffer, promise: nil)
        } else {
            channel.write(buffer, promise: nil)
            channel.write(payload, promise: nil)
        }
    }

    func flush() {
        channel?.flush()
    }

    /// Says goodbye; `.closed` follows.
    func close(_ reason: String) {
        guard let channel, !isClosed else { return finish(reason) }
        closeReason = closeReason ?? reason
        send(.disconnect(Disconnect()))
        channel.flush()
        channel.close(promise: nil)
    }

    // MARK: What the channel says

    func handlerAdded(context: ChannelHandlerContext) {
        channel = context.channel
    }

    func channelActive(context: ChannelHandlerContext) {
        send(.connect(Connect(version: Self.version, clientID: id)))
        flush()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        do {
            try decoder.process(buffer: unwrapInboundIn(data)) { packet in try receive(packet) }
        } catch {
            fail("the broker sent what is not MQTT: \(error)")
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        flush()
    }

    func channelInactive(context: ChannelHandlerContext) {
        finish(closeReason ?? "the broker closed the connection")
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail("the connection failed: \(Self.words(for: error))")
    }

    /// The system's own words where NIO wraps an errno; with several addresses tried, those for the first.
    private static func words(for error: any Error) -> String {
        switch error {
        case let error as NIOConnectionError: error.connectionErrors.first.map { words(for: $0.error) } ?? "\(error)"
        case let error as IOError: String(cString: strerror(error.errnoCode))
        default: "\(error)"
        }
    }

    // MARK: Protocol

    private func receive(_ packet: Packet) throws {
        switch packet {
        case .connack(let ack):
            guard ack.code == .success else { return fail("the broker refused the connection: \(ack.code)") }
            guard !filters.isEmpty else { return becomeReady() }
            let subscriptions = filters.map { Subscription(filter: $0, qos: qos) }
            send(.subscribe(Subscribe(packetID: nextPacketID(), filters: subscriptions)))
            flush()
        case .suback(let ack):
            guard ack.codes.allSatisfy({ $0.rawValue < 0x80 }) else {
                return fail("the broker refused a subscription: \(ack.codes)")
            }
            becomeReady()
        case .publish(let publish):
            if publish.qos == .atLeastOnce { send(.puback(Ack(packetID: publish.packetID))) }
            onEvent(self, .message(publish))
        case .puback, .pingresp:
            break
        default:
            fail("the broker sent \(packet.type), which this client never asks for")
        }
    }

    private func becomeReady() {
        isReady = true
        onEvent(self, .ready)
    }

    private func send(_ packet: Packet) {
        guard let channel else { return }
        var buffer = channel.allocator.buffer(capacity: 128)
        packet.encode(into: &buffer, version: Self.version)
        channel.write(buffer, promise: nil)
    }

    private func nextPacketID() -> UInt16 {
        lastPacketID = lastPacketID == .max ? 1 : lastPacketID + 1
        return lastPacketID
    }

    private func fail(_ reason: String) {
        closeReason = closeReason ?? reason
        channel?.close(promise: nil)
    }

    private func finish(_ reason: String) {
        guard !isClosed else { return }
        isClosed = true
        isReady = false
        channel = nil
        onEvent(self, .closed(reason: reason))
    }
}

/// Cuts the stream into packets.
private struct PacketDecoder: NIOSingleStepByteToMessageDecoder {
    typealias InboundOut = Packet

    let maximumLength: Int

    mutating func decode(buffer: inout ByteBuffer) throws -> Packet? {
        guard let header = try FixedHeader.parse(buffer) else { return nil }
        try header.checkSize(maximum: maximumLength)
        guard buffer.readableBytes >= header.packetLength else { return nil }
        buffer.moveReaderIndex(forwardBy: header.encodedLength)
        guard var body = buffer.readSlice(length: header.remainingLength) else { return nil }
        return try Packet.decode(header: header, body: &body, version: .v3_1_1)
    }

    mutating func decodeLast(buffer: inout ByteBuffer, seenEOF: Bool) throws -> Packet? {
        try decode(buffer: &buffer)
    }
}
