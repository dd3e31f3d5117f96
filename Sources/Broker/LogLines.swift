import Glibc
public import Logging

/// Log lines on standard error, one each: UTC time, level, message, then metadata as `key=value` in the keys' order.
///
///     2026-01-31T02:14:07.123Z info listening on 127.0.0.1:1883
///     2026-01-31T02:14:09.456Z info connection closed: closed by the peer client=sensor-17 peer=10.0.0.4:50312
public struct LogLines: LogHandler {
    public var logLevel: Logger.Level
    public var metadata: Logger.Metadata = [:]

    public init(level: Logger.Level) { logLevel = level }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var line = "\(Self.now()) \(event.level.rawValue) \(Self.printable("\(event.message)"))"
        for (key, value) in metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 }).sorted(by: {
            $0.key < $1.key
        }) {
            line += " \(key)=\(Self.quoted("\(value)"))"
        }
        line += "\n"
        // One call a line, so that lines of several threads do not mix.
        _ = line.utf8.withContiguousStorageIfAvailable { write(STDERR_FILENO, $0.baseAddress, $0.count) }
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
