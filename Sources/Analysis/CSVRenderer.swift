/// A report's main table as comma-separated values (RFC 4180, lines end in LF); sizes in bytes, durations in
/// nanoseconds. A row's own rows follow it, told apart by `level`.
///
/// Client ids and topics are whatever their sender wants, and tables are opened in spreadsheets, which take a cell for a formula
/// by its first character. So texts are made harmless (https://owasp.org/www-community/attacks/CSV_Injection), and their
/// control characters visible, unless they are asked for as they are.
public struct CSVRenderer {
    public var isRaw: Bool

    public init(isRaw: Bool = false) { self.isRaw = isRaw }

    /// Nil for a report without a table.
    public func render(_ report: Report) -> String? {
        guard let table = report.mainTable else { return nil }
        let columns = table.columns.indices.filter { table.columns[$0].audience != .people }
        let isNested = table.childrenName != nil
        var text = line((isNested ? ["level"] : []) + columns.map { cell(table.columns[$0].name) })
        func add(_ rows: [Table.Row], level: Int) {
            for row in rows where row.audience != .people {
                text += line((isNested ? [String(level)] : []) + columns.map { cell(row.cells[$0]) })
                if isNested { add(row.children, level: level + 1) }
            }
        }
        add(table.rows, level: 0)
        return text
    }

    private func cell(_ value: Value) -> String {
        switch value.json {
        case .string(let text): cell(text)
        case .null: ""
        case let number: number.text
        }
    }

    private func line(_ cells: [String]) -> String { cells.joined(separator: ",") + "\n" }

    func cell(_ text: String) -> String {
        if isRaw { return Self.needsQuotes(text) ? Self.quoted(text) : text }
        let text = Self.harmless(text)
        return text.utf8.first == UInt8(ascii: "'") || Self.needsQuotes(text) ? Self.quoted(text) : text
    }

    /// Begins with an apostrophe where a spreadsheet would take it for a formula, or where it begins with one: whoever wants
    /// the text takes one away.
    private static func harmless(_ text: String) -> String {
        let text = Format.printable(text)
        guard let first = text.unicodeScalars.first, formulas.contains(first) || first == "'" else { return text }
        return "'" + text
    }

    /// What formulas begin with, in full width too. Tab and line breaks are spelt out by now.
    private static let formulas: Set<Unicode.Scalar> = [
        "=", "+", "-", "@", "\u{FF1D}", "\u{FF0B}", "\u{FF0D}", "\u{FF20}",
    ]

    private static func needsQuotes(_ text: String) -> Bool {
        text.utf8.contains { $0 == 0x22 || $0 == 0x2C || $0 == 0x0A || $0 == 0x0D }
    }

    private static func quoted(_ text: String) -> String {
        "\"" + text.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }
}
