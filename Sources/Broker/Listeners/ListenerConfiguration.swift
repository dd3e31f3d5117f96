extension Configuration {
    /// One place to connect to, with a policy and limits of its own. A value that is nil is the broker's.
    public struct Listener: Sendable, Equatable {
        /// What logs and dumps call it; empty is its address.
        public var name = ""
        public var host = "127.0.0.1"
        /// 0 lets the system choose.
        public var port = 1883
        /// A Unix socket, instead of host and port.
        public var path: String?
        /// Who may use that socket: its permissions.
        public var mode = 0o660
        /// MQTT in WebSocket frames.
        public var webSocket = false
        /// The path that a WebSocket client must ask for.
        public var webSocketPath = "/mqtt"
        /// The largest frame of a client.
        public var maxFrameBytes = 1 << 20
        /// A balancer stands in front, which says with PROXY protocol v2 who the peer is.
        public var proxyProtocol = false

        // TLS, on with a certificate.
        /// PEM: the server's certificate, then those between it and the root.
        public var certificateFile: String?
        /// PEM.
        public var keyFile: String?
        /// PEM: who signs clients' certificates.
        public var clientCAFile: String?
        public var requireClientCertificate = false
        /// The common name of the client's certificate is its user name.
        public var certificateUserName = false
        public var minimumTLSVersion = TLSVersion.v1_2

        // Who may come.
        public var anonymous: Bool?
        public var passwordFile: String?
        public var aclFile: String?

        // Limits.
        public var maxConnections: Int?
        public var maxConnectionsPerAddress: Int?
        public var maxConnectionsPerSecond: Int?
        public var maxPacketBytes: Int?
        public var connectTimeoutSeconds: Int?

        public init() {}

        public enum TLSVersion: String, Sendable, CaseIterable {
            case v1_2 = "1.2"
            case v1_3 = "1.3"
        }

        var isTLS: Bool { certificateFile != nil }

        /// `127.0.0.1:1883`, `[::1]:1883` or `unix:/run/broker.sock`.
        func address(port: Int) -> String {
            if let path { return "unix:\(path)" }
            return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        }

        /// As logs begin a sentence about it: "tls listener 0.0.0.0:8883".
        var title: String { name.isEmpty ? address(port: port) : name }

        /// The protocol in one word.
        var scheme: String {
            switch (webSocket, isTLS) {
            case (false, false): path == nil ? "tcp" : "unix"
            case (false, true): "tls"
            case (true, false): "ws"
            case (true, true): "wss"
            }
        }

        /// Whether only programs of this machine can come, which are who they are: not through a balancer.
        var isLoopback: Bool {
            guard path == nil, !proxyProtocol else { return false }
            return host == "localhost" || host == "::1" || host.hasPrefix("127.")
        }
    }

    /// Who may connect and what each may do, where a listener does not say otherwise.
    public struct Access: Sendable, Equatable {
        /// Whether clients without a user name are admitted; nil is no, but for a loopback listener without any
        /// way to log in.
        public var anonymous: Bool?
        /// Users and password hashes, as `mosquitto_passwd` writes them.
        public var passwordFile: String?
        /// Rules by topic, in mosquitto's syntax.
        public var aclFile: String?
        /// How long the first refusal of an address takes; each further one twice as long.
        public var failedLoginDelayMilliseconds = 1_000
    }

    /// The listeners to open: those configured, or the one that host and port stand for.
    var effectiveListeners: [Listener] {
        guard listeners.isEmpty else { return listeners }
        var listener = Listener()
        listener.host = host
        listener.port = port
        return [listener]
    }

    /// Who may come by `listener`.
    func policy(of listener: Listener) -> Policy {
        let passwordFile = listener.passwordFile ?? access.passwordFile
        let configured = listener.anonymous ?? access.anonymous
        let canLogIn = passwordFile != nil || listener.certificateUserName
        return Policy(
            allowsAnonymous: configured ?? (!canLogIn && listener.isLoopback),
            isDemonstration: configured == nil && !canLogIn && listener.isLoopback,
            passwordFile: passwordFile, aclFile: listener.aclFile ?? access.aclFile)
    }

    struct Policy: Equatable {
        var allowsAnonymous: Bool
        /// Anonymous clients are admitted only because nothing is configured, on the loopback interface.
        var isDemonstration: Bool
        var passwordFile: String?
        var aclFile: String?
    }

    /// What is wrong with the listeners as they stand together.
    ///
    /// - Throws: ``ConfigurationError`` that names the listener.
    func checkListeners() throws(ConfigurationError) {
        var addresses: Set<String> = []
        for listener in effectiveListeners {
            // Where the first key stands that it is about.
            func wrong(_ text: String, _ keys: String...) -> ConfigurationError {
                ConfigurationError("\(beginning(of: listener, keys))listener \(listener.title): \(text)")
            }
            let address = listener.address(port: listener.port)
            if listener.port != 0 || listener.path != nil, !addresses.insert(address).inserted {
                throw wrong("another listener has the address \(address)")
            }
            if listener.isTLS != (listener.keyFile != nil) {
                throw wrong("certificateFile and keyFile need each other", "certificateFile", "keyFile")
            }
            if !listener.isTLS {
                if listener.clientCAFile != nil {
                    throw wrong("clientCAFile needs certificateFile and keyFile", "clientCAFile")
                }
                if listener.requireClientCertificate {
                    throw wrong("requireClientCertificate needs clientCAFile", "requireClientCertificate")
                }
            } else if listener.requireClientCertificate, listener.clientCAFile == nil {
                throw wrong("requireClientCertificate needs clientCAFile", "requireClientCertificate")
            }
            if listener.certificateUserName, !listener.requireClientCertificate {
                throw wrong("certificateUserName needs requireClientCertificate = true", "certificateUserName")
            }
            let policy = policy(of: listener)
            if !policy.allowsAnonymous, policy.passwordFile == nil, !listener.certificateUserName {
                throw wrong(
                    "nobody could connect: give passwordFile (arena-broker passwd makes one), "
                        + "certificateUserName, or anonymous = true", "anonymous")
            }
        }
    }
}
