/// How numbers look to people: the only place that decides it.
///
/// Sizes use binary units (KiB, MiB, GiB). MiB is kept up to 10 GiB, because limits and chunks are thought of in MiB.
public enum Format {
    /// `15,239`
    public static func count(_ number: UInt64) -> String {
        let digits = Array(String(number).utf8)
        var text: [UInt8] = []
        for (index, digit) in digits.enumerated() {
            if index > 0, (digits.count - index) % 3 == 0 { text.append(UInt8(ascii: ",")) }
            text.append(digit)
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// `1 buffer`, `15,239 buffers`
    static func count(_ number: UInt64, of noun: String, plural: String? = nil) -> String {
        "\(count(number)) \(self.noun(number, noun, plural))"
    }

    static func noun(_ number: UInt64, _ noun: String, _ plural: String? = nil) -> String {
        number == 1 ? noun : plural ?? noun + "s"
    }

    /// `1906.1 MiB`; whole numbers lose their fraction (`16 MiB`) unless `aligned`, which columns want.
    public static func bytes(_ number: UInt64, aligned: Bool = false) -> String {
        guard number >= 1 << 10 else { return "\(number) B" }
        let unit: (shift: UInt64, name: String) =
            switch number {
            case ..<(1 << 20): (10, "KiB")
            case ..<(10 << 30): (20, "MiB")
            case ..<(10 << 40): (30, "GiB")
            default: (40, "TiB")
            }
        let fraction = number & (1 << unit.shift - 1)
        if fraction == 0, !aligned { return "\(number >> unit.shift) \(unit.name)" }
        let tenths = (number >> unit.shift) * 10 + (fraction * 10 + 1 << (unit.shift - 1)) >> unit.shift
        return "\(tenths / 10).\(tenths % 10) \(unit.name)"
    }

    /// `1,998,700,544 bytes (1906.1 MiB)`: for the counters that must be exact.
    public static func exactBytes(_ number: UInt64) -> String {
        number < 1 << 10 ? "\(number) bytes" : "\(count(number)) bytes (\(bytes(number)))"
    }

    /// `99.9 %`. Only a whole is `100.0 %`, and only nothing is `0.0 %`.
    public static func ratio(_ ratio: Double) -> String {
        guard ratio.isFinite else { return "-" }
        if ratio > 0, ratio < 0.001 { return "< 0.1 %" }
        if ratio < 1, ratio >= 0.999 { return "99.9 %" }
        return "\(decimal(ratio * 100)) %"
    }

    /// `12 min 3 s`: the two largest units, or three digits below a minute.
    public static func duration(_ nanoseconds: UInt64) -> String {
        let second: UInt64 = 1_000_000_000
        switch nanoseconds {
        case ..<1_000: return "\(nanoseconds) ns"
        case ..<1_000_000: return "\(threeDigits(Double(nanoseconds) / 1e3)) µs"
        case ..<second: return "\(threeDigits(Double(nanoseconds) / 1e6)) ms"
        case ..<(60 * second): return "\(threeDigits(Double(nanoseconds) / 1e9)) s"
        default: break
        }
        let seconds = nanoseconds / second
        switch seconds {
        case ..<3_600: return pair(seconds / 60, "min", seconds % 60, "s")
        case ..<86_400: return pair(seconds / 3_600, "h", seconds % 3_600 / 60, "min")
        default: return pair(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h")
        }
    }

    /// `2.1 MiB/s`
    public static func rate(bytesPerSecond: Double) -> String {
        guard bytesPerSecond.isFinite else { return "-" }
        let magnitude = UInt64(min(bytesPerSecond.magnitude.rounded(), 0x1p63))
        return (bytesPerSecond < 0 && magnitude > 0 ? "-" : "") + bytes(magnitude) + "/s"
    }

    /// `+1.2 MiB`, `-340 B`, `0 B`
    public static func bytesChange(_ change: Int64, aligned: Bool = false) -> String {
        sign(change) + bytes(change.magnitude, aligned: aligned)
    }

    /// `+1,204`
    public static func countChange(_ change: Int64) -> String { sign(change) + count(change.magnitude) }

    /// `2026-11-23 12:00:03Z`: nanoseconds since 1970-01-01 UTC, to the second.
    public static func time(_ nanoseconds: UInt64) -> String {
        let parts = calendar(nanoseconds)
        return "\(parts.date) \(parts.time)Z"
    }

    /// `2026-11-23T12:00:03.000000000Z`: the same to the nanosecond, for programs.
    public static func isoTime(_ nanoseconds: UInt64) -> String {
        let parts = calendar(nanoseconds)
        return "\(parts.date)T\(parts.time).\(padded(nanoseconds % 1_000_000_000, 9))Z"
    }

    /// Whether a character would not be seen, or change how the rest is.
    static func isUnseen(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate: true
        default: false
        }
    }

    /// Client ids and topics come from the network: control characters must not reach a terminal as such.
    public static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isUnseen) else { return text }
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            if isUnseen(scalar) {
                result.append(contentsOf: "\\u{\(String(scalar.value, radix: 16))}".unicodeScalars)
            } else {
                result.append(scalar)
            }
        }
        return String(result)
    }

    /// Whether a line may be broken between two words: not between a number and its unit.
    static func mayBreak(between first: Substring, and second: Substring) -> Bool {
        if first.hasSuffix("<") { return false }
        guard first.last?.isNumber == true else { return true }
        return !units.contains(String(second.prefix { $0.isLetter || $0 == "%" || $0 == "/" }))
    }

    private static let units: Set<String> = [
        "B", "KiB", "MiB", "GiB", "TiB", "MiB/s", "KiB/s", "%", "ns", "µs", "ms", "s", "min", "h", "d", "bytes",
    ]

    /// At most `width` columns wide, the last one an ellipsis if something was cut.
    public static func truncated(_ text: String, to width: Int) -> String {
        if TerminalWidth.columns(text) <= width { return text }
        return width < 1 ? "" : TerminalWidth.prefix(text, columns: width - 1) + "…"
    }

    /// At most `width` columns wide; the middle gives way, since names that begin alike differ at their ends. A sentence that
    /// counts what is left out begins with an ellipsis, and is cut at its end.
    static func shortened(_ text: String, to width: Int) -> String {
        if width == .max || TerminalWidth.columns(text) <= width { return text }
        if width < 3 || text.hasPrefix("…") { return truncated(text, to: width) }
        let start = TerminalWidth.prefix(text, columns: (width - 1) / 3)
        return start + "…" + TerminalWidth.suffix(text, columns: width - 1 - TerminalWidth.columns(start))
    }

    // MARK: Parts

    private static func sign<Number: SignedInteger>(_ number: Number) -> String {
        number > 0 ? "+" : number < 0 ? "-" : ""
    }

    private static func pair(_ large: UInt64, _ largeName: String, _ small: UInt64, _ smallName: String) -> String {
        small == 0 ? "\(large) \(largeName)" : "\(large) \(largeName) \(small) \(smallName)"
    }

    /// One decimal, rounded.
    private static func decimal(_ number: Double) -> String {
        let tenths = Int64(max(-1e15, min(1e15, (number * 10).rounded())))
        return "\(tenths < 0 ? "-" : "")\(tenths.magnitude / 10).\(tenths.magnitude % 10)"
    }

    /// `4.2`, `67.1`, `134`: a fraction where it still says something.
    private static func threeDigits(_ number: Double) -> String {
        let text = number < 99.95 ? decimal(number) : "\(Int(min(number, 999)))"
        return text.hasSuffix(".0") ? String(text.dropLast(2)) : text
    }

    private static func padded(_ number: UInt64, _ width: Int) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }

    /// Days to a civil date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms" (`civil_from_days`).
    private static func calendar(_ nanoseconds: UInt64) -> (date: String, time: String) {
        let seconds = nanoseconds / 1_000_000_000
        let shifted = seconds / 86_400 + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        let year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
        let second = seconds % 86_400
        return (
            "\(padded(year, 4))-\(padded(month, 2))-\(padded(day, 2))",
            "\(padded(second / 3_600, 2)):\(padded(second % 3_600 / 60, 2)):\(padded(second % 60, 2))"
        )
    }
}
