import Analysis
import ArgumentParser
import DumpFormat

struct LeaksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "leaks",
        abstract: "Suspects, each with evidence, numbers, and where to look in the code.",
        discussion: """
            One paragraph a suspect, to paste into an incident. Evidence, strongest first: no holder reaches the buffers \
            (proof); far more and far older than the site's own lifetimes explain; growth in every dump, where several \
            are given; nearly all memory. What a queue or a retained message holds is never a suspect.

              arena-analyze leaks near-limit.dump.zst
              arena-analyze leaks before.dump.zst after.dump.zst
              arena-analyze leaks --baseline main.dump.zst --suppress leaks.supp --fail-on 'suspects > 0' ci.dump.zst

            A suppression file has one fingerprint a line, or an expression such as 'site ~ "test" and kind = growth'.
            """)

    @Argument(help: "A dump, or several of one process; they are put in the order they were taken.")
    var dumps: [String]

    @Option(help: ArgumentHelp("Do not report findings this file lists; match counts are shown.", valueName: "file"))
    var suppress: String?

    @Option(help: ArgumentHelp("An older dump: what it shows too is marked as known.", valueName: "dump"))
    var baseline: String?

    @OptionGroup var filter: FilterOptions
    @OptionGroup var failure: FailOptions
    @OptionGroup var list: ListOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if dumps.isEmpty { throw ValidationError("leaks needs a dump.") }
    }

    func run() throws {
        let filter = try filter.parsed()
        var files = try dumps.map { (path: $0, snapshot: try DumpPath.readNarrowed($0, filter)) }
        files.sort { $0.snapshot.header.wallTime < $1.snapshot.header.wallTime }
        var search = LeakSearch(
            files.map(\.snapshot), baseline: try baseline.map { try DumpPath.readNarrowed($0, filter) },
            suppressions: try suppressions(), filter: filter)
        if search.hasSuspects {
            let newest = files[files.count - 1].path
            search.addDetails(from: try DumpPath.read(newest, LeakSearch.detailsSelection(filter)))
        }
        var report = search.report
        report.origins = files.map { Origin(path: $0.path, $0.snapshot) }
        try list.apply(to: &report, people: 20, noun: "suspects", output)
        try output.show(report, checking: failure, search.figures)
    }

    private func suppressions() throws -> Suppressions? {
        guard let suppress else { return nil }
        let text = try TextFile.read(suppress)
        do {
            return try Suppressions(text: text)
        } catch {
            throw ValidationError("--suppress \(suppress), \(error)")
        }
    }
}

extension DumpPath {
    /// The small tables, or under a filter what they would be if only those buffers lived.
    static func readNarrowed(_ path: String, _ filter: Filter?) throws -> Snapshot {
        guard let filter else { return try read(path) }
        guard let narrowed = try read(path, Snapshot.narrowingSelection(filter)).narrowed(to: filter) else {
            _ = try Report.required(nil, from: path)
            throw ExitCode.failure
        }
        return narrowed
    }
}
