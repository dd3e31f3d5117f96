import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import Analysis

/// capture and top against a broker that runs.
@Suite("A live broker", .mayBlock, .serialized)
struct LiveTests {
    private struct Broker {
        let process: Process
        var pid: String { String(process.processIdentifier) }
    }

    /// Runs a broker on a free port, and ends it with the test.
    private func withBroker(_ arguments: [String], in folder: String, _ body: (Broker) throws -> Void) throws {
        let process = Process()
        process.executableURL = Program.products.appendingPathComponent("arena-broker")
        process.arguments = ["--port", "0", "--memory-limit", "64MiB"] + arguments
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        let log = Pipe()
        process.standardError = log
        process.standardOutput = FileHandle.nullDevice
        try process.start()
        defer {
            process.terminate()
            process.waitForEnd()
        }
        var text = ""
        while !text.contains("listening on") {
            let more = log.fileHandleForReading.availableData
            try #require(!more.isEmpty, "the broker ended: \(text)")
            text += String(decoding: more, as: UTF8.self)
        }
        try body(Broker(process: process))
    }

    private func dumps(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasSuffix(".dump.zst") }
    }

    @Test("capture finds the dump by flag, by configuration and by working directory, and summarises it")
    func capture() throws {
        try withFolder { folder in
            let target = folder + "/dumps"
            try FileManager.default.createDirectory(atPath: target, withIntermediateDirectories: false)
            try Data("# where\ndumpDirectory = \"dumps\"\n\n[limits]\nmaxInflight = 5\n".utf8)
                .write(to: URL(fileURLWithPath: folder + "/broker.toml"))
            for (arguments, place) in [
                (["--dump-directory", target], target), (["--dump-directory=dumps"], target),
                (["--config", "broker.toml"], target), ([], folder),
            ] {
                try withBroker(arguments, in: folder) { broker in
                    let before = try Set(dumps(place))
                    let outcome = try Program.run("capture", broker.pid)
                    #expect(outcome.status == 0, "\(arguments): \(outcome.errors)")
                    #expect(outcome.text.contains("pid \(broker.pid) on "))
                    let written = try Set(dumps(place)).subtracting(before)
                    #expect(written.count == 1)
                    #expect(outcome.errors.contains(written.first ?? "none"))
                }
            }
        }
    }

    @Test("a process that the signal would end is left alone")
    func refusesOthers() throws {
        let other = Process()
        other.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        other.arguments = ["sleep", "600"]
        try other.start()
        defer { kill(other.processIdentifier, SIGKILL) }
        for command in ["capture", "top"] {
            let outcome = try Program.run(command, String(other.processIdentifier))
            #expect(outcome.status == 1)
            #expect(outcome.errors.contains("does not answer SIGUSR1"))
        }
        #expect(other.isRunning)
        // A shell takes the signal for something of its own, and may end by it.
        let shell = Process()
        shell.executableURL = URL(fileURLWithPath: "/bin/bash")
        shell.arguments = ["-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done"]
        try shell.start()
        defer { kill(shell.processIdentifier, SIGKILL) }
        let deadline = Patience.end
        while try !Program.run("capture", String(shell.processIdentifier)).errors.contains("'bash', not arena-broker") {
            try #require(ContinuousClock.now < deadline, "it is never known as a shell that takes the signal")
        }
        #expect(shell.isRunning)
        #expect(try Program.run("capture", "0").status == 64)
        #expect(try Program.run("capture", "999999999").errors.contains("there is no process 999999999"))
    }

    @Test("capture says so when no dump comes")
    func timeout() throws {
        try withFolder { folder in
            try withBroker([], in: folder) { broker in
                let elsewhere = folder + "/elsewhere"
                try FileManager.default.createDirectory(atPath: elsewhere, withIntermediateDirectories: false)
                let outcome = try Program.run("capture", "--timeout", "1", "--directory", elsewhere, broker.pid)
                #expect(outcome.status == 1)
                #expect(outcome.errors.contains("no new dump in \(elsewhere) within 1 s"))
            }
        }
    }

    @Test("top shows screen after screen with what changed, and removes its own dumps only")
    func top() throws {
        try withFolder { folder in
            try withBroker([], in: folder) { broker in
                #expect(try Program.run("capture", broker.pid).status == 0)
                let outcome = try Program.run("top", "--interval", "1", "--count", "2", broker.pid)
                #expect(outcome.status == 0, "\(outcome.errors)")
                #expect(outcome.text.components(separatedBy: "on a signal").count == 3)
                #expect(outcome.text.components(separatedBy: "\nChange\n").count == 2)
                #expect(!outcome.text.contains("\u{1B}"))
                #expect(try dumps(folder).count == 1)
                #expect(try Program.run("top", "--keep", "--count", "1", broker.pid).status == 0)
                #expect(try dumps(folder).count == 2)
            }
        }
    }

    @Test(
        "in a window of any size the verdict comes first, no line tells of old work, and own dumps are no events",
        .enabled(if: hasTmux), arguments: [(80, 24), (120, 40), (50, 12)])
    func window(columns: Int, rows: Int) throws {
        try withFolder { folder in
            try withBroker([], in: folder) { broker in
                // One of somebody else's is an event.
                #expect(try Program.run("capture", broker.pid).status == 0)
                let others = try dumps(folder)
                let tmux = Tmux(columns: columns, rows: rows)
                defer { tmux.end() }
                let analyzer = Program.path("arena-analyze")
                try tmux.start("\(analyzer) top --interval 1 \(broker.pid)")
                var screens: [String] = []
                let deadline = Patience.end
                // The third begins when what was left of the first would have been drawn.
                while screens.count < 4 {
                    try #require(ContinuousClock.now < deadline, "\(screens)")
                    let screen = try tmux.screen()
                    if screen.hasPrefix("Verdict\n"), screen.contains("q ends"), screen != screens.last {
                        screens.append(screen)
                    }
                }
                for screen in screens {
                    let verdict = screen.split(separator: "\n").dropFirst().prefix(3).joined(separator: " ")
                    #expect(verdict.contains("small to judge") || verdict.contains("No suspect"), "\(screen)")
                    for word in ["working", "read,", "read 1", "signal.dump.zst: "] {
                        #expect(!screen.contains(word), "\(screen)")
                    }
                    let told = screen.components(separatedBy: "-signal.dump.zst").count - 1
                    #expect(told <= 1, "\(screen)")
                }
                if rows >= 40 { #expect(screens.last?.contains(others[0]) == true, "\(screens)") }
                if rows <= 24 { #expect(screens.last?.contains("more lines") == true) }
            }
        }
    }

    private static let hasTmux = FileManager.default.isExecutableFile(atPath: "/usr/bin/tmux")

    @Test("on a terminal, q and signals end top, and the terminal is as it was", .enabled(if: hasTmux))
    func terminal() throws {
        try withFolder { folder in
            try withBroker([], in: folder) { broker in
                let tmux = Tmux(columns: 100, rows: 40)
                let analyzer = Program.path("arena-analyze")
                // The shell writes what ends it, so that the test need not read the shell's own words.
                let script = """
                    stty -g > \(folder)/before; echo untouched
                    \(analyzer) top --interval 3600 \(broker.pid); echo $? > \(folder)/status; stty -g > \(folder)/after
                    tmux -L \(tmux.server) wait-for -S ended; exec cat
                    """
                for end in ["q", "C-c", "SIGTERM"] {
                    try tmux.start(script)
                    defer { tmux.end() }
                    // Each at one look: a screen is not painted at once.
                    func isPainted() throws -> Bool {
                        let screen = try tmux.screen()
                        let flags = try tmux.run("display", "-p", "#{alternate_on} #{cursor_flag}")
                        return flags == "1 0\n" && screen.contains("q ends, space refreshes")
                            && screen.contains("pid \(broker.pid) on ")
                    }
                    while try !isPainted() { try #require(broker.process.isRunning) }
                    if end == "SIGTERM" {
                        let pane = try tmux.run("display", "-p", "#{pane_pid}").filter(\.isNumber)
                        _ = try Program.run("/usr/bin/env", ["pkill", "-TERM", "-P", pane])
                    } else {
                        try tmux.run("send-keys", end)
                    }
                    try tmux.run("wait-for", "ended")
                    // tmux hears of the end by another way than by what top has written last.
                    func isRestored() throws -> Bool {
                        let screen = try tmux.screen()
                        let flags = try tmux.run("display", "-p", "#{alternate_on} #{cursor_flag}")
                        return flags == "0 1\n" && screen.hasPrefix("untouched\n")
                    }
                    let deadline = Patience.end
                    while try !isRestored() {
                        try #require(ContinuousClock.now < deadline, "\(end): the terminal is not as it was")
                    }
                    let before = try String(contentsOfFile: folder + "/before", encoding: .utf8)
                    #expect(try String(contentsOfFile: folder + "/after", encoding: .utf8) == before)
                    #expect(try String(contentsOfFile: folder + "/status", encoding: .utf8) == "0\n")
                }
            }
        }
    }
}
