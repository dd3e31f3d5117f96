import Analysis
import ArgumentParser
import Ledger
import Version

/// How an answer is shown: the same for every command.
struct OutputOptions: ParsableArguments {
    enum Format: String, ExpressibleByArgument, CaseIterable { case text, json, csv }

    @Option(help: "text for people; json or csv for programs (sizes in bytes, durations in nanoseconds).")
    var format: Format = .text

    @OptionGroup var csv: CSVOptions

    @Flag(name: .customLong("no-color"), help: "Do not colour, not even on a terminal (as does NO_COLOR).")
    var noColor = false

    @Option(
        help: ArgumentHelp(
            "text: cut tables to this width, as a window does; 0 cuts nothing, as in a file or a pipe.",
            valueName: "columns"))
    var width: Int?

    func validate() throws {
        try csv.check(isCSV: format == .csv)
        if let width, width != 0, width < 40 { throw ValidationError("--width is 0, or at least 40 columns.") }
    }

    /// What `--limit` comes to: programs get every row unless they say otherwise. 0 is all.
    func rows(_ limit: Int?, people: Int) -> Int { limit ?? (format == .text ? people : 0) }

    /// Prints the answer. Exits 4 if it came from part of a dump, whatever it is, and else 1 if it is a failure.
    func show(_ report: Report, failed: Bool = false) throws {
        try Terminal.print(rendered(report))
        try Exit.ifPartial(report.allOrigins)
        if failed { throw Exit.noAnswer }
    }

    /// As `show`, and then exit code 3 if the condition holds. A partial answer outweighs it: what was missing might say
    /// otherwise, so the condition is only told.
    func show(_ report: Report, checking failure: FailOptions, _ figures: Condition.Figures) throws {
        do {
            try show(report)
        } catch let code as ExitCode where code == Exit.damaged {
            try? failure.check(figures)
            throw code
        }
        try failure.check(figures)
    }

    private func rendered(_ report: Report) throws -> String {
        switch format {
        case .text:
            return Terminal.renderer(color: !noColor, width: width).render(report)
        case .json:
            return JSONRenderer(toolVersion: programVersion).render(report)
        case .csv:
            guard let text = CSVRenderer(isRaw: csv.raw).render(report) else {
                Terminal.complain("\(report.command) has no table to print as csv")
                throw Exit.usage
            }
            return text
        }
    }
}

/// How csv is written: the same wherever it is.
struct CSVOptions: ParsableArguments {
    @Flag(help: "csv: texts as they are, for programs. A spreadsheet may take one for a formula.")
    var raw = false

    func check(isCSV: Bool) throws {
        if raw, !isCSV { throw ValidationError("--raw is about csv.") }
    }
}

/// Which rows of a list, and in which order.
struct ListOptions: ParsableArguments {
    // Whatever follows is its value, so that -1 is told what is wrong with it.
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Show at most this many rows; 0 shows all.", valueName: "n"))
    var limit: Int?

    @Option(help: ArgumentHelp("Order by this column, named as in json or as its heading.", valueName: "column"))
    var sort: String?

    func validate() throws { try Self.check(limit: limit) }

    static func check(limit: Int?) throws {
        if let limit, limit < 0 { throw ValidationError("--limit must not be negative.") }
    }

    /// `people` is the limit for text where none was given.
    func apply(to report: inout Report, people: Int, noun: String, _ output: OutputOptions) throws {
        guard var table = report.mainTable else { return }
        if let sort, !table.sort(by: sort) {
            let names = table.sortableNames
            let near = Suggestion(for: sort, among: names).words
            Terminal.complain(
                "there is no column '\(sort)' to sort by\(near); columns: \(names.joined(separator: ", "))")
            throw Exit.usage
        }
        table.limit(to: output.rows(limit, people: people), noun: noun)
        report.mainTable = table
    }
}
