/// A report for programs: one object, whose first fields are the same for every command.
///
/// `dump` is the file the answer is about (for a comparison the newest), `dumps` all of them, oldest first.
public struct JSONRenderer {
    /// Raised only if a field changes its meaning or goes away.
    public static let schemaVersion: UInt64 = 2
    public var toolVersion: String

    public init(toolVersion: String) { self.toolVersion = toolVersion }

    public func render(_ report: Report) -> String { value(of: report).text + "\n" }

    public func value(of report: Report) -> JSONValue {
        let origins = report.origins.map(\.json)
        let problems = report.allOrigins.flatMap(\.problems)
        var members: [JSONValue.Member] = [
            .init("schema_version", .unsigned(Self.schemaVersion)),
            .init("tool", .string("arena-analyze")),
            .init("tool_version", .string(toolVersion)),
            .init("command", .string(report.command)),
            .init("dump", origins.last ?? .null),
            .init("dumps", .array(origins)),
            .init("partial", .bool(report.isPartial)),
            .init("problems", .array(problems.map { .string($0) })),
        ]
        func add(_ field: Report.Field) {
            assert(!members.contains { $0.name == field.name }, "two fields named \(field.name)")
            members.append(.init(field.name, field.value.json))
        }
        report.data.forEach(add)
        for section in report.sections {
            switch section.body {
            case .lines(let lines): lines.flatMap(\.phrase.fields).forEach(add)
            case .paragraph(let phrase, _): phrase.fields.forEach(add)
            case .table(let table):
                members.append(.init(table.name, .array(rows(table.rows, of: table))))
                if table.omitted > 0 {
                    members.append(.init("\(table.name)_omitted", .unsigned(UInt64(table.omitted))))
                }
            }
        }
        return .object(members)
    }

    private func rows(_ rows: [Table.Row], of table: Table) -> [JSONValue] {
        rows.filter { $0.audience != .people }.map { row in
            var members: [JSONValue.Member] = []
            for (column, cell) in zip(table.columns, row.cells) where column.audience != .people && cell != .blank {
                members.append(.init(column.name, cell.json))
            }
            if let name = table.childrenName, !row.children.isEmpty {
                members.append(.init(name, .array(self.rows(row.children, of: table))))
            }
            return .object(members)
        }
    }
}
