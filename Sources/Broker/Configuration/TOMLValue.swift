/// What stands behind a key of a TOML file (toml.io, version 1.0): all but dates and times, which no key of ours has.
enum TOMLValue {
    case string(String)
    case integer(Int)
    case float(Double)
    case boolean(Bool)
    case array(TOMLArray)
    case table(TOMLTable)

    var string: String? { if case .string(let text) = self { text } else { nil } }
    var integer: Int? { if case .integer(let number) = self { number } else { nil } }
    var boolean: Bool? { if case .boolean(let bool) = self { bool } else { nil } }
    var array: TOMLArray? { if case .array(let array) = self { array } else { nil } }
    var table: TOMLTable? { if case .table(let table) = self { table } else { nil } }

    /// A whole number is one too.
    var number: Double? { if case .float(let number) = self { number } else { integer.map(Double.init) } }
}

/// Keys and their values. A class, since later lines of a file add to what earlier ones have begun.
final class TOMLTable {
    /// What made it, which decides who may add to it.
    enum Origin {
        /// A header such as `[a]`, or the file itself.
        case header
        /// A header of something in it, such as `[a.b]`; one of its own may follow.
        case implied
        /// A key such as `a.b = 1`.
        case dottedKey
        /// Braces: complete as it stands.
        case inline
    }

    struct Entry {
        var value: TOMLValue
        /// Where its key stood first; from 1.
        let line: Int
    }

    var origin: Origin
    private(set) var entries: [String: Entry] = [:]

    init(_ origin: Origin = .header) { self.origin = origin }

    /// Without those that have no value.
    convenience init(_ values: [String: (any TOMLConvertible)?]) {
        self.init()
        for (key, value) in values { self[key] = value }
    }

    /// - Returns: false if there is such a key already.
    func insert(_ key: String, _ value: TOMLValue, line: Int) -> Bool {
        guard entries[key] == nil else { return false }
        entries[key] = Entry(value: value, line: line)
        return true
    }

    subscript(key: String) -> (any TOMLConvertible)? {
        get { entries[key]?.value }
        set { entries[key] = newValue.map { Entry(value: $0.toml, line: 0) } }
    }
}

/// An array in brackets, or the tables of headers such as `[[a]]`, to which another header adds.
final class TOMLArray {
    let isOfHeaders: Bool
    var elements: [TOMLValue]

    init(_ elements: [TOMLValue], isOfHeaders: Bool = false) {
        self.elements = elements
        self.isOfHeaders = isOfHeaders
    }
}

/// What can stand in a table that is to be written.
protocol TOMLConvertible {
    var toml: TOMLValue { get }
}

extension TOMLValue: TOMLConvertible { var toml: TOMLValue { self } }
extension String: TOMLConvertible { var toml: TOMLValue { .string(self) } }
extension Int: TOMLConvertible { var toml: TOMLValue { .integer(self) } }
extension Double: TOMLConvertible { var toml: TOMLValue { .float(self) } }
extension Bool: TOMLConvertible { var toml: TOMLValue { .boolean(self) } }
extension TOMLTable: TOMLConvertible { var toml: TOMLValue { .table(self) } }
