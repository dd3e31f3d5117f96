/// Rows of typed cells under named columns. Rows may have rows of their own beneath them, of the same columns.
public struct Table: Sendable {
    /// The field name of the list.
    public var name: String
    public var columns: [Column]
    public var rows: [Row] = []
    /// The field name of a row's own rows; nil where they only repeat for people what a field of the row says.
    public var childrenName: String?
    /// Rows `limit` took away.
    public private(set) var omitted = 0

    public init(name: String, columns: [Column], childrenName: String? = nil) {
        self.name = name
        self.columns = columns
        self.childrenName = childrenName
    }

    public enum Audience: Sendable { case everyone, people, programs }

    public struct Column: Sendable {
        /// The stable field name.
        public var name: String
        /// The heading.
        public var title: String
        public var audience: Audience
        /// Left out for people where the screen is too narrow.
        public var isOptional: Bool

        /// Without a title, the column is for programs.
        public init(_ name: String, _ title: String? = nil, for audience: Audience? = nil, isOptional: Bool = false) {
            self.isOptional = isOptional
            self.name = name
            self.title = title ?? name
            self.audience = audience ?? (title == nil ? .programs : .everyone)
        }
    }

    public struct Row: Sendable {
        public var cells: [Value]
        public var children: [Row]
        /// How far people see it indented.
        public var depth: Int
        public var audience: Audience
        public var tone: Report.Tone

        public init(
            _ cells: [Value], children: [Row] = [], depth: Int = 0, for audience: Audience = .everyone,
            tone: Report.Tone = .plain
        ) {
            self.cells = cells
            self.children = children
            self.depth = depth
            self.audience = audience
            self.tone = tone
        }
    }

    /// The names `sort` accepts.
    public var sortableNames: [String] { columns.filter { $0.audience != .people }.map(\.name) }

    /// Numbers largest first, texts in order. False if there is no such column; one may also be named as people see it headed.
    public mutating func sort(by name: String) -> Bool {
        let index =
            columns.firstIndex { $0.name == name && $0.audience != .people }
            ?? columns.firstIndex { $0.title.lowercased() == name.lowercased() && $0.audience == .everyone }
        guard let index else { return false }
        rows.sort { $0.cells[index].precedes($1.cells[index]) }
        return true
    }

    /// Keeps the first rows and says in one more, for people, what the others come to; `noun` is what one row is.
    public mutating func limit(to count: Int, noun: String) {
        let shown = rows.count { $0.audience != .people }
        guard count > 0, shown > count else { return }
        let rest = rows[count...]
        omitted += shown - count
        let first = columns.firstIndex { $0.audience != .programs }
        let cells = columns.indices.map { column -> Value in
            if column == first { return .text("… \(Format.count(UInt64(shown - count), of: "more \(noun)"))") }
            return .sum(rest.lazy.map { $0.cells[column] })
        }
        rows.removeSubrange(count...)
        rows.append(Row(cells, for: .people))
    }

    /// As `limit`, where the rows beyond it were never made.
    mutating func leaveOut(_ count: Int, noun: String) {
        guard count > 0 else { return }
        omitted += count
        let first = columns.firstIndex { $0.audience != .programs }
        let words = "… \(Format.count(UInt64(count), of: "more \(noun)"))"
        rows.append(Row(columns.indices.map { $0 == first ? .text(words) : .blank }, for: .people))
    }
}
