/// Why a text is not TOML.
struct TOMLError: Error {
    /// From 1.
    let line: Int
    let reason: String
}

/// Reads TOML. Whatever the text, the answer is a table or an error: the file of a running broker is read again, and a slip
/// of the finger must not end it.
///
/// All bytes are reached through `next` and `advance`, which know the end. Nothing is nested deeper than ``deepest``.
struct TOMLReader {
    /// Levels of tables, arrays and names with dots.
    static let deepest = 16

    private let bytes: [UInt8]
    private var position = 0
    private var line = 1

    static func read(_ text: String) throws(TOMLError) -> TOMLTable {
        var reader = TOMLReader(bytes: Array(text.utf8))
        return try reader.readFile()
    }

    private init(bytes: [UInt8]) { self.bytes = bytes }

    private mutating func readFile() throws(TOMLError) -> TOMLTable {
        let top = TOMLTable()
        // A byte order mark.
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { position = 3 }
        var section = top
        while try skipBlank() {
            if take("[") { section = try readHeader(top) } else { try readAssignment(to: section, depth: 0) }
            skipSpace()
            if next == UInt8(ascii: "#") { try skipComment() }
            guard try takeLineEnd() || next == nil else { throw unexpected("the end of the line") }
        }
        return top
    }

    // MARK: - Bytes

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func isNext(_ text: StaticString) -> Bool {
        text.withUTF8Buffer { bytes[position...].starts(with: $0) }
    }

    private mutating func advance() -> UInt8? {
        guard let byte = next else { return nil }
        position += 1
        return byte
    }

    private mutating func take(_ text: StaticString) -> Bool {
        guard isNext(text) else { return false }
        position += text.utf8CodeUnitCount
        return true
    }

    private func error(_ reason: String) -> TOMLError { TOMLError(line: line, reason: reason) }

    private func unexpected(_ expected: String) -> TOMLError {
        guard let next else { return error("expected \(expected), found the end of the file") }
        guard 0x20..<0x7F ~= next || next >= 0x80 else { return error("expected \(expected)") }
        let rest = bytes[position...].prefix { $0 > 0x20 && $0 != 0x7F }
        return error("expected \(expected), found \(LogLines.cut(String(decoding: rest.prefix(40), as: UTF8.self)))")
    }

    private static func isControl(_ byte: UInt8) -> Bool { byte < 0x20 && byte != UInt8(ascii: "\t") || byte == 0x7F }

    // MARK: - Between values

    private mutating func skipSpace() {
        while let byte = next, byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") { position += 1 }
    }

    private mutating func takeLineEnd() throws(TOMLError) -> Bool {
        guard take("\n") || take("\r\n") else { return false }
        line += 1
        return true
    }

    private mutating func skipComment() throws(TOMLError) {
        while let byte = next, byte != UInt8(ascii: "\n"), !isNext("\r\n") {
            guard !Self.isControl(byte) else { throw error("a control character in a comment") }
            position += 1
        }
    }

    /// Spaces, line ends and comments.
    ///
    /// - Returns: whether anything follows.
    private mutating func skipBlank() throws(TOMLError) -> Bool {
        while true {
            skipSpace()
            if next == UInt8(ascii: "#") { try skipComment() } else if try !takeLineEnd() { return next != nil }
        }
    }

    // MARK: - Tables

    /// Behind its first bracket.
    private mutating func readHeader(_ top: TOMLTable) throws(TOMLError) -> TOMLTable {
        let isArray = take("[")
        skipSpace()
        let path = try readPath("the name of a table")
        guard isArray ? take("]]") : take("]") else { throw unexpected(isArray ? "]]" : "]") }
        var table = top
        for name in path.dropLast() { table = try descend(from: table, to: name) }
        let name = path[path.count - 1]
        let found = table.entries[name]?.value
        if isArray {
            let new = TOMLTable()
            if let array = found?.array, array.isOfHeaders {
                array.elements.append(.table(new))
            } else {
                let array = TOMLArray([.table(new)], isOfHeaders: true)
                guard table.insert(name, .array(array), line: line) else { throw definedAlready(path) }
            }
            return new
        }
        if let implied = found?.table, implied.origin == .implied {
            implied.origin = .header
            return implied
        }
        let new = TOMLTable()
        guard table.insert(name, .table(new), line: line) else { throw definedAlready(path) }
        return new
    }

    /// The table on the way to that of a header; of an array of tables, the last.
    private func descend(from table: TOMLTable, to name: String) throws(TOMLError) -> TOMLTable {
        switch table.entries[name]?.value {
        case nil:
            let implied = TOMLTable(.implied)
            _ = table.insert(name, .table(implied), line: line)
            return implied
        case .table(let inner)? where inner.origin != .inline: return inner
        case .array(let array)? where array.isOfHeaders:
            if let last = array.elements.last?.table { return last }
            throw definedAlready([name])
        default: throw definedAlready([name])
        }
    }

    private func definedAlready(_ path: [String]) -> TOMLError {
        error("\(LogLines.cut(path.joined(separator: "."))) is defined already")
    }

    /// `key = value`
    private mutating func readAssignment(to table: TOMLTable, depth: Int) throws(TOMLError) {
        let start = line
        let path = try readPath("a key")
        guard take("=") else { throw unexpected("=") }
        skipSpace()
        let value = try readValue(depth: depth + 1)
        var table = table
        for name in path.dropLast() {
            if let found = table.entries[name]?.value {
                guard let inner = found.table, inner.origin == .dottedKey else { throw definedAlready(path) }
                table = inner
            } else {
                let inner = TOMLTable(.dottedKey)
                _ = table.insert(name, .table(inner), line: start)
                table = inner
            }
        }
        guard table.insert(path[path.count - 1], value, line: start) else { throw definedAlready(path) }
    }

    /// Names with dots between them, and the space behind; one at least.
    private mutating func readPath(_ expected: String) throws(TOMLError) -> [String] {
        var path: [String] = []
        repeat {
            guard path.count < Self.deepest else { throw error("a name of more than \(Self.deepest) parts") }
            skipSpace()
            path.append(try readName(expected))
            skipSpace()
        } while take(".")
        return path
    }

    private mutating func readName(_ expected: String) throws(TOMLError) -> String {
        if take("\"") { return try readString() }
        if take("'") { return try readLiteral() }
        let start = position
        while let byte = next, Self.isBare(byte) { position += 1 }
        guard position > start else { throw unexpected(expected) }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private static func isBare(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
            true
        default: false
        }
    }

    // MARK: - Values

    private mutating func readValue(depth: Int) throws(TOMLError) -> TOMLValue {
        guard depth <= Self.deepest else { throw error("more than \(Self.deepest) levels of arrays and tables") }
        if take("\"\"\"") { return .string(try readLines()) }
        if take("'''") { return .string(try readLiteralLines()) }
        if take("\"") { return .string(try readString()) }
        if take("'") { return .string(try readLiteral()) }
        if take("[") { return .array(TOMLArray(try readElements(depth: depth))) }
        if take("{") { return .table(try readInlineTable(depth: depth)) }
        let start = position
        while let byte = next, Self.isBare(byte) || byte == UInt8(ascii: "+") || byte == UInt8(ascii: ".") {
            position += 1
        }
        let word = bytes[start..<position]
        guard let value = TOMLValue(word: word) else {
            position = start
            throw unexpected("a string, a number, true or false")
        }
        return value
    }

    /// Behind the bracket.
    private mutating func readElements(depth: Int) throws(TOMLError) -> [TOMLValue] {
        var elements: [TOMLValue] = []
        while true {
            _ = try skipBlank()
            if take("]") { return elements }
            elements.append(try readValue(depth: depth + 1))
            _ = try skipBlank()
            if take("]") { return elements }
            guard take(",") else { throw unexpected(", or ]") }
        }
    }

    /// Behind the brace.
    private mutating func readInlineTable(depth: Int) throws(TOMLError) -> TOMLTable {
        let table = TOMLTable()
        skipSpace()
        if !take("}") {
            repeat {
                try readAssignment(to: table, depth: depth)
                skipSpace()
            } while take(",")
            guard take("}") else { throw unexpected(", or }") }
        }
        table.origin = .inline
        return table
    }

    // MARK: - Strings, each behind what opens it

    private func endless() -> TOMLError { error("a string that does not end") }

    /// `"..."`
    private mutating func readString() throws(TOMLError) -> String {
        var text: [UInt8] = []
        while let byte = next, !Self.isControl(byte) {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text += try readEscape()
            default: text.append(byte)
            }
        }
        throw endless()
    }

    /// `'...'`
    private mutating func readLiteral() throws(TOMLError) -> String {
        let start = position
        while let byte = next, !Self.isControl(byte) {
            position += 1
            if byte == UInt8(ascii: "'") { return String(decoding: bytes[start..<position - 1], as: UTF8.self) }
        }
        throw endless()
    }

    /// `"""..."""`
    private mutating func readLines() throws(TOMLError) -> String {
        var text: [UInt8] = []
        _ = try takeLineEnd()
        while next != nil {
            if takeClosing(UInt8(ascii: "\""), &text) { return String(decoding: text, as: UTF8.self) }
            if try takeLineByte(&text) { continue }
            guard advance() == UInt8(ascii: "\\") else { break }
            let start = position
            skipSpace()
            if try takeLineEnd() {
                // The line goes on at the next character.
                repeat { skipSpace() } while try takeLineEnd()
            } else {
                position = start
                text += try readEscape()
            }
        }
        throw endless()
    }

    /// `'''...'''`
    private mutating func readLiteralLines() throws(TOMLError) -> String {
        var text: [UInt8] = []
        _ = try takeLineEnd()
        while next != nil {
            if takeClosing(UInt8(ascii: "'"), &text) { return String(decoding: text, as: UTF8.self) }
            if take("\\") {
                text.append(UInt8(ascii: "\\"))
            } else if try !takeLineByte(&text) {
                break
            }
        }
        throw endless()
    }

    /// Three quotes. Up to two more before them belong to the text; fewer than three all do.
    private mutating func takeClosing(_ quote: UInt8, _ text: inout [UInt8]) -> Bool {
        let count = bytes[position...].prefix(5).prefix { $0 == quote }.count
        position += count
        text += [UInt8](repeating: quote, count: count >= 3 ? count - 3 : count)
        return count >= 3
    }

    /// A byte of a text of several lines that stands for itself: no backslash, no control character.
    private mutating func takeLineByte(_ text: inout [UInt8]) throws(TOMLError) -> Bool {
        if try takeLineEnd() {
            text.append(UInt8(ascii: "\n"))
            return true
        }
        guard let byte = next, byte != UInt8(ascii: "\\"), !Self.isControl(byte) else { return false }
        position += 1
        text.append(byte)
        return true
    }

    private mutating func readEscape() throws(TOMLError) -> [UInt8] {
        switch advance() {
        case UInt8(ascii: "b"): return [0x08]
        case UInt8(ascii: "t"): return [0x09]
        case UInt8(ascii: "n"): return [0x0A]
        case UInt8(ascii: "f"): return [0x0C]
        case UInt8(ascii: "r"): return [0x0D]
        case UInt8(ascii: "\""): return [UInt8(ascii: "\"")]
        case UInt8(ascii: "\\"): return [UInt8(ascii: "\\")]
        case UInt8(ascii: "u"): return try readScalar(digits: 4)
        case UInt8(ascii: "U"): return try readScalar(digits: 8)
        default: throw error("after a backslash stands one of b, t, n, f, r, \", \\, u and U")
        }
    }

    private mutating func readScalar(digits count: Int) throws(TOMLError) -> [UInt8] {
        let digits = bytes[position...].prefix(count)
        guard digits.count == count, digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
            let scalar = UInt32(String(decoding: digits, as: UTF8.self), radix: 16).flatMap(Unicode.Scalar.init)
        else { throw error("\\u and \\U are followed by the 4 or 8 hexadecimal digits of a character") }
        position += count
        return Array(String(scalar).utf8)
    }
}
