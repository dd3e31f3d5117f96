public import Analysis
public import ArgumentParser
import DumpFormat

struct BuffersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "buffers",
        abstract: "List live buffers one by one.",
        discussion: """
            The oldest first, or largest with --sort size. `show` tells everything about one of them.

              arena-analyze buffers --filter 'unreachable and age > 5s' --sort size \\
                2-near-limit.dump.zst
              arena-analyze buffers --filter 'owner = session/device-0007' \\
                --format csv 2-near-limit.dump.zst
            """)

    @OptionGroup var source: DumpArgument

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Show at most this many; 0 shows all (20 for people, 10,000 for programs).", valueName: "n"))
    var limit: Int?

    @Option(
        help: ArgumentHelp(
            "Order by \(BufferOrder.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "order"))
    var sort: BufferOrder = .age

    @OptionGroup var filter: FilterOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func validate() throws { try ListOptions.check(limit: limit) }

    func run() throws {
        let filter = try filter.parsed()
        let rows = limit ?? (output.format == .text ? 20 : 10_000)
        if rows > 0, let report = try chosen(rows, filter) { return try output.show(report) }
        let snapshot = try DumpPath.read(source.dump, Report.buffersSelection, memory: memory.kind)
        var report = try Report.required(
            Report.buffers(of: snapshot, by: sort, limit: rows > 0 ? rows : nil, where: filter), from: source.dump,
            snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try output.show(report)
    }

    /// Of a whole dump, reads only what decides which rows to show, and then those rows. Nil where it is not whole.
    private func chosen(_ limit: Int, _ filter: Filter?) throws -> Report? {
        guard let blocks = try DumpPath.blocks(source.dump) else { return nil }
        let deciding = try DumpPath.read(source.dump, BufferChoice.selection(sort, filter))
        guard deciding.completeness.isComplete,
            let choice = BufferChoice(deciding, by: sort, limit: limit, where: filter),
            let excerpt = DumpPath.excerpt(choice.rows, of: blocks),
            var report = Report.buffers(choice, excerpt: excerpt, where: filter)
        else { return nil }
        report.origins = [Origin(path: source.dump, excerpt)]
        return report
    }
}

extension BufferOrder: ExpressibleByArgument {}
