import Analysis
import ArgumentParser
import Ledger
import Version

@main
struct ArenaAnalyze: ParsableCommand {
    /// A word that is no command is answered here: the library would complain of the words that follow it, and takes any for `help`.
    static func main() {
        let words = Array(CommandLine.arguments.dropFirst())
        let isHelp = words.first == "help"
        if let word = isHelp ? words.dropFirst().first : words.first, !word.hasPrefix("-") {
            let commands = configuration.subcommands.compactMap { $0.configuration.commandName }
            if !(commands + ["help"]).contains(word) {
                let near = Suggestion(for: word, among: commands).words
                Terminal.complain("there is no command '\(word)'\(near.isEmpty ? "; --help lists them" : near)")
                exit(withError: Exit.usage)
            }
        }
        main(nil)
    }

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
        version: programVersion,
        subcommands: [
            SummaryCommand.self, SitesCommand.self, OwnersCommand.self, DiffCommand.self, VerifyCommand.self,
            HistogramCommand.self, BuffersCommand.self, ShowCommand.self, PathCommand.self, DominatorsCommand.self,
            LeaksCommand.self, ChunksCommand.self, NettyCommand.self, HelpFilterCommand.self,
            QueryCommand.self, ExportCommand.self, ReportCommand.self, RedactCommand.self, CaptureCommand.self,
            TopCommand.self,
        ])
}
