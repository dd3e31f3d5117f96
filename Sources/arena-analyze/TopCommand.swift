import Analysis
import ArgumentParser
import DumpFormat
import Glibc

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch the memory of a running broker.",
        discussion: """
            Takes a dump every few seconds, shows its verdict, what changed since the one before and its summary, and \
            removes the dump again (--keep leaves them). A dump stands the broker still for some milliseconds. What a \
            small window has no room for is the end of the summary.

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
        // Where the broker has ended, it is the only thing that is known of it.
        var last: String?
        do {
            let broker = try self.broker.find()
            let screen = Screen()
            // Restores the terminal on every way out, before anything is said on standard error.
            defer { screen.close() }
            var before: Snapshot?
            var shown = 0
            var own: Set<String> = []
            while !screen.isEnded {
                let snapshot = try next(broker, screen, &own)
                let text = text(snapshot, since: before)
                try screen.show(text)
                if screen.isTemporary { last = text }
                shown += 1
                if count > 0, shown >= count { return }
                screen.wait(seconds: interval) { try? screen.show(self.text(snapshot, since: before)) }
                before = snapshot
            }
        } catch let problem as LiveBroker.Problem {
            if let last { try Terminal.print(last + "\n") }
            Terminal.complain("cannot watch: \(problem)")
            throw Exit.noAnswer
        } catch is CancellationError {
            return
        }
    }

    /// The next dump, without a word about those that were asked for here, whose names are `own`.
    private func next(_ broker: LiveBroker, _ screen: Screen, _ own: inout Set<String>) throws -> Snapshot {
        let path = try broker.capture(timeoutSeconds: 30, isCancelled: { screen.poll() })
        // Only what this command has asked for goes away again.
        defer { if !keep { unlink(path) } }
        defer { own.insert(path.split(separator: "/").last.map(String.init) ?? path) }
        return try DumpPath.read(path).withoutDumps(own)
    }

    private func text(_ snapshot: Snapshot, since before: Snapshot?) -> String {
        Terminal.renderer(color: !noColor).render(.watch(snapshot, since: before))
    }
}
