import Analysis
import ArgumentParser
import DumpFormat

struct SummaryCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "summary",
        abstract: "One screen: how full, with what, and whose fault.",
        discussion: """
            Shows the counter against its limit, what the chunks are full of, the sites that hold most, and a verdict. \
            Reads only small tables of a dump, so it answers at once however large the dump is.

              arena-analyze summary near-limit.dump.zst
              arena-analyze summary --format json near-limit.dump.zst | jq .verdict
              arena-analyze summary --fail-on 'unheld > 0 or use > 90%' near-limit.dump.zst

            As csv it prints its table of sites.
            """)

    @Argument(help: "The dump to read.")
    var dump: String

    @Option(help: ArgumentHelp("Show at most this many sites; 0 shows all.", valueName: "n"))
    var limit: Int?

    @OptionGroup var failure: FailOptions
    @OptionGroup var output: OutputOptions

    func validate() throws { try ListOptions.check(limit: limit) }

    func run() throws {
        // A torn dump answers all but the byte ledger from its small tables.
        let whole = try DumpPath.read(dump, Report.summarySelection, holders: false)
        let snapshot =
            whole.completeness.isComplete || whole.header.format == .nettyHeapDump ? whole : try DumpPath.read(dump)
        var report = Report.summary(of: snapshot)
        report.origins = [Origin(path: dump, snapshot)]
        report.mainTable?.limit(to: output.rows(limit, people: 5), noun: "sites")
        try output.show(report, checking: failure, Condition.Figures(snapshot))
    }
}
