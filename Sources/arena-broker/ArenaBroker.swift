import ArgumentParser
import Broker
import Glibc
import Logging

/// The broker as a program: flags on top of the configuration file, signals, exit codes.
@main
struct ArenaBroker: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "arena-broker",
        abstract: "An MQTT 3.1.1 broker that can always say who holds its memory.",
        discussion: """
            Every network buffer lives in a pooled arena with one hard limit, and is recorded with the place in the \
            code that made it, its owner and its age. Started without a configuration file it serves anonymous \
            clients on the loopback interface.

            Flags override the configuration file, which overrides the defaults. Log lines go to standard error. \
            SIGUSR1 writes a dump into the dump directory, as does coming near the limit; the log says where it is, \
            and arena-analyze reads it. SIGTERM and SIGINT end the broker in order; its exit code is then 0. It is 1 if the broker cannot start \
            or fails, and 64 for a wrong command line.
            """,
        version: Broker.version)

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

    @Option(help: ArgumentHelp("Where dumps are written. (default: the current directory)", valueName: "directory"))
    var dumpDirectory: String?

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

    @Option(help: ArgumentHelp("Configuration file (TOML).", valueName: "file"))
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
        // A peer that is gone is an error of the write, not of the process.
        signal(SIGPIPE, SIG_IGN)
        // So is a file that may not grow further: a dump fails, the broker does not.
        signal(SIGXFSZ, SIG_IGN)
        let signals = Signals()
        do {
            let configuration = try effectiveConfiguration()
            try DumpDirectory.check(configuration.dumpDirectory)
            let level = Logger.Level(rawValue: configuration.logLevel.rawValue)!
            let log = Logger(label: "arena-broker") { _ in LogLines(level: level) }
            let broker = try await Broker.start(configuration, log: log)
            for await request in signals.requests {
                switch request {
                case .dump: broker.requestDump()
                case .end(let name):
                    log.info("\(name): shutting down")
                    try await broker.shutdown()
                    LogWriter.standardError.flush()
                    return
                }
            }
        } catch {
            LogWriter.standardError.flush()
            let line = "arena-broker: \(error)\n"
            write(STDERR_FILENO, line, line.utf8.count)
            throw ExitCode(1)
        }
    }

    private func effectiveConfiguration() throws -> Configuration {
        var configuration = Configuration()
        if let config { try configuration.read(file: config) }
        if let host { configuration.host = host }
        if let port { configuration.port = port }
        if let threads { configuration.threads = threads }
        if let memoryLimit { configuration.memoryLimit = MemoryLimit.parse(memoryLimit)! }
        if let dumpDirectory { configuration.dumpDirectory = dumpDirectory }
        if let dumpPayload { configuration.dumps.payload = Configuration.Payload(dumpPayload)! }
        if let flightRecorder { configuration.flightRecorder = flightRecorder }
        if let logLevel { configuration.logLevel = Configuration.LogLevel(rawValue: logLevel)! }
        return configuration
    }
}
