import Arena
import ArenaNIO
import DequeModule
import Glibc
import Ledger
import Logging
import MQTT
import NIOCore

/// One network connection: cuts packets out of what is read, and holds what is on its way to and from the socket.
/// What packets mean is in `Connection+Protocol.swift`, what is sent in `Connection+Output.swift`.
///
/// It is the only handler in its pipeline, and only ByteBuffers pass: a larger type would cost an allocation a packet.
/// An idle connection holds no buffer of the arena.
final class ConnectionHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    enum Phase {
        case awaitingConnect
        /// CONNECT asks for enhanced authentication, which is under way.
        case authenticating
        /// CONNECT is accepted, and its session is being fetched from whoever has it.
        case awaitingSession
        case connected
        case closed
    }

    /// An object of its own: it is large, and few connections have one.
    private final class Unanswered {
        let packet: Connect

        init(_ packet: Connect) { self.packet = packet }
    }

    let shard: EventLoopShard
    var limits: Limits { shard.context.limits }
    let listener: Listener
    /// The listener's settings when the connection came.
    let policy: Listener.Settings
    var phase = Phase.awaitingConnect
    private(set) var reference: ConnectionReference!
    private(set) var channelContext: ChannelHandlerContext!
    var session: Session?
    private let charge: HeapCharge
    /// Of this CONNECT among all those that ask for a session; 0 before it asks.
    var claimNumber: UInt64 = 0
    /// It has had the client's session ended for a new one, which makes up for that: it is not refused for want of memory then.
    var isReplacing = false
    /// Kept until it can be answered.
    var connectPacket: Connect? {
        get { unanswered?.packet }
        set { unanswered = newValue.map(Unanswered.init) }
    }
    private var unanswered: Unanswered?
    var isClientIDAssigned = false
    /// CONNACK has accepted the client: from here on a refusal is a DISCONNECT (MQTT-3.14.0-1).
    var isAnswered = false
    /// A DISCONNECT with the reason is on its way.
    private(set) var saysWhy = false
    /// Closed, but for what is still being written.
    var isLingering = false
    /// What CONNECT said of this connection.
    var settings = ClientSettings()
    var aliases = TopicAliases()
    /// Enhanced authentication that is under way.
    var exchange: (any AuthenticationExchange)?
    /// For CONNACK.
    var finalAuthenticationData: [UInt8]?
    private(set) var peer = "unknown"
    /// Whom limits and logins are counted for.
    private(set) var source = SourceAddress.local
    /// ... where connections are limited.
    private var countedSource: SourceAddress?

    // Who the client is, once it has logged in.
    var userName: String?
    /// Who its certificate says it is, where that counts.
    var certificateName: String?

    /// Answers for this connection's buffers until its session does.
    private var connectionOwner: OwnerID?
    var owner: OwnerID { session?.owner ?? connectionOwner ?? shard.owner }

    // Time.
    /// When something was read last, or when reading went on after a pause of ours.
    var lastRead = NIODeadline.now()
    /// How long the client may be silent; nil is for ever.
    private var silence: TimeAmount?
    var connectDeadline: NIODeadline

    // Input.
    /// A packet of which only a part has arrived, in a buffer of exactly its size.
    private var assembly: ByteBuffer?
    private var assemblyHeader: FixedHeader?
    /// The first bytes of a fixed header of which only a part has arrived: at most four.
    private var headerStart: [UInt8] = []
    /// When the first byte of a packet came whose last has not come yet.
    private(set) var packetStart: NIODeadline?
    /// When reading was paused last.
    private var pausedAt = NIODeadline.now()
    /// The shard's wheel has an entry for that packet, or for an earlier one.
    private var isPacketWatched = false
    /// Read and not handled yet: while the session was being fetched, while the store had too much to do, or until it is
    /// this connection's turn.
    private var pendingInput: ByteBuffer? { didSet { noteInput() } }
    private var notedInput = 0
    /// It is being handled now.
    private(set) var isConsumingPending = false
    /// In the shard's list of connections whose turn is to come; see `Connection+Turn.swift`.
    var awaitsTurn = false { didSet { noteInput() } }
    /// The first of these is being done, the others wait for it.
    var unfinished: Deque<UnfinishedPacket> = []
    /// The socket is closed, but what came before that is not handled yet.
    private(set) var isPeerGone = false
    /// ... not in order.
    private var isReset = false

    // The store, see `Connection+Store.swift`.
    /// Acknowledgements wait for this batch at least: they keep their order.
    var heldThrough: UInt64 = 0
    /// The same for messages of QoS 1 and 2.
    var publishesHeldThrough: UInt64 = 0

    private(set) var pauses: Pauses = []

    // Output, see `Connection+Output.swift`.
    var output = Output()
    /// As the channel says; asking it for each message costs more than all the rest of the question.
    private(set) var isWritable = true

    /// Between this and the socket, if that is not plain TCP.
    let transport: TransportBuffers?
    private let reads: ReadBufferSource

    init(shard: EventLoopShard, listener: Listener, policy: Listener.Settings, transport: TransportBuffers? = nil) {
        self.shard = shard
        self.listener = listener
        self.policy = policy
        self.transport = transport
        charge = HeapCharge(.connections, in: shard.context.heap, bytes: Limits.heapBytesPerConnection)
        reads = shard.reads(for: policy)
        connectDeadline = .now() + .seconds(Int64(policy.connectTimeoutSeconds))
        transport?.connection = self
    }

    // MARK: - Channel events

    func handlerAdded(context: ChannelHandlerContext) { channelContext = context }

    /// The context refers to this object: without this the two would keep each other.
    func handlerRemoved(context: ChannelHandlerContext) { channelContext = nil }

    func channelActive(context: ChannelHandlerContext) {
        let broker = shard.context
        if let address = context.remoteAddress { peerIs(address) }
        reference = shard.connections.insert(self, shard: shard.index)
        broker.counters.connectionsAccepted.increment()
        let open = broker.counters.connectionsOpen.increment()
        connectionOwner = broker.pool.openOwner(.connection, name: peer, parent: listener.owner)
        let excess = listener.opened(policy)
        guard open <= limits.maxConnections, excess == nil, broker.heap.admits(0, for: .connections) else {
            return close(excess ?? .tooManyConnections)
        }
        // Behind a balancer, all come from its address until it has said more.
        if !policy.configuration.proxyProtocol { countAddress() }
        shard.watch(reference, .connect, until: connectDeadline)
    }

    func channelInactive(context: ChannelHandlerContext) {
        // Who sends and hangs up has sent all the same.
        guard hasInput else { return endOfInput() }
        isPeerGone = true
        // Groups that it is in hear of it.
        if let session { shard.settle(session) }
    }

    /// The socket is closed, and all that came from it has been handled.
    func endOfInput() {
        close(isReset ? .peerReset : .peerClosed)
        if !isPeerGone { releaseEverything() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case let proxied as ProxyHeader.Peer:
            if let address = proxied.address { renamePeer(address) }
            countAddress()
        case _ where TLSConnection.isOfHandshake(event): takeCertificateName()
        default: break
        }
        context.fireUserInboundEventTriggered(event)
    }

    private func renamePeer(_ address: SocketAddress) {
        peerIs(address)
        guard let connectionOwner else { return }
        self.connectionOwner = shard.context.pool.openOwner(.connection, name: peer, parent: listener.owner)
        shard.context.pool.closeOwner(connectionOwner)
    }

    /// The limit of connections from one address.
    private func countAddress() {
        guard let limit = policy.configuration.maxConnectionsPerAddress, countedSource == nil else { return }
        countedSource = source
        if !listener.came(source, limit: limit) { close(.tooManyFromAddress) }
    }

    private func takeCertificateName() {
        guard policy.configuration.certificateUserName, let peer = transport?.peerName else { return }
        certificateName = peer.commonName
        if certificateName == nil { close(.refused("the client certificate has no common name")) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let error = error as? IOError else { return close(TransportFailure.reason(error)) }
        isReset = error.errnoCode == ECONNRESET
        // The socket is closed next. Who hangs up without reading what he is told has sent all the same.
        if isReset, hasInput { return }
        close(isReset ? .peerReset : .failed(SystemError.text(error.errnoCode)))
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var buffer = unwrapInboundIn(data)
        if transport == nil { reads.took(buffer) }
        shard.updatePressure()
        if transport == nil { stopWithoutReserve() }
        lastRead = .now()
        shard.traffic.bytesReceived.bump(by: buffer.readableBytes)
        consume(&buffer, ownsBuffer: false)
    }

    /// Reads no further, for now, where this read has found no memory, or what NIO takes without asking is spent. To be called
    /// for each read, whatever it is of: then no connection brings more than one byte, or has one handshake answered, beyond.
    func stopWithoutReserve() {
        if let error = reads.takeFailure() { shard.refused(error, while: "reading") }
        guard reads.isExhausted || shard.pressure.isExhausted, reference != nil else { return }
        pauseReading(.reserve)
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        isWritable = context.channel.isWritable
        // Not now: this can come out of a flush in the middle of a delivery.
        if isWritable { wantsToSend() }
    }

    // MARK: - Framing

    private func consume(_ buffer: inout ByteBuffer, ownsBuffer: Bool) {
        while buffer.readableBytes > 0 {
            switch phase {
            case .closed: return
            case .awaitingSession: return accumulate(buffer)
            case .connected where pauses.contains(.store): return accumulate(buffer)
            case .connected where mustWait(buffer):
                let behindMailbox = isBehindMailbox(buffer)
                accumulate(buffer)
                return waitForTurn(behindMailbox: behindMailbox)
            case .awaitingConnect, .authenticating, .connected: break
            }
            do throws(DecodeError) {
                if assembly != nil {
                    try assemble(&buffer)
                } else if !headerStart.isEmpty {
                    try completeHeader(&buffer)
                } else if let header = try FixedHeader.parse(buffer) {
                    try checkLimits(header)
                    guard buffer.readableBytes >= header.packetLength else { return beginAssembly(header, &buffer) }
                    buffer.moveReaderIndex(forwardBy: header.encodedLength)
                    var body = buffer.readSlice(length: header.remainingLength)!
                    try handle(header, &body, ownsBuffer: ownsBuffer)
                } else {
                    headerStart = buffer.readBytes(length: buffer.readableBytes)!
                    beginPacket()
                }
            } catch {
                return reject(error)
            }
        }
    }

    /// Refuses what must not even be buffered: too large, or not the packet that must come first.
    private func checkLimits(_ header: FixedHeader) throws(DecodeError) {
        try header.checkSize(maximum: policy.maxPacketBytes)
        if case .awaitingConnect = phase, header.type != .connect {
            throw .protocolError(
                .init(
                    offset: 0, expected: "CONNECT as the first packet, found \(header.type.name)",
                    statement: "MQTT-3.1.0-1"))
        }
    }

    private func beginAssembly(_ header: FixedHeader, _ start: inout ByteBuffer) {
        do throws(ArenaError) {
            // What there can be no room for is refused before it comes.
            let capacity =
                shard.hasRoom(header.packetLength)
                ? min(header.packetLength, max(start.readableBytes, Limits.firstAssemblyBytes)) : header.packetLength
            try shard.checkRoom(capacity)
            var buffer = try shard.arena.buffer(capacity: capacity, owner: owner, "packet assembly")
            buffer.writeBuffer(&start)
            assembly = buffer
            assemblyHeader = header
            beginPacket()
        } catch {
            fail(error, while: "receiving a packet of \(header.packetLength) bytes")
        }
    }

    private func assemble(_ buffer: inout ByteBuffer) throws(DecodeError) {
        let header = assemblyHeader!
        let missing = header.packetLength - assembly!.readableBytes
        let count = min(missing, buffer.readableBytes)
        guard assembly!.writableBytes >= count || growAssembly(by: count, to: header.packetLength) else { return }
        var part = buffer.readSlice(length: count)!
        assembly!.writeBuffer(&part)
        guard assembly!.readableBytes == header.packetLength else { return }
        var packet = assembly!
        assembly = nil
        assemblyHeader = nil
        packetStart = nil
        packet.moveReaderIndex(forwardBy: header.encodedLength)
        var body = packet.readSlice(length: header.remainingLength)!
        try handle(header, &body, ownsBuffer: true)
    }

    /// A larger buffer for a packet of which more has come: so much is taken for it as the peer has sent, times four, and
    /// at most a third of it is copied once more.
    ///
    /// - Returns: false if the arena refused; the connection is closed then.
    private func growAssembly(by count: Int, to packetLength: Int) -> Bool {
        let old = assembly!
        do throws(ArenaError) {
            let capacity = min(packetLength, max(old.readableBytes + count, 4 * old.readableBytes))
            try shard.checkRoom(capacity)
            var buffer = try shard.arena.buffer(capacity: capacity, owner: owner, "packet assembly")
            buffer.writeImmutableBuffer(old)
            assembly = buffer
            return true
        } catch {
            fail(error, while: "receiving a packet of \(packetLength) bytes")
            return false
        }
    }

    /// Adds bytes until the fixed header is whole: a byte at a time, for this is rare and at most four bytes long.
    private func completeHeader(_ buffer: inout ByteBuffer) throws(DecodeError) {
        headerStart.append(buffer.readInteger(as: UInt8.self)!)
        var start = ByteBuffer()
        do throws(ArenaError) {
            start = try shard.arena.buffer(capacity: headerStart.count, owner: owner, "fixed header")
        } catch {
            return fail(error, while: "receiving a fixed header")
        }
        start.writeBytes(headerStart)
        guard let header = try FixedHeader.parse(start) else { return }
        headerStart = []
        try checkLimits(header)
        if header.remainingLength == 0 {
            packetStart = nil
            var body = ByteBuffer()
            try handle(header, &body, ownsBuffer: false)
        } else {
            beginAssembly(header, &start)
        }
    }

    /// Keeps what arrives before it can be handled. Bounded by what one tick reads, since reading is off, and by what is in
    /// the socket when the peer closes it.
    private func accumulate(_ buffer: ByteBuffer) {
        // It was here before.
        if isConsumingPending, pendingInput == nil { return pendingInput = buffer }
        do throws(ArenaError) {
            let count = pendingInput?.readableBytes ?? 0
            if pendingInput != nil, pendingInput!.writableBytes >= buffer.readableBytes {
                pendingInput!.writeImmutableBuffer(buffer)
                return
            }
            // Twice as much as there was, or what comes in many pieces would be copied as often.
            let capacity = count + max(count, buffer.readableBytes)
            try shard.checkRoom(capacity)
            var kept = try shard.arena.buffer(capacity: capacity, owner: owner, "pending input")
            if let pendingInput { kept.writeImmutableBuffer(pendingInput) }
            kept.writeImmutableBuffer(buffer)
            pendingInput = kept
        } catch {
            fail(error, while: "keeping what cannot be handled yet")
        }
    }

    // MARK: - Phases

    /// What waits for its turn is counted.
    private func noteInput() {
        let bytes = awaitsTurn ? pendingInput?.storageCapacity ?? 0 : 0
        guard bytes != notedInput else { return }
        shard.work.inputBytes += bytes - notedInput
        notedInput = bytes
    }

    /// Waits for a session that another shard has, without reading on.
    func awaitSession() {
        phase = .awaitingSession
        pauseReading(.session)
    }

    /// Reading goes on, with what came in the meantime first.
    func connected(to session: Session) {
        self.session = session
        phase = .connected
        shard.update(session) { $0.connection = self }
        let counters = shard.context.counters
        counters.connectionsServed.increment()
        counters.clientsMaximum.raise(to: counters.clientsConnected.increment())
        if let connectionOwner { shard.context.pool.closeOwner(connectionOwner) }
        connectionOwner = nil
        if settings.keepAlive > 0 {
            // One and a half times the keep alive (MQTT-3.1.2-24; 5.0: MQTT-3.1.2-22).
            silence = .milliseconds(Int64(settings.keepAlive) * 1_500)
            shard.watch(reference, .silence, until: lastRead + silence!)
        }
    }

    func resumeInput() {
        resumeReading(.session)
        consumePending()
    }

    func consumePending() {
        guard var input = pendingInput else { return }
        pendingInput = nil
        isConsumingPending = true
        consume(&input, ownsBuffer: false)
        isConsumingPending = false
    }

    func check(_ deadline: EventLoopShard.Deadline, _ now: NIODeadline) {
        switch deadline {
        case .connect: checkConnect(now)
        case .silence: checkSilence(now)
        case .packet: checkPacket(now)
        case .goodbye: if case .closed = phase { closeSocket() }
        case .stall: checkStall()
        }
    }

    private func checkConnect(_ now: NIODeadline) {
        switch phase {
        case .awaitingConnect, .authenticating, .awaitingSession:
            if now >= connectDeadline {
                close(.connectTimeout)
            } else {
                shard.watch(reference, .connect, until: connectDeadline)
            }
        // From here on it is the keep alive that counts, which has an entry of its own.
        case .connected, .closed: break
        }
    }

    private func checkSilence(_ now: NIODeadline) {
        guard case .connected = phase, let silence else { return }
        // Not read, whatever for: what it has sent in the meantime is not known.
        if !pauses.isEmpty { lastRead = now }
        let deadline = lastRead + silence
        if now >= deadline {
            close(.keepAliveTimeout(seconds: Double(silence.nanoseconds) / 1e9))
        } else {
            shard.watch(reference, .silence, until: deadline)
        }
    }

    var hasPendingInput: Bool { pendingInput != nil }

    /// For tests that send a packet in parts.
    var hasPartialPacket: Bool { assembly != nil || !headerStart.isEmpty }

    /// A packet has begun that did not come in one piece. Before CONNECT is handled its own deadline is enough.
    private func beginPacket() {
        if packetStart == nil { packetStart = lastRead }
        guard case .connected = phase, !isPacketWatched else { return }
        isPacketWatched = true
        shard.watch(reference, .packet, until: packetStart! + packetTimeout)
    }

    private func checkPacket(_ now: NIODeadline) {
        isPacketWatched = false
        guard case .connected = phase, let start = packetStart else { return }
        // While it is not read, the rest is not the client's to send: ``resumeReading(_:)`` adds that time.
        guard pauses.isEmpty else {
            isPacketWatched = true
            return shard.watch(reference, .packet, until: now + packetTimeout)
        }
        if now >= start + packetTimeout { return close(.packetTimeout(seconds: limits.packetTimeoutSeconds)) }
        beginPacket()
    }

    private var packetTimeout: TimeAmount { .seconds(Int64(limits.packetTimeoutSeconds)) }

    /// Why the connection is not read. It is, when there is no reason not to.
    struct Pauses: OptionSet {
        let rawValue: UInt8
        /// Its session is being fetched.
        static let session = Pauses(rawValue: 1)
        /// It does not take what is sent to it.
        static let output = Pauses(rawValue: 2)
        /// It publishes, and memory is short.
        static let memory = Pauses(rawValue: 4)
        /// It publishes, and the store has more to do than it may.
        static let store = Pauses(rawValue: 8)
        /// What it has sent already waits for its turn.
        static let turn = Pauses(rawValue: 16)
        /// There is no memory to read into.
        static let reserve = Pauses(rawValue: 32)
    }

    func pauseReading(_ reason: Pauses) {
        let wasRead = pauses.isEmpty
        guard pauses.insert(reason).inserted else { return }
        if reason == .memory { shard.notePaused(reference) }
        if reason == .reserve { shard.noteUnread(reference) }
        guard wasRead else { return }
        pausedAt = .now()
        setReading(false)
    }

    func resumeReading(_ reason: Pauses) {
        guard pauses.remove(reason) != nil, pauses.isEmpty else { return }
        // The silence was ours, also in the middle of a packet: so long, not more.
        lastRead = .now()
        if let start = packetStart { packetStart = start + (lastRead - max(pausedAt, start)) }
        setReading(true)
    }

    private func setReading(_ isOn: Bool) {
        guard let channelContext, channelContext.channel.isActive else { return }
        try? channelContext.channel.syncOptions?.setOption(.autoRead, value: isOn)
    }

    // MARK: - The end

    /// The arena refused memory that this connection needs.
    func fail(_ error: ArenaError, while doing: String) {
        shard.refused(error, while: doing)
        close(.outOfMemory(error))
    }

    /// Ends the connection for the rest of the broker now, and for the socket at the end of the tick, so that what has
    /// been said to the peer is sent. What was only begun is given back.
    func close(_ reason: CloseReason) {
        if case .closed = phase { return }
        if isAnswered, let code = reason.code {
            // Once: it may be refused the memory, and close in its turn.
            isAnswered = false
            sendDisconnect(code, reason)
        }
        if case .closed = phase { return }
        phase = .closed
        log(reason)
        if let session {
            self.session = nil
            shard.context.counters.clientsConnected.increment(by: -1)
            if session.connection === self {
                shard.detach(session, publishWill: reason.publishesWill)
                shard.serveWaiters(of: session)
            }
            // The session may be over: what is still being written is the loop's.
            retainOutput(as: shard.owner)
        }
        assembly = nil
        assemblyHeader = nil
        headerStart = []
        packetStart = nil
        pendingInput = nil
        unfinished = []
        connectPacket = nil
        aliases = TopicAliases()
        exchange = nil
        output.clearBacklog()
        if isPeerGone { return releaseEverything() }
        if reference != nil {
            wantsToSend()
        }
    }

    /// Tells a 5.0 client why, before its connection is closed; 3.1.1 has no words for it.
    private func sendDisconnect(_ code: ReasonCode, _ reason: CloseReason) {
        guard settings.version == .v5_0 else { return }
        var disconnect = Disconnect(code: code)
        let text = "\(reason)"
        let size = 16 + text.utf8.count
        // A reason that does not fit is left out (MQTT-3.14.2-3).
        if size <= settings.maximumPacketSize { disconnect.properties.reasonString = text }
        saysWhy = true
        send(.disconnect(disconnect), size: size)
    }

    /// At the end of the tick in which ``close(_:)`` was called.
    func closeSocket() {
        guard let channelContext, channelContext.channel.isActive else { return }
        channelContext.close(promise: nil)
    }

    private func releaseEverything() {
        output = Output()
        guard reference != nil else { return }
        shard.connections.remove(reference)
        shard.context.counters.connectionsOpen.increment(by: -1)
        listener.closed()
        if let countedSource { listener.left(countedSource) }
        if let connectionOwner { shard.context.pool.closeOwner(connectionOwner) }
        connectionOwner = nil
    }

    private func log(_ reason: CloseReason) {
        var metadata: Logger.Metadata = ["peer": "\(peer)"]
        if let session { metadata["client"] = "\(session.logName)" }
        shard.context.log.log(
            level: reason.isOrderly ? .debug : .info, "connection closed: \(reason)", metadata: metadata)
    }

    private func peerIs(_ address: SocketAddress) {
        source = SourceAddress(address)
        guard let host = address.ipAddress, let port = address.port else {
            peer = "unix"
            return
        }
        peer = address.protocol == .inet6 ? "[\(host)]:\(port)" : "\(host):\(port)"
    }

    func visitReachableBuffers(_ visitor: inout ReachableBufferVisitor) {
        if let assembly { visitor.hold(assembly, owner: owner, kind: .readBuffer) }
        if let will = connectPacket?.will {
            visitor.hold(will.topic.bytes, owner: owner, kind: .will)
            visitor.hold(will.payload, owner: owner, kind: .will)
            if let topic = will.properties.responseTopic { visitor.hold(topic.bytes, owner: owner, kind: .will) }
            if let data = will.properties.correlationData { visitor.hold(data, owner: owner, kind: .will) }
        }
        aliases.visit(owner: owner, &visitor)
        if let pendingInput { visitor.hold(pendingInput, owner: owner, kind: .readBuffer) }
        output.visit(owner: owner, &visitor)
    }
}
