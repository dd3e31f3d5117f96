public import DumpFormat
import SQLite

/// What a dump can be turned into for other programs.
public enum ExportFormat: String, Sendable, CaseIterable { case csv, jsonl, sqlite, pprof, folded }

/// Turns a dump into another program's format.
public struct Exporter {
    public var format: ExportFormat
    /// The table that `csv` and `jsonl` write, named as in SQL.
    public var table = "buffers"
    /// What the numbers of folded stacks count.
    public var weight = FoldedStacks.Weight.bytes
    /// Texts of csv as they are, for programs.
    public var isRaw = false

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

    /// Writes all of it, piece by piece and in order, though perhaps from several threads. Only SQLite needs a file of its
    /// own rather than a stream: see `writeDatabase`.
    public func write(_ parts: DumpParts, to output: (UnsafeRawBufferPointer) throws -> Void) throws {
        switch format {
        case .csv: try text(.csv).write(parts, to: output)
        case .jsonl: try text(.lines).write(parts, to: output)
        case .folded: try FoldedStacks(parts.tables, weight).write(to: output)
        case .pprof, .sqlite: preconditionFailure("\(format) is not text")
        }
    }

    private func text(_ style: TableText.Style) -> TableText {
        guard let table = DumpTables.named(table) else { preconditionFailure("no table \(table)") }
        return TableText(table, style, CSVRenderer(isRaw: isRaw))
    }

    /// The dump block by block, where this export can be made so and the file is whole.
    public func parts(of blocks: DumpBlocks) throws -> DumpParts? {
        guard format == .csv || format == .jsonl else { return nil }
        return try DumpParts(blocks, table: table, selection)
    }

    /// A profile as bytes of its protocol buffer.
    public func profile(_ snapshot: Snapshot) -> [UInt8] { PprofProfile(snapshot).bytes }

    /// Of a whole dump, the tables with millions of rows block by block; nil where a block is damaged. The snapshot that
    /// goes with them has the runs.
    public func databaseParts(of blocks: DumpBlocks) throws -> [String: DumpParts]? {
        var parts: [String: DumpParts] = [:]
        for table in [DumpTables.buffers, DumpTables.references] where table.name == "buffers" || blocks.hasReferences {
            guard let found = try DumpParts(blocks, table: table.name, table.selection(for: nil)) else { return nil }
            parts[table.name] = found
        }
        return parts
    }

    /// Writes all tables and views to a new SQLite database: `path` is an empty file, or none. `rows` are those of tables
    /// whose rows are not in the snapshot itself.
    public func writeDatabase(_ snapshot: Snapshot, rows: [String: DumpParts] = [:], path: String) throws {
        do {
            let database = try DumpDatabase(path: path)
            try database.load(snapshot, rows: rows)
            try database.queue.close()
        } catch let error as DatabaseError {
            throw OutputFile.Problem(description: "cannot write the database: \(error.message)")
        }
    }
}
