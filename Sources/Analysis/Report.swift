/// The answer to a question, before anybody decided how it looks.
///
/// A query is a function from a `Snapshot` to a `Report`; `TextRenderer`, `JSONRenderer` and `CSVRenderer` show any
/// report. A query says what each value *is* (`Value`), what programs call it (its stable field name), and in which
/// words people read it. A field name, once released, keeps its meaning; fields are only ever added.
public struct Report: Sendable {
    /// The question, as the command line names it.
    public var command: String
    public var sections: [Section] = []
    /// Fields for programs that no section shows.
    public var data: [Field] = []
    /// The files the answer came from, oldest first.
    public var origins: [Origin] = []
    /// Files that the answer depends on beside those it is about, as the baseline of a search.
    public var references: [Origin] = []
    public var allOrigins: [Origin] { origins + references }

    public init(command: String) { self.command = command }

    public mutating func add(_ title: String? = nil, _ body: Body) {
        sections.append(Section(title: title, body: body))
    }

    /// What CSV shows, and what `--sort` and `--limit` apply to: the table of that name, or else the first.
    public var mainTable: Table? {
        get { mainTableIndex.flatMap { if case .table(let table) = sections[$0].body { table } else { nil } } }
        set { if let index = mainTableIndex, let newValue { sections[index].body = .table(newValue) } }
    }

    public var mainTableName: String?

    /// Keeps the first rows of the table of that name, as `Table.limit` does.
    public mutating func limit(_ name: String, to count: Int, noun: String) {
        for index in sections.indices {
            guard case .table(var table) = sections[index].body, table.name == name else { continue }
            table.limit(to: count, noun: noun)
            sections[index].body = .table(table)
        }
    }

    private var mainTableIndex: Int? {
        sections.firstIndex { section in
            guard case .table(let table) = section.body else { return false }
            return mainTableName == nil || table.name == mainTableName
        }
    }

    public var isPartial: Bool { allOrigins.contains(where: \.isPartial) }

    public struct Section: Sendable {
        public var title: String?
        public var body: Body
    }

    public enum Body: Sendable {
        case lines([Line])
        case table(Table)
        case paragraph(Phrase, Tone = .plain)
    }

    /// A labelled line; an empty label continues the line above.
    public struct Line: Sendable {
        public var label: String
        public var phrase: Phrase

        public init(_ label: String, _ phrase: Phrase) {
            self.label = label
            self.phrase = phrase
        }
    }

    public struct Field: Sendable {
        public var name: String
        public var value: Value

        public init(_ name: String, _ value: Value) {
            self.name = name
            self.value = value
        }
    }

    public enum Tone: Sendable { case plain, good, warning, alarm }
}

/// Words with typed values among them. A named value is also a field for programs:
///
///     "\(.bytes(used), as: "counter_bytes", exact: true) of limit \(.bytes(limit), as: "limit_bytes")"
public struct Phrase: Sendable, ExpressibleByStringInterpolation {
    public enum Piece: Sendable {
        case words(String)
        case value(Value, name: String?, exact: Bool)
    }
    public var pieces: [Piece]

    public init(stringLiteral words: String) { pieces = [.words(words)] }
    public init(stringInterpolation: StringInterpolation) { pieces = stringInterpolation.pieces }

    public struct StringInterpolation: StringInterpolationProtocol {
        var pieces: [Piece] = []

        public init(literalCapacity: Int, interpolationCount: Int) { pieces.reserveCapacity(interpolationCount * 2) }

        public mutating func appendLiteral(_ words: String) {
            if !words.isEmpty { pieces.append(.words(words)) }
        }
        public mutating func appendInterpolation(_ value: Value, as name: String? = nil, exact: Bool = false) {
            pieces.append(.value(value, name: name, exact: exact))
        }
        public mutating func appendInterpolation(_ phrase: Phrase) { pieces += phrase.pieces }

        /// A count and what it counts: `1 chunk`, `2 chunks`.
        public mutating func appendInterpolation(
            _ count: UInt64, of noun: String, plural: String? = nil, as name: String? = nil
        ) {
            pieces.append(.value(.count(count), name: name, exact: false))
            pieces.append(.words(" " + Format.noun(count, noun, plural)))
        }

        /// The word that agrees with a count: `\(count, one: "is", many: "are")`.
        public mutating func appendInterpolation(_ count: UInt64, one: String, many: String) {
            pieces.append(.words(count == 1 ? one : many))
        }
    }

    /// As people read it.
    var text: String {
        pieces.map { piece in
            switch piece {
            case .words(let words): Format.printable(words)
            case .value(let value, _, let exact): value.text(exact: exact)
            }
        }.joined()
    }

    var fields: [Report.Field] {
        pieces.compactMap { piece in
            guard case .value(let value, let name?, _) = piece else { return nil }
            return Report.Field(name, value)
        }
    }
}
