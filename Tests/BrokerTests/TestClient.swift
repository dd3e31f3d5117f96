import Glibc
import MQTT
import NIOCore
import TestSupport

/// A client for tests: one blocking socket, packets in and out, nothing on its own account. A reply that does not come
/// in time is an error, so that no test hangs.
final class TestClient {
    struct Failure: Error, CustomStringConvertible {
        let description: String
    }

    let version: ProtocolVersion
    private let socket: CInt
    private var input = ByteBuffer()
    /// Packets in WebSocket frames, once one has been opened: see `TestClient+Transports.swift`.
    var webSocket: WebSocketClientFrames?
    /// The program that the socket leads to, if it does not lead to the broker.
    var helper: TestHelper?
    private var nextPacketID: UInt16 = 1

    init(port: Int, version: ProtocolVersion = .v3_1_1) throws {
        self.version = version
        socket = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        guard Endpoint.loopback(port: port).connect(socket) == 0 else {
            throw Failure(description: "connect: \(String(cString: strerror(errno)))")
        }
        Patience.limitWaiting(for: socket)
        var on: CInt = 1
        setsockopt(socket, CInt(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<CInt>.size))
    }

    /// - Parameter socket: a stream that is connected; closed with this client.
    init(socket: CInt, version: ProtocolVersion = .v3_1_1) {
        self.version = version
        self.socket = socket
        Patience.limitWaiting(for: socket)
    }

    deinit { close(socket) }

    // MARK: - Packets

    func send(_ packets: Packet...) throws { try send(packets) }

    /// All of them at once.
    func send(_ packets: [Packet]) throws {
        var buffer = ByteBuffer()
        for packet in packets { packet.encode(into: &buffer, version: version) }
        try send(bytes: Array(buffer.readableBytesView))
    }

    func send(bytes: [UInt8]) throws { try send(raw: webSocket?.binary(bytes) ?? bytes) }

    /// Past all framing.
    func send(raw bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                Glibc.send(socket, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
            }
            guard count > 0 else { throw Failure(description: "send: \(String(cString: strerror(errno)))") }
            sent += count
        }
    }

    /// The next packet, nil when the broker has closed the connection.
    func receive() throws -> Packet? {
        while true {
            if let header = try FixedHeader.parse(input), input.readableBytes >= header.packetLength {
                input.moveReaderIndex(forwardBy: header.encodedLength)
                var body = input.readSlice(length: header.remainingLength)!
                return try Packet.decode(header: header, body: &body, version: version)
            }
            guard let bytes = try receiveRaw() else { return nil }
            input.writeBytes(try webSocket?.read(bytes) ?? bytes)
        }
    }

    /// Some bytes as they come, nil when the broker has closed the connection.
    func receiveRaw() throws -> [UInt8]? {
        var block = [UInt8](repeating: 0, count: 65_536)
        let count = recv(socket, &block, block.count, 0)
        if count == 0 || (count < 0 && errno == ECONNRESET) { return nil }
        guard count > 0 else { throw Failure(description: "no packet: \(String(cString: strerror(errno)))") }
        return Array(block[..<count])
    }

    /// How many bytes have come and are not received yet, 64 KiB at most.
    var availableBytes: Int {
        var block = [UInt8](repeating: 0, count: 65_536)
        return max(0, recv(socket, &block, block.count, CInt(MSG_PEEK | MSG_DONTWAIT)))
    }

    func receivePublish() throws -> Publish {
        let packet = try receive()
        guard case .publish(let publish)? = packet else {
            throw Failure(description: "expected PUBLISH, got \(String(describing: packet))")
        }
        return publish
    }

    /// As its QoS wants it, to the end.
    func acknowledge(_ publish: Publish) throws {
        switch publish.qos {
        case .atMostOnce: break
        case .atLeastOnce: try send(.puback(Ack(packetID: publish.packetID)))
        case .exactlyOnce:
            try send(.pubrec(Ack(packetID: publish.packetID)))
            try expect(.pubrel(Ack(packetID: publish.packetID)))
            try send(.pubcomp(Ack(packetID: publish.packetID)))
        }
    }

    /// The next packet is exactly this one.
    func expect(_ expected: Packet?) throws {
        let packet = try receive()
        guard packet == expected else {
            throw Failure(description: "expected \(String(describing: expected)), got \(String(describing: packet))")
        }
    }

    /// The broker closes the connection, with nothing more to say than `CONNACK` if one is given.
    func expectClosed() throws { try expect(nil) }

    /// Closes the socket without a word, as a crash or a lost network does.
    func vanish() { shutdown(socket, CInt(SHUT_RDWR)) }

    /// Ends one side of the connection; the other may go on.
    func endSending() { shutdown(socket, CInt(SHUT_WR)) }

    // MARK: - Exchanges

    @discardableResult
    func connect(
        _ clientID: String, clean: Bool = true, keepAlive: UInt16 = 0, will: Will? = nil, user: String? = nil,
        password: String? = nil, _ properties: (inout ConnectProperties) -> Void = { _ in }
    ) throws -> ConnAck {
        var connect = Connect(
            version: version, cleanStart: clean, keepAlive: keepAlive, clientID: clientID, will: will,
            username: user, password: password.map { ByteBuffer(string: $0) })
        properties(&connect.properties)
        try send(.connect(connect))
        let packet = try receive()
        guard case .connack(let ack)? = packet else {
            throw Failure(description: "expected CONNACK, got \(String(describing: packet))")
        }
        return ack
    }

    /// Subscribes with options.
    @discardableResult
    func subscribe(_ subscriptions: [Subscription], identifier: UInt32? = nil) throws -> [ReasonCode] {
        let packetID = takePacketID()
        var subscribe = Subscribe(packetID: packetID, filters: subscriptions)
        subscribe.properties.subscriptionIdentifier = identifier
        try send(.subscribe(subscribe))
        let packet = try receive()
        guard case .suback(let ack)? = packet, ack.packetID == packetID else {
            throw Failure(description: "expected SUBACK, got \(String(describing: packet))")
        }
        return ack.codes
    }

    /// Publishes with properties and returns the reason code of PUBACK, or of PUBREC.
    @discardableResult
    func publish(
        _ topic: String, _ payload: String = "", qos: QoS, retain: Bool = false,
        _ properties: (inout PublishProperties) -> Void
    ) throws -> ReasonCode {
        var publish = Publish(
            topic: topic, payload: payload, qos: qos, retain: retain,
            packetID: qos == .atMostOnce ? 0 : takePacketID())
        var list = PublishProperties()
        properties(&list)
        publish.properties = list
        try send(.publish(publish))
        switch qos {
        case .atMostOnce: return .success
        case .atLeastOnce:
            guard case .puback(let ack)? = try receive() else { throw Failure(description: "expected PUBACK") }
            return ack.code
        case .exactlyOnce:
            guard case .pubrec(let ack)? = try receive() else { throw Failure(description: "expected PUBREC") }
            if ack.code.isError { return ack.code }
            try send(.pubrel(Ack(packetID: ack.packetID)))
            guard case .pubcomp? = try receive() else { throw Failure(description: "expected PUBCOMP") }
            return ack.code
        }
    }

    /// The broker says DISCONNECT with this code, and closes.
    func expectDisconnect(_ code: ReasonCode) throws {
        let packet = try receive()
        guard case .disconnect(let disconnect)? = packet, disconnect.code == code else {
            throw Failure(description: "expected DISCONNECT \(code), got \(String(describing: packet))")
        }
        try expectClosed()
    }

    @discardableResult
    func subscribe(_ filters: (String, QoS)...) throws -> [ReasonCode] {
        let packetID = takePacketID()
        try send(
            .subscribe(Subscribe(packetID: packetID, filters: filters.map { Subscription(filter: $0.0, qos: $0.1) })))
        guard case .suback(let ack)? = try receive(), ack.packetID == packetID else {
            throw Failure(description: "expected SUBACK")
        }
        return ack.codes
    }

    func unsubscribe(_ filter: String) throws {
        let packetID = takePacketID()
        try send(.unsubscribe(Unsubscribe(packetID: packetID, filters: [filter])))
        try expect(.unsuback(UnsubAck(packetID: packetID)))
    }

    /// Publishes and completes the exchange that the QoS asks for.
    func publish(_ topic: String, _ payload: String = "", qos: QoS = .atMostOnce, retain: Bool = false) throws {
        let packetID = qos == .atMostOnce ? 0 : takePacketID()
        try send(.publish(Publish(topic: topic, payload: payload, qos: qos, retain: retain, packetID: packetID)))
        switch qos {
        case .atMostOnce: break
        case .atLeastOnce: try expectAccepted { .puback(Ack(packetID: packetID, code: $0)) }
        case .exactlyOnce:
            try expectAccepted { .pubrec(Ack(packetID: packetID, code: $0)) }
            try send(.pubrel(Ack(packetID: packetID)))
            try expect(.pubcomp(Ack(packetID: packetID)))
        }
    }

    /// In 5.0 the broker may add that nobody has subscribed.
    private func expectAccepted(_ make: (ReasonCode) -> Packet) throws {
        let packet = try receive()
        guard packet == make(.success) || (version == .v5_0 && packet == make(.noMatchingSubscribers)) else {
            throw Failure(description: "expected \(make(.success)), got \(String(describing: packet))")
        }
    }

    /// All that was sent before has been handled when this returns.
    func ping() throws {
        try send(.pingreq)
        try expect(.pingresp)
    }

    /// Says goodbye and waits until the broker has closed.
    func disconnect() throws {
        try send(.disconnect(Disconnect()))
        try expectClosed()
    }

    func takePacketID() -> UInt16 {
        defer { nextPacketID += 1 }
        return nextPacketID
    }
}

extension Publish {
    /// - Parameter topic: empty where an alias stands for it. What is no topic name is sent as bytes.
    init(
        topic: String, payload: String = "", qos: QoS = .atMostOnce, retain: Bool = false, dup: Bool = false,
        packetID: UInt16 = 0
    ) {
        self.init(
            topic: topic.isEmpty ? nil : try! TopicName(topic), payload: ByteBuffer(string: payload), qos: qos,
            retain: retain, dup: dup,
            packetID: packetID)
    }

    var text: String { String(buffer: payload) }
}

extension Will {
    init(topic: String, payload: ByteBuffer, qos: QoS = .atMostOnce, retain: Bool = false) {
        self.init(topic: try! TopicName(topic), payload: payload, qos: qos, retain: retain)
    }
}
