public import Analysis
public import ArgumentParser
import DumpFormat

struct ExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "A dump for other programs: csv, JSON lines, SQLite, pprof, flame graphs.",
        discussion: """
            csv and jsonl write one table (--table; `query --schema` lists their columns); sqlite writes all tables and \
            views; pprof writes a profile of live, unreachable and allocated memory by site, last access and owner kind; \
            folded writes the owner tree as stacks.

              arena-analyze export --to pprof -o live.pb 2-near-limit.dump.zst
              go tool pprof -http : live.pb
              arena-analyze export --to folded -o owners.folded 2-near-limit.dump.zst
              flamegraph.pl owners.folded > owners.svg

            A file that exists is left as it is unless --force is given. `-o -` is standard output; a device or a pipe is \
            written into. Texts of csv that a spreadsheet would take for formulas begin with an apostrophe there, and \
            control characters are spelt out; --raw leaves them as they are.
            """)

    @OptionGroup var source: DumpArgument

    @Option(name: .customLong("to"), help: ArgumentHelp("csv, jsonl, sqlite, pprof or folded.", valueName: "format"))
    var format: ExportFormat

    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The file to write.", valueName: "file"),
        completion: .file())
    var output: String

    @Option(help: ArgumentHelp("The table that csv and jsonl write.", valueName: "name"))
    var table = "buffers"

    @Option(help: ArgumentHelp("What folded stacks count: bytes or buffers.", valueName: "what"))
    var weight: FoldedStacks.Weight = .bytes

    @Flag(help: "Replace the file if it exists.")
    var force = false

    @OptionGroup var csv: CSVOptions

    func validate() throws {
        try csv.check(isCSV: format == .csv)
        if !Exporter.tableNames.contains(table) {
            throw ValidationError(
                "there is no table '\(table)'; tables: \(Exporter.tableNames.joined(separator: ", "))")
        }
        if output == "-", format == .sqlite { throw ValidationError("an SQLite database needs a file; name one.") }
    }

    func run() throws {
        var exporter = Exporter(format: format)
        exporter.table = table
        exporter.weight = weight
        exporter.isRaw = csv.raw
        let origin = try Output.write(to: output, replacing: force) { file in try write(exporter, to: file) }
        try Exit.ifPartial([origin])
    }

    private func parts(_ exporter: Exporter) throws -> DumpParts {
        if let blocks = try DumpPath.blocks(source.dump), let parts = try exporter.parts(of: blocks) { return parts }
        return DumpParts(try DumpPath.read(source.dump, exporter.selection))
    }

    private func write(_ exporter: Exporter, to file: borrowing OutputFile) throws -> Origin {
        let database = format == .sqlite ? try file.partialPath(for: "an SQLite database") : ""
        if format == .sqlite, let blocks = try DumpPath.blocks(source.dump),
            let rows = try exporter.databaseParts(of: blocks)
        {
            let tables = try DumpPath.read(source.dump, DumpSelection(runs: true))
            try exporter.writeDatabase(tables, rows: rows, path: database)
            return Origin(path: source.dump, tables)
        }
        let parts = try parts(exporter)
        if output == "-" { Progress.end() }
        switch format {
        case .sqlite: try exporter.writeDatabase(parts.tables, path: database)
        case .pprof: try file.write(exporter.profile(parts.tables))
        case .csv, .jsonl, .folded: try exporter.write(parts) { try file.write($0) }
        }
        return Origin(path: source.dump, parts.tables)
    }
}

extension ExportFormat: ExpressibleByArgument {}
extension FoldedStacks.Weight: ExpressibleByArgument {}
