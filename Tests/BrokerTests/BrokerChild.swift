import Foundation
import Glibc
import TestSupport

/// A real arena-broker, on a data directory if there is one, to be killed.
final class BrokerChild {
    struct Failure: Error, CustomStringConvertible { let description: String }

    private let process = Process()
    private let output = Pipe()
    private var text = ""
    let port: Int
    var pid: pid_t { process.processIdentifier }

    convenience init(dataDirectory: String?, _ arguments: String...) throws {
        try self.init(dataDirectory: dataDirectory, arguments: arguments)
    }

    /// With HTTP, on a free port, in a directory of its own.
    ///
    /// - Parameter configuration: what else there is in its section, and sections behind it.
    /// - Returns: the broker, and the port.
    static func withHTTP(
        _ configuration: String, in directory: URL, _ arguments: String...
    ) throws -> (child: BrokerChild, port: Int) {
        let tokens = try directory.write("tokens", HTTPTestClient.token + "\n")
        let file = try directory.write(
            "broker.toml", "[http]\nport = 0\ntokenFile = \"\(tokens)\"\n\(configuration)")
        let child = try BrokerChild(
            dataDirectory: nil, arguments: ["--config", file, "--dump-directory", directory.path] + arguments)
        guard let port = try child.line(where: { $0.contains("protocol=http") }).loopbackPort else {
            throw Failure(description: "the log names no port")
        }
        return (child, port)
    }

    /// Returns when it listens.
    private init(dataDirectory: String?, arguments: [String]) throws {
        process.executableURL = Program.products.appending(path: "arena-broker")
        let directory = dataDirectory.map { ["--data-directory", $0, "--dump-directory", $0] } ?? []
        process.arguments =
            ["--host", "127.0.0.1", "--port", "0", "--set", "dumps.loopWaitMilliseconds=60000"] + directory + arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        process.standardError = output
        try process.start()
        var found: Int?
        while found == nil {
            let line = try Self.line(output.fileHandleForReading.fileDescriptor, &text) { $0.contains("listening on") }
            found = line.loopbackPort
        }
        port = found!
    }

    deinit { kill() }

    /// The next log line that matches; an error once there is none to come.
    func line(where matches: (String) -> Bool) throws -> String {
        try Self.line(output.fileHandleForReading.fileDescriptor, &text, where: matches)
    }

    private static func line(
        _ descriptor: CInt, _ text: inout String, where matches: (String) -> Bool
    ) throws -> String {
        while true {
            while let end = text.firstIndex(of: "\n") {
                let line = String(text[..<end])
                text = String(text[text.index(after: end)...])
                if matches(line) { return line }
            }
            var bytes = [UInt8](repeating: 0, count: 4_096)
            let count = read(descriptor, &bytes, bytes.count)
            guard count > 0 else { throw Failure(description: "the broker ended: \(text)") }
            text += String(decoding: bytes[..<count], as: UTF8.self)
        }
    }

    /// What is in memory, of the program too.
    func residentBytes() throws -> Int {
        let fields = try String(contentsOfFile: "/proc/\(pid)/statm", encoding: .utf8).split(separator: " ")
        return Int(fields[1])! * sysconf(CInt(_SC_PAGESIZE))
    }

    /// `kill -9`, and waits for the end.
    func kill() {
        guard process.isRunning else { return }
        Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitForEnd()
    }

    /// SIGTERM, and the exit code.
    func end() -> Int32 {
        Glibc.kill(process.processIdentifier, SIGTERM)
        return process.waitForEnd()
    }

    /// No file of its may grow beyond this: what a full disk does.
    func limitFiles(to bytes: Int?) throws {
        try Program.succeed("prlimit", ["--pid", "\(pid)", "--fsize=\(bytes.map(String.init) ?? "unlimited"):"])
    }
}
