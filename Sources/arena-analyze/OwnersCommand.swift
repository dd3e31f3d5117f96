public import Analysis
public import ArgumentParser

struct OwnersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "owners",
        abstract: "The owner tree: who answers for live memory now.",
        discussion: """
            Each owner with what hangs below it and what is its own. Owners without live memory are left out; small \
            siblings are summed up in one line. An owner that is closed and still holds memory is marked.

              arena-analyze owners --limit 3 2-near-limit.dump.zst
            """)

    @Argument(help: "The dump to read; - is standard input.", completion: .file())
    var dump: String

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Show at most this many children of each owner; 0 shows all.", valueName: "n"))
    var limit: Int?

    @Option(help: ArgumentHelp("Order siblings by bytes, buffers or name.", valueName: "order"))
    var sort: OwnerOrder = .bytes

    @OptionGroup var filter: FilterOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func validate() throws { try ListOptions.check(limit: limit) }

    func run() throws {
        let filter = try filter.parsed()
        let snapshot = try DumpPath.readNarrowed(dump, filter, memory: memory.kind)
        let rows = output.rows(limit, people: 10)
        var report = Report.owners(of: snapshot, siblings: rows > 0 ? rows : nil, by: sort)
        report.note(filter, snapshot)
        report.origins = [Origin(path: dump, snapshot)]
        try output.show(report)
    }
}

extension OwnerOrder: ExpressibleByArgument {}
