internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing

/// A real broker on a free loopback port, in a directory of its own, and what the tests ask of it.
struct BrokerProcess: Sendable {
    let child: ChildProcess
    /// Working directory: the configuration, and `dumps/`.
    let directory: URL
    let port: Int

    var dumps: URL { directory.appending(path: "dumps") }

    /// What one `dump written` line of the log says.
    struct Dump: Sendable {
        let file: URL
        let reason: String
    }

    private static func dump(in line: String, directory: URL) -> Dump? {
        guard line.contains("dump written"), let path = value(of: "path", in: line),
            let reason = value(of: "reason", in: line)
        else { return nil }
        return Dump(file: URL(filePath: path, relativeTo: directory).absoluteURL, reason: reason)
    }

    /// The value of `key=value` in a log line, with or without quotes.
    private static func value(of key: String, in line: String) -> String? {
        guard let range = line.range(of: " \(key)=") else { return nil }
        return String(line[range.upperBound...].prefix { $0 != " " }).trimmingCharacters(in: ["\"", ","])
    }

    /// All dumps the log has told of.
    var writtenDumps: [Dump] {
        child.output.compactMap { Self.dump(in: $0, directory: directory) }
    }

    /// The first dump for `reason` that the log tells of from its `from`th line on.
    func dump(
        _ reason: String, from: Int = 0, within seconds: TimeInterval = TimeInterval(Patience.seconds)
    ) async throws -> Dump {
        let directory = directory
        let line = try await child.line("dump written, reason \(reason)", from: from, within: seconds) {
            Self.dump(in: $0, directory: directory)?.reason == reason
        }
        return try #require(Self.dump(in: line, directory: directory))
    }

    /// `kill -USR1`, and the dump that comes of it.
    func signalDump() async throws -> Dump {
        let from = child.output.count
        child.signal(SIGUSR1)
        return try await dump("signal", from: from)
    }

    /// Devices against this broker, through `arena-bench`; returns its report.
    @discardableResult
    func drive(_ arguments: String...) async throws -> DriveReport {
        let result = try await run(
            "arena-bench",
            [
                "devices", "--port", "\(port)", "--format", "json", "--qos", "1", "--answer-timeout",
                "\(Patience.seconds)",
            ] + arguments, within: 2 * TimeInterval(Patience.seconds))
        try #require(result.exitCode == 0, "\(result.text)")
        return try JSONDecoder().decode(DriveReport.self, from: Data(result.text.utf8))
    }
}

/// What `arena-bench devices --format json` reports.
struct DriveReport: Decodable {
    let commands: Int
    let responses: Int
    let refused: Bool
}

/// Starts a broker, gives it to `body`, and then ends it with SIGTERM if it still runs: it must exit with 0.
func withBroker<Result>(
    limit: String = "256MiB", configuration: String = "", _ body: (BrokerProcess) async throws -> Result
) async throws -> Result {
    try await withTemporaryDirectory { directory in
        try FileManager.default.createDirectory(
            at: directory.appending(path: "dumps"), withIntermediateDirectories: false)
        try configuration.write(to: directory.appending(path: "broker.toml"), atomically: false, encoding: .utf8)
        let child = try ChildProcess(
            "arena-broker",
            [
                "--host", "127.0.0.1", "--port", "0", "--memory-limit", limit, "--dump-directory", "dumps",
                "--config", "broker.toml", "--set", "dumps.loopWaitMilliseconds=60000",
            ], in: directory)
        let line = try await child.line("listening on") { $0.contains("listening on 127.0.0.1:") }
        let port = try #require(line.loopbackPort)
        let result = try await body(BrokerProcess(child: child, directory: directory, port: port))
        if child.isRunning {
            child.signal(SIGTERM)
            #expect(try await child.exit() == 0, "\(child.output.suffix(20))")
        }
        return result
    }
}

/// Runs one of our products to its end.
func run(
    _ product: String, _ arguments: [String], in directory: URL? = nil,
    within seconds: TimeInterval = TimeInterval(Patience.seconds)
) async throws -> (exitCode: Int32, text: String) {
    let child = try ChildProcess(product, arguments, in: directory)
    let exitCode = try await child.exit(within: seconds)
    return (exitCode, child.output.joined(separator: "\n"))
}
