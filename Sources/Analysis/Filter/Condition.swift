public import DumpFormat

/// When a build or a monitor should fail: `unreachable > 0 or counter > 90%`. Asks totals, not buffers.
///
/// A dump may know of an amount only that it lies between two others, or nothing; a condition that depends on which it is
/// cannot be decided, and neither can its opposite (Kleene's three values).
public struct Condition: Sendable {
    public let text: String
    private let expression: Expression

    /// Amounts a condition can compare, by name.
    public struct Figures: Sendable {
        /// The least and the most it can be; the same where it is known.
        var numbers: [String: ClosedRange<UInt64>] = [:]
        var use = 0.0...0.0
        /// What the answer is worth where it is not proved, in words that follow "because"; empty where it is.
        var reason = ""

        /// What every dump can say. `unreachable` is missing where the dump has no references, or where what could be read of it
        /// does not tell.
        public init(_ snapshot: Snapshot) {
            let totals = snapshot.totals
            let exact: [String: UInt64] = [
                "counter": totals.counterBytes, "live": totals.liveBuffers, "live.bytes": totals.liveBytes,
                "slack.bytes": totals.liveBytes.less(totals.requestedBytes), "free.bytes": totals.freeBytes,
                "chunks": totals.chunkCount,
            ]
            numbers = exact.mapValues { $0...$0 }
            numbers["refused"] = snapshot.counted(totals.failedAllocations).map { $0...$0 }
            numbers["over_limit.bytes"] = snapshot.counted(totals.overLimitBytes).map { $0...$0 }
            let grade = EvidenceGrade(snapshot, for: .unreachable)
            reason = grade.reason
            if grade.level != .cannotSay {
                numbers["unreachable"] = Self.range(totals.unreachableBuffers, snapshot.header.unjudgedBuffers)
                numbers["unreachable.bytes"] = Self.range(totals.unreachableBytes, snapshot.header.unjudgedBytes)
            }
            use = snapshot.use
        }

        /// What nobody who was asked holds may be held by those who were not.
        private static func range(_ least: UInt64?, _ unjudged: UInt64) -> ClosedRange<UInt64>? {
            least.map { $0...max($0, $0 &+ unjudged) }
        }

        /// Findings that neither a suppression nor a baseline covers. Without a verdict there may be more of them; and so there
        /// may where buffers may be held by those who were not asked, or not.
        mutating func add(_ findings: [Finding], _ diagnosis: Diagnosis) {
            let isOpen = if case .cannotSay = diagnosis.verdict { true } else { false }
            if isOpen { reason = diagnosis.grade.reason }
            let unjudged = diagnosis.snapshot.header.unjudgedBuffers
            func range(_ least: UInt64, _ more: UInt64) -> ClosedRange<UInt64> {
                least...(isOpen ? .max : max(least, least &+ more))
            }
            numbers["suspects"] = range(UInt64(findings.count), unjudged)
            numbers["suspect.bytes"] = range(
                findings.reduce(0) { $0 &+ $1.amount.bytes }, diagnosis.snapshot.header.unjudgedBytes)
            numbers["major"] = range(UInt64(findings.count { $0.importance == .major }), unjudged)
            let proved = UInt64(findings.count { $0.confidence.isProved })
            numbers["proved"] = proved...proved
        }
    }

    static let fields: [ExpressionField] = [
        .init(name: "unreachable", type: .number, help: "buffers no referrer reaches"),
        .init(name: "unreachable.bytes", type: .bytes, help: "their bytes"),
        .init(name: "suspects", type: .number, help: "findings not suppressed and not in the baseline (leaks)"),
        .init(name: "suspect.bytes", type: .bytes, help: "their bytes (leaks)"),
        .init(name: "proved", type: .number, help: "of these findings, those that are proved (leaks)"),
        .init(
            name: "major", type: .number, help: "of these findings, those that are not small beside the whole (leaks)"),
        .init(name: "counter", type: .bytes, help: "the memory counter"),
        .init(name: "use", type: .ratio, help: "counter over limit, as in use > 90%; of several the fullest"),
        .init(name: "live", type: .number, help: "live buffers"),
        .init(name: "live.bytes", type: .bytes, help: "their bytes"),
        .init(name: "slack.bytes", type: .bytes, help: "of them, what nobody asked for"),
        .init(name: "free.bytes", type: .bytes, help: "free in chunks"),
        .init(name: "over_limit.bytes", type: .bytes, help: "taken above the limit"),
        .init(name: "chunks", type: .number, help: "chunks mapped"),
        .init(name: "refused", type: .number, help: "allocations refused since the start"),
    ]

    public init(_ text: String) throws(ExpressionError) {
        self.text = text
        expression = try Expression(text, fields: Self.fields)
    }

    /// What a condition comes to.
    public enum Outcome: Sendable, Equatable {
        case holds
        case doesNotHold
        /// It depends on figures that this answer does not have, or not exactly: their names.
        case undecided([String])
    }

    public func outcome(_ figures: Figures) -> Outcome {
        switch Self.value(expression, figures) {
        case true?: .holds
        case false?: .doesNotHold
        case nil: .undecided(expression.fieldNames.filter { figures.isOpen($0) }.sorted())
        }
    }

    public func holds(_ figures: Figures) -> Bool { outcome(figures) == .holds }

    /// Nil where it cannot be decided.
    private static func value(_ expression: Expression, _ figures: Figures) -> Bool? {
        switch expression {
        case .and(let left, let right):
            let values = [value(left, figures), value(right, figures)]
            return values.contains(false) ? false : values.contains(nil) ? nil : true
        case .or(let left, let right):
            let values = [value(left, figures), value(right, figures)]
            return values.contains(true) ? true : values.contains(nil) ? nil : false
        case .not(let inner): return value(inner, figures).map { !$0 }
        case .number(let name, let order, let wanted): return figures.numbers[name].flatMap { order.holds($0, wanted) }
        case .ratio(_, let order, let wanted): return order.holds(figures.use, wanted)
        case .flag, .text, .choice: return false
        }
    }
}

extension Condition.Figures {
    fileprivate func isOpen(_ name: String) -> Bool {
        if name == "use" { return use.lowerBound < use.upperBound }
        return numbers[name].map { $0.lowerBound < $0.upperBound } ?? true
    }

    /// Why it is not proved, or cannot be decided; nil where nothing is missing.
    public var reservation: String? { reason.isEmpty ? nil : reason }
}

extension Expression.Order {
    /// Of an amount that lies in a range; nil where that does not decide it.
    fileprivate func holds<T: Comparable>(_ range: ClosedRange<T>, _ wanted: T) -> Bool? {
        if self == .equal, range.lowerBound < range.upperBound { return range.contains(wanted) ? nil : false }
        let (least, most) = (holds(range.lowerBound, wanted), holds(range.upperBound, wanted))
        return least == most ? least : nil
    }
}
