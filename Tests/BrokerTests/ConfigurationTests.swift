import Foundation
import TestSupport
import Testing

@testable import Broker

@Suite("Configuration", .mayBlock)
struct ConfigurationTests {
    @Test("every key is read")
    func allKeys() throws {
        var configuration = Configuration()
        try configuration.read(
            toml: """
                host = "0.0.0.0"
                port = 1884
                threads = 3
                memoryLimit = "1GiB"
                dumpDirectory = "/var/dumps"
                nearPercent = 80
                logLevel = "debug"
                [limits]
                maxPacketBytes = 2048
                queuePolicy = "drop-oldest"
                maxSharedSubscriptionsPerSession = 30
                maxSubscriptionBytesPerSession = 4096
                maxSessions = 10
                maxRetainedMessages = 20
                packetTimeoutSeconds = 7
                slowConsumerSeconds = 9
                [rpc]
                timeoutSeconds = 5
                requirePending = false
                [faults]
                rpcResponseLeakPercent = 0.5
                """, name: "broker.toml")
        var expected = Configuration()
        expected.host = "0.0.0.0"
        expected.port = 1884
        expected.threads = 3
        expected.memoryLimit = 1 << 30
        expected.dumpDirectory = "/var/dumps"
        expected.nearPercent = 80
        expected.logLevel = .debug
        expected.limits.maxPacketBytes = 2_048
        expected.limits.queuePolicy = .dropOldest
        expected.limits.maxSharedSubscriptionsPerSession = 30
        expected.limits.maxSubscriptionBytesPerSession = 4_096
        expected.limits.maxSessions = 10
        expected.limits.maxRetainedMessages = 20
        expected.limits.packetTimeoutSeconds = 7
        expected.limits.slowConsumerSeconds = 9
        expected.rpc.timeoutSeconds = 5
        expected.rpc.requirePending = false
        expected.faults.rpcResponseLeakPercent = 0.5
        #expect(configuration == expected)
    }

    @Test(
        "a mistake is named with file, line and key",
        arguments: [
            ("port = 1883\nprot = 1884", "broker.toml:2: unknown key prot;"),
            ("port = 70000", "broker.toml:1: port must be an integer from 0 to 65535, found 70000"),
            ("\n[limits]\nmaxInflight = 0", "broker.toml:3: limits.maxInflight must be an integer from 1"),
            ("port = 1\n[limits]\nport = 2", "broker.toml:3: unknown key limits.port;"),
            ("memoryLimit = \"1 GB\"", "broker.toml:1: memoryLimit must be bytes"),
            ("port = 1\nmemoryLimit = 5", "broker.toml:2: memoryLimit must be at least 17825792 bytes, found 5"),
            ("memoryLimit = \"16MiB\"", "broker.toml:1: memoryLimit must be at least 17825792 bytes, found"),
            ("memoryLimit = -1", "broker.toml:1: memoryLimit must be at least 17825792 bytes, found -1"),
            ("[faults]\nrpcResponseLeakPercent = 101", "broker.toml:2: faults.rpcResponseLeakPercent must be a number"),
            ("[limits]\nqueuePolicy = \"keep\"", "one of \"drop-newest\", \"drop-oldest\""),
            (
                String(repeating: "[[listeners]]\n", count: 100_000) + "port = 0",
                "broker.toml:1: 100000 [[listeners]] are too many: at most 256"
            ),
            ("rpc = 3", "broker.toml:1: rpc must be a table"),
            ("host = \n", "broker.toml:1:"),
        ])
    func mistakes(toml: String, complaint: String) throws {
        let error = #expect(throws: ConfigurationError.self) {
            var configuration = Configuration()
            try configuration.read(toml: toml, name: "broker.toml")
        }
        #expect(error?.description.contains(complaint) == true, "\(String(describing: error))")
    }

    @Test("a listener that a variable numbers too high is one of too many, as many as may be are taken")
    func manyListeners() throws {
        var configuration = Configuration()
        let most = String(repeating: "[[listeners]]\n", count: Limits.maxListeners)
        try configuration.read(toml: most, name: "broker.toml")
        #expect(configuration.listeners.count == Limits.maxListeners)
        let error = #expect(throws: ConfigurationError.self) {
            try configuration.read(
                toml: most, name: "broker.toml",
                overrides: ConfigurationOverrides(environment: ["ARENA_BROKER_LISTENERS_256_PORT": "1"]))
        }
        #expect(error?.description.contains("257 [[listeners]] are too many: at most 256") == true)
    }

    @Test(
        "sizes",
        arguments: [
            ("2000000000", 2_000_000_000), ("256MiB", 256 << 20), ("1GB", 1_000_000_000), ("4KiB", 4096), ("7KB", 7000),
            ("0", nil), ("", nil), ("MiB", nil), ("1TiB", nil), ("-1", nil), ("99999999999GiB", nil), ("1 MiB", nil),
        ] as [(String, Int?)])
    func sizes(text: String, bytes: Int?) {
        #expect(MemoryLimit.parse(text) == bytes)
    }
}

extension ConfigurationTests {
    @Test("listeners and access are read, and the text of a configuration has them")
    func listeners() throws {
        var configuration = Configuration()
        try configuration.read(
            toml: """
                [access]
                anonymous = false
                passwordFile = "p"
                aclFile = "a"
                failedLoginDelayMilliseconds = 5
                [[listeners]]
                name = "tls"
                host = "::1"
                port = 8883
                certificateFile = "c"
                keyFile = "k"
                clientCAFile = "ca"
                requireClientCertificate = true
                certificateUserName = true
                minimumTLSVersion = "1.3"
                webSocket = true
                webSocketPath = "/ws"
                maxFrameBytes = 4096
                proxyProtocol = true
                anonymous = true
                passwordFile = "p2"
                aclFile = "a2"
                maxConnections = 1
                maxConnectionsPerAddress = 2
                maxConnectionsPerSecond = 3
                maxPacketBytes = 400
                connectTimeoutSeconds = 5
                [[listeners]]
                path = "/run/s"
                mode = "0600"
                """, name: "broker.toml")
        var tls = Configuration.Listener()
        (tls.name, tls.host, tls.port) = ("tls", "::1", 8_883)
        (tls.certificateFile, tls.keyFile, tls.clientCAFile) = ("c", "k", "ca")
        (tls.requireClientCertificate, tls.certificateUserName, tls.minimumTLSVersion) = (true, true, .v1_3)
        (tls.webSocket, tls.webSocketPath, tls.maxFrameBytes, tls.proxyProtocol) = (true, "/ws", 4_096, true)
        (tls.anonymous, tls.passwordFile, tls.aclFile) = (true, "p2", "a2")
        (tls.maxConnections, tls.maxConnectionsPerAddress, tls.maxConnectionsPerSecond) = (1, 2, 3)
        (tls.maxPacketBytes, tls.connectTimeoutSeconds) = (400, 5)
        var unix = Configuration.Listener()
        (unix.path, unix.mode) = ("/run/s", 0o600)
        var expected = Configuration()
        expected.listeners = [tls, unix]
        expected.access = Configuration.Access(
            anonymous: false, passwordFile: "p", aclFile: "a", failedLoginDelayMilliseconds: 5)
        #expect(configuration == expected)
        var again = Configuration()
        try again.read(toml: configuration.toml, name: "dump")
        #expect(again == configuration)
    }

    @Test(
        "every key has a variable: its path in capitals, its words apart",
        arguments: [
            ("port", "PORT"), ("limits.maxInflight", "LIMITS_MAX_INFLIGHT"),
            ("limits.maxIncomingQoS2", "LIMITS_MAX_INCOMING_QOS2"),
            ("limits.maxPendingRPCPerDevice", "LIMITS_MAX_PENDING_RPC_PER_DEVICE"),
            ("listeners.1.clientCAFile", "LISTENERS_1_CLIENT_CA_FILE"),
            ("listeners.0.minimumTLSVersion", "LISTENERS_0_MINIMUM_TLS_VERSION"),
        ])
    func variables(key: String, name: String) {
        #expect(ConfigurationOverrides.variable(key) == "ARENA_BROKER_" + name)
    }

    @Test("every key that is read is documented, and has its default there or in words")
    func documentation() throws {
        let file = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appending(path: "docs/configuration.md")
        let text = try String(contentsOf: file, encoding: .utf8)
        let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `") }
        let documented = Set(rows.flatMap { $0.split(separator: "|")[0].split(separator: "`").map(String.init) })
        let source = try ConfigurationSource(
            text: "[[listeners]]", name: "all", overrides: ConfigurationOverrides())
        var configuration = Configuration()
        try configuration.read(source)
        for key in source.keys {
            let word = String(key.split(separator: ".").last!)
            #expect(documented.contains(word), "\(key)")
        }
        #expect(source.keys.count > 60)
    }

    @Test("event loops are as many as cores and memory allow; more is an error that says so")
    func eventLoops() throws {
        var configuration = Configuration()
        configuration.memoryLimit = 64 << 20
        #expect(try (1...2).contains(configuration.eventLoopCount()))
        configuration.threads = 2
        #expect(try configuration.eventLoopCount() == 2)
        configuration.threads = 3
        #expect(throws: ConfigurationError.self) { try configuration.eventLoopCount() }
    }

    @Test("the text of a configuration reads back as that configuration")
    func text() throws {
        var configuration = Configuration()
        configuration.threads = 2
        configuration.dataDirectory = "data"
        configuration.limits.maxWaitingStoreBytes = 5_000
        configuration.limits.maxSharedSubscriptionsPerSession = 30
        configuration.limits.maxSubscriptionBytesPerSession = 4_096
        configuration.limits.maxSessions = 10
        configuration.limits.maxRetainedMessages = 20
        configuration.limits.packetTimeoutSeconds = 7
        configuration.limits.slowConsumerSeconds = 9
        var again = Configuration()
        try again.read(toml: configuration.toml, name: "dump")
        #expect(again == configuration)
    }

    @Test("addresses are written so that they can be used, and an unknown host is a sentence")
    func addresses() async throws {
        var configuration = Configuration()
        #expect(configuration.address(port: 7) == "127.0.0.1:7")
        configuration.host = "::1"
        #expect(configuration.address(port: 7) == "[::1]:7")
        // A label this long is in no name service, so nobody is asked.
        configuration.host = String(repeating: "x", count: 70)
        configuration.memoryLimit = 64 << 20
        configuration.access.anonymous = true
        do {
            try await Broker.start(configuration).shutdown()
            Issue.record("the broker started")
        } catch let error as StartError {
            #expect(error.description == "cannot listen on \(configuration.host):1883: Name or service not known")
        }
    }

    @Test("a limit above what the machine has is warned of")
    func absurdLimit() async throws {
        let log = LogCollector()
        let limit = MemoryLimit.physicalBytes + 1
        try await withBroker(threads: 1, { $0.memoryLimit = limit }, log: log.logger) { _ in }
        #expect(log.lines.contains { $0.hasPrefix("warning the memory limit of \(limit) bytes is more than the") })
    }
}
