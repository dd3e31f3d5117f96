import ArgumentParser
import Broker
import CArena
import FoundationEssentials
import Glibc

/// The broker as a program: flags on top of the configuration file, signals, exit codes.
@main
struct ArenaBroker: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "arena-broker",
        abstract: "An MQTT 5.0 and 3.1.1 broker that can always say who holds its memory.",
        discussion: """
            Every network buffer lives in a pooled arena with one hard limit, and is recorded with the place in the \
            code that made it, its owner and its age. Started without a configuration file it serves anonymous \
            clients on the loopback interface.

            Flags override environment variables (ARENA_BROKER_PORT, ARENA_BROKER_LIMITS_MAX_INFLIGHT and so on for \
            every key), which override the configuration file, which overrides the defaults. Log lines go to standard \
            error. SIGHUP reads file, passwords, access rules and certificates again without closing a connection. \
            SIGUSR1 writes a dump into the dump directory, as does coming near the limit; the log says where it is, \
            and arena-analyze reads it. SIGTERM and SIGINT end the broker in order; its exit code is then 0. It is 1 if the broker cannot start \
            or fails, and 64 for a wrong command line.
            """,
        version: Broker.version, subcommands: [Check.self, Passwd.self, Recover.self])

    @Option(help: ArgumentHelp("Address to listen on. (default: 127.0.0.1)", valueName: "address"))
    var host: String?

    @Option(help: ArgumentHelp("Port to listen on; 0 takes a free one, which the log names. (default: 1883)"))
    var port: Int?

    @Option(
        help: ArgumentHelp(
            """
            Hard limit of the arena: bytes, or with KiB, MiB, GiB, KB, MB or GB. (default: half of the control \
            group's memory limit, 256MiB without one)
            """, valueName: "size"))
    var memoryLimit: String?

    @Option(
        help: ArgumentHelp("Where dumps are written. (default: the current directory)", valueName: "directory"),
        completion: .directory)
    var dumpDirectory: String?

    @Option(
        help: ArgumentHelp(
            """
            Keep sessions, subscriptions, queued and retained messages in this directory, which is made if need be: \
            what is acknowledged outlives kill -9 and the power. (default: none, in memory only)
            """, valueName: "directory"))
    var dataDirectory: String?

    @Flag(
        help: """
            Start although the data directory is damaged or less than was promised: with a new store that has what can be \
            read. The damaged one is kept beside it, and the log says what is missing.
            """)
    var acceptDamagedStore = false

    @Option(
        help: ArgumentHelp(
            """
            Keep the record of all buffers in this file, for arena-analyze to read after a crash, kill -9 or the OOM \
            killer; the file of the run before gets the name FILE.previous. (default: none)
            """, valueName: "file"))
    var flightRecorder: String?

    @Option(
        help: ArgumentHelp(
            """
            What dumps contain of the buffers' bytes, which are users' data: none, all, or so many bytes of each, \
            such as 256. (default: none)
            """, valueName: "bytes"))
    var dumpPayload: String?

    @Option(help: ArgumentHelp("Configuration file (TOML).", valueName: "file"), completion: .file())
    var config: String?

    @Option(
        help: ArgumentHelp(
            "Event loops, each with a thread. (default: one a core, at most one for each 32 MiB of the limit)",
            valueName: "count"))
    var threads: Int?

    @Option(
        help: ArgumentHelp(
            "trace, debug, info, notice, warning, error or critical. (default: info)", valueName: "level"))
    var logLevel: String?

    @Option(
        help: ArgumentHelp(
            "Any key of the configuration, such as limits.maxInflight=64. Can be repeated.", valueName: "key=value"))
    var set: [String] = []

    /// Before anything that takes time: a signal in the first moments must not end the process.
    static func main() async {
        Signals.hold()
        await main(nil)
    }

    func validate() throws {
        if let port, !(0...65_535).contains(port) { throw ValidationError("--port must be from 0 to 65535.") }
        if let threads, !(1...1_024).contains(threads) { throw ValidationError("--threads must be from 1 to 1024.") }
        if let memoryLimit {
            guard let bytes = MemoryLimit.parse(memoryLimit) else {
                throw ValidationError(
                    "--memory-limit must be a size such as 268435456 or 256MiB, not '\(memoryLimit)'.")
            }
            guard bytes >= MemoryLimit.minimumBytes else {
                throw ValidationError(
                    "--memory-limit must be at least \(MemoryLimit.minimumBytes) bytes, not '\(memoryLimit)'.")
            }
        }
        if let dumpPayload, Configuration.Payload(dumpPayload) == nil {
            throw ValidationError(
                "--dump-payload must be none, all, or a size from 1 byte to 1 MiB, not '\(dumpPayload)'.")
        }
        if let logLevel, Configuration.LogLevel(rawValue: logLevel) == nil {
            throw ValidationError("--log-level does not know '\(logLevel)'.")
        }
    }

    func run() async throws {
        arena_heap_gives_back()
        // Who says how backtraces are to be, waits for them.
        if Self.environment["SWIFT_BACKTRACE"] == nil { arena_crash_bound(UInt32(Limits.backtraceSeconds)) }
        // A peer that is gone is an error of the write, not of the process.
        signal(SIGPIPE, SIG_IGN)
        // So is a file that may not grow further: a dump fails, the broker does not.
        signal(SIGXFSZ, SIG_IGN)
        let signals = Signals()
        do {
            let overrides = try overrides()
            let file = config ?? Self.environment["ARENA_BROKER_CONFIG"]
            var configuration = try Configuration.load(file: file, overrides: overrides)
            configuration.acceptsDamagedStore = acceptDamagedStore
            signals.bound.set(seconds: configuration.shutdownTimeoutSeconds)
            try Broker.checkPlaces(configuration)
            let service = RunningService(
                threshold: LogThreshold(configuration.logLevel.level),
                manager: ServiceManager(environment: Self.environment))
            try await service.run(configuration, signals) { try Configuration.load(file: file, overrides: overrides) }
        } catch {
            LogWriter.standardError.flush()
            Self.complain(error)
            throw (error as? ConfigurationError)?.isUsage == true ? ExitCode.validationFailure : ExitCode(1)
        }
    }

    /// On standard error.
    static func complain(_ error: any Error) {
        let line = "arena-broker: \(error)\n"
        write(STDERR_FILENO, line, line.utf8.count)
    }

    private static var environment: [String: String] { ProcessInfo.processInfo.environment }

    /// What the flags say, by key.
    private func overrides() throws -> ConfigurationOverrides {
        var overrides = ConfigurationOverrides(environment: Self.environment)
        for assignment in set {
            guard let equals = assignment.firstIndex(of: "="), equals > assignment.startIndex else {
                throw ConfigurationError(
                    "--set \(assignment): expected KEY=VALUE, such as limits.maxInflight=64", isUsage: true)
            }
            overrides.set(
                String(assignment[..<equals]), String(assignment[assignment.index(after: equals)...]), flag: "--set")
        }
        let flags: [(String, String?, String)] = [
            ("host", host, "--host"), ("port", port.map(String.init), "--port"),
            ("threads", threads.map(String.init), "--threads"), ("memoryLimit", memoryLimit, "--memory-limit"),
            ("dumpDirectory", dumpDirectory, "--dump-directory"), ("dumps.payload", dumpPayload, "--dump-payload"),
            ("dataDirectory", dataDirectory, "--data-directory"),
            ("flightRecorder", flightRecorder, "--flight-recorder"), ("logLevel", logLevel, "--log-level"),
        ]
        for (key, text, flag) in flags { if let text { overrides.set(key, text, flag: flag) } }
        return overrides
    }
}
