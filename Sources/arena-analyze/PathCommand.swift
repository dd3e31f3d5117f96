import Analysis
import ArgumentParser
import DumpFormat

struct PathCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "path",
        abstract: "Who holds one buffer, from the root down.",
        discussion: """
            Every referrer that reaches the buffer, each with its path from the root of the owner tree. A buffer lives \
            until the last of them lets go.

              arena-analyze path 2-near-limit.dump.zst 32676609
            """)

    @OptionGroup var source: DumpArgument

    @Argument(help: "SERIAL or 0xADDRESS.")
    var buffer: BufferName

    @OptionGroup var list: ListOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let snapshot = try DumpPath.read(source.dump, around: buffer, else: Report.pathSelection)
        var report = try buffer.found(Report.path(to: buffer, in: snapshot), source.dump, snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try list.apply(to: &report, people: 20, noun: "referrer", output)
        try output.show(report)
    }
}
