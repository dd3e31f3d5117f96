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

    @OptionGroup var source: DumpArgument
    @OptionGroup var tree: TreeOptions

    @Option(help: ArgumentHelp("Order siblings by bytes, buffers or name.", valueName: "order"))
    var sort: OwnerOrder = .bytes

    @OptionGroup var filter: FilterOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let filter = try filter.parsed()
        let snapshot = try DumpPath.readNarrowed(source.dump, filter, memory: memory.kind)
        var report = Report.owners(of: snapshot, siblings: tree.siblings(output), by: sort)
        report.note(filter, snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try output.show(report)
    }
}

extension OwnerOrder: ExpressibleByArgument {}
