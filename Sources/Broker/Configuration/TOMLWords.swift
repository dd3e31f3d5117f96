// Values that are one word: numbers, true and false.

extension TOMLValue {
    /// Nil for what is none.
    init?(word: ArraySlice<UInt8>) {
        switch String(decoding: word, as: UTF8.self) {
        case "true": self = .boolean(true)
        case "false": self = .boolean(false)
        case "inf", "+inf": self = .float(.infinity)
        case "-inf": self = .float(-.infinity)
        case "nan", "+nan", "-nan": self = .float(.nan)
        default:
            if let number = Self.integer(word) {
                self = .integer(number)
            } else if let number = Self.float(word) {
                self = .float(number)
            } else {
                return nil
            }
        }
    }

    /// Digits, where each underscore stands between two; nil for anything else.
    private static func digits(_ word: ArraySlice<UInt8>, radix: Int = 10) -> String? {
        var text = ""
        var wasDigit = false
        for byte in word {
            if byte == UInt8(ascii: "_") {
                guard wasDigit else { return nil }
                wasDigit = false
                continue
            }
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, digit < radix else { return nil }
            text.append(Character(Unicode.Scalar(byte)))
            wasDigit = true
        }
        return wasDigit ? text : nil
    }

    private static func signed(_ word: ArraySlice<UInt8>) -> (sign: String, rest: ArraySlice<UInt8>) {
        switch word.first {
        case UInt8(ascii: "-"): ("-", word.dropFirst())
        case UInt8(ascii: "+"): ("", word.dropFirst())
        default: ("", word)
        }
    }

    /// The digits before a point: without zeros in front.
    private static func whole(_ word: ArraySlice<UInt8>) -> String? {
        guard let text = digits(word), text.count == 1 || text.first != "0" else { return nil }
        return text
    }

    private static func integer(_ word: ArraySlice<UInt8>) -> Int? {
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] where word.starts(with: prefix.utf8) {
            return digits(word.dropFirst(2), radix: radix).flatMap { Int($0, radix: radix) }
        }
        let (sign, rest) = signed(word)
        return whole(rest).flatMap { Int(sign + $0) }
    }

    private static func float(_ word: ArraySlice<UInt8>) -> Double? {
        let (sign, rest) = signed(word)
        let parts = rest.split(maxSplits: 1, omittingEmptySubsequences: false) { $0 | 0x20 == UInt8(ascii: "e") }
        guard let mantissa = parts.first else { return nil }
        let halves = mantissa.split(separator: UInt8(ascii: "."), maxSplits: 1, omittingEmptySubsequences: false)
        guard halves.count + parts.count > 2, let head = halves.first, let whole = whole(head) else { return nil }
        var text = sign + whole
        if halves.count == 2 {
            guard let fraction = digits(halves[1]) else { return nil }
            text += "." + fraction
        }
        if parts.count == 2 {
            let (sign, rest) = signed(parts[1])
            guard let exponent = digits(rest) else { return nil }
            text += "e" + sign + exponent
        }
        return Double(text)
    }
}
