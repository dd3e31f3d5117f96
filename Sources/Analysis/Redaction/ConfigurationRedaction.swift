/// A TOML configuration with everything replaced that is not known to be the program's own: line by line, because the file
/// need not be understood to be redacted. What a later version adds is redacted until it is listed here.
struct ConfigurationRedaction {
    private let pseudonyms: Pseudonyms

    init(_ pseudonyms: Pseudonyms) { self.pseudonyms = pseudonyms }

    /// Tables that are the program's words; the empty name is the top. Keys mean nothing in others.
    static let knownTables: Set<String> = ["", "dumps", "limits", "rpc", "faults"]

    /// Keys that are the program's words, and whose numbers and flags tell nothing of users. A key that is not here may
    /// be named for a user, and its number may be a secret.
    static let knownKeys: Set<String> = [
        "host", "port", "threads", "memoryLimit", "dumpDirectory", "flightRecorder", "nearPercent", "logLevel",
        "keepCount", "keepBytes", "minimumIntervalSeconds", "loopWaitMilliseconds",
        "maxPacketBytes", "maxConnections", "maxTopicLevels", "maxSubscriptionsPerSession", "maxInflight",
        "maxIncomingQoS2", "maxQueuedMessages", "maxQueuedBytes", "queuePolicy", "maxBacklogMessages",
        "maxBacklogBytes", "connectTimeoutSeconds", "maxPendingRPCPerDevice", "timeoutSeconds", "requirePending",
        "rpcResponseLeakPercent",
    ]

    /// The words that these keys' texts can be; any other text is redacted.
    static let knownTexts: [String: Set<String>] = [
        "logLevel": ["trace", "debug", "info", "notice", "warning", "error", "critical"],
        "queuePolicy": ["drop-newest", "drop-oldest"],
    ]

    func apply(to text: String) -> String {
        var isKnownTable = true
        // The end of a text or list that goes over several lines.
        var openEnd: String?
        return text.split(separator: "\n", omittingEmptySubsequences: false).map { line -> String in
            let line = trimmed(line)
            if line.isEmpty { return "" }
            if let end = openEnd {
                if line.contains(end) { openEnd = nil }
                return hidden(line)
            }
            if line.hasPrefix("[") {
                let name = line.filter { $0 != "[" && $0 != "]" }
                isKnownTable = Self.knownTables.contains(name)
                return isKnownTable ? "[\(name)]" : "[\(pseudonyms.name(name, kind: "table"))]"
            }
            guard let equals = line.firstIndex(of: "="), !line.hasPrefix("#") else { return hidden(line) }
            let key = trimmed(line[..<equals])
            let value = trimmed(line[line.index(after: equals)...])
            openEnd = Self.openEnd(of: value)
            let isKnown = isKnownTable && Self.knownKeys.contains(key)
            guard isKnown else { return "\(pseudonyms.name(key, kind: "key")) = \(secret(value))" }
            return "\(key) = \(isHarmless(value, of: key) ? value : secret(value))"
        }.joined(separator: "\n")
    }

    /// What ends a value that its line does not end; nil where it does.
    private static func openEnd(of value: String) -> String? {
        for quotes in ["\"\"\"", "'''"] where value.hasPrefix(quotes) {
            return value.dropFirst(3).contains(quotes) ? nil : quotes
        }
        for (open, close) in [("[", "]"), ("{", "}")] where value.hasPrefix(open) && !value.contains(close) {
            return close
        }
        return nil
    }

    private func hidden(_ line: String) -> String { "# \(pseudonyms.name(line, kind: "redacted"))" }

    private func secret(_ value: String) -> String { "\"\(pseudonyms.name(value, kind: "value"))\"" }

    private func isHarmless(_ value: String, of key: String) -> Bool {
        if ["true", "false"].contains(value) { return true }
        if let words = Self.knownTexts[key] { return words.contains(value.filter { $0 != "\"" && $0 != "'" }) }
        return !value.isEmpty && value.allSatisfy { $0.isASCII && ($0.isNumber || "+-._".contains($0)) }
    }

    private func trimmed(_ text: some StringProtocol) -> String {
        let spaces: Set<Character> = [" ", "\t", "\r"]
        var text = Substring(text).drop { spaces.contains($0) }
        while let last = text.last, spaces.contains(last) { text.removeLast() }
        return String(text)
    }
}
