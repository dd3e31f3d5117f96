import MQTT

/// Who may read and write which topics: a file in mosquitto's syntax.
///
///     # without a user: clients that give no user name
///     topic read public/#
///     user anna
///     topic readwrite home/#
///     topic deny home/safe
///     pattern write devices/%c/up/#
///
/// Rules are looked at as mosquitto 2 does: those of the user first, then the patterns, in both the denials before all
/// else; what no rule allows is refused. `%c` stands for the client identifier, `%u` for the user name.
struct AccessControlList: Sendable {
    fileprivate enum Permission: String, CaseIterable {
        case read, write, readwrite, deny
    }

    fileprivate struct Line: Sendable {
        var permission: Permission
        var topic: String
    }

    private var anonymous: [Line] = []
    private var users: [UTF8Key: [Line]] = [:]
    private var patterns: [Line] = []

    /// - Parameter name: what errors call the text: the file's path.
    /// - Throws: ``ConfigurationError``, which names file and line.
    init(text: String, name: String) throws(ConfigurationError) {
        var user: UTF8Key?
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let (keyword, rest) = Self.word(Self.trim(line))
            func wrong(_ text: String) -> ConfigurationError { ConfigurationError("\(name):\(index + 1): \(text)") }
            switch keyword {
            case "": continue
            case _ where keyword.hasPrefix("#"): continue
            case "user":
                guard !rest.isEmpty else { throw wrong("user must be followed by a user name") }
                user = UTF8Key(String(rest))
                if users[user!] == nil { users[user!] = [] }
            case "topic", "pattern":
                let rule = try Self.rule(rest) { wrong("\(keyword) \($0)") }
                if keyword == "pattern" {
                    patterns.append(rule)
                } else if let user {
                    users[user]!.append(rule)
                } else {
                    anonymous.append(rule)
                }
            default: throw wrong("expected user, topic or pattern, found \(LogLines.cut(String(keyword)))")
            }
        }
    }

    private static func rule(
        _ text: Substring, _ wrong: (String) -> ConfigurationError
    ) throws(ConfigurationError) -> Line {
        let (first, rest) = word(text)
        var line = Line(permission: .readwrite, topic: String(text))
        // "topic read" alone is the topic named read, as mosquitto has it.
        if let permission = Permission(rawValue: String(first)), !rest.isEmpty {
            line = Line(permission: permission, topic: String(rest))
        }
        guard Topic.isValidFilter(line.topic) else {
            throw wrong("must be followed by a topic filter, found \"\(LogLines.cut(line.topic))\"")
        }
        return line
    }

    private static func word(_ text: Substring) -> (Substring, Substring) {
        let word = text.prefix { $0 != " " && $0 != "\t" }
        return (word, trim(text[word.endIndex...]))
    }

    private static func trim(_ text: Substring) -> Substring {
        var text = text
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return text.drop { $0.isWhitespace }
    }

    /// The rules that hold for one client.
    func rules(userName: String?, clientID: String) -> AccessRules {
        var rules = userName.map { users[UTF8Key($0)] ?? [] } ?? anonymous
        rules.sort { $0.permission == .deny && $1.permission != .deny }
        let names = [clientID, userName ?? ""]
        // A client could else name itself into what is others'.
        let isSafe = !names.contains { $0.utf8.contains { $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") } }
        guard isSafe || patterns.isEmpty else { return AccessRules(rules.map(AccessRules.Rule.init)) }
        var own: [Line] = []
        for pattern in patterns {
            if userName == nil, pattern.topic.contains("%u") { continue }
            let topic = pattern.topic.replacing(["%c": clientID, "%u": userName ?? ""])
            own.append(Line(permission: pattern.permission, topic: topic))
        }
        own.sort { $0.permission == .deny && $1.permission != .deny }
        return AccessRules((rules + own).map(AccessRules.Rule.init))
    }
}

extension String {
    /// Every occurrence of a key by its value, in one pass: what a value brings in is not looked at again.
    fileprivate func replacing(_ values: [String: String]) -> String {
        var result = ""
        var rest = self[...]
        while let next = rest.first {
            if let (key, value) = values.first(where: { rest.hasPrefix($0.key) }) {
                result += value
                rest = rest.dropFirst(key.count)
            } else {
                result.append(next)
                rest = rest.dropFirst()
            }
        }
        return result
    }
}

/// What one client may do, compiled for it when it connects. Asking allocates nothing.
final class AccessRules: Sendable {
    fileprivate struct Rule: Sendable {
        let filter: [UInt8]
        let mayRead: Bool
        let mayWrite: Bool
        let isDenial: Bool

        init(_ line: AccessControlList.Line) {
            filter = Array(line.topic.utf8)
            mayRead = line.permission == .read || line.permission == .readwrite
            mayWrite = line.permission == .write || line.permission == .readwrite
            isDenial = line.permission == .deny
        }

        /// A rule that does not begin with `$` says nothing about topics that do.
        func concerns(_ topic: Span<UInt8>) -> Bool {
            let dollar = UInt8(ascii: "$")
            return topic.count == 0 || topic[0] != dollar || filter.first == dollar
        }
    }

    private let rules: [Rule]

    fileprivate init(_ rules: [Rule]) { self.rules = rules }

    func mayWrite(_ topic: Span<UInt8>) -> Bool { decision(topic) { $0.mayWrite } }

    /// Whether a message with this topic may be delivered to the client.
    func mayRead(_ topic: Span<UInt8>) -> Bool { decision(topic) { $0.mayRead } }

    /// Whether a subscription to `filter` can bring the client anything: what it brings is still looked at message by
    /// message, as mosquitto does.
    func maySubscribe(_ filter: Span<UInt8>) -> Bool {
        for rule in rules where rule.concerns(filter) {
            if rule.isDenial {
                if TopicMatch.covers(rule.filter.span, filter) { return false }
            } else if rule.mayRead, TopicMatch.overlap(rule.filter.span, filter) {
                return true
            }
        }
        return false
    }

    private func decision(_ topic: Span<UInt8>, _ allows: (Rule) -> Bool) -> Bool {
        for rule in rules where rule.concerns(topic) {
            guard rule.isDenial || allows(rule), TopicMatch.matches(rule.filter.span, topic) else { continue }
            return !rule.isDenial
        }
        return false
    }
}
