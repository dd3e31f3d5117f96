import Analysis
import ArgumentParser

@main
struct ArenaAnalyze: ParsableCommand {
    static let version = "0.1.0"

    static let configuration = CommandConfiguration(
        commandName: "arena-analyze",
        abstract: "Who holds the memory? Answers from the dumps of an arena.",
        discussion: """
            Start with the summary of one dump; two dumps, some minutes apart, prove growth:

              kill -USR1 $(pidof arena-broker)
              arena-analyze summary 2-near-limit.dump.zst
              arena-analyze diff 1-before.dump.zst 2-near-limit.dump.zst

            Exit codes: 0 answered; 1 no answer possible; 3 a --fail-on condition holds; 4 answered from part of a damaged dump; 64 usage.
            """,
        version: version,
        subcommands: [
            SummaryCommand.self, SitesCommand.self, OwnersCommand.self, DiffCommand.self, VerifyCommand.self,
            HistogramCommand.self, BuffersCommand.self, ShowCommand.self, PathCommand.self, DominatorsCommand.self,
            LeaksCommand.self, ChunksCommand.self, NettyCommand.self, HelpFilterCommand.self,
            QueryCommand.self, ExportCommand.self, ReportCommand.self, RedactCommand.self, CaptureCommand.self,
            TopCommand.self,
        ])
}
