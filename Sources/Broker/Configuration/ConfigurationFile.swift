/// The configuration file: TOML, in which an unknown key or a value that cannot be meant is an error.
///
///     host = "127.0.0.1"
///     memoryLimit = "256MiB"
///     [limits]
///     maxPacketBytes = 1048576
///     [rpc]
///     timeoutSeconds = 30
///     [faults]
///     rpcResponseLeakPercent = 0.0
extension Configuration {
    /// The configuration that a file, environment and flags make on top of the defaults, checked as a whole.
    ///
    /// - Parameter path: of the file; nil for none.
    /// - Throws: ``ConfigurationError``, which names the file and the line, the variable or the flag.
    public static func load(file path: String?, overrides: ConfigurationOverrides) throws -> Configuration {
        var text = ""
        if let path {
            do throws(SmallFile.Failure) { text = try SmallFile.contents(of: path) } catch {
                throw ConfigurationError(error.description)
            }
        }
        var configuration = Configuration()
        try configuration.read(toml: text, name: path ?? "configuration", overrides: overrides)
        return configuration
    }

    /// Reads a file on top of the values that are set already.
    ///
    /// - Parameters:
    ///   - name: what errors call the text: the file's path.
    ///   - overrides: what counts more than the file.
    public mutating func read(
        toml text: String, name: String, overrides: ConfigurationOverrides = ConfigurationOverrides()
    ) throws {
        try read(ConfigurationSource(text: text, name: name, overrides: overrides))
    }

    mutating func read(_ source: ConfigurationSource) throws {
        var top = source.top
        try top.take("host") { host = try $0.string() }
        try top.take("port") { port = try $0.integer(0...65_535) }
        try top.take("threads") { threads = try $0.integer(1...1_024) }
        try top.take("memoryLimit") { memoryLimit = try $0.bytes(atLeast: MemoryLimit.minimumBytes) }
        try top.take("dumpDirectory") { dumpDirectory = try $0.string() }
        try top.take("flightRecorder") { flightRecorder = try $0.string() }
        try top.take("dataDirectory") { dataDirectory = try $0.string() }
        try top.take("nearPercent") { nearPercent = try $0.integer(1...100) }
        try top.take("shutdownTimeoutSeconds") { shutdownTimeoutSeconds = try $0.integer(1...3_600) }
        try top.take("logLevel") { logLevel = try $0.choice() }
        try top.section("dumps") { section in
            try section.take("keepCount") { dumps.keepCount = try $0.integer(1...1_000_000) }
            try section.take("keepBytes") { dumps.keepBytes = try $0.bytes() }
            try section.take("series") { dumps.series = try $0.string() }
            try section.take("minimumIntervalSeconds") { dumps.minimumIntervalSeconds = try $0.integer(0...86_400) }
            try section.take("loopWaitMilliseconds") { dumps.loopWaitMilliseconds = try $0.integer(1...60_000) }
            try section.take("payload") { dumps.payload = try $0.payload() }
        }
        try top.section("limits") { try limits.read(&$0) }
        try top.section("rpc") { section in
            try section.take("timeoutSeconds") { rpc.timeoutSeconds = try $0.integer(1...86_400) }
            try section.take("requirePending") { rpc.requirePending = try $0.bool() }
            try section.take("requestTopic") { rpc.requestTopic = try $0.commandTopic() }
            try section.take("responseTopic") { rpc.responseTopic = try $0.commandTopic() }
            if rpc.requestTopic == rpc.responseTopic {
                throw ConfigurationError(
                    "\(section.place(of: "responseTopic")): rpc.requestTopic and rpc.responseTopic must differ")
            }
        }
        try top.section("http") { try http.read(&$0) }
        try top.section("faults") { section in
            try section.take("rpcResponseLeakPercent") { faults.rpcResponseLeakPercent = try $0.number(0...100) }
        }
        try top.section("access") { try access.read(&$0) }
        let given = try top.sections("listeners", atMost: Limits.maxListeners) { section in
            var listener = Listener()
            try listener.read(&section)
            return listener
        }
        if !given.isEmpty {
            listeners = given
            for key in ["host", "port"] where top.has(key) {
                throw ConfigurationError("\(top.place(of: key)): \(key) and [[listeners]] exclude each other")
            }
        }
        try top.finish()
        try source.checkOverrides()
        places = source.places
    }
}

extension Configuration.HTTP {
    fileprivate mutating func read(_ section: inout ConfigurationSection) throws {
        try section.take("host") { host = try $0.string() }
        try section.take("port") { port = try $0.integer(0...65_535) }
        try section.take("tokenFile") { tokenFile = try $0.string() }
        try section.take("certificateFile") { certificateFile = try $0.string() }
        try section.take("keyFile") { keyFile = try $0.string() }
        try section.take("maxBodyBytes") { maxBodyBytes = try $0.integer(1...Limits.maxHTTPBodyBytes) }
        try section.take("maxTotalBodyBytes") { maxTotalBodyBytes = try $0.integer(1...1 << 40) }
        try section.take("maxConnections") { maxConnections = try $0.integer(1...100_000) }
        try section.take("maxConnectionsPerAddress") { maxConnectionsPerAddress = try $0.integer(1...100_000) }
        try section.take("headerTimeoutSeconds") { headerTimeoutSeconds = try $0.integer(1...3_600) }
        try section.take("bodyTimeoutSeconds") { bodyTimeoutSeconds = try $0.integer(1...3_600) }
        try section.take("maxCommands") { maxCommands = try $0.integer(1...1_000_000) }
    }
}

extension Configuration.Access {
    fileprivate mutating func read(_ section: inout ConfigurationSection) throws {
        try section.take("anonymous") { anonymous = try $0.bool() }
        try section.take("passwordFile") { passwordFile = try $0.string() }
        try section.take("aclFile") { aclFile = try $0.string() }
        try section.take("failedLoginDelayMilliseconds") {
            failedLoginDelayMilliseconds = try $0.integer(0...Limits.maxLoginDelaySeconds * 1_000)
        }
    }
}

extension Configuration.Listener {
    fileprivate mutating func read(_ section: inout ConfigurationSection) throws {
        try section.take("name") { name = try $0.string() }
        try section.take("host") { host = try $0.string() }
        try section.take("port") { port = try $0.integer(0...65_535) }
        try section.take("path") { path = try $0.string() }
        if section.has("path") {
            for key in ["host", "port"] where section.has(key) {
                throw ConfigurationError("\(section.place(of: key)): \(key) and path exclude each other")
            }
        }
        try section.take("mode") { mode = try $0.permissions() }
        try section.take("webSocket") { webSocket = try $0.bool() }
        try section.take("webSocketPath") { webSocketPath = try $0.string(startingWith: "/") }
        try section.take("maxFrameBytes") { maxFrameBytes = try $0.integer(128...1 << 30) }
        try section.take("proxyProtocol") { proxyProtocol = try $0.bool() }
        try section.take("certificateFile") { certificateFile = try $0.string() }
        try section.take("keyFile") { keyFile = try $0.string() }
        try section.take("clientCAFile") { clientCAFile = try $0.string() }
        try section.take("requireClientCertificate") { requireClientCertificate = try $0.bool() }
        try section.take("certificateUserName") { certificateUserName = try $0.bool() }
        try section.take("minimumTLSVersion") { minimumTLSVersion = try $0.choice() }
        try section.take("anonymous") { anonymous = try $0.bool() }
        try section.take("passwordFile") { passwordFile = try $0.string() }
        try section.take("aclFile") { aclFile = try $0.string() }
        try section.take("maxConnections") { maxConnections = try $0.integer(1...10_000_000) }
        try section.take("maxConnectionsPerAddress") { maxConnectionsPerAddress = try $0.integer(1...10_000_000) }
        try section.take("maxConnectionsPerSecond") { maxConnectionsPerSecond = try $0.integer(1...10_000_000) }
        try section.take("maxPacketBytes") { maxPacketBytes = try $0.integer(128...268_435_460) }
        try section.take("connectTimeoutSeconds") { connectTimeoutSeconds = try $0.integer(1...3_600) }
    }
}

extension Limits {
    fileprivate mutating func read(_ section: inout ConfigurationSection) throws {
        // 268,435,460 is the largest packet there can be (section 2.2.3).
        try section.take("maxPacketBytes") { maxPacketBytes = try $0.integer(128...268_435_460) }
        try section.take("maxConnections") { maxConnections = try $0.integer(1...10_000_000) }
        try section.take("maxTopicLevels") { maxTopicLevels = try $0.integer(1...Limits.mostTopicLevels) }
        try section.take("maxSubscriptionsPerSession") { maxSubscriptionsPerSession = try $0.integer(1...10_000_000) }
        try section.take("maxSharedSubscriptionsPerSession") {
            maxSharedSubscriptionsPerSession = try $0.integer(0...10_000_000)
        }
        try section.take("maxSubscriptionBytesPerSession") {
            maxSubscriptionBytesPerSession = try $0.integer(1...1 << 40)
        }
        try section.take("maxSessions") { maxSessions = try $0.integer(0...100_000_000) }
        try section.take("maxRetainedMessages") { maxRetainedMessages = try $0.integer(0...100_000_000) }
        try section.take("maxInflight") { maxInflight = try $0.integer(1...65_535) }
        try section.take("maxIncomingQoS2") { maxIncomingQoS2 = try $0.integer(1...65_535) }
        try section.take("maxTopicAliases") { maxTopicAliases = try $0.integer(0...65_535) }
        try section.take("maxSessionExpirySeconds") { maxSessionExpirySeconds = try $0.integer(0...Int(UInt32.max)) }
        try section.take("maxKeepAliveSeconds") { maxKeepAliveSeconds = try $0.integer(1...65_535) }
        try section.take("sysIntervalSeconds") { sysIntervalSeconds = try $0.integer(0...86_400) }
        try section.take("maxQueuedMessages") { maxQueuedMessages = try $0.integer(0...100_000_000) }
        try section.take("maxQueuedBytes") { maxQueuedBytes = try $0.integer(0...1 << 40) }
        try section.take("queuePolicy") { queuePolicy = try $0.choice() }
        try section.take("maxBacklogMessages") { maxBacklogMessages = try $0.integer(0...100_000_000) }
        try section.take("maxBacklogBytes") { maxBacklogBytes = try $0.integer(0...1 << 40) }
        try section.take("connectTimeoutSeconds") { connectTimeoutSeconds = try $0.integer(1...3_600) }
        try section.take("packetTimeoutSeconds") { packetTimeoutSeconds = try $0.integer(1...3_600) }
        try section.take("maxWaitingStoreBytes") { maxWaitingStoreBytes = try $0.integer(1...1 << 40) }
        try section.take("slowConsumerSeconds") { slowConsumerSeconds = try $0.integer(0...86_400) }
        try section.take("maxPendingRPCPerDevice") { maxPendingRPCPerDevice = try $0.integer(1...1_000_000) }
        try section.take("receiversPerPiece") { receiversPerPiece = try $0.integer(1...16_384) }
    }
}

/// What is wrong with a configuration, in one line that names file, line and key.
public struct ConfigurationError: Error, CustomStringConvertible {
    public let description: String
    /// Whether the command line is wrong, and not what it names.
    public let isUsage: Bool

    public init(_ description: String, isUsage: Bool = false) {
        self.description = description
        self.isUsage = isUsage
    }
}
