import Analysis
import ArgumentParser
import DumpFormat

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Is a dump whole, and does it agree with itself?",
        discussion: """
            Checks the checksums, then the sums: live and free make a chunk, the counter is the sum of its parts, \
            edges point to live buffers. Exits 1 if a check fails, 4 if the file is torn and what is there agrees.

              arena-analyze verify 2-near-limit.dump.zst && echo 'worth sending'
            """)

    @Argument(help: "The dump to check; - is standard input.", completion: .file())
    var dump: String

    @OptionGroup var output: OutputOptions

    func run() throws {
        let (checks, origin) = try DumpPath.verify(dump)
        var report = Report.verification(checks)
        report.origins = [origin]
        // A file without its end fails checks merely because of that, and exits as every partial answer does.
        let isContradicted = checks.contains { !$0.passed && !(origin.isPartial && $0.subject == .wholeness) }
        try output.show(report, failed: isContradicted)
    }
}
