internal import Dispatch
internal import FoundationEssentials
internal import Glibc
internal import MQTT
internal import NIOCore
internal import NIOPosix

/// One run of `traffic`, all on one event loop: connects everybody, keeps the window full, counts and times deliveries.
///
/// The first 8 bytes of a payload are the time it was sent.
final class TrafficRun {
    private let plan: TrafficPlan
    private let loop: any EventLoop
    private let done: EventLoopPromise<TrafficResult>
    private var publishers: [TrafficClient] = []
    private var missingClients = 0
    private var sent = 0
    private var delivered = 0
    private var acknowledged = 0
    private var next = 0
    private var start = DispatchTime.now()
    private var startCPU = 0.0
    private var latencies: [UInt32] = []
    /// A PUBLISH without its identifier and time, per publisher.
    private var isFinished = false

    init(_ plan: TrafficPlan, loop: any EventLoop, done: EventLoopPromise<TrafficResult>) {
        self.plan = plan
        self.loop = loop
        self.done = done
        latencies.reserveCapacity(plan.messages * plan.fanOut / 16 + 16)
    }

    func connect(host: String, port: Int) throws {
        missingClients = plan.subscribers + plan.publishers
        for index in 0..<plan.subscribers {
            add(
                TrafficClient(
                    id: "sub-\(index)", topic: try plan.topic(index), subscribes: true, plan: plan, run: self),
                host, port)
        }
        for index in 0..<plan.publishers {
            let client = TrafficClient(
                id: "pub-\(index)", topic: try plan.topic(index), subscribes: false, plan: plan, run: self)
            publishers.append(client)
            add(client, host, port)
        }
    }

    private func add(_ client: TrafficClient, _ host: String, _ port: Int) {
        let bound = NIOLoopBound(client, eventLoop: loop)
        let done = done
        ClientBootstrap(group: loop)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(bound.value) }
            }
            .connect(host: host, port: port).whenFailure { done.fail($0) }
    }

    func isReady() {
        missingClients -= 1
        guard missingClients == 0 else { return }
        start = .now()
        startCPU = cpuSeconds()
        pump()
    }

    /// Fills the window, a batch a publisher in turn.
    func pump() {
        guard missingClients == 0, !isFinished else { return }
        while sent < plan.messages, sent * plan.fanOut - delivered < plan.window,
            plan.qos == 0 || sent - acknowledged < plan.window
        {
            let count = min(16, plan.messages - sent)
            publishers[next].publish(count)
            next = (next + 1) % publishers.count
            sent += count
        }
    }

    func didAcknowledge() { acknowledged += 1 }

    func didDeliver(sentAt: UInt64) {
        delivered += 1
        if delivered & 15 == 0 {
            latencies.append(UInt32(clamping: (DispatchTime.now().uptimeNanoseconds &- sentAt) / 1000))
        }
        if delivered == plan.messages * plan.fanOut { finish() }
    }

    func failed(_ reason: String) {
        if !isFinished { done.fail(TrafficError("a client's connection ended: \(reason)")) }
    }

    private func finish() {
        isFinished = true
        var result = TrafficResult()
        result.delivered = delivered
        result.seconds = Double(DispatchTime.now().uptimeNanoseconds - start.uptimeNanoseconds) / 1e9
        if plan.serverPid != nil { result.serverCPUSeconds = cpuSeconds() - startCPU }
        latencies.sort()
        if !latencies.isEmpty {
            result.p50Milliseconds = Double(latencies[latencies.count / 2]) / 1000
            result.p99Milliseconds = Double(latencies[latencies.count * 99 / 100]) / 1000
        }
        done.succeed(result)
    }

    /// User and system time of the server, from /proc: hundredths of a second.
    private func cpuSeconds() -> Double {
        guard let pid = plan.serverPid, let text = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
            let end = text.lastIndex(of: ")")
        else { return 0 }
        let fields = text[end...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return 0 }
        return (user + system) / 100
    }
}

/// A client of a `TrafficRun`: as little as it takes, so that the load tool does not set the pace.
final class TrafficClient: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let id: String
    private let topic: TopicName
    private let subscribes: Bool
    private let plan: TrafficPlan
    private let run: TrafficRun
    private let qos: QoS
    private var context: ChannelHandlerContext?
    private var input = ByteBuffer()
    private var packetID: UInt16 = 0
    private var padding: ByteBuffer
    private var acknowledgements = ByteBuffer()

    init(id: String, topic: TopicName, subscribes: Bool, plan: TrafficPlan, run: TrafficRun) {
        self.id = id
        self.topic = topic
        self.subscribes = subscribes
        self.plan = plan
        self.run = run
        qos = plan.qos == 1 ? .atLeastOnce : .atMostOnce
        padding = ByteBuffer(repeating: 0x2e, count: plan.payloadSize - 8)
    }

    func channelActive(context: ChannelHandlerContext) {
        self.context = context
        var buffer = context.channel.allocator.buffer(capacity: 256)
        // A name of its own for each run: nothing is left to it by another one.
        let isKept = subscribes && plan.isPersistent
        Connect(
            version: .v3_1_1, cleanStart: !isKept, keepAlive: 0, clientID: isKept ? "\(id)-\(getpid())" : id
        ).encode(into: &buffer)
        if subscribes {
            var subscribe = Subscribe(packetID: 1, filters: [Subscription(filter: topic.text, qos: qos)])
            subscribe.packetID = 1
            subscribe.encode(into: &buffer, version: .v3_1_1)
        }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.context = nil
        run.failed("\(id) was closed")
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { run.failed("\(id): \(error)") }

    /// Sends `count` messages in one write.
    func publish(_ count: Int) {
        guard let context else { return }
        var buffer = context.channel.allocator.buffer(capacity: count * (plan.payloadSize + topic.byteCount + 8))
        for _ in 0..<count {
            packetID = packetID == .max ? 1 : packetID + 1
            _ = Publish.encodeHeader(
                into: &buffer, topic: topic, qos: qos, packetID: qos == .atMostOnce ? 0 : packetID,
                payloadLength: plan.payloadSize, version: .v3_1_1)
            buffer.writeInteger(DispatchTime.now().uptimeNanoseconds)
            buffer.writeImmutableBuffer(padding)
        }
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var read = unwrapInboundIn(data)
        if input.readableBytes > 0 { input.writeBuffer(&read) } else { input = read }
        do {
            while let header = try FixedHeader.parse(input), input.readableBytes >= header.packetLength {
                input.moveReaderIndex(forwardBy: header.encodedLength)
                guard var body = input.readSlice(length: header.remainingLength) else { break }
                try handle(header, &body)
            }
        } catch {
            run.failed("\(id): \(error)")
            context.close(promise: nil)
        }
        input.discardReadBytes()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if acknowledgements.readableBytes > 0 {
            context.writeAndFlush(wrapOutboundOut(acknowledgements), promise: nil)
            acknowledgements = ByteBuffer()
        }
        run.pump()
    }

    private func handle(_ header: FixedHeader, _ body: inout ByteBuffer) throws {
        switch header.type {
        case .publish:
            var publish = try Publish.decode(header: header, body: &body, version: .v3_1_1)
            if publish.qos == .atLeastOnce {
                Ack(packetID: publish.packetID).encode(as: .puback, into: &acknowledgements, version: .v3_1_1)
            }
            run.didDeliver(sentAt: publish.payload.readInteger() ?? 0)
        case .puback: run.didAcknowledge()
        case .connack: if !subscribes { run.isReady() }
        case .suback: run.isReady()
        default: break
        }
    }
}
