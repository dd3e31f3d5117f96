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

              arena-analyze summary 2-near-limit.dump.zst
              arena-analyze summary --format json 2-near-limit.dump.zst | jq .verdict
              arena-analyze summary --filter 'owner.kind = session' \\
                2-near-limit.dump.zst
              arena-analyze summary --fail-on 'unreachable > 0 or use > 90%' \\
                2-near-limit.dump.zst

            As csv it prints its table of sites. Under a filter the sites and the verdict are about the buffers that \
            match; the counters are always those of the whole.
            """)

    @OptionGroup var source: DumpArgument
    @OptionGroup var list: ListOptions

    @OptionGroup var filter: FilterOptions
    @OptionGroup var failure: FailOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let filter = try filter.parsed()
        // A torn dump answers all but the byte ledger from its small tables.
        let whole = try DumpPath.readNarrowed(
            source.dump, filter, Report.summarySelection, referrers: false, memory: memory.kind)
        let snapshot =
            whole.completeness.isComplete || whole.header.format == .nettyHeapDump
            ? whole : try DumpPath.readNarrowed(source.dump, filter)
        var report = Report.summary(of: snapshot, where: filter)
        report.origins = [Origin(path: source.dump, snapshot)]
        try list.apply(to: &report, people: 5, noun: "site", output)
        try output.show(report, checking: failure, Condition.Figures(snapshot))
    }
}
