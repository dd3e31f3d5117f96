extension Configuration {
    /// HTTP for back ends, who send commands, and for operators, who ask where the memory is.
    public struct HTTP: Sendable, Equatable {
        public var host = "127.0.0.1"
        /// Nil: no HTTP at all. 0 lets the system choose.
        public var port: Int?
        /// The tokens that requests must show one of: one a line.
        public var tokenFile: String?
        /// PEM: the server's certificate, then those between it and the root. With it, HTTPS.
        public var certificateFile: String?
        /// PEM.
        public var keyFile: String?
        /// The largest body of a request: the payload of a command.
        public var maxBodyBytes = 256 << 10
        /// Bytes of all bodies that are in memory at once; a request whose body has no room is told to come again.
        public var maxTotalBodyBytes = 16 << 20
        /// At once. One more takes the place of another, one that has shown no token first; where all have, and are being answered,
        /// it gets `/health` and nothing else.
        public var maxConnections = 256
        /// The same for the connections of one address.
        public var maxConnectionsPerAddress = 128
        /// Seconds from the connection to the end of its first request's head, a TLS handshake included.
        public var headerTimeoutSeconds = 10
        /// Seconds from a request's head to the end of its body, and for the client to take what is written to it.
        public var bodyTimeoutSeconds = 30
        /// Commands that wait for a response, of all requests together.
        public var maxCommands = 4_096

        /// `host:port`.
        package func address(port: Int) -> String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
    }

    /// - Throws: ``ConfigurationError`` where keys do not go together.
    func checkHTTP() throws(ConfigurationError) {
        func wrong(_ key: String, _ text: String) -> ConfigurationError {
            ConfigurationError("\(places["http.\(key)"].map { "\($0): " } ?? "")\(text)")
        }
        guard http.port != nil else { return }
        guard http.tokenFile != nil else {
            throw wrong(
                "port",
                "http.port without http.tokenFile: whoever sends commands must show a token. Make one with "
                    + "openssl rand -hex 24 > FILE")
        }
        guard (http.certificateFile == nil) == (http.keyFile == nil) else {
            throw wrong("certificateFile", "http.certificateFile and http.keyFile need each other")
        }
        guard http.maxTotalBodyBytes >= http.maxBodyBytes else {
            throw wrong("maxTotalBodyBytes", "http.maxTotalBodyBytes is less than http.maxBodyBytes, which is one body")
        }
    }
}
