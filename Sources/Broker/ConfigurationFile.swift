import TOMLKit

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
    /// Reads a file on top of the values that are set already.
    ///
    /// - Throws: ``ConfigurationError``.
    public mutating func read(file path: String) throws {
        let text: String
        do throws(SmallFile.Failure) { text = try SmallFile.contents(of: path) } catch {
            throw ConfigurationError(error.description)
        }
        try read(toml: text, name: path)
    }

    /// - Parameter name: what errors call the text: the file's path.
    public mutating func read(toml text: String, name: String) throws {
        let table: TOMLTable
        do { table = try TOMLTable(string: text) } catch let error as TOMLParseError {
            throw ConfigurationError("\(name):\(error.source.begin.line): \(error.description)")
        } catch {
            throw ConfigurationError("\(name): \(error)")
        }
        var top = Section(table, at: "", text: text, name: name)
        try top.take("host") { host = try $0.string() }
        try top.take("port") { port = try $0.integer(0...65_535) }
        try top.take("threads") { threads = try $0.integer(1...1_024) }
        try top.take("memoryLimit") { memoryLimit = try $0.bytes(atLeast: MemoryLimit.minimumBytes) }
        try top.take("dumpDirectory") { dumpDirectory = try $0.string() }
        try top.take("flightRecorder") { flightRecorder = try $0.string() }
        try top.take("nearPercent") { nearPercent = try $0.integer(1...100) }
        try top.take("logLevel") { logLevel = try $0.choice() }
        try top.section("dumps") { section in
            try section.take("keepCount") { dumps.keepCount = try $0.integer(1...1_000_000) }
            try section.take("keepBytes") { dumps.keepBytes = try $0.bytes() }
            try section.take("minimumIntervalSeconds") { dumps.minimumIntervalSeconds = try $0.integer(0...86_400) }
            try section.take("payload") { dumps.payload = try $0.payload() }
        }
        try top.section("limits") { try limits.read(&$0) }
        try top.section("rpc") { section in
            try section.take("timeoutSeconds") { rpc.timeoutSeconds = try $0.integer(1...86_400) }
            try section.take("requirePending") { rpc.requirePending = try $0.bool() }
        }
        try top.section("faults") { section in
            try section.take("rpcResponseLeakPercent") { faults.rpcResponseLeakPercent = try $0.number(0...100) }
        }
        try top.finish()
    }
}

extension Limits {
    fileprivate mutating func read(_ section: inout Section) throws {
        // 268,435,460 is the largest packet there can be (section 2.2.3).
        try section.take("maxPacketBytes") { maxPacketBytes = try $0.integer(128...268_435_460) }
        try section.take("maxConnections") { maxConnections = try $0.integer(1...10_000_000) }
        try section.take("maxTopicLevels") { maxTopicLevels = try $0.integer(1...1_000) }
        try section.take("maxSubscriptionsPerSession") { maxSubscriptionsPerSession = try $0.integer(1...10_000_000) }
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
        try section.take("maxPendingRPCPerDevice") { maxPendingRPCPerDevice = try $0.integer(1...1_000_000) }
    }
}

/// What is wrong with a configuration, in one line that names file, line and key.
public struct ConfigurationError: Error, CustomStringConvertible {
    public let description: String

    public init(_ description: String) { self.description = description }
}

/// One table of the file. Keys that nobody has taken at the end are unknown.
private struct Section {
    private let table: TOMLTable
    private let path: String
    private let text: String
    private let name: String
    private var taken: Set<String> = []

    init(_ table: TOMLTable, at path: String, text: String, name: String) {
        self.table = table
        self.path = path
        self.text = text
        self.name = name
    }

    mutating func take(
        _ key: String, _ body: (Value) throws -> Void
    ) throws {
        taken.insert(key)
        guard let value = table[key] else { return }
        try body(Value(value: value, key: path + key, place: place(of: key)))
    }

    mutating func section(
        _ key: String, _ body: (inout Section) throws -> Void
    ) throws {
        taken.insert(key)
        guard let value = table[key] else { return }
        guard let inner = value.table else {
            throw ConfigurationError("\(place(of: key)): \(path)\(key) must be a table: [\(key)]")
        }
        var section = Section(inner, at: "\(path)\(key).", text: text, name: name)
        try body(&section)
        try section.finish()
    }

    func finish() throws {
        guard let unknown = table.keys.filter({ !taken.contains($0) }).sorted().first else { return }
        throw ConfigurationError(
            "\(place(of: unknown)): unknown key \(path)\(unknown); known here: "
                + taken.sorted().joined(separator: ", "))
    }

    /// `file:line` of a key. The parser does not say where a value stood, so this looks for the key in its section.
    private func place(of key: String) -> String {
        var section = ""
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let line = line.drop { $0 == " " || $0 == "\t" }
            if line.first == "[" {
                section = line.dropFirst().prefix { $0 != "]" } + "."
                if section == path + key + "." { return "\(name):\(index + 1)" }
            }
            let word = line.prefix { $0 != "=" && $0 != " " && $0 != "\t" && $0 != "." }
            if section == path || section == ".", word.filter({ $0 != "\"" }) == key { return "\(name):\(index + 1)" }
        }
        return name
    }
}

/// A value with its place, which every complaint names.
private struct Value {
    let value: any TOMLValueConvertible
    let key: String
    let place: String

    func string() throws -> String {
        guard let string = value.string else { throw wrong("a string") }
        return string
    }

    func bool() throws -> Bool {
        guard let bool = value.bool else { throw wrong("true or false") }
        return bool
    }

    func integer(_ range: ClosedRange<Int>) throws -> Int {
        guard let integer = value.int, range.contains(integer) else {
            throw wrong("an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return integer
    }

    func number(_ range: ClosedRange<Double>) throws -> Double {
        guard let number = value.double ?? value.int.map(Double.init), range.contains(number) else {
            throw wrong("a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func bytes(atLeast minimum: Int = 1) throws -> Int {
        let bytes = value.int.map { max($0, 0) } ?? value.string.flatMap(MemoryLimit.parse)
        guard let bytes else { throw wrong("bytes, such as 268435456 or \"256MiB\"") }
        guard bytes >= minimum else { throw wrong("at least \(minimum) bytes") }
        return bytes
    }

    func choice<Choice: RawRepresentable<String> & CaseIterable>() throws -> Choice {
        guard let choice = value.string.flatMap(Choice.init(rawValue:)) else {
            throw wrong("one of " + Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", "))
        }
        return choice
    }

    func payload() throws -> Configuration.Payload {
        guard let payload = (value.string ?? value.int.map(String.init)).flatMap(Configuration.Payload.init) else {
            throw wrong("\"none\", \"all\" or bytes from 1 to 1048576")
        }
        return payload
    }

    private func wrong(_ expected: String) -> ConfigurationError {
        ConfigurationError("\(place): \(key) must be \(expected), found \(value.debugDescription)")
    }
}
