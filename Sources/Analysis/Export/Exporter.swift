public import DumpFormat
import GRDB

/// What a dump can be turned into for other programs.
public enum ExportFormat: String, Sendable, CaseIterable { case csv, jsonl, sqlite, pprof, folded }

/// Turns a dump into another program's format.
public struct Exporter {
    public var format: ExportFormat
    /// The table that `csv` and `jsonl` write, named as in SQL.
    public var table = "buffers"
    /// What the numbers of folded stacks count.
    public var weight = FoldedStacks.Weight.bytes

    public init(format: ExportFormat) { self.format = format }

    public static var tableNames: [String] { DumpTables.all.map(\.name) }

    /// What a reader must load of the dump.
    public var selection: DumpSelection {
        switch format {
        case .csv, .jsonl: DumpTables.named(table)?.selection(for: nil) ?? .tables
        case .sqlite: .everything
        case .pprof: .tables
        case .folded: FoldedStacks.selection
        }
    }

    /// Writes all of it. Only SQLite needs a file of its own rather than a stream: see `writeDatabase`.
    public func write(_ snapshot: Snapshot, to output: (String) throws -> Void) throws {
        switch format {
        case .csv: try TableText(table).writeCSV(snapshot, to: output)
        case .jsonl: try TableText(table).writeLines(snapshot, to: output)
        case .folded: try FoldedStacks(snapshot, weight).write(to: output)
        case .pprof, .sqlite: preconditionFailure("\(format) is not text")
        }
    }

    /// A profile as bytes of its protocol buffer.
    public func profile(_ snapshot: Snapshot) throws -> [UInt8] { try PprofProfile(snapshot).bytes }

    /// What the views join and group by.
    private static let indices = """
        CREATE INDEX buffers_site ON buffers (site);
        CREATE INDEX buffers_owner ON buffers (owner);
        CREATE INDEX buffers_chunk ON buffers (chunk);
        CREATE INDEX edges_buffer ON edges (buffer);
        """

    /// Writes all tables and views to a new SQLite database: `path` is an empty file, or none.
    public func writeDatabase(_ snapshot: Snapshot, path: String) throws {
        do {
            let database = try DumpDatabase(path: path)
            try database.load(snapshot)
            try database.queue.write { try $0.execute(sql: Self.indices) }
            try database.queue.close()
        } catch let error as DatabaseError {
            throw OutputFile.Problem(description: "cannot write the database: \(error.message ?? "\(error)")")
        }
    }
}

/// One table as text, row by row, so that a million rows need the memory of one.
private struct TableText {
    let table: DumpTable

    init(_ name: String) {
        guard let table = DumpTables.named(name) else { preconditionFailure("no table \(name)") }
        self.table = table
    }

    func writeCSV(_ snapshot: Snapshot, to output: (String) throws -> Void) throws {
        let row = table.columns.map(\.name).joined(separator: ",") + "\n"
        try write(snapshot, start: row, to: output) { cells, text in
            for (index, cell) in cells.enumerated() {
                if index > 0 { text += "," }
                switch cell {
                case .null: break
                case .integer(let number): text += String(number)
                case .text(let field): text += CSVRenderer.quoted(field)
                }
            }
            text += "\n"
        }
    }

    /// One object a line (https://jsonlines.org).
    func writeLines(_ snapshot: Snapshot, to output: (String) throws -> Void) throws {
        let names = table.columns.map { JSONValue.string($0.name).text }
        try write(snapshot, start: "", to: output) { cells, text in
            for (index, cell) in cells.enumerated() {
                text += (index == 0 ? "{" : ",") + names[index] + ":"
                switch cell {
                case .null: text += "null"
                case .integer(let number): text += String(number)
                case .text(let string): text += JSONValue.string(string).text
                }
            }
            text += "}\n"
        }
    }

    private func write(
        _ snapshot: Snapshot, start: String, to output: (String) throws -> Void,
        row: (_ cells: [Cell], _ text: inout String) -> Void
    ) throws {
        let facts = DumpFacts(snapshot)
        let columns = table.columns.map { $0.cells(facts) }
        var text = start
        for index in 0..<table.rowCount(facts) {
            row(columns.map { $0(index) }, &text)
            if text.utf8.count >= 1 << 16 {
                try output(text)
                text = ""
            }
        }
        try output(text)
    }
}
