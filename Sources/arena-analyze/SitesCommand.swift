import Analysis
import ArgumentParser

struct SitesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sites",
        abstract: "Live memory by the place in the code that allocated it.",
        discussion: """
            One line a site, largest first: what it has alive, how fast it allocates, and how long the buffers lived \
            that it freed (as upper bounds). Beneath it, who accessed its live buffers last.

              arena-analyze sites --sort allocations_per_second 2-near-limit.dump.zst
              arena-analyze sites --filter 'age > 5s' 2-near-limit.dump.zst
            """)

    @OptionGroup var source: DumpArgument
    @OptionGroup var list: ListOptions
    @OptionGroup var filter: FilterOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let filter = try filter.parsed()
        let snapshot =
            filter == nil
            ? try DumpPath.read(source.dump, referrers: false, memory: memory.kind)
            : try DumpPath.readNarrowed(source.dump, filter, memory: memory.kind)
        var report = Report.sites(of: snapshot)
        report.note(filter, snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try list.apply(to: &report, people: 20, noun: "site", output)
        try output.show(report)
    }
}
