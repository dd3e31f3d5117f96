import Arena
import Dispatch
import DumpFormat
import Foundation
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

@Suite("WebSocket", .mayBlock, .serialized)
struct WebSocketTests {
    private static func withWebSocket(
        _ configure: (inout Configuration.Listener) -> Void = { _ in }, _ body: (Broker) async throws -> Void
    ) async throws {
        var listener = Configuration.listener { $0.webSocket = true }
        configure(&listener)
        try await withBroker({ $0.listeners = [listener] }) { broker in
            try await body(broker)
            try await broker.awaitNoConnections()
            try await broker.awaitNothingLeft()
        }
    }

    @Test("MQTT packets go in binary frames, whatever frames they are cut into")
    func framing() async throws {
        try await Self.withWebSocket { broker in
            let client = try TestClient(port: broker.port)
            let answer = try client.openWebSocket()
            // The key and its answer are RFC 6455's own example.
            #expect(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"))
            #expect(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"))
            try client.connect("ws")
            try client.subscribe(("t/#", .atLeastOnce))
            for size in [0, 1, 100, 125, 126, 1_000, 65_535, 65_536, 200_000] {
                let text = String((0..<size).map { Character(UnicodeScalar(UInt8(97 + $0 % 26))) })
                try client.send(.publish(Publish(topic: "t/\(size)", payload: text)))
                let publish = try client.receivePublish()
                #expect(publish.text == text)
            }
            // One packet in many frames, of which control frames come in between; many packets in one frame.
            var bytes = ByteBuffer()
            Packet.publish(Publish(topic: "t/parts", payload: "in parts")).encode(into: &bytes, version: .v3_1_1)
            let packet = Array(bytes.readableBytesView)
            try client.send(raw: WebSocketClientFrames.frame(0x02, Array(packet[..<3])))
            try client.send(raw: WebSocketClientFrames.frame(0x89, [1, 2, 3]))
            for byte in packet[3...] { try client.send(raw: WebSocketClientFrames.frame(0x00, [byte])) }
            try client.send(raw: WebSocketClientFrames.frame(0x80, packet + packet))
            for _ in 0..<3 { #expect(try client.receivePublish().text == "in parts") }
            #expect(client.webSocket?.pongs == [[1, 2, 3]])
            // A byte at a time, headers too.
            for byte in WebSocketClientFrames.frame(0x82, packet) { try client.send(raw: [byte]) }
            #expect(try client.receivePublish().text == "in parts")
            try client.disconnect()
            #expect(client.webSocket?.closeCode == 1_000)
        }
    }

    @Test("a close frame is answered by one, and ends the connection")
    func close() async throws {
        try await Self.withWebSocket { broker in
            let client = try TestClient(port: broker.port)
            try client.openWebSocket()
            try client.connect("ws")
            try client.send(raw: WebSocketClientFrames.frame(0x88, [0x03, 0xE8]))
            try client.expectClosed()
            #expect(client.webSocket?.closeCode == 1_000)
        }
    }

    @Test(
        "frames against the rules end the connection with the code that says why",
        arguments: [
            (WebSocketClientFrames.frame(0x81, [0x10]), 1_003),
            (WebSocketClientFrames.frame(0x82, [0x10], mask: false), 1_002),
            (WebSocketClientFrames.frame(0xC2, [0x10]), 1_002), (WebSocketClientFrames.frame(0x80, [0x10]), 1_002),
            (WebSocketClientFrames.frame(0x09, [0x10]), 1_002), (WebSocketClientFrames.frame(0x83, [0x10]), 1_002),
            (WebSocketClientFrames.frame(0x89, Array(repeating: 0, count: 126)), 1_002),
            (WebSocketClientFrames.frame(0x02, [0x10]) + WebSocketClientFrames.frame(0x82, [0x10]), 1_002),
            ([0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0], 1_009), ([0x82, 0xFF] + Array(repeating: 0xFF, count: 8), 1_009),
            ([0x82, 0xFE, 0x10, 0x01], 1_009),
        ] as [([UInt8], UInt16)])
    func violations(bytes: [UInt8], code: UInt16) async throws {
        try await Self.withWebSocket({ $0.maxFrameBytes = 4_096 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.openWebSocket()
            try client.send(raw: bytes)
            try client.expectClosed()
            #expect(client.webSocket?.closeCode == code)
        }
    }

    @Test(
        "a request that opens no WebSocket for MQTT is answered with the status that says why",
        arguments: [
            ("/other", "mqtt", "", "404"), ("/mqtt", nil, "", "400"), ("/mqtt", "chat", "", "400"),
            ("/mqtt?user=1", "chat, mqtt", "", "101"), ("/mqtt", "mqttv3.1", "", "101"),
            ("/mqtt", "mqtt", " folded: x\r\n", "400"),
            ("/mqtt", "mqtt", "X: " + String(repeating: "x", count: 9_000) + "\r\n", "431"),
        ] as [(String, String?, String, String)])
    func requests(path: String, protocols: String?, extra: String, status: String) async throws {
        try await Self.withWebSocket { broker in
            let client = try TestClient(port: broker.port)
            #expect(
                try client.openWebSocket(path: path, protocols: protocols, extra: extra).hasPrefix(
                    "HTTP/1.1 \(status) "))
            if status != "101" { try client.expectClosed() }
        }
    }

    @Test("garbage in place of a request is answered and closed")
    func garbage() async throws {
        try await Self.withWebSocket { broker in
            for text in [
                "\r\n\r\n", "POST /mqtt HTTP/1.1\r\n\r\n", "GET /mqtt\r\n\r\n", "GET /mqtt HTTP/1.1\r\n:x\r\n\r\n",
            ] {
                let client = try TestClient(port: broker.port)
                try client.send(raw: Array(text.utf8))
                let answer = try client.receiveRaw().map { String(decoding: $0, as: UTF8.self) }
                #expect(answer?.hasPrefix("HTTP/1.1 4") == true, "\(text)")
                try client.expectClosed()
            }
        }
    }
}

@Suite("TLS", .mayBlock, .serialized)
struct TLSTests {
    static func listener(_ certificates: Certificates, _ configure: (inout Configuration.Listener) -> Void = { _ in })
        -> Configuration.Listener
    {
        Configuration.listener {
            $0.certificateFile = certificates.certificate("server")
            $0.keyFile = certificates.key("server")
            configure(&$0)
        }
    }

    @Test("TLS and secure WebSocket clients talk to each other, and leave nothing behind")
    func traffic() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            let listeners = [Self.listener(certificates), Self.listener(certificates) { $0.webSocket = true }]
            try await withBroker(threads: 2, { $0.listeners = listeners }) { broker in
                let ports = broker.ports.compactMap { $0 }
                let tls = try TestClient(tlsPort: ports[0], certificates)
                try tls.connect("tls")
                let secure = try TestClient(tlsPort: ports[1], certificates)
                #expect(try secure.openWebSocket().hasPrefix("HTTP/1.1 101"))
                try secure.connect("wss")
                try secure.subscribe(("t/#", .atLeastOnce))
                for size in [0, 10, 5_000, 20_000, 70_000, 900_000] {
                    let text = String(repeating: "x", count: size)
                    try tls.publish("t/\(size)", text, qos: .atLeastOnce)
                    #expect(try secure.receivePublish().text.count == size)
                }
                #expect(try await broker.snapshot().totals.unreachableBuffers == 0)
                try tls.disconnect()
                try secure.disconnect()
                try await broker.awaitNoConnections()
                try await broker.awaitNoTransports()
                try await broker.awaitNothingLeft()
            }
        }
    }

    @Test("a client certificate is asked for, checked, and is the user name")
    func clientCertificates() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            for name in ["server", "anna"] { try certificates.sign(name) }
            try certificates.sign("device", commonName: "device 7 \u{E4}")
            let others = directory.appending(path: "others", directoryHint: .isDirectory)
            try FileManager.default.createDirectory(at: others, withIntermediateDirectories: true)
            let strangers = try Certificates(in: others)
            try strangers.sign("anna")
            for kind in ["certificate", "key"] {
                let (from, to) =
                    kind == "key"
                    ? (strangers.key("anna"), certificates.key("forged"))
                    : (strangers.certificate("anna"), certificates.certificate("forged"))
                try FileManager.default.copyItem(atPath: from, toPath: to)
            }
            let acl = try directory.write("acl", "user anna\ntopic readwrite #\nuser device 7 \u{E4}\ntopic write up\n")
            let listener = Self.listener(certificates) {
                $0.clientCAFile = certificates.authority
                $0.requireClientCertificate = true
                $0.certificateUserName = true
                $0.anonymous = nil
                $0.aclFile = acl
            }
            try await withBroker({ $0.listeners = [listener] }) { broker in
                let anna = try TestClient(tlsPort: broker.port, certificates, as: "anna")
                #expect(try anna.connect("a").code == .success)
                try anna.subscribe(("#", .atLeastOnce))
                // What it says of itself in CONNECT counts for nothing.
                let device = try TestClient(tlsPort: broker.port, certificates, as: "device")
                #expect(try device.connect("d", user: "anna", password: "x").code == .success)
                try device.publish("down", "forged", qos: .atLeastOnce)
                try device.publish("up", "from the device", qos: .atLeastOnce)
                #expect(try anna.receivePublish().text == "from the device")
                let none = try TestClient(tlsPort: broker.port, certificates)
                #expect(throws: (any Error).self) { try none.connect("n") }
                let forged = try TestClient(tlsPort: broker.port, certificates, as: "forged")
                #expect(throws: (any Error).self) { try forged.connect("f") }
                try anna.ping()
            }
        }
    }

    @Test("a reload serves new certificates to who comes from then on, and closes nobody; bad ones change nothing")
    func certificateReload() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            try await withBroker({ $0.listeners = [Self.listener(certificates)] }) { broker in
                let before = try TestClient(tlsPort: broker.port, certificates)
                try before.connect("before")
                // Another authority, which only clients of the new certificate know.
                let directory = directory.appending(path: "new", directoryHint: .isDirectory)
                try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
                let renewed = try Certificates(in: directory)
                try renewed.sign("server")
                for kind in ["pem", "key"] {
                    let target = certificates.directory.appending(path: "server.\(kind)")
                    try FileManager.default.removeItem(at: target)
                    try FileManager.default.copyItem(at: directory.appending(path: "server.\(kind)"), to: target)
                }
                try await broker.reload(broker.configuration)
                let after = try TestClient(tlsPort: broker.port, renewed)
                #expect(try after.connect("after").code == .success)
                let outdated = try TestClient(tlsPort: broker.port, certificates)
                #expect(throws: (any Error).self) { try outdated.connect("outdated") }
                try before.ping()
                try "nothing".write(toFile: certificates.certificate("server"), atomically: true, encoding: .utf8)
                await #expect(throws: ConfigurationError.self) { try await broker.reload(broker.configuration) }
                let still = try TestClient(tlsPort: broker.port, renewed)
                #expect(try still.connect("still").code == .success)
            }
        }
    }

    @Test("garbage, plain MQTT and broken records on a TLS port end that connection, and leave nothing behind")
    func garbage() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            try await withBroker({ $0.listeners = [Self.listener(certificates)] }) { broker in
                for bytes in [
                    [0x10, 0x0E, 0, 4, 0x4D, 0x51, 0x54, 0x54, 4, 2, 0, 60, 0, 2, 0x67, 0x62],
                    Array("GET / HTTP/1.1\r\n\r\n".utf8),
                    [0x16, 0x03, 0x01, 0xFF, 0xFF] + Array(repeating: 0, count: 600),
                ] as [[UInt8]] {
                    let client = try TestClient(port: broker.port)
                    try client.send(raw: bytes)
                    while try client.receiveRaw() != nil {}
                }
                try await broker.awaitNoConnections()
                try await broker.awaitNoTransports()
                try await broker.awaitNothingLeft()
            }
        }
    }

    @Test("a client that takes nothing does not fill the memory, and what waits for it is held by the transport")
    func slowConsumer() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            let listeners = [
                Configuration.listener(), Self.listener(certificates), Configuration.listener { $0.webSocket = true },
            ]
            try await withBroker(threads: 2, { $0.listeners = listeners }) { broker in
                let ports = broker.ports.compactMap { $0 }
                let webSocket = try TestClient(port: ports[2])
                try webSocket.openWebSocket()
                let slow = [try TestClient(tlsPort: ports[1], certificates), webSocket]
                for (number, client) in slow.enumerated() {
                    try client.connect("slow-\(number)")
                    try client.subscribe(("t", .atMostOnce))
                }
                let publisher = try TestClient(port: ports[0])
                try publisher.connect("publisher")
                for _ in 0..<200 { try publisher.publish("t", String(repeating: "x", count: 100_000)) }
                try publisher.ping()
                let snapshot = try await broker.snapshot()
                #expect(snapshot.totals.unreachableBuffers == 0)
                let limits = broker.configuration.limits
                // For each: the backlog, what was handed over before the socket said no, and its ciphertext.
                #expect(broker.pool.counterBytes < 64 << 20 + 2 * (limits.maxBacklogBytes + 4 << 20))
                #expect(broker.counters.backlogDrops.value > 0)
                for client in slow { client.vanish() }
            }
        }
    }

    @Test("the library still has its buffers where they are looked for")
    func reflection() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            try await withBroker({ $0.listeners = [Self.listener(certificates)] }) { broker in
                let client = try TestClient(tlsPort: broker.port, certificates)
                try client.connect("tls")
                let shard = broker.shards[0]
                let known = try await shard.loop.submit { shard.transports.values.map(\.areTLSBuffersKnown) }.get()
                #expect(known == [true])
                // The two that it keeps for a connection, recorded as what they are.
                let snapshot = try await broker.snapshot()
                let site = try #require(snapshot.sites.firstIndex { $0.label == "tls buffer" })
                let allocationGroups = snapshot.allocationGroups.filter { Int($0.site) == site }
                #expect(allocationGroups.reduce(0) { $0 + $1.liveBuffers } == 2)
            }
        }
    }
}

@Suite("Who holds which buffer, over TLS and WebSocket", .mayBlock, .serialized)
struct TransportReachableBufferTests {
    private enum Kind: CaseIterable, Sendable {
        case tls, webSocket, secureWebSocket, proxied
    }

    private static func listeners(_ certificates: Certificates) -> [Configuration.Listener] {
        [
            TLSTests.listener(certificates), Configuration.listener { $0.webSocket = true },
            TLSTests.listener(certificates) { $0.webSocket = true },
            TLSTests.listener(certificates) {
                $0.proxyProtocol = true; $0.webSocket = true
            },
        ]
    }

    private static func client(_ kind: Kind, _ ports: [Int], _ certificates: Certificates) throws -> TestClient {
        switch kind {
        case .tls: return try TestClient(tlsPort: ports[0], certificates)
        case .webSocket:
            let client = try TestClient(port: ports[1])
            try client.openWebSocket()
            return client
        case .secureWebSocket:
            let client = try TestClient(tlsPort: ports[2], certificates)
            try client.openWebSocket()
            return client
        case .proxied:
            let client = try TestClient(port: ports[3])
            try client.send(raw: ProxyHeaderTests.header([10, 0, 0, 1], port: 1))
            // Half a handshake, then silence.
            try client.send(raw: [0x16, 0x03, 0x01, 0x02])
            return client
        }
    }

    /// Connects, subscribes to itself, publishes, and goes politely or not.
    private static func comeAndGo(_ kind: Kind, _ round: Int, _ ports: [Int], _ certificates: Certificates) throws {
        let client = try client(kind, ports, certificates)
        guard kind != .proxied else { return client.vanish() }
        try client.connect("\(kind)", clean: round % 3 != 0)
        try client.subscribe(("\(kind)/#", .atLeastOnce), ("all", .atMostOnce))
        for size in [10, 3_000, 40_000] {
            try client.send(
                .publish(
                    Publish(
                        topic: "\(kind)/\(size)", payload: String(repeating: "x", count: size), qos: .atLeastOnce,
                        packetID: 7)),
                .publish(Publish(topic: "all", payload: "to all")))
        }
        try client.send(.pingreq)
        while let packet = try client.receive() { if packet == .pingresp { break } }
        // Half a packet is left unfinished.
        try client.send(bytes: [0x30, 0xE8, 0x07, 0x00, 0x01, 0x61])
        client.vanish()
    }

    @Test("while clients come, talk and vanish, every buffer is reachable in every dump")
    func churn() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            let listeners = Self.listeners(certificates)
            try await withBroker(
                threads: 2,
                {
                    $0.listeners = listeners; $0.dumps.keepCount = 2
                }
            ) { broker in
                let ports = broker.ports.compactMap { $0 }
                try await broker.expectAllReachable(
                    while: Kind.allCases.map { kind in { try Self.comeAndGo(kind, $0, ports, certificates) } })
                try await broker.awaitNoConnections()
            }
        }
    }

    @Test("a buffer that is forgotten is unreachable, over TLS and over WebSocket: the transport excuses nothing")
    func forgotten() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            let listeners = [Configuration.listener()] + Self.listeners(certificates)
            for kind in [Kind.tls, .webSocket, .secureWebSocket] {
                try await withBroker({
                    $0.listeners = listeners
                    $0.faults.rpcResponseLeakPercent = 100
                }) { broker in
                    let ports = broker.ports.compactMap { $0 }
                    let device = try Self.client(kind, Array(ports.dropFirst()), certificates)
                    try device.connect("device")
                    try device.subscribe(("v1/devices/me/rpc/request/+", .atMostOnce))
                    let backend = try TestClient(port: ports[0])
                    try backend.connect("backend")
                    try backend.publish("v1/devices/device/rpc/request/1", "do it")
                    _ = try device.receivePublish()
                    try device.publish("v1/devices/me/rpc/response/1", String(repeating: "x", count: 500))
                    // What the transport still has when it is forgotten, it lets go of with the next bytes.
                    try device.ping()
                    try device.ping()
                    #expect(broker.counters.responsesLeaked.value == 1)
                    let snapshot = try await broker.snapshot()
                    #expect(snapshot.totals.unreachableBuffers == 1, "\(kind)")
                }
            }
        }
    }
}

extension Broker {
    /// Waits until the last TLS handler has gone, which can outlive its connection.
    fileprivate func awaitNoTransports() async throws {
        for shard in shards {
            while try await shard.loop.submit({
                shard.trim()
                return !shard.transports.isEmpty
            }).get() {}
        }
    }
}
