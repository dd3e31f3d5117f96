public import Analysis
public import ArgumentParser
import DumpFormat

struct ShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Everything about one buffer: whose, since when, who holds it, its neighbours.",
        discussion: """
            Named by its serial number, or by an address anywhere in it, as `buffers` prints them. Of a buffer that was \
            freed shortly before the dump it says who freed it. Where the dump has payloads, they are shown too.

              arena-analyze show 2-near-limit.dump.zst 49921
              arena-analyze show 2-near-limit.dump.zst 0x144000
            """)

    @OptionGroup var source: DumpArgument

    @Argument(help: "SERIAL or 0xADDRESS.")
    var buffer: BufferName

    @OptionGroup var output: OutputOptions

    func run() throws {
        let snapshot = try DumpPath.read(source.dump, around: buffer, else: Report.showSelection)
        let live = Report.show(buffer, in: snapshot) { row in
            // The file could be read a moment ago; if it cannot now, the answer says so.
            do { return try DumpReader.payload(path: source.dump, snapshot, row: row) } catch { return nil }
        }
        var report = try buffer.found(live ?? Report.showFreed(buffer, in: snapshot), source.dump, snapshot)
        report.origins = [Origin(path: source.dump, snapshot)]
        try output.show(report)
    }
}

extension BufferName: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }

    /// The answer about it; the command ends where it is not live.
    func found(_ report: Report?, _ dump: String, _ snapshot: Snapshot) throws -> Report {
        if let report { return report }
        if snapshot.slots == nil { return try Report.required(nil, from: dump, snapshot) }
        let name = Origin.name(of: dump)
        let notice = Origin(path: dump, snapshot).partialNotice.map { ", as far as it can be read: \($0)" } ?? ""
        Terminal.complain("\(name) has no live buffer \(text)\(notice); `arena-analyze buffers` lists them")
        throw Exit.code(missingFrom: snapshot)
    }
}
