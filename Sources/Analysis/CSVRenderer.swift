/// A report's main table as comma-separated values (RFC 4180, lines end in LF); sizes in bytes, durations in
/// nanoseconds. A row's own rows follow it, told apart by `level`.
public struct CSVRenderer {
    public init() {}

    /// Nil for a report without a table.
    public func render(_ report: Report) -> String? {
        guard let table = report.mainTable else { return nil }
        let columns = table.columns.indices.filter { table.columns[$0].audience != .people }
        let isNested = table.childrenName != nil
        var text = line((isNested ? ["level"] : []) + columns.map { table.columns[$0].name })
        func add(_ rows: [Table.Row], level: Int) {
            for row in rows where row.audience != .people {
                text += line((isNested ? [String(level)] : []) + columns.map { field(row.cells[$0]) })
                if isNested { add(row.children, level: level + 1) }
            }
        }
        add(table.rows, level: 0)
        return text
    }

    private func field(_ value: Value) -> String {
        switch value.json {
        case .string(let text): text
        case .null: ""
        case let number: number.text
        }
    }

    private func line(_ fields: [String]) -> String {
        fields.map(Self.quoted).joined(separator: ",") + "\n"
    }

    /// In quotes where it must be.
    static func quoted(_ field: String) -> String {
        guard field.utf8.contains(where: { $0 == 0x22 || $0 == 0x2C || $0 == 0x0A || $0 == 0x0D }) else { return field }
        return "\"" + field.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\"") + "\""
    }
}
