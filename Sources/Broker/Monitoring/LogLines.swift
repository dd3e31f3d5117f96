import Glibc
public import Logging
import Synchronization

/// From which level on lines are written: one for all loggers that share it, so that a reload reaches them.
public final class LogThreshold: Sendable {
    private let index: Atomic<Int>

    public init(_ level: Logger.Level) { index = Atomic(Self.index(level)) }

    public var level: Logger.Level {
        get { Logger.Level.allCases[index.load(ordering: .relaxed)] }
        set { index.store(Self.index(newValue), ordering: .relaxed) }
    }

    private static func index(_ level: Logger.Level) -> Int { Logger.Level.allCases.firstIndex(of: level)! }
}

/// Log lines on standard error, one each: UTC time, level, message, then metadata as `key=value` in the keys' order.
///
///     2026-01-31T02:14:07.123Z info listening on 127.0.0.1:1883
///     2026-01-31T02:14:09.456Z info connection closed: reset by the peer client=sensor-17 peer=10.0.0.4:50312
public struct LogLines: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var logLevel: Logger.Level {
        get { threshold.level }
        set { threshold = LogThreshold(newValue) }
    }

    private var threshold: LogThreshold
    private let writer: LogWriter

    public init(level: Logger.Level, writer: LogWriter = .standardError) {
        self.init(threshold: LogThreshold(level), writer: writer)
    }

    /// - Parameter threshold: can be changed while loggers use it.
    public init(threshold: LogThreshold, writer: LogWriter = .standardError) {
        self.threshold = threshold
        self.writer = writer
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        let metadata = metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 })
        writer.write(Self.line(event.level, "\(event.message)", metadata))
    }

    static func line(_ level: Logger.Level, _ message: String, _ metadata: Logger.Metadata) -> String {
        var line = "\(now()) \(level.rawValue) \(printable(message))"
        for (key, value) in metadata.sorted(by: { $0.key < $1.key }) { line += " \(key)=\(quoted("\(value)"))" }
        return line + "\n"
    }

    /// What of a text from the wire goes into a log line: its beginning. Counted in scalars, since what Swift calls one
    /// character can be as long as a packet.
    static func cut(_ text: String, to count: Int = Limits.maxLoggedCharacters) -> String {
        let scalars = text.unicodeScalars
        guard
            let end = scalars.index(
                scalars.startIndex, offsetBy: count, limitedBy: scalars.endIndex),
            end < scalars.endIndex
        else { return text }
        return String(scalars[..<end]) + "..."
    }

    /// Values with spaces or quotes are quoted, so that a line can be taken apart again.
    static func quoted(_ value: String) -> String {
        let value = printable(value)
        guard value.isEmpty || value.contains(where: { $0 == " " || $0 == "\"" || $0 == "=" }) else { return value }
        return "\"" + value.replacing("\"") + "\""
    }

    /// Client identifiers can contain line breaks and terminal escapes: neither gets into a log.
    static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) else { return text }
        return text.unicodeScalars.reduce(into: "") { result, scalar in
            if scalar.properties.generalCategory == .control {
                result += "\\u{\(String(scalar.value, radix: 16))}"
            } else {
                result.unicodeScalars.append(scalar)
            }
        }
    }

    private static func now() -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var parts = tm()
        gmtime_r(&time.tv_sec, &parts)
        func digits(_ value: Int, _ width: Int) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, width - text.count)) + text
        }
        let date = [(Int(parts.tm_year) + 1_900, 4), (Int(parts.tm_mon) + 1, 2), (Int(parts.tm_mday), 2)]
        let clock = [parts.tm_hour, parts.tm_min, parts.tm_sec]
        return date.map(digits).joined(separator: "-") + "T" + clock.map { digits(Int($0), 2) }.joined(separator: ":")
            + ".\(digits(time.tv_nsec / 1_000_000, 3))Z"
    }
}

extension String {
    fileprivate func replacing(_ quote: Character) -> String {
        reduce(into: "") { $0 += $1 == quote ? "\\\(quote)" : String($1) }
    }
}
