/// What a field holds, which decides what may be asked of it.
enum FieldType: Equatable {
    case text, bytes, duration, number, ratio, flag
    /// One of these words; spaces, hyphens and case do not matter.
    case choice([String])
}

/// A field of an expression language, with a line of help.
struct ExpressionField {
    var name: String
    var type: FieldType
    var help: String
}

/// A question with the answer yes or no, over named fields:
///
///     or         = and { "or" and }
///     and        = not { "and" not }
///     not        = [ "not" ] ( "(" or ")" | test )
///     test       = flag | field comparison value
///     comparison = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" (contains) | "!~"
///
/// What the fields are is the caller's; `Filter` asks buffers, `Condition` asks totals.
indirect enum Expression: Equatable, Sendable {
    case and(Expression, Expression)
    case or(Expression, Expression)
    case not(Expression)
    case flag(String)
    /// `contains` ignores case.
    case text(String, contains: Bool, String)
    case choice(String, Int)
    case number(String, Order, UInt64)
    case ratio(String, Order, Double)

    enum Order: Equatable, Sendable {
        case equal, less, lessOrEqual, greater, greaterOrEqual

        func holds<T: Comparable>(_ left: T, _ right: T) -> Bool {
            switch self {
            case .equal: left == right
            case .less: left < right
            case .lessOrEqual: left <= right
            case .greater: left > right
            case .greaterOrEqual: left >= right
            }
        }
    }

    init(_ text: String, fields: [ExpressionField]) throws(ExpressionError) {
        var parser = ExpressionParser(text: text, tokens: try ExpressionToken.tokens(of: text), fields: fields)
        self = try parser.whole()
    }

    var fieldNames: Set<String> {
        switch self {
        case .and(let left, let right), .or(let left, let right): left.fieldNames.union(right.fieldNames)
        case .not(let inner): inner.fieldNames
        case .flag(let name), .text(let name, _, _), .choice(let name, _), .number(let name, _, _),
            .ratio(let name, _, _):
            [name]
        }
    }
}

private struct ExpressionParser {
    let text: String
    let tokens: [ExpressionToken]
    let fields: [ExpressionField]
    private var next = 0
    private var depth = 0
    /// Deeper nesting than a person writes would only exhaust the stack.
    private static let maximumDepth = 100

    init(text: String, tokens: [ExpressionToken], fields: [ExpressionField]) {
        self.text = text
        self.tokens = tokens
        self.fields = fields
    }

    private var token: ExpressionToken { tokens[next] }

    private func error(_ message: String, at token: ExpressionToken? = nil) -> ExpressionError {
        ExpressionError(text: text, range: (token ?? self.token).range, message: message)
    }

    mutating func whole() throws(ExpressionError) -> Expression {
        if token.kind == .end { throw error("the expression is empty; for example: age > 10m and size >= 4KiB") }
        let expression = try or()
        guard token.kind == .end else {
            throw error(token.kind == .close ? "there is no '(' for this ')'" : "expected 'and', 'or' or the end here")
        }
        return expression
    }

    private mutating func or() throws(ExpressionError) -> Expression {
        var left = try and()
        while token.kind == .or {
            next += 1
            left = .or(left, try and())
        }
        return left
    }

    private mutating func and() throws(ExpressionError) -> Expression {
        var left = try not()
        while token.kind == .and {
            next += 1
            left = .and(left, try not())
        }
        return left
    }

    private mutating func not() throws(ExpressionError) -> Expression {
        depth += 1
        defer { depth -= 1 }
        if depth > Self.maximumDepth { throw error("nested too deeply") }
        switch token.kind {
        case .not:
            next += 1
            return .not(try not())
        case .open:
            let start = token
            next += 1
            let inner = try or()
            guard token.kind == .close else { throw error("this '(' is not closed", at: start) }
            next += 1
            return inner
        default:
            return try test()
        }
    }

    private mutating func test() throws(ExpressionError) -> Expression {
        guard case .word(let name) = token.kind else {
            throw error(token.kind == .end ? "expected a field name at the end" : "expected a field name here")
        }
        guard let field = fields.first(where: { $0.name == name.lowercased() }) else {
            let known = fields.map(\.name).joined(separator: ", ")
            throw error("there is no field '\(name)'; fields: \(known)")
        }
        let fieldToken = token
        next += 1
        guard case .comparison(let comparison) = token.kind else {
            if field.type == .flag { return .flag(field.name) }
            throw error("expected a comparison after '\(field.name)', such as \(Self.example(field))")
        }
        let comparisonToken = token
        next += 1
        let isNegated = comparison == .notEqual || comparison == .containsNot
        let expression = try value(of: field, comparison, comparisonToken, fieldToken)
        return isNegated ? .not(expression) : expression
    }

    private static func example(_ field: ExpressionField) -> String {
        switch field.type {
        case .text: "\(field.name) ~ \"part\""
        case .bytes: "\(field.name) >= 4KiB"
        case .duration: "\(field.name) > 10m"
        case .number: "\(field.name) = 42"
        case .ratio: "\(field.name) > 90%"
        case .flag: field.name
        case .choice(let words): "\(field.name) = \(words.first ?? "")"
        }
    }

    private mutating func value(
        of field: ExpressionField, _ comparison: ExpressionToken.Comparison, _ comparisonToken: ExpressionToken,
        _ fieldToken: ExpressionToken
    ) throws(ExpressionError) -> Expression {
        let isOrdering = [.less, .lessOrEqual, .greater, .greaterOrEqual].contains(comparison)
        let isContains = comparison == .contains || comparison == .containsNot
        let valueToken = token
        let word: String
        switch token.kind {
        case .word(let text), .quoted(let text): word = text
        case .end: throw error("expected a value at the end, such as \(Self.example(field))")
        default: throw error("expected a value here, such as \(Self.example(field)); quote words like 'and'")
        }
        next += 1
        if isContains, field.type != .text {
            throw error("'~' looks for a part of a text, and \(field.name) is none", at: comparisonToken)
        }
        switch field.type {
        case .text:
            if isOrdering { throw error("texts have no order; use = or ~ with \(field.name)", at: comparisonToken) }
            return .text(field.name, contains: isContains, word)
        case .choice(let words):
            if isOrdering { throw error("\(field.name) has no order; use = or !=", at: comparisonToken) }
            guard let index = words.firstIndex(where: { Self.plain($0) == Self.plain(word) }) else {
                let known = words.joined(separator: ", ")
                throw error("\(field.name) is never '\(word)'; it is one of: \(known)", at: valueToken)
            }
            return .choice(field.name, index)
        case .flag:
            if isOrdering { throw error("\(field.name) is yes or no", at: comparisonToken) }
            switch word.lowercased() {
            case "yes", "true", "1": return .flag(field.name)
            case "no", "false", "0": return .not(.flag(field.name))
            default: throw error("\(field.name) is yes or no", at: valueToken)
            }
        case .ratio:
            guard let ratio = Quantity.ratio(word) else { throw error("expected a share, such as 90%", at: valueToken) }
            return .ratio(field.name, Self.order(comparison), ratio)
        case .bytes, .duration, .number:
            return .number(field.name, Self.order(comparison), try quantity(word, field, valueToken))
        }
    }

    /// The unit may stand apart, as in `10 min`.
    private mutating func quantity(
        _ word: String, _ field: ExpressionField, _ valueToken: ExpressionToken
    ) throws(ExpressionError) -> UInt64 {
        let parse: (String) -> UInt64? =
            switch field.type {
            case .bytes: Quantity.bytes
            case .duration: Quantity.nanoseconds
            default: Quantity.number
            }
        if field.type != .number, word.last?.isNumber == true, case .word(let unit) = token.kind,
            let quantity = parse(word + unit)
        {
            next += 1
            return quantity
        }
        if let quantity = parse(word) { return quantity }
        switch field.type {
        case .bytes: throw error("expected a size, such as 512, 4KiB or 1.5MiB", at: valueToken)
        case .duration:
            throw error("expected a time with its unit, such as 80ms, 30s, 10m, 2h or 7d", at: valueToken)
        default: throw error("expected a number, such as 42 or 0x2a", at: valueToken)
        }
    }

    private static func order(_ comparison: ExpressionToken.Comparison) -> Expression.Order {
        switch comparison {
        case .less: .less
        case .lessOrEqual: .lessOrEqual
        case .greater: .greater
        case .greaterOrEqual: .greaterOrEqual
        case .equal, .notEqual, .contains, .containsNot: .equal
        }
    }

    private static func plain(_ word: String) -> String { word.lowercased().filter { $0.isLetter || $0.isNumber } }
}
