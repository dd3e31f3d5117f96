public import Analysis
public import ArgumentParser
import DumpFormat

struct HistogramCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "histogram",
        abstract: "Live buffers counted by site, owner, client, age and more.",
        discussion: """
            One line a value, largest first (ages in order): how many buffers, their bytes, and the oldest.

              arena-analyze histogram --by client --limit 10 2-near-limit.dump.zst
              arena-analyze histogram --by age --filter unreachable \\
                2-near-limit.dump.zst
            """)

    @OptionGroup var source: DumpArgument

    @Option(
        help: ArgumentHelp(
            "What to count by: \(Grouping.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "what"))
    var by: Grouping = .site

    @OptionGroup var filter: FilterOptions
    @OptionGroup var list: ListOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let filter = try filter.parsed()
        let snapshot = try DumpPath.read(source.dump, Report.histogramSelection(by: by, filter), memory: memory.kind)
        var report = try Report.required(
            Report.histogram(of: snapshot, by: by, where: filter), from: source.dump, snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try list.apply(to: &report, people: 20, noun: "row", output)
        try output.show(report)
    }
}

extension Grouping: ExpressibleByArgument {}
