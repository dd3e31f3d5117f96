import Analysis
import ArgumentParser
import DumpFormat
import NettyHeap

struct LeaksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "leaks",
        abstract: "Suspects, each with evidence, numbers, and where to look in the code.",
        discussion: """
            One paragraph a suspect, to paste into an incident. Evidence, strongest first: no referrer reaches the buffers; \
            far more and far older than the site's own lifetimes explain; growth in every dump, where several are given; \
            nearly all memory. What a queue or a retained message holds is never a suspect.

            That no referrer reaches them is proof only in a dump that lacks nothing that could refute it. A finding says \
            whether it is proved, likely or possible, and why it is not proved. Of a damaged heap dump nobody is accused. \
            A finding that is small beside the whole is minor, which makes it no less sure.

              arena-analyze leaks 2-near-limit.dump.zst
              arena-analyze leaks 1-before.dump.zst 2-near-limit.dump.zst
              arena-analyze leaks --baseline 1-before.dump.zst \\
                --fail-on 'suspects > 0' 2-near-limit.dump.zst

            A suppression file has one fingerprint a line, or an expression such as 'site ~ "test" and kind = growth'.
            """)

    @Argument(
        help: "A dump, or several of one process; they are put in the order they were taken.", completion: .file())
    var dumps: [String]

    @Option(
        help: ArgumentHelp("Do not report findings this file lists; match counts are shown.", valueName: "file"),
        completion: .file())
    var suppress: String?

    @Option(
        help: ArgumentHelp("An older dump: what it shows too is marked as known.", valueName: "dump"),
        completion: .file())
    var baseline: String?

    @OptionGroup var filter: FilterOptions
    @OptionGroup var failure: FailOptions
    @OptionGroup var list: ListOptions
    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if dumps.isEmpty { throw ValidationError("leaks needs a dump.") }
    }

    func run() throws {
        let filter = try filter.parsed()
        let memory = memory.kind
        var files = try dumps.map { (path: $0, snapshot: try DumpPath.readNarrowed($0, filter, memory: memory)) }
        files.sort { $0.snapshot.header.wallTime < $1.snapshot.header.wallTime }
        let known = try baseline.map { (path: $0, snapshot: try DumpPath.readNarrowed($0, filter, memory: memory)) }
        let search = try LeakSearch.detailed(&files, filter, memory) {
            LeakSearch($0, baseline: known?.snapshot, suppressions: try suppressions(), filter: filter)
        }
        var report = search.report
        report.origins = files.map { Origin(path: $0.path, $0.snapshot) }
        report.references = known.map { [Origin(path: $0.path, $0.snapshot)] } ?? []
        try list.apply(to: &report, people: 20, noun: "suspect", output)
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

extension LeakSearch {
    /// The suspects of dumps in the order they were taken.
    static func whole(_ paths: [String]) throws -> LeakSearch {
        var files = try paths.map { (path: $0, snapshot: try DumpPath.read($0)) }
        return try detailed(&files, nil, .direct) { LeakSearch($0) }
    }

    /// With exact births and owners of suspects, if there are any: only then the newest dump's slots are read. Where they turn out to
    /// be damaged, the search is one of a damaged dump.
    fileprivate static func detailed(
        _ files: inout [(path: String, snapshot: Snapshot)], _ filter: Filter?, _ memory: NettyMemory,
        search: ([Snapshot]) throws -> LeakSearch
    ) throws -> LeakSearch {
        var found = try search(files.map(\.snapshot))
        guard found.hasSuspects, let newest = files.last else { return found }
        let details = try DumpPath.read(newest.path, detailsSelection(filter), memory: memory)
        if newest.snapshot.completeness.isComplete, !details.completeness.isComplete {
            files[files.count - 1].snapshot.completeness = details.completeness
            found = try search(files.map(\.snapshot))
        }
        found.addDetails(from: details)
        return found
    }
}
