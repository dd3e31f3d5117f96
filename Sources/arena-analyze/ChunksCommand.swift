import Analysis
import ArgumentParser
import DumpFormat

struct ChunksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chunks",
        abstract: "Why memory does not go back: each chunk, and the few buffers that pin it.",
        discussion: """
            A chunk goes back to the system only when all its buffers have gone. Shows each chunk's map and its leverage \
            (bytes that would go back over bytes that pin them; the cheapest first), who pins chunks alone and with \
            others, whose release returns most, and where long-lived buffers sit among short-lived ones.

              arena-analyze chunks 2-near-limit.dump.zst
              arena-analyze chunks --if-freed 'under = session/device-0007' \\
                2-near-limit.dump.zst
              arena-analyze chunks --filter 'age > 5s' --sort leverage \\
                2-near-limit.dump.zst
              arena-analyze chunks --request 1MiB 2-near-limit.dump.zst
            """)

    @OptionGroup var source: DumpArgument

    @Option(
        help: ArgumentHelp("How many chunks go back if buffers that match this are freed?", valueName: "expression"))
    var ifFreed: String?

    @Option(help: ArgumentHelp("Would a request of this size be served, as in 1MiB?", valueName: "size"))
    var request: String?

    @Option(
        help: ArgumentHelp(
            "Count who pins chunks by \(Grouping.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "what")
    )
    var by: Grouping = .owner

    @Option(help: ArgumentHelp("Buffers at least this old are long-lived.", valueName: "age"))
    var old: String = "10m"

    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Choose this many whose release returns most, greedily.", valueName: "k"))
    var best: Int = 5

    @OptionGroup var filter: FilterOptions
    @OptionGroup var list: ListOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if best < 0 { throw ValidationError("--best must not be negative.") }
        _ = try question()
    }

    func run() throws {
        let question = try question()
        var snapshot = try DumpPath.read(source.dump, question.selection, memory: memory.kind)
        let study = ChunkStudy(snapshot, question)
        // Most of the memory; tables with a row for each owner come now.
        (snapshot.slots, snapshot.references) = (nil, nil)
        var report = try Report.required(study.map { Report.chunks($0, snapshot) }, from: source.dump, snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try list.apply(to: &report, people: 10, noun: "chunk", output)
        for name in ["pinners", "sites", "mixing"] {
            report.limit(name, to: output.rows(list.limit, people: 10), noun: "row")
        }
        try output.show(report)
    }

    private func question() throws -> ChunkQuestion {
        var question = ChunkQuestion()
        question.pinners = by
        question.filter = try filter.parsed()
        question.best = best
        if let ifFreed {
            do {
                question.ifFreed = try Filter(ifFreed)
            } catch {
                throw ValidationError("--if-freed: \(error)")
            }
        }
        if let request {
            guard let bytes = Quantity.bytes(request) else {
                throw ValidationError("--request takes a size, such as 512, 4KiB or 1.5MiB.")
            }
            question.request = bytes
        }
        guard let age = Quantity.nanoseconds(old) else {
            throw ValidationError("--old takes a time with its unit, such as 30s, 10m or 2h.")
        }
        question.oldAge = age
        return question
    }
}
