public import NIOCore

/// The rules for topic names and topic filters (section 4.7), on bytes.
///
/// Names and filters are compared byte for byte and never normalised, so nothing here needs a String.
public enum Topic {
    /// The longest name or filter, in bytes (MQTT-4.7.3-3).
    public static let maximumLength = 65_535

    /// Whether a message can be published to `name`: 1 to 65,535 bytes of strict UTF-8 (MQTT-4.7.3-1, -2, -3)
    /// without a wildcard (MQTT-3.3.2-2).
    public static func isValidName(_ name: RawSpan) -> Bool {
        hasValidLength(name) && !containsWildcard(name) && StrictUTF8.check(name) == .valid
    }

    public static func isValidName(_ name: ByteBuffer) -> Bool { isValidName(name.readableBytesSpan) }

    public static func isValidName(_ name: String) -> Bool { isValidName(name.utf8Span.span.bytes) }

    /// Whether a client can subscribe to `filter`: 1 to 65,535 bytes of strict UTF-8, `+` only as a whole level, `#`
    /// only as the whole last level (section 4.7.1). Says nothing about shares: see ``SharedSubscription``.
    public static func isValidFilter(_ filter: RawSpan) -> Bool {
        hasValidLength(filter) && hasValidWildcards(filter) && StrictUTF8.check(filter) == .valid
    }

    public static func isValidFilter(_ filter: ByteBuffer) -> Bool { isValidFilter(filter.readableBytesSpan) }

    public static func isValidFilter(_ filter: String) -> Bool { isValidFilter(filter.utf8Span.span.bytes) }

    /// How many levels a name or filter has: its slashes plus one.
    public static func levelCount(_ topic: RawSpan) -> Int {
        var count = 1
        for index in 0..<topic.byteCount where topic[index] == slash { count &+= 1 }
        return count
    }

    public static func levelCount(_ topic: ByteBuffer) -> Int { levelCount(topic.readableBytesSpan) }

    public static func levelCount(_ topic: TopicName) -> Int { levelCount(topic.bytes) }

    public static func levelCount(_ topic: String) -> Int { levelCount(topic.utf8Span.span.bytes) }

    private static func hasValidLength(_ topic: RawSpan) -> Bool { 1...maximumLength ~= topic.byteCount }
}

// The parts, for decoders that have checked length and encoding already.
extension Topic {
    static let slash = UInt8(ascii: "/")
    static let plus = UInt8(ascii: "+")
    static let hash = UInt8(ascii: "#")

    static func containsWildcard(_ name: RawSpan) -> Bool {
        var index = 0
        while index &+ 8 <= name.byteCount {
            let word = name.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self)
            if hasByte(plus, in: word) || hasByte(hash, in: word) { return true }
            index &+= 8
        }
        while index < name.byteCount {
            if name[index] == plus || name[index] == hash { return true }
            index &+= 1
        }
        return false
    }

    static func hasValidWildcards(_ filter: RawSpan) -> Bool {
        let last = filter.byteCount - 1
        for index in 0..<filter.byteCount {
            let byte = filter[index]
            guard byte == plus || byte == hash else { continue }
            let startsLevel = index == 0 || filter[index - 1] == slash
            let endsLevel = index == last || (byte == plus && filter[index + 1] == slash)
            guard startsLevel && endsLevel else { return false }
        }
        return true
    }

    /// Whether any of the eight bytes equals `byte`; "Bit Twiddling Hacks", determine if a word has a zero byte.
    @inline(__always)
    private static func hasByte(_ byte: UInt8, in word: UInt64) -> Bool {
        let zeroWhereEqual = word ^ (UInt64(byte) &* 0x0101_0101_0101_0101)
        return (zeroWhereEqual &- 0x0101_0101_0101_0101) & ~zeroWhereEqual & 0x8080_8080_8080_8080 != 0
    }
}
