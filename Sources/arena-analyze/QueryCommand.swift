import Analysis
import ArgumentParser
import DumpFormat

struct QueryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "query",
        abstract: "SQL over the tables of a dump.",
        discussion: """
            SQLite answers, and reads only the tables and columns that the statement names; the dump is never changed. \
            Sizes are in bytes, durations in nanoseconds (columns that end in _ns).

              arena-analyze query 2-near-limit.dump.zst 'SELECT * FROM leaks'
              arena-analyze query 2-near-limit.dump.zst \\
                "SELECT * FROM by_client WHERE client LIKE 'device-%'"
              arena-analyze query --tables
            """)

    @Argument(help: "The dump to read; - is standard input.", completion: .file())
    var dump: String?

    @Argument(help: "One statement that reads, such as SELECT; WHERE filters, ORDER BY sorts.")
    var sql: String?

    @Flag(help: "List the tables and ready-made views, and end.")
    var tables = false

    @Flag(help: "List the columns of every table with their meaning, and end.")
    var schema = false

    @OptionGroup var list: ListOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if tables || schema {
            if sql != nil { throw ValidationError("--tables and --schema are answered without a statement.") }
        } else if dump == nil || sql == nil {
            throw ValidationError("query needs a dump and a statement; --tables lists what can be asked for.")
        }
    }

    func run() throws {
        if tables { return try output.show(.queryTables) }
        if schema { return try output.show(.querySchema) }
        guard let dump, let sql else { return }
        do {
            let query = try Query(sql: sql)
            let snapshot = try DumpPath.read(dump, query.selection)
            var report = try query.report(on: snapshot)
            report.origins = [Origin(path: dump, snapshot)]
            try list.apply(to: &report, people: 1_000, noun: "row", output)
            try output.show(report)
        } catch let problem as Query.Problem {
            let isUnknown = ["no such table", "no such column"].contains { problem.description.contains($0) }
            let hint = isUnknown ? "; 'arena-analyze query --schema' lists what there is" : ""
            Terminal.complain("cannot answer the query: \(problem)\(hint)")
            throw Exit.usage
        }
    }
}
