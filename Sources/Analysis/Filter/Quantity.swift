/// Numbers with units as people type them. Sizes are binary: `K`, `KB` and `KiB` all mean 1,024 bytes.
public enum Quantity {
    /// `512`, `4KiB`, `1.5M`
    public static func bytes(_ text: String) -> UInt64? {
        let units: [String: Double] = [
            "": 1, "b": 1, "k": 0x1p10, "kb": 0x1p10, "kib": 0x1p10, "m": 0x1p20, "mb": 0x1p20, "mib": 0x1p20,
            "g": 0x1p30, "gb": 0x1p30, "gib": 0x1p30, "t": 0x1p40, "tb": 0x1p40, "tib": 0x1p40,
        ]
        if let number = number(text) { return number }
        guard let (amount, unit, rest) = leading(text[...]), rest.isEmpty, let factor = units[unit.lowercased()] else {
            return nil
        }
        return whole(amount * factor)
    }

    /// `80ms`, `10m`, `1h30m`: the unit is needed.
    public static func nanoseconds(_ text: String) -> UInt64? {
        let units: [String: Double] = [
            "ns": 1, "us": 1e3, "µs": 1e3, "μs": 1e3, "ms": 1e6, "s": 1e9, "sec": 1e9, "m": 60e9, "min": 60e9,
            "h": 3_600e9, "d": 86_400e9, "w": 604_800e9,
        ]
        if text == "0" { return 0 }
        var total = 0.0
        var rest = text[...]
        repeat {
            guard let (amount, unit, after) = leading(rest), let factor = units[unit.lowercased()] else { return nil }
            total += amount * factor
            rest = after
        } while !rest.isEmpty
        return whole(total)
    }

    /// `42`, `1,998,700,544`, `0x2a`
    public static func number(_ text: String) -> UInt64? {
        if text.hasPrefix("0x") || text.hasPrefix("0X") { return UInt64(text.dropFirst(2), radix: 16) }
        let digits = text.filter { $0 != "," && $0 != "_" }
        guard digits.allSatisfy({ $0.isASCII && $0.isNumber }) else { return nil }
        return UInt64(digits)
    }

    /// `90%`, `0.9`
    public static func ratio(_ text: String) -> Double? {
        if text.hasSuffix("%") { return Double(text.dropLast()).map { $0 / 100 } }
        return Double(text)
    }

    /// A number, the letters after it, and what follows.
    private static func leading(_ text: Substring) -> (amount: Double, unit: String, rest: Substring)? {
        let digits = text.prefix { $0.isASCII && $0.isNumber || $0 == "." || $0 == "," }
        let unit = text[digits.endIndex...].prefix { $0.isLetter }
        guard let amount = Double(digits.filter { $0 != "," }), amount.isFinite else { return nil }
        return (amount, String(unit), text[unit.endIndex...])
    }

    private static func whole(_ amount: Double) -> UInt64? {
        amount >= 0 && amount < 0x1p63 ? UInt64(amount.rounded()) : nil
    }
}
