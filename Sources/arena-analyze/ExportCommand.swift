public import Analysis
public import ArgumentParser
import DumpFormat

struct ExportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "A dump for other programs: csv, JSON lines, SQLite, pprof, flame graphs.",
        discussion: """
            csv and jsonl write one table (--table; `query --schema` lists their columns); sqlite writes all tables and \
            views; pprof writes a profile of live, unheld and allocated memory by site, last touch and owner kind; \
            folded writes the owner tree as stacks.

              arena-analyze export --to pprof -o live.pb 2-near-limit.dump.zst
              go tool pprof -http : live.pb
              arena-analyze export --to folded -o owners.folded 2-near-limit.dump.zst
              flamegraph.pl owners.folded > owners.svg

            A file that exists is left as it is unless --force is given. `-o -` is standard output.
            """)

    @Argument(help: "The dump to read.", completion: .file())
    var dump: String

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

    func validate() throws {
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
        do {
            let origin = try output == "-" ? print(exporter) : save(exporter)
            if let notice = origin.partialNotice {
                Terminal.warn("partial answer from \(dump): \(notice)")
                throw ExitCode(4)
            }
        } catch let problem as OutputFile.Problem {
            Terminal.complain("\(problem)")
            throw ExitCode.failure
        }
    }

    private func print(_ exporter: Exporter) throws -> Origin {
        let parts = try parts(exporter)
        if format == .pprof {
            try Terminal.print(bytes: try exporter.profile(parts.tables))
        } else {
            try exporter.write(parts) { try Terminal.print(bytes: Array($0)) }
        }
        return Origin(path: dump, parts.tables)
    }

    private func parts(_ exporter: Exporter) throws -> DumpParts {
        if let blocks = try DumpPath.blocks(dump), let parts = try exporter.parts(of: blocks) { return parts }
        return DumpParts(try DumpPath.read(dump, exporter.selection))
    }

    private func save(_ exporter: Exporter) throws -> Origin {
        // The file comes first: without a place to write to, nothing needs to be read.
        let file = try OutputFile.create(path: output, replacing: force)
        if format == .sqlite, let blocks = try DumpPath.blocks(dump),
            let rows = try exporter.databaseParts(of: blocks)
        {
            let tables = try DumpPath.read(dump, DumpSelection(runs: true))
            try exporter.writeDatabase(tables, rows: rows, path: file.partialPath)
            try file.commit()
            return Origin(path: dump, tables)
        }
        let parts = try parts(exporter)
        switch format {
        case .sqlite: try exporter.writeDatabase(parts.tables, path: file.partialPath)
        case .pprof: try file.write(try exporter.profile(parts.tables))
        case .csv, .jsonl, .folded: try exporter.write(parts) { try file.write($0) }
        }
        try file.commit()
        return Origin(path: dump, parts.tables)
    }
}

extension ExportFormat: ExpressibleByArgument {}
extension FoldedStacks.Weight: ExpressibleByArgument {}
