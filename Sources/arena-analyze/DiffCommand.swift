import Analysis
import ArgumentParser
import DumpFormat

struct DiffCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "diff",
        abstract: "What grew between two dumps or more, how fast, and the time left.",
        discussion: """
            Compares buffer by buffer (serial numbers are never reused in one process): born, freed, survived, per \
            site, last access and owner. With more than two dumps, what grows in every one of them is the suspect. \
            Dumps of different processes are compared by site, not by buffer. Heap dumps have neither start time nor host: \
            that they are of one process is decided by what only one has, and said with how sure it is.

              arena-analyze diff 1-before.dump.zst 2-near-limit.dump.zst
              arena-analyze diff --filter 'owner.kind = session' \\
                1-before.dump.zst 2-near-limit.dump.zst

            A filter is asked of each dump by itself, so one on ages can lose a buffer that is still there. As csv it prints its table of sites.
            """)

    @Argument(help: "Two dumps or more, in any order; one may be -, standard input.", completion: .file())
    var dumps: [String]

    @OptionGroup var filter: FilterOptions
    @OptionGroup var list: ListOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if dumps.count < 2 { throw ValidationError("diff compares at least two dumps; \(dumps.count) was given.") }
    }

    func run() throws {
        let filter = try filter.parsed()
        if let report = try filter == nil ? wholeFiles() : nil { return try show(report) }
        var files: [File] = try dumps.map { (path: $0, snapshot: try DumpPath.readReduced($0, filter)) }
        inOrder(&files)
        var report = Report.difference(of: files.map(\.snapshot), where: filter)
        report.origins = files.map { Origin(path: $0.path, $0.snapshot) }
        try show(report)
    }

    private typealias File = (path: String, snapshot: Snapshot)

    /// Whole dumps are compared block by block, in a fraction of the memory; nil where one is damaged, or another kind of
    /// file: then `run` says what there is.
    private func wholeFiles() throws -> Report? {
        let blocks = try dumps.map { try DumpPath.blocks($0) }
        var files: [File] = []
        var blocksOf: [String: DumpBlocks] = [:]
        for (path, blocks) in zip(dumps, blocks) {
            guard let blocks else { return nil }
            files.append((path, blocks.tables))
            blocksOf[path] = blocks
        }
        inOrder(&files)
        let rows = files.compactMap { blocksOf[$0.path].map { SlotRows($0) } }
        var report = Report.difference(of: files.map(\.snapshot), rows: rows)
        report.origins = files.map { Origin(path: $0.path, $0.snapshot) }
        return rows.contains(where: \.isDamaged) ? nil : report
    }

    private func inOrder(_ files: inout [File]) {
        let given = files.map(\.snapshot.header.wallTime)
        files.sort { $0.snapshot.header.wallTime < $1.snapshot.header.wallTime }
        if files.map(\.snapshot.header.wallTime) != given {
            let order = files.map { Origin.name(of: $0.path) }.joined(separator: ", then ")
            Terminal.warn("the dumps were not given in the order they were taken; comparing \(order)")
        }
        leaveOutCopies(&files)
    }

    /// The same dump once more is no step in which nothing grew. Two are compared as they are.
    private func leaveOutCopies(_ files: inout [File]) {
        for index in files.indices.reversed() where index > 0 && files.count > 2 {
            let (one, other) = (files[index - 1].snapshot.header, files[index].snapshot.header)
            guard one.wallTime == other.wallTime, one.pid == other.pid, one.host == other.host else { continue }
            let names = [index, index - 1].map { Origin.name(of: files[$0].path) }
            Terminal.warn("\(names[0]) is the same dump as \(names[1]), and left out")
            files.remove(at: index)
        }
    }

    private func show(_ report: Report) throws {
        var report = report
        try list.apply(to: &report, people: 10, noun: "site", output)
        try output.show(report)
    }
}
