import Analysis
import ArgumentParser
import DumpFormat

struct CaptureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "capture",
        abstract: "Take a dump of a running broker and summarise it.",
        discussion: """
            Sends SIGUSR1, waits for the dump in the broker's dump directory (found from its flags, its configuration \
            and its working directory), and prints the summary. The path of the dump goes to standard error.

              arena-analyze capture $(pidof arena-broker)
            """)

    @OptionGroup var broker: BrokerOptions

    @Option(help: ArgumentHelp("Wait at most this long.", valueName: "seconds"))
    var timeout: Double = 30

    @OptionGroup var list: ListOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if !(timeout > 0 && timeout <= 3_600) { throw ValidationError("--timeout must be from 1 to 3600 seconds.") }
    }

    func run() throws {
        do {
            let path = try broker.find().capture(timeoutSeconds: timeout)
            Terminal.complain("captured \(path)")
            let snapshot = try DumpPath.read(path)
            var report = Report.summary(of: snapshot)
            report.origins = [Origin(path: path, snapshot)]
            try list.apply(to: &report, people: 5, noun: "site", output)
            try output.show(report)
        } catch let problem as LiveBroker.Problem {
            Terminal.complain("cannot capture a dump: \(problem)")
            throw Exit.noAnswer
        }
    }
}
