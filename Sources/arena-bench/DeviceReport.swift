internal import ArgumentParser
internal import FoundationEssentials
internal import Glibc

enum ReportFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
}

/// What a run of ``Devices`` came to. The JSON names stay; fields are only ever added.
struct DeviceReport: Sendable, Encodable {
    enum Ending: String, Sendable, Encodable {
        case completed
        case refused
        case timeLimit = "time limit"
        /// Too many clients could not be reconnected any more.
        case disconnected
    }

    var schema_version = 1
    var tool = "arena-bench devices"
    var devices = 0
    var commands = 0
    var responses = 0
    /// Commands that were never answered, those in flight at the end left out.
    var lost = 0
    var response_bytes = 0
    var telemetry_sent = 0
    var telemetry_received = 0
    var closed_connections = 0
    var reconnects = 0
    var refused = false
    /// Why a connection was closed or refused: the first of them.
    var first_refusal: String?
    var ended: Ending = .completed
    var succeeded = false
    var elapsed_seconds = 0.0

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }

    func text() -> String {
        let seconds = max(elapsed_seconds, 0.001)
        var rows: [(String, String)] = [
            ("devices", "\(devices)"),
            ("commands", "\(commands)"),
            ("responses", "\(responses)  (\(Int(Double(responses) / seconds)) /s)"),
            ("bytes", "\(response_bytes)  (\(Int(Double(response_bytes) / seconds / 1_048_576)) MiB/s)"),
        ]
        if lost > 0 { rows.append(("never answered", "\(lost)")) }
        if telemetry_sent > 0 { rows.append(("telemetry", "\(telemetry_sent) sent, \(telemetry_received) received")) }
        rows.append(("closed connections", "\(closed_connections)  (\(reconnects) reconnected)"))
        if let first_refusal { rows.append(("first refusal", first_refusal)) }
        rows.append(("elapsed", "\(elapsed_seconds.text(places: 2)) s"))
        rows.append(("ended", ended.rawValue))

        let width = rows.map(\.0.count).max() ?? 0
        return rows.map { $0.0 + String(repeating: " ", count: width + 2 - $0.0.count) + $0.1 }
            .joined(separator: "\n")
    }
}

/// One line on standard error that is written over again, if that is a terminal; else nothing.
struct ProgressLine {
    private let isTerminal = isatty(STDERR_FILENO) == 1

    func show(_ text: String) {
        guard isTerminal else { return }
        writeError("\r\u{1B}[K\(text)")
    }

    func clear() { show("") }
}
