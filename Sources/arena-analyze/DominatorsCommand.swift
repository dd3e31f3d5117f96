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
            "Answers for" is what the owner is charged with, held or not.

              arena-analyze dominators --limit 5 2-near-limit.dump.zst
            """)

    @Argument(help: "The dump to read; - is standard input.", completion: .file())
    var dump: String

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Show at most this many children of each owner; 0 shows all.", valueName: "n"))
    var limit: Int?

    @Option(
        help: ArgumentHelp(
            "Order siblings by \(DominatorOrder.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "order")
    )
    var sort: DominatorOrder = .retained

    @OptionGroup var filter: FilterOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func validate() throws { try ListOptions.check(limit: limit) }

    func run() throws {
        let filter = try filter.parsed()
        let snapshot = try DumpPath.read(dump, Report.dominatorSelection(filter), memory: memory.kind)
        let rows = output.rows(limit, people: 10)
        var report = try Report.required(
            Report.dominators(of: snapshot, siblings: rows > 0 ? rows : nil, by: sort, where: filter), from: dump,
            snapshot)
        report.origins = [Origin(path: dump, snapshot)]
        try output.show(report)
    }
}

extension DominatorOrder: ExpressibleByArgument {}
