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
        /// Whether it speaks of topics that begin with `$`: by what is written there. What a client is called does not
        /// make it so.
        var isOfDollar: Bool

        init(_ permission: Permission, _ topic: String) {
            self.permission = permission
            self.topic = topic
            isOfDollar = topic.utf8.first == UInt8(ascii: "$")
        }
    }

    private var anonymous: [Line] = []
    private var users: [UTF8Key: [Line]] = [:]
    private var patterns: [Line] = []
    /// It allows nothing to anybody.
    var isEmpty: Bool { anonymous.isEmpty && users.isEmpty && patterns.isEmpty }

    /// - Parameter name: what errors call the text: the file's path.
    /// - Throws: ``ConfigurationError``, which names file and line.
    init(text: String, name: String) throws(ConfigurationError) {
        var user: UTF8Key?
        for (index, line) in text.textLines.enumerated() {
            let (keyword, rest) = Self.word(Self.trim(line[...]))
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
        var line = Line(.readwrite, String(text))
        // "topic read" alone is the topic named read, as mosquitto has it.
        if !rest.isEmpty {
            guard let permission = Permission(rawValue: String(first)) else {
                throw wrong(
                    "must be followed by read, write, readwrite or deny where the topic is not all there is, found "
                        + "\"\(LogLines.cut(String(first)))\"")
            }
            line = Line(permission, String(rest))
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
        guard patterns.isEmpty || Self.isSafe(clientID, userName ?? "") else {
            return AccessRules(rules.map(AccessRules.Rule.init))
        }
        var own: [Line] = []
        for pattern in patterns {
            if userName == nil, pattern.topic.contains("%u") { continue }
            var line = pattern
            line.topic = pattern.topic.replacing(["%c": clientID, "%u": userName ?? ""])
            own.append(line)
        }
        own.sort { $0.permission == .deny && $1.permission != .deny }
        return AccessRules((rules + own).map(AccessRules.Rule.init))
    }

    /// Whether a client cannot name itself into what is others': by a wildcard, or by a client identifier that is more than
    /// one level, and so below another's. (A user name is given by who runs the broker, and may have levels.)
    private static func isSafe(_ clientID: String, _ userName: String) -> Bool {
        func has(_ text: String, _ characters: StaticString) -> Bool {
            text.utf8.contains { byte in characters.withUTF8Buffer { $0.contains(byte) } }
        }
        return !has(clientID, "+#/") && !has(userName, "+#")
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
        let isOfDollar: Bool

        init(_ line: AccessControlList.Line) {
            filter = Array(line.topic.utf8)
            mayRead = line.permission == .read || line.permission == .readwrite
            mayWrite = line.permission == .write || line.permission == .readwrite
            isDenial = line.permission == .deny
            isOfDollar = line.isOfDollar
        }

        /// A rule that does not begin with `$` says nothing about topics that do.
        func concerns(_ topic: Span<UInt8>) -> Bool {
            topic.count == 0 || topic[0] != UInt8(ascii: "$") || isOfDollar
        }
    }

    private let rules: [Rule]
    private let ruleBytes: Int

    fileprivate init(_ rules: [Rule]) {
        self.rules = rules
        ruleBytes = HeapSize.array(rules) + rules.reduce(0) { $0 + HeapSize.array($1.filter) }
    }

    /// What all of it takes on the heap.
    var heapBytes: Int { HeapSize.object(self) + ruleBytes }

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
