public import Analysis
public import ArgumentParser
import DumpFormat

struct DominatorsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dominators",
        abstract: "The owner tree by retained size: what would go with each owner.",
        discussion: """
            Retained: buffers that only this owner and those below it hold. Shallow: of them, those it holds itself, \
            and those that several below it share. A buffer with several referrers counts for their lowest common owner. \
            "Answers for" is what the owner is charged with, reachable or not.

              arena-analyze dominators --limit 5 2-near-limit.dump.zst
            """)

    @OptionGroup var source: DumpArgument
    @OptionGroup var tree: TreeOptions

    @Option(
        help: ArgumentHelp(
            "Order siblings by \(DominatorOrder.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "order")
    )
    var sort: DominatorOrder = .retained

    @OptionGroup var filter: FilterOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let filter = try filter.parsed()
        let snapshot = try DumpPath.read(source.dump, Report.dominatorSelection(filter), memory: memory.kind)
        var report = try Report.required(
            Report.dominators(of: snapshot, siblings: tree.siblings(output), by: sort, where: filter),
            from: source.dump,
            snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try output.show(report)
    }
}

extension DominatorOrder: ExpressibleByArgument {}
