import Ledger

/// Findings that somebody has looked at and accepted: one a line, with a reason behind it that is not read.
///
///     # known until the bridge is rewritten
///     unreachable-3f9a2b71c04d      the bridge's own leak, tracked
///     site ~ "test payload" and kind = growth
///
/// A line is a fingerprint, or an expression over kind, site, access, owner.kind, confidence and importance.
public struct Suppressions: Sendable {
    struct Rule: Sendable {
        var text: String
        var line: Int
        var expression: Expression?
    }
    let rules: [Rule]

    static let fields: [ExpressionField] = [
        .init(name: "kind", type: .choice(Finding.Kind.allCases.map(\.rawValue)), help: "kind of evidence"),
        .init(name: "site", type: .text, help: "where allocated: label or file:line"),
        .init(name: "access", type: .text, help: "where last accessed"),
        .init(name: "owner.kind", type: .text, help: "kind of the main owner"),
        .init(name: "confidence", type: .text, help: "proved, likely or possible"),
        .init(name: "importance", type: .text, help: "major or minor"),
    ]

    /// A line that is neither is an error: a suppression that silently does nothing would be worse.
    public init(text: String) throws(SuppressionError) {
        var rules: [Rule] = []
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
            let words = line.split { $0 == " " || $0 == "\t" || $0 == "\r" }
            guard let first = words.first, !first.hasPrefix("#") else { continue }
            if Self.isFingerprint(first) {
                rules.append(Rule(text: String(first), line: index + 1))
                continue
            }
            let text = words.joined(separator: " ")
            do {
                rules.append(Rule(text: text, line: index + 1, expression: try Expression(text, fields: Self.fields)))
            } catch {
                throw SuppressionError(line: index + 1, message: "\(error)")
            }
        }
        self.rules = rules
    }

    private static func isFingerprint(_ word: Substring) -> Bool {
        let parts = word.split(separator: "-", omittingEmptySubsequences: false)
        return parts.count == 2 && Finding.Kind(rawValue: String(parts[0])) != nil && parts[1].count == 12
            && parts[1].allSatisfy(\.isHexDigit)
    }
}

/// A line of a suppression file that cannot be understood.
public struct SuppressionError: Error, Sendable, CustomStringConvertible {
    public let line: Int
    public let message: String
    public var description: String { "line \(line): \(message)" }
}

extension Findings {
    /// The first rule that covers a finding.
    func rule(for finding: Finding, in suppressions: Suppressions) -> Int? {
        suppressions.rules.firstIndex { rule in
            guard let expression = rule.expression else { return rule.text == finding.fingerprint }
            return holds(expression, finding)
        }
    }

    private func holds(_ expression: Expression, _ finding: Finding) -> Bool {
        switch expression {
        case .and(let left, let right): return holds(left, finding) && holds(right, finding)
        case .or(let left, let right): return holds(left, finding) || holds(right, finding)
        case .not(let inner): return !holds(inner, finding)
        case .choice(_, let index): return Finding.Kind.allCases[index] == finding.kind
        case .text(let field, let contains, let wanted):
            let test = TextTest(wanted, contains: contains)
            let place = newest.siteName(field == "site" ? finding.site : finding.access)
            switch field {
            case "site", "access": return test.holds(place.label) || test.holds(place.location)
            case "owner.kind": return test.holds(finding.ownerKind.name)
            case "importance": return test.holds(finding.importance.rawValue)
            default: return test.holds(finding.confidence.word)
            }
        case .flag, .number, .ratio: return false
        }
    }
}
