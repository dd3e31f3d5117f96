public import DumpFormat

/// When a build or a monitor should fail: `unheld > 0 or counter > 90%`. Asks totals, not buffers.
public struct Condition: Sendable {
    public let text: String
    private let expression: Expression

    /// Amounts a condition can compare, by name.
    public struct Figures: Sendable {
        var numbers: [String: UInt64] = [:]
        var use = 0.0

        /// What every dump can say. `unheld` is missing where the dump has no edges: then no condition on it holds,
        /// nor does its opposite, and `missing` names it.
        public init(_ snapshot: Snapshot) {
            let totals = snapshot.totals
            numbers = [
                "counter": totals.counterBytes, "live": totals.liveBuffers, "live.bytes": totals.liveBytes,
                "slack.bytes": totals.liveBytes.less(totals.requestedBytes), "free.bytes": totals.freeBytes,
                "chunks": totals.chunkCount, "refused": totals.failedAllocations,
                "overdraft.bytes": totals.overdraftBytes,
            ]
            if let buffers = totals.unheldBuffers { numbers["unheld"] = buffers }
            if let bytes = totals.unheldBytes { numbers["unheld.bytes"] = bytes }
            use = totals.counterBytes.share(of: totals.limitBytes)
        }

        /// Findings that neither a suppression nor a baseline covers.
        public mutating func add(suspects: Int, bytes: UInt64) {
            numbers["suspects"] = UInt64(suspects)
            numbers["suspect.bytes"] = bytes
        }
    }

    static let fields: [ExpressionField] = [
        .init(name: "unheld", type: .number, help: "buffers no holder reaches"),
        .init(name: "unheld.bytes", type: .bytes, help: "their bytes"),
        .init(name: "suspects", type: .number, help: "findings not suppressed and not in the baseline (leaks)"),
        .init(name: "suspect.bytes", type: .bytes, help: "their bytes (leaks)"),
        .init(name: "counter", type: .bytes, help: "the memory counter"),
        .init(name: "use", type: .ratio, help: "counter over limit, as in use > 90%"),
        .init(name: "live", type: .number, help: "live buffers"),
        .init(name: "live.bytes", type: .bytes, help: "their bytes"),
        .init(name: "slack.bytes", type: .bytes, help: "of them, what nobody asked for"),
        .init(name: "free.bytes", type: .bytes, help: "free in chunks"),
        .init(name: "overdraft.bytes", type: .bytes, help: "taken above the limit"),
        .init(name: "chunks", type: .number, help: "chunks mapped"),
        .init(name: "refused", type: .number, help: "allocations refused since the start"),
    ]

    public init(_ text: String) throws(ExpressionError) {
        self.text = text
        expression = try Expression(text, fields: Self.fields)
    }

    /// Figures it asks about that this answer does not have: then it cannot be decided.
    public func missing(in figures: Figures) -> [String] {
        expression.fieldNames.filter { $0 != "use" && figures.numbers[$0] == nil }.sorted()
    }

    public func holds(_ figures: Figures) -> Bool { Self.holds(expression, figures) }

    private static func holds(_ expression: Expression, _ figures: Figures) -> Bool {
        switch expression {
        case .and(let left, let right): holds(left, figures) && holds(right, figures)
        case .or(let left, let right): holds(left, figures) || holds(right, figures)
        case .not(let inner): !holds(inner, figures)
        case .number(let name, let order, let value): figures.numbers[name].map { order.holds($0, value) } ?? false
        case .ratio(_, let order, let value): order.holds(figures.use, value)
        case .flag, .text, .choice: false
        }
    }
}
