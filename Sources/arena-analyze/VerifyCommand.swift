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

              arena-analyze verify near-limit.dump.zst && scp near-limit.dump.zst support:
            """)

    @Argument(help: "The dump to check.")
    var dump: String

    @OptionGroup var output: OutputOptions

    /// The checks that a file fails merely because its end is missing.
    private static let wholenessChecks: Set<String> = ["seek table", "every section can be read"]

    func run() throws {
        let (checks, origin) = try DumpPath.verify(dump)
        var report = Report.verification(checks)
        report.origins = [origin]
        let isContradicted = checks.contains { check in
            !check.passed && !(origin.isPartial && Self.wholenessChecks.contains(check.name))
        }
        try output.show(report, failed: isContradicted)
    }
}
