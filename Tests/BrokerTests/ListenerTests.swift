import DumpFormat
import Foundation
import Ledger
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

extension Configuration {
    /// The only listener, on a port that the system chooses, open to everybody.
    static func listener(_ configure: (inout Listener) -> Void = { _ in }) -> Listener {
        var listener = Listener()
        listener.port = 0
        listener.anonymous = true
        configure(&listener)
        return listener
    }
}

@Suite("Listeners", .mayBlock, .serialized)
struct ListenerTests {
    @Test("several listeners serve one broker, each with its own policy and limits")
    func several() async throws {
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", LoginTests.passwords(["anna": "a"]))
            let log = LogCollector()
            try await withBroker(
                threads: 2,
                { configuration in
                    configuration.listeners = [
                        Configuration.listener {
                            $0.name = "open"; $0.maxPacketBytes = 200
                        },
                        Configuration.listener {
                            $0.anonymous = nil; $0.passwordFile = passwords
                        },
                    ]
                }, log: log.logger
            ) { broker in
                let ports = broker.ports.compactMap { $0 }
                let open = try TestClient(port: ports[0])
                #expect(try open.connect("open").code == .success)
                let closed = try TestClient(port: ports[1])
                #expect(try closed.connect("closed").code == .notAuthorized)
                let anna = try TestClient(port: ports[1])
                #expect(try anna.connect("anna", user: "anna", password: "a").code == .success)
                try anna.subscribe(("t", .atMostOnce))
                try open.publish("t", "hello")
                #expect(try anna.receivePublish().text == "hello")
                // The limit of one listener is not that of the other.
                try anna.publish("t", String(repeating: "x", count: 1_000))
                #expect(try anna.receivePublish().text.count == 1_000)
                try open.send(bytes: [0x30, 0xC8, 0x01])
                try open.expectClosed()
                #expect(
                    try await broker.snapshot().owners.contains {
                        $0.name == "open 127.0.0.1:0" && $0.kind == .listener
                    })
            }
            #expect(log.lines.filter { $0.contains("listening on 127.0.0.1:") }.count == 2)
        }
    }

    @Test("a Unix socket has the permissions asked for, takes the place of a dead one, and is removed at the end")
    func unixSocket() async throws {
        try await withTemporaryDirectory { directory in
            let path = directory.appending(path: "broker.sock").path
            for _ in 0..<2 {
                // A socket that nobody listens on: what a killed broker leaves.
                let dead = try #require(Self.bindAndForget(path))
                close(dead)
                try await withBroker({
                    $0.listeners = [
                        Configuration.listener {
                            $0.path = path; $0.mode = 0o600
                        }
                    ]
                }) { broker in
                    let attributes = try FileManager.default.attributesOfItem(atPath: path)
                    #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)
                    let client = try TestClient(path: path)
                    try client.connect("local")
                    try client.ping()
                    #expect(broker.ports == [nil])
                    // A second broker does not take it away.
                    var second = Configuration()
                    second.memoryLimit = 64 << 20
                    second.listeners = broker.configuration.listeners
                    await #expect(throws: StartError.self) { try await Broker.start(second).shutdown() }
                    try client.ping()
                }
                #expect(!FileManager.default.fileExists(atPath: path))
            }
            _ = try directory.write("broker.sock", "notes")
            var configuration = Configuration()
            configuration.memoryLimit = 64 << 20
            configuration.listeners = [Configuration.listener { $0.path = path }]
            do {
                try await Broker.start(configuration).shutdown()
                Issue.record("the broker started")
            } catch let error as StartError {
                #expect(error.description == "cannot listen on unix:\(path): there is a file, and it is no socket")
            }
        }
    }

    @Test("the path of a Unix socket has up to 107 bytes")
    func longestPath() async throws {
        // Short enough to have room for a name, wherever temporary files are.
        let directory = "/tmp/listener-\(UUID().uuidString.prefix(8))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let path = (directory + "/").padding(toLength: 107, withPad: "s", startingAt: 0)
        try await withBroker({ $0.listeners = [Configuration.listener { $0.path = path }] }) { _ in
            let client = try TestClient(path: path)
            try client.connect("local")
            try client.ping()
        }
        #expect(!FileManager.default.fileExists(atPath: path))
        var configuration = Configuration()
        configuration.listeners = [Configuration.listener { $0.path = path + "s" }]
        #expect {
            try Broker.checkPlaces(configuration)
        } throws: {
            "\($0)".hasSuffix("the path of a socket has at most 107 bytes")
        }
    }

    @Test("a socket under two spellings is found before the start")
    func twoSpellings() throws {
        try withTemporaryDirectory { directory in
            var configuration = Configuration()
            configuration.dumpDirectory = directory.path
            func check(_ paths: String...) throws {
                configuration.listeners = paths.map { path in Configuration.listener { $0.path = path } }
                try Broker.checkPlaces(configuration)
            }
            let path = directory.path
            try FileManager.default.createSymbolicLink(
                atPath: "\(path)/link", withDestinationPath: directory.path)
            try check("\(path)/a", "\(path)/b")
            for other in ["\(path)/./a", "\(path)//a", "\(path)/link/a"] {
                #expect {
                    try check("\(path)/a", other)
                } throws: {
                    "\($0)" == "cannot listen on unix:\(other): another listener does, on unix:\(path)/a"
                }
            }
        }
    }

    @Test("two sockets for the same peers are found before the start, those of HTTP too")
    func overlaps() throws {
        func check(_ hosts: (String, Int)..., http: (String, Int)? = nil) throws {
            var configuration = Configuration()
            configuration.listeners = hosts.map { host, port in
                Configuration.listener { ($0.host, $0.port) = (host, port) }
            }
            if let http { (configuration.http.host, configuration.http.port) = http }
            try Broker.checkPlaces(configuration)
        }
        try check(("127.0.0.1", 2_883), ("127.0.0.2", 2_883), ("0.0.0.0", 2_884), http: ("127.0.0.1", 2_885))
        try check(("127.0.0.1", 0), ("0.0.0.0", 0), http: ("0.0.0.0", 0))
        for (one, other) in [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1")] {
            #expect {
                try check((one, 2_883), http: (other, 2_883))
            } throws: {
                "\($0)" == "cannot listen on \(other):2883 for HTTP: another listener does, on \(one):2883"
            }
            #expect(throws: StartError.self) { try check((one, 2_883), (other, 2_883)) }
        }
    }

    @Test(
        "addresses overlap if there are peers that reach both",
        arguments: [
            ("127.0.0.1", "127.0.0.1", true), ("127.0.0.1", "127.0.0.2", false), ("0.0.0.0", "10.1.2.3", true),
            ("::", "0.0.0.0", true), ("::", "127.0.0.1", true), ("::", "::1", true), ("::1", "127.0.0.1", false),
            ("::1", "0.0.0.0", false), ("::ffff:127.0.0.1", "127.0.0.1", true), ("::1", "::2", false),
        ])
    func overlap(one: String, other: String, expected: Bool) throws {
        let one = try SocketAddress(ipAddress: one, port: 1)
        let other = try SocketAddress(ipAddress: other, port: 1)
        #expect(ListeningPlaces.overlap(one, other) == expected)
        #expect(ListeningPlaces.overlap(other, one) == expected)
    }

    private static func bindAndForget(_ path: String) -> CInt? {
        let socket = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        guard var address = UnixAddress(path), address.withPointer({ bind(socket, $0, $1) }) == 0 else { return nil }
        return socket
    }

    @Test(
        "connections over a listener's limit, and over that of one address, are closed; others come in when one leaves")
    func connectionLimits() async throws {
        for configure: (inout Configuration.Listener) -> Void in [
            { $0.maxConnections = 3 }, { $0.maxConnectionsPerAddress = 3 },
        ] {
            try await withBroker({ $0.listeners = [Configuration.listener(configure)] }) { broker in
                var clients: [TestClient] = []
                for number in 0..<3 {
                    let client = try TestClient(port: broker.port)
                    #expect(try client.connect("c\(number)").code == .success)
                    clients.append(client)
                }
                for _ in 0..<50 { try TestClient(port: broker.port).expectClosed() }
                for client in clients { try client.ping() }
                try clients[0].disconnect()
                try await broker.poll { broker.context.listeners[0].openConnections <= 2 }
                let next = try TestClient(port: broker.port)
                #expect(try next.connect("next").code == .success)
                #expect(try await broker.accounting().unreachable == 0)
            }
        }
    }

    @Test("a flood of connections is accepted at the rate that is set, and nobody is refused")
    func rate() async throws {
        try await withBroker({ $0.listeners = [Configuration.listener { $0.maxConnectionsPerSecond = 20 }] }) {
            broker in
            let clients = try (0..<50).map { _ in try TestClient(port: broker.port) }
            for (number, client) in clients.enumerated() { #expect(try client.connect("c\(number)").code == .success) }
        }
        var window = RateWindow()
        let start = NIODeadline.uptimeNanoseconds(5)
        #expect(window.count(limit: 2, now: start) == nil)
        #expect(window.count(limit: 2, now: start + .milliseconds(10)) == start + .seconds(1))
        #expect(window.count(limit: 2, now: start + .milliseconds(999)) == start + .seconds(1))
        #expect(window.count(limit: 2, now: start + .seconds(1)) == nil)
    }

    @Test("connections that never finish what they began are closed, whatever they began")
    func halfOpen() async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            let plain = Configuration.listener { $0.connectTimeoutSeconds = 1 }
            var tls = plain
            (tls.certificateFile, tls.keyFile) = (certificates.certificate("server"), certificates.key("server"))
            var webSocket = plain
            webSocket.webSocket = true
            var proxied = plain
            proxied.proxyProtocol = true
            try await withBroker({ $0.listeners = [plain, tls, webSocket, proxied] }) { broker in
                let ports = broker.ports.compactMap { $0 }
                let beginnings: [(Int, [UInt8])] = [
                    (ports[0], []), (ports[0], [0x10, 0x20, 0x00]), (ports[1], []),
                    (ports[1], [0x16, 0x03, 0x01, 0x02]),
                    (ports[2], []), (ports[2], Array("GET /mqtt HTTP/1.1\r\nHost:".utf8)), (ports[3], []),
                    (ports[3], [0x0D, 0x0A, 0x0D, 0x0A]),
                ]
                // All have begun before the first is accepted, and its time runs.
                let clients = try BusyLoop.during(broker.shards[0]) {
                    try beginnings.map { port, bytes in
                        let client = try TestClient(port: port)
                        if !bytes.isEmpty { try client.send(raw: bytes) }
                        return client
                    }
                }
                #expect(try await broker.snapshot().totals.unreachableBuffers == 0)
                for client in clients { while try client.receiveRaw() != nil {} }
                try await broker.awaitNoConnections()
            }
        }
    }
}

@Suite("PROXY protocol", .mayBlock, .serialized)
struct ProxyHeaderTests {
    static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]

    static func header(_ source: [UInt8], port: UInt16, command: UInt8 = 0x21, tlv: [UInt8] = []) -> [UInt8] {
        let addresses = source + source + [UInt8(port >> 8), UInt8(port & 0xFF), 0x07, 0x5B] + tlv
        let family: UInt8 = source.count == 4 ? 0x11 : 0x21
        return signature + [command, family, UInt8(addresses.count >> 8), UInt8(addresses.count & 0xFF)] + addresses
    }

    @Test("the client is who the balancer says: in the log, in the owner tree, and where failures are counted")
    func address() async throws {
        let log = LogCollector()
        try await withTemporaryDirectory { directory in
            let passwords = try directory.write("passwd", LoginTests.passwords(["anna": "a"]))
            try await withBroker(
                {
                    $0.access.failedLoginDelayMilliseconds = 1
                    $0.listeners = [
                        Configuration.listener {
                            $0.proxyProtocol = true
                            $0.anonymous = nil
                            $0.passwordFile = passwords
                        }
                    ]
                }, log: log.logger
            ) { broker in
                let client = try TestClient(port: broker.port)
                try client.send(raw: Self.header([203, 0, 113, 9], port: 4_711, tlv: [0x04, 0, 1, 0xFF]))
                #expect(try client.connect("c", user: "anna", password: "no").code == .badUserNameOrPassword)
                let six = try TestClient(port: broker.port)
                let address: [UInt8] = [0x20, 0x01, 0x0D, 0xB8] + Array(repeating: 0, count: 11) + [1]
                try six.send(raw: Self.header(address, port: 80))
                #expect(try six.connect("six", user: "anna", password: "a").code == .success)
                // A check of the balancer's own, and a header that comes a byte at a time.
                let local = try TestClient(port: broker.port)
                for byte in Self.signature + [0x20, 0, 0, 0] { try local.send(raw: [byte]) }
                #expect(try local.connect("local", user: "anna", password: "a").code == .success)
                #expect(try await broker.accounting().unreachable == 0)
            }
        }
        #expect(log.lines.contains { $0.contains("login failed") && $0.contains("peer=203.0.113.9:4711") })
        #expect(log.lines.contains { $0.contains("client connected") && $0.contains("peer=[2001:db8::1]:80") })
        #expect(log.lines.contains { $0.contains("client connected client=local") && $0.contains("peer=127.0.0.1:") })
    }

    @Test(
        "what is no header of version 2 ends the connection at its first wrong byte",
        arguments: [
            [0x10], [0x0D, 0x0A, 0x0D, 0x0B], signature + [0x11, 0x11, 0, 12], signature + [0x22, 0x11, 0, 12],
            signature + [0x21, 0x11, 0xFF, 0xFF], signature + [0x21, 0x11, 0, 4, 1, 2, 3, 4],
            signature + [0x21, 0x12, 0, 0], Array("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".utf8),
        ] as [[UInt8]])
    func garbage(bytes: [UInt8]) async throws {
        try await withBroker({ $0.listeners = [Configuration.listener { $0.proxyProtocol = true }] }) { broker in
            let client = try TestClient(port: broker.port)
            try client.send(raw: bytes)
            try client.expectClosed()
            try await broker.awaitNoConnections()
            try await broker.awaitNothingLeft()
        }
    }

    @Test("the limit of connections from one address counts the clients', not the balancer's")
    func limit() async throws {
        try await withBroker({
            $0.listeners = [
                Configuration.listener {
                    $0.proxyProtocol = true; $0.maxConnectionsPerAddress = 1
                }
            ]
        }) { broker in
            var clients: [TestClient] = []
            for number in 1...3 {
                let client = try TestClient(port: broker.port)
                try client.send(raw: Self.header([10, 0, 0, UInt8(number)], port: 1))
                #expect(try client.connect("c\(number)").code == .success)
                clients.append(client)
            }
            let again = try TestClient(port: broker.port)
            try again.send(raw: Self.header([10, 0, 0, 1], port: 2))
            try again.expectClosed()
        }
    }
}
