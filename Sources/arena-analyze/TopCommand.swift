import Analysis
import ArgumentParser
import DumpFormat
import Glibc

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch the memory of a running broker.",
        discussion: """
            Takes a dump every few seconds, shows its summary and what changed since the one before, and removes the \
            dump again (--keep leaves them). A dump stands the broker still for some milliseconds.

              arena-analyze top $(pidof arena-broker)

            Space takes the next dump now, q ends. Where the output is no terminal, the screens follow each other.
            """)

    @OptionGroup var broker: BrokerOptions

    @Option(help: ArgumentHelp("Time between dumps.", valueName: "seconds"))
    var interval: Double = 5

    @Option(help: ArgumentHelp("End after this many screens; 0 goes on.", valueName: "n"))
    var count = 0

    @Flag(help: "Leave the dumps where the broker wrote them.")
    var keep = false

    @Flag(name: .customLong("no-color"), help: "Do not colour, not even on a terminal (as does NO_COLOR).")
    var noColor = false

    func validate() throws {
        if !(interval >= 1 && interval <= 3_600) { throw ValidationError("--interval must be from 1 to 3600 seconds.") }
        if count < 0 { throw ValidationError("--count must not be negative.") }
    }

    func run() throws {
        do {
            let broker = try self.broker.find()
            let screen = Screen()
            // Restores the terminal on every way out, before anything is said on standard error.
            defer { screen.close() }
            var before: Snapshot?
            var shown = 0
            while !screen.isEnded {
                let snapshot = try next(broker, screen)
                try screen.show(text(snapshot, since: before))
                before = snapshot
                shown += 1
                if count > 0, shown >= count { return }
                screen.wait(seconds: interval) { try? screen.show(text(snapshot, since: before)) }
            }
        } catch let problem as LiveBroker.Problem {
            Terminal.complain("cannot watch: \(problem)")
            throw ExitCode.failure
        } catch is CancellationError {
            return
        }
    }

    private func next(_ broker: LiveBroker, _ screen: Screen) throws -> Snapshot {
        let path = try broker.capture(timeoutSeconds: 30, isCancelled: { screen.poll() })
        // Only what this command has asked for goes away again.
        defer { if !keep { unlink(path) } }
        return try DumpPath.read(path)
    }

    private func text(_ snapshot: Snapshot, since before: Snapshot?) -> String {
        var report = Report.summary(of: snapshot)
        report.mainTable?.limit(to: 8, noun: "site")
        if let before {
            report.add("Change", .lines(Report.changes(from: before, to: snapshot)))
            // Below the totals, so that a small window has it.
            report.sections.insert(report.sections.removeLast(), at: 2)
        }
        return TextRenderer(width: Terminal.width, color: !noColor && Terminal.wantsColor).render(report)
    }
}
