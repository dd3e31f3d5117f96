import MQTT
import NIOCore

/// What comes from outside, each kind as a function of its bytes: it is read as the broker reads it, and the process stops if
/// that does not keep what it promises. For the fuzzers, and for the tests that go through what these start from and have
/// found. MQTT itself and dumps have their own.
public enum ForeignInput: String, CaseIterable, Sendable {
    /// A client's WebSocket frames; the first byte says in which pieces they come.
    case webSocket = "websocket"
    /// The request that opens a WebSocket.
    case upgrade
    /// A balancer's header, and what follows it.
    case proxy
    /// A command over HTTP: a content type, a line feed, and the body.
    case command
    case passwords
    case acl
    case configuration
    /// Rows of the data directory: see ``StoreRows``.
    case store

    public func read(_ bytes: [UInt8]) {
        switch self {
        case .webSocket: Self.readFrames(bytes)
        case .upgrade: Self.readUpgrade(bytes)
        case .proxy: Self.readProxyHeader(bytes)
        case .command: Self.readCommand(bytes)
        case .passwords: Self.readPasswords(String(decoding: bytes, as: UTF8.self))
        case .acl: Self.readACL(String(decoding: bytes, as: UTF8.self))
        case .configuration: Self.readConfiguration(String(decoding: bytes, as: UTF8.self))
        case .store: StoreRows.read(bytes)
        }
    }

    // MARK: - From sockets

    private struct Frames: Equatable {
        var payload = ByteBuffer()
        var controls: [WebSocketFrames.Control] = []
        var failure: String?

        init(_ pieces: some Sequence<ArraySlice<UInt8>>) {
            var frames = WebSocketFrames(maxFrameBytes: 1 << 16)
            do throws(WebSocketFrames.Failure) {
                for piece in pieces {
                    var input = ByteBuffer(bytes: piece)
                    var controls = controls
                    try frames.read(&input, into: &payload) { controls.append($0) }
                    self.controls = controls
                    precondition(input.readableBytes == 0, "bytes were left")
                }
            } catch {
                failure = error.description
            }
        }
    }

    private static func readFrames(_ bytes: [UInt8]) {
        guard let first = bytes.first else { return }
        let rest = bytes.dropFirst()
        let step = Int(first) + 1
        let whole = Frames([rest])
        let pieces = Frames(
            stride(from: rest.startIndex, to: rest.endIndex, by: step).map {
                rest[$0..<min($0 + step, rest.endIndex)]
            })
        precondition(whole.failure == pieces.failure, "it matters for the verdict in which pieces frames come")
        precondition(whole.payload == pieces.payload, "it matters for the payload in which pieces frames come")
        if whole.failure == nil {
            precondition(whole.controls == pieces.controls, "it matters for pings in which pieces frames come")
        }
        precondition(whole.payload.readableBytes <= rest.count, "a payload out of nothing")
    }

    private static func readUpgrade(_ bytes: [UInt8]) {
        let buffer = ByteBuffer(bytes: bytes)
        guard let length = WebSocketHandshake.headLength(buffer) else { return }
        let response: String
        do throws(WebSocketHandshake.Refusal) {
            let head = String(decoding: bytes[..<length], as: UTF8.self)
            let handshake = try WebSocketHandshake(head: head, path: "/mqtt")
            precondition(handshake.accept.utf8.count == 28, "not the digest of a key")
            response = handshake.response
        } catch {
            response = error.response
        }
        // What a client sends splits no answer.
        precondition(response.hasPrefix("HTTP/1.1 ") && response.utf8.count < 512, "an answer that is none")
    }

    private static func readProxyHeader(_ bytes: [UInt8]) {
        func parse(_ count: Int) -> String? {
            var buffer = ByteBuffer(bytes: bytes[..<count])
            do throws(ProxyHeader.Failure) {
                guard let peer = try ProxyHeader.parse(&buffer) else { return nil }
                return "\(peer.address.map { "\($0)" } ?? "none") after \(count - buffer.readableBytes)"
            } catch {
                return error.description
            }
        }
        // Each beginning is read: enough for all that a header is.
        let bytes = Array(bytes.prefix(1_024))
        let whole = parse(bytes.count)
        // The first verdict stands, whatever comes after it.
        let first = (0...bytes.count).lazy.compactMap { parse($0) }.first { _ in true }
        precondition(first == whole, "more bytes change what a header says")
    }

    private static func readCommand(_ bytes: [UInt8]) {
        let end = bytes.firstIndex(of: UInt8(ascii: "\n")) ?? bytes.endIndex
        let contentType = String(decoding: bytes[..<end].prefix(Limits.maxContentTypeBytes / 3), as: UTF8.self)
        // The HTTP library lets no such character into a header.
        guard !contentType.utf8.contains(0) else { return }
        guard let topic = try? TopicName("v1/devices/me/rpc/request/h1") else { preconditionFailure("a topic") }
        var properties = PublishProperties()
        properties.contentType = contentType
        properties.responseTopic = topic
        properties.correlationData = ByteBuffer(string: "h1")
        var list = ByteBuffer()
        properties.writePassedOn(to: &list)
        precondition(
            list.readableBytes == properties.forwardedPropertiesLength, "the length of properties was foretold wrongly")
        precondition(PublishProperties(forwardedProperties: list) == properties, "properties that read back as others")
        let payload = bytes[end...].dropFirst()
        var outgoing = OutgoingProperties()
        outgoing.forwardedProperties = list
        var packet = ByteBuffer()
        let fits = Publish.encodeHeader(
            into: &packet, topic: topic, qos: .atLeastOnce, dup: false, retain: false, packetID: 1,
            payloadLength: payload.count, properties: outgoing)
        precondition(fits, "a command that makes no packet")
        packet.writeBytes(payload)
        do throws(DecodeError) {
            guard let header = try FixedHeader.parse(packet) else { preconditionFailure("no packet") }
            packet.moveReaderIndex(forwardBy: header.encodedLength)
            let sent = try Publish.decode(header: header, body: &packet, version: .v5_0)
            precondition(sent.properties == properties && sent.payload.readableBytes == payload.count)
        } catch {
            preconditionFailure("a command that no device can read: \(error)")
        }
    }

    // MARK: - From files

    /// A text without returns, and the same as it is made on Windows.
    private static func bothEnds(_ text: String) -> (String, String) {
        let plain = String(decoding: text.utf8.filter { $0 != UInt8(ascii: "\r") }, as: UTF8.self)
        return (plain, plain.textLines.joined(separator: "\r\n"))
    }

    private static func readPasswords(_ text: String) {
        func users(_ text: String) -> Int? { (try? PasswordFile(text: text, name: "f"))?.userCount }
        _ = users(text)
        let (plain, withReturns) = bothEnds(text)
        precondition(users(plain) == users(withReturns), "it matters how lines end")
        for line in text.textLines {
            guard let colon = line.firstIndex(of: ":"), let hash = PasswordHash(line[line.index(after: colon)...])
            else { continue }
            precondition(PasswordHash(hash.text[...]) == hash, "a hash that reads back as another")
        }
    }

    private static func readACL(_ text: String) {
        func list(_ text: String) -> AccessControlList? { try? AccessControlList(text: text, name: "f") }
        _ = list(text)
        let (plain, withReturns) = bothEnds(text)
        let (one, other) = (list(plain), list(withReturns))
        precondition((one == nil) == (other == nil), "it matters how lines end")
        guard let one, let other else { return }
        let topics = ["a", "a/b", "$SYS/x", "devices/c/up/1", "#", "+/+"].map { Array($0.utf8) }
        for (user, client) in [(nil, "c"), ("anna", "c"), ("anna", "+"), ("u", "$SYS"), (nil, "a/b")] {
            let (first, second) = (
                one.rules(userName: user, clientID: client), other.rules(userName: user, clientID: client)
            )
            for topic in topics {
                precondition(
                    first.mayRead(topic.span) == second.mayRead(topic.span)
                        && first.mayWrite(topic.span) == second.mayWrite(topic.span)
                        && first.maySubscribe(topic.span) == second.maySubscribe(topic.span),
                    "it matters how lines end")
            }
        }
    }

    private static func readConfiguration(_ text: String) {
        var configuration = Configuration()
        do { try configuration.read(toml: text, name: "f") } catch {
            return precondition("\(error)".hasPrefix("f:"), "a mistake without its place: \(error)")
        }
        var again = Configuration()
        do { try again.read(toml: configuration.toml, name: "g") } catch {
            preconditionFailure("a configuration whose text has a mistake: \(error)")
        }
        precondition(again == configuration, "a configuration that reads back as another")
    }
}
