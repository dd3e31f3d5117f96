import Analysis
import ArgumentParser
import DumpFormat
import Version

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "One HTML file that answers by itself, to mail or attach to an incident.",
        discussion: """
            Verdict and byte ledger, suspects, a map of every page of every chunk, the owner tree as a flame graph, and \
            the sites; with several dumps of one process, also what grew. The file needs no network and no other file, \
            and stays small however many buffers the dump has. `-o -` is standard output; a device or a pipe is written \
            into.

              arena-analyze report -o incident.html \\
                1-before.dump.zst 2-near-limit.dump.zst 3-at-the-limit.dump.zst

            Client ids and addresses are in it as they are in the dump; `redact` the dump first where that matters.
            """)

    @Argument(help: "One dump or more; the report is about the newest. - is standard input.", completion: .file())
    var dumps: [String]

    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The file to write.", valueName: "file"),
        completion: .file())
    var output: String

    @Flag(help: "Replace the file if it exists.")
    var force = false

    func run() throws {
        let origins = try Output.write(to: output, replacing: force) { file in
            let page = try page()
            if output == "-" { Progress.end() }
            try file.write(page.html)
            return page.origins
        }
        try Exit.ifPartial(origins)
    }

    private func page() throws -> (html: String, origins: [Origin]) {
        // The newest is told by the headers, and only of it are all tables needed.
        let order = try dumps.map { (path: $0, time: try DumpPath.read($0).header.wallTime) }
            .sorted { $0.time < $1.time }.map(\.path)
        let leaks = try LeakSearch.whole(order)
        var selection = dumps.count > 1 ? Difference.selection(nil) : .tables
        var files: [(path: String, snapshot: Snapshot)] = try order.dropLast().map {
            ($0, try DumpPath.read($0, selection))
        }
        selection.formUnion(ReportPage.selection)
        if let newest = order.last { files.append((newest, try DumpPath.read(newest, selection))) }
        let html = ReportPage(files, leaks: leaks, toolVersion: programVersion).html
        return (html, files.map { Origin(path: $0.path, $0.snapshot) })
    }
}
