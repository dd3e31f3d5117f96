/// A filter or condition that cannot be understood: what is wrong, and where in the text.
public struct ExpressionError: Error, Equatable, CustomStringConvertible {
    public let text: String
    /// Characters of `text`.
    public let range: Range<Int>
    public let message: String

    /// The message, and beneath it the text with a caret where it went wrong.
    public var description: String {
        let shown = Format.printable(text)
        // Escaped characters are wider than typed ones: then the caret would point elsewhere.
        guard shown.count == text.count else { return "\(message)\n  \(shown)" }
        let characters = Array(text)
        func columns(_ range: Range<Int>) -> Int {
            characters[range.clamped(to: characters.indices)].reduce(0) { $0 + TerminalWidth.columns($1) }
        }
        let marks = "^" + String(repeating: "~", count: max(0, columns(range) - 1))
        return "\(message)\n  \(shown)\n  \(String(repeating: " ", count: columns(0..<range.lowerBound)))\(marks)"
    }
}

/// The words of an expression.
struct ExpressionToken: Equatable {
    enum Kind: Equatable {
        case word(String)
        /// In quotes: never a keyword, a unit or a number.
        case quoted(String)
        case comparison(Comparison)
        case and, or, not, open, close, end
    }
    enum Comparison: String, CaseIterable {
        case lessOrEqual = "<="
        case greaterOrEqual = ">="
        case notEqual = "!="
        case contains = "~"
        case containsNot = "!~"
        case equal = "="
        case less = "<"
        case greater = ">"
    }
    var kind: Kind
    var range: Range<Int>
}

extension ExpressionToken {
    static func tokens(of text: String) throws(ExpressionError) -> [Self] {
        let characters = Array(text)
        var tokens: [Self] = []
        var next = 0
        while next < characters.count {
            let start = next
            let character = characters[next]
            if character.isWhitespace {
                next += 1
                continue
            }
            let kind: Kind
            if character == "\"" || character == "'" {
                kind = .quoted(try quoted(characters, &next, text))
            } else if isWordCharacter(character) {
                while next < characters.count, isWordCharacter(characters[next]) { next += 1 }
                kind = keyword(String(characters[start..<next]))
            } else if let (symbol, length) = symbol(characters[next...]) {
                kind = symbol
                next += length
            } else {
                throw ExpressionError(
                    text: text, range: next..<next + 1, message: "'\(character)' means nothing here; quote it in a text"
                )
            }
            tokens.append(Self(kind: kind, range: start..<next))
        }
        tokens.append(Self(kind: .end, range: characters.count..<characters.count))
        return tokens
    }

    /// Client ids and topics are mostly made of these, and need no quotes then.
    private static func isWordCharacter(_ character: Character) -> Bool {
        character.isLetter || character.isNumber || "._-/:+#$@%*,[]{}".contains(character)
    }

    private static func keyword(_ word: String) -> Kind {
        switch word.lowercased() {
        case "and": .and
        case "or": .or
        case "not": .not
        default: .word(word)
        }
    }

    private static func symbol(_ rest: ArraySlice<Character>) -> (Kind, Int)? {
        let first = String(rest.prefix(1))
        let two = String(rest.prefix(2))
        switch two {
        case "&&": return (.and, 2)
        case "||": return (.or, 2)
        case "==": return (.comparison(.equal), 2)
        default: break
        }
        for length in [2, 1] {
            if let comparison = Comparison(rawValue: length == 2 ? two : first) {
                return (.comparison(comparison), min(length, rest.count))
            }
        }
        switch first {
        case "(": return (.open, 1)
        case ")": return (.close, 1)
        case "!": return (.not, 1)
        default: return nil
        }
    }

    /// A quote or a backslash inside is written with a backslash before it.
    private static func quoted(
        _ characters: [Character], _ next: inout Int, _ text: String
    ) throws(ExpressionError) -> String {
        let start = next
        let quote = characters[next]
        var result = ""
        next += 1
        while next < characters.count {
            if characters[next] == quote {
                next += 1
                return result
            }
            if characters[next] == "\\", next + 1 < characters.count { next += 1 }
            result.append(characters[next])
            next += 1
        }
        throw ExpressionError(text: text, range: start..<characters.count, message: "this text has no closing quote")
    }
}
