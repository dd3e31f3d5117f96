import Analysis
import ArgumentParser
import DumpFormat

struct VerifyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Is a dump whole, and does it agree with itself?",
        discussion: """
            Checks the checksums, then the sums: live and free make a chunk, the counter is the sum of its parts, \
            references point to live buffers. Exits 4 if the file is torn or damaged, and else 1 if a check fails.

              arena-analyze verify 2-near-limit.dump.zst && echo 'worth sending'
            """)

    @Argument(help: "The dump to check; - is standard input.", completion: .file())
    var dump: String

    @OptionGroup var memory: MemoryOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let (checks, origin) = try DumpPath.verify(dump, memory: memory.kind)
        var report = Report.verification(checks)
        report.origins = [origin]
        // A damaged file exits as every partial answer does, whatever its checks say.
        try output.show(report, failed: checks.contains { !$0.passed })
    }
}
