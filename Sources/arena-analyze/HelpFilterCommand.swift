import Analysis
import ArgumentParser

struct HelpFilterCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "help-filter",
        abstract: "The fields and the grammar of --filter.",
        discussion: """
            Shows what --filter understands, with an example.

              arena-analyze help-filter
            """)

    func run() throws {
        try Terminal.print(
            """
            A filter is tests joined by 'and', 'or', 'not' and parentheses:

              site ~ "rpc" and age > 10m and size >= 4KiB and owner.kind = session
              unreachable and not (access = "socket read" or idle < 1s)

            Comparisons: =  !=  <  <=  >  >=  and for texts ~ (contains, in any case) and !~ (does not).
            Sizes: 512, 4KiB, 1.5MiB (binary; K, KB and KiB are the same). Times: 80ms, 30s, 10m, 1h30m, 7d.
            Quote texts that have spaces or are words such as 'and': "offline queue".

            Fields:
            \(Filter.fieldHelp)

            """)
    }
}
