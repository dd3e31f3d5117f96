public import DumpFormat
import SQLite

/// One SQL statement over the tables of a dump.
///
/// It is compiled before anything is read, so that a typing error costs nothing, and `selection` says what of the dump
/// it needs.
public struct Query {
    public let sql: String
    /// What a reader must load of the dump.
    public let selection: DumpSelection
    private let parts: [DumpDatabase.Part]
    private let limits: QueryLimits

    /// What is wrong with a statement, in SQLite's words where it found it.
    public struct Problem: Error, CustomStringConvertible {
        public let description: String

        init(_ description: String) { self.description = description }

        init(_ error: DatabaseError, _ limits: QueryLimits) {
            description = limits.reason(error) ?? error.message
        }
    }

    public init(sql: String) throws(Problem) { try self.init(sql: sql, limits: QueryLimits()) }

    init(sql: String, limits: QueryLimits) throws(Problem) {
        self.sql = sql
        self.limits = limits
        parts = try Self.trying(limits) {
            let database = try DumpDatabase(limits)
            return try withExtendedLifetime(database) {
                try database.queue.read {
                    _ = try Self.compile(sql, $0); return try DumpDatabase.parts(of: sql, $0)
                }
            }
        }
        var selection = DumpSelection.tables
        for part in parts { selection.formUnion(part.table.selection(for: part.columns)) }
        self.selection = selection
    }

    /// Runs it. Columns named `bytes`, `…_bytes`, `…_ns`, `…_buffers` are shown to people in those units.
    public func report(on snapshot: Snapshot) throws(Problem) -> Report {
        var report = Report(command: "query")
        report.data = [.init("sql", .text(sql))]
        let table = try Self.trying(limits) {
            let database = try DumpDatabase(limits)
            return try withExtendedLifetime(database) {
                try database.load(snapshot, parts)
                return try database.queue.read { try run(try Self.compile(sql, $0), in: $0) }
            }
        }
        report.add(nil, .table(table))
        return report
    }

    private static func compile(_ sql: String, _ database: Database) throws -> Statement {
        guard sql.contains(where: { !$0.isWhitespace }) else { throw Problem("the statement is empty") }
        let statement = try database.prepare(sql)
        guard statement.isReadOnly, !statement.columns.isEmpty else {
            throw Problem("only statements that read are answered, such as SELECT; the dump itself is never changed")
        }
        return statement
    }

    private func run(_ statement: Statement, in database: Database) throws -> Table {
        var names: [String] = []
        for name in statement.columns {
            let alike = names.count { $0 == name || $0.hasPrefix("\(name)_") }
            names.append(names.contains(name) ? "\(name)_\(alike + 1)" : name)
        }
        var table = Table(name: "rows", columns: names.map { .init($0, $0) })
        let units = names.map(Unit.init)
        var size = AnswerSize()
        try database.each(of: statement) { row in
            let cells = units.indices.map { units[$0].value(row[$0]) }
            size.add(cells)
            guard size.bytes <= limits.answerBytes else {
                throw Problem(
                    """
                    the answer has more than \(Format.bytes(limits.answerBytes)) in more than \
                    \(Format.count(UInt64(table.rows.count), of: "row")); add a LIMIT, or `export` the table
                    """)
            }
            table.rows.append(Table.Row(cells))
        }
        return table
    }

    private static func trying<Result>(
        _ limits: QueryLimits, _ body: () throws -> Result
    ) throws(Problem) -> Result {
        do {
            return try body()
        } catch let error as DatabaseError {
            throw Problem(error, limits)
        } catch let problem as Problem {
            throw problem
        } catch {
            throw Problem("\(error)")
        }
    }

    /// How people see a column's integers, told by its name.
    private enum Unit {
        case none, bytes, duration, count

        /// `0 ff 1c`
        static func hex(_ bytes: some Collection<UInt8>) -> String {
            let digits = Array("0123456789abcdef".utf8)
            var text: [UInt8] = []
            text.reserveCapacity(3 * bytes.count)
            for byte in bytes {
                if !text.isEmpty { text.append(UInt8(ascii: " ")) }
                if byte > 15 { text.append(digits[Int(byte >> 4)]) }
                text.append(digits[Int(byte & 15)])
            }
            return String(decoding: text, as: UTF8.self)
        }

        init(_ name: String) {
            let name = name.lowercased()
            self =
                name == "bytes" || name.hasSuffix("_bytes")
                ? .bytes
                : name.hasSuffix("_ns")
                    ? .duration : name == "buffers" || name.hasSuffix("_buffers") || name == "count" ? .count : .none
        }

        func value(_ cell: DatabaseValue) -> Value {
            switch cell {
            case .null: return .unknown
            case .text(let text): return .text(text)
            case .real(let number): return .real(number)
            case .blob(let bytes): return .text(Self.hex(bytes))
            case .integer(let number):
                guard let size = UInt64(exactly: number) else { return .integer(number) }
                switch self {
                case .none: return .integer(number)
                case .bytes: return .bytes(size)
                case .duration: return .duration(size)
                case .count: return .count(size)
                }
            }
        }
    }
}

extension Report {
    /// The tables and views that a query can name.
    public static var queryTables: Report {
        var report = Report(command: "query")
        var table = Table(
            name: "tables", columns: [.init("name", "Name"), .init("kind", "kind"), .init("about", "what")])
        table.rows =
            DumpTables.all.map { Table.Row([.text($0.name), .text("table"), .text($0.about)]) }
            + DumpView.all.map { Table.Row([.text($0.name), .text("view"), .text($0.about)]) }
        report.add(nil, .table(table))
        return report
    }

    /// Every column of every table, with its meaning.
    public static var querySchema: Report {
        var report = Report(command: "query")
        var table = Table(
            name: "columns",
            columns: [
                .init("table", "Table"), .init("column", "column"), .init("type", "type"), .init("about", "meaning"),
            ])
        for source in DumpTables.all {
            for column in source.columns {
                table.rows.append(
                    Table.Row([
                        .text(source.name), .text(column.name), .text(column.type.rawValue.lowercased()),
                        .text(column.about),
                    ]))
            }
        }
        report.add(nil, .table(table))
        return report
    }
}
