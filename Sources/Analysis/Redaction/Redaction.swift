public import DumpFormat
import Ledger

/// A snapshot without the names of users' things, analysable as before.
///
/// What is kept is listed, and all other text goes: names of owners (client ids, user names, addresses, topics), the
/// host, texts in the configuration, and details of events become pseudonyms. Kept are the program's own words: its
/// name and version, sites in its code, arenas, kinds, and the reason of the dump. Numbers stay. Payload is not read,
/// so it is not in the copy.
public struct Redaction {
    private let pseudonyms: Pseudonyms

    public init(_ pseudonyms: Pseudonyms) { self.pseudonyms = pseudonyms }

    public func apply(to snapshot: Snapshot) -> Snapshot {
        var result = snapshot
        result.header.host = pseudonyms.name(snapshot.header.host, kind: "host")
        result.header.configuration = ConfigurationRedaction(pseudonyms).apply(to: snapshot.header.configuration)
        let isForeign = snapshot.header.format == .nettyHeapDump
        for index in result.owners.indices { redact(&result.owners[index], isForeign: isForeign) }
        result.payloads = nil
        let ownWords = [EventKind.level, .nearLimit, .refused].map(\.name)
        for index in result.events.indices where !ownWords.contains(result.events[index].kind) {
            result.events[index].detail = pseudonyms.name(result.events[index].detail, kind: "detail")
        }
        return result
    }

    private func redact(_ owner: inout Snapshot.Owner, isForeign: Bool) {
        switch owner.kind {
        // Classes and fields of the program, and Netty's arenas; threads may be named for anything.
        case .process where isForeign, .component where isForeign, .arena where isForeign: return
        // Loops are numbered by the program.
        case .process where owner.name == "process", .eventLoop where Self.isLoopName(owner.name): return
        case .connection, .session, .inflight, .offlineQueue, .will:
            owner.name = pseudonyms.name(owner.name, kind: "client")
        case .retained where owner.name == OwnerKind.retained.name,
            .rpcBridge where owner.name == OwnerKind.rpcBridge.name:
            return
        case .retained: owner.name = pseudonyms.name(owner.name, kind: "topic")
        case .listener: owner.name = pseudonyms.name(owner.name, kind: "listener")
        default: owner.name = pseudonyms.name(owner.name, kind: "name")
        }
    }

    private static func isLoopName(_ name: String) -> Bool {
        name.hasPrefix("loop-") && name.dropFirst(5).allSatisfy { $0.isASCII && $0.isNumber }
    }
}

/// A TOML configuration with its texts replaced: line by line, because the file need not be understood to be redacted.
struct ConfigurationRedaction {
    private let pseudonyms: Pseudonyms

    init(_ pseudonyms: Pseudonyms) { self.pseudonyms = pseudonyms }

    /// Keys that are the program's words. A key or table that is not here may be named for a user.
    static let knownKeys: Set<String> = [
        "host", "port", "threads", "memoryLimit", "dumpDirectory", "nearPercent", "logLevel", "limits",
        "maxPacketBytes", "maxConnections", "maxTopicLevels", "maxSubscriptionsPerSession", "maxInflight",
        "maxIncomingQoS2", "maxQueuedMessages", "maxQueuedBytes", "queuePolicy", "maxBacklogMessages",
        "maxBacklogBytes", "connectTimeoutSeconds", "maxPendingRPCPerDevice", "rpc", "timeoutSeconds",
        "requirePending", "faults", "rpcResponseLeakPercent",
    ]

    /// Keys whose texts are one of a few words of the program.
    static let harmlessTexts: Set<String> = ["logLevel", "queuePolicy"]

    func apply(to text: String) -> String {
        text.split(separator: "\n", omittingEmptySubsequences: false).map { redact(String($0)) }
            .joined(separator: "\n")
    }

    private func redact(_ line: String) -> String {
        let line = line.drop { $0 == " " || $0 == "\t" }
        if line.isEmpty { return "" }
        if line.hasPrefix("[") {
            let names = line.filter { $0 != "[" && $0 != "]" }.split(separator: ".").map { name(String($0)) }
            return "[" + names.joined(separator: ".") + "]"
        }
        guard let equals = line.firstIndex(of: "="), !line.hasPrefix("#"), !line.hasPrefix("\""), !line.hasPrefix("'")
        else {
            // A comment, a quoted key, or the rest of something that goes over several lines.
            return "# \(pseudonyms.name(String(line), kind: "redacted"))"
        }
        let key = trimmed(line[..<equals])
        let value = trimmed(line[line.index(after: equals)...])
        return "\(name(key)) = \(redactedValue(value, of: key))"
    }

    private func name(_ key: String) -> String {
        Self.knownKeys.contains(key) ? key : pseudonyms.name(key, kind: "key")
    }

    private func redactedValue(_ value: String, of key: String) -> String {
        if ["true", "false"].contains(value) || Self.harmlessTexts.contains(key) { return value }
        let isNumber = !value.isEmpty && value.allSatisfy { $0.isASCII && ($0.isNumber || "+-._".contains($0)) }
        return isNumber ? value : "\"\(pseudonyms.name(value, kind: "value"))\""
    }

    private func trimmed(_ text: some StringProtocol) -> String {
        let spaces: Set<Character> = [" ", "\t", "\r"]
        var text = Substring(text).drop { spaces.contains($0) }
        while let last = text.last, spaces.contains(last) { text.removeLast() }
        return String(text)
    }
}
