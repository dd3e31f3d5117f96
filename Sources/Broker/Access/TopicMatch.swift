/// Topic filters against topic names and against each other, on bytes and without allocating: what access rules need.
/// Subscriptions are matched by the trie.
enum TopicMatch {
    private static let slash = UInt8(ascii: "/")
    private static let plus = UInt8(ascii: "+")
    private static let hash = UInt8(ascii: "#")

    /// Whether `filter` matches `topic` (section 4.7). The rule about `$` is the caller's.
    static func matches(_ filter: Span<UInt8>, _ topic: Span<UInt8>) -> Bool {
        compare(filter, topic) { rule, _ in rule == .any } ?? false
    }

    /// Whether there is a topic name that both filters match.
    static func overlap(_ a: Span<UInt8>, _ b: Span<UInt8>) -> Bool {
        compare(a, b) { $0 == .any || $1 == .any } ?? true
    }

    /// Whether `filter` matches every topic name that `other` does.
    static func covers(_ filter: Span<UInt8>, _ other: Span<UInt8>) -> Bool {
        compare(filter, other) { rule, _ in rule == .any } ?? false
    }

    private enum Level {
        case text
        /// `+`
        case any
        /// `#`
        case rest
    }

    /// Walks both by level. `isEnough` says whether two different levels may stand for each other.
    ///
    /// - Returns: nil where only `b` has a `#` in a place where `a` goes on: that means "perhaps" to some and no to others.
    private static func compare(
        _ a: Span<UInt8>, _ b: Span<UInt8>, _ isEnough: (Level, Level) -> Bool
    ) -> Bool? {
        var (i, j) = (0, 0)
        while true {
            let (endA, endB) = (end(a, i), end(b, j))
            let (levelA, levelB) = (level(a, i, endA), level(b, j, endB))
            if levelA == .rest { return true }
            if levelB == .rest { return nil }
            if !areEqual(a, i, endA, b, j, endB), !isEnough(levelA, levelB) { return false }
            switch (endA == a.count, endB == b.count) {
            case (true, true): return true
            // `a/#` matches `a` too (MQTT-4.7.1-2).
            case (false, true): return level(a, endA + 1, end(a, endA + 1)) == .rest
            case (true, false): return level(b, endB + 1, end(b, endB + 1)) == .rest ? nil : false
            case (false, false): (i, j) = (endA + 1, endB + 1)
            }
        }
    }

    private static func end(_ text: Span<UInt8>, _ start: Int) -> Int {
        var index = start
        while index < text.count, text[index] != slash { index &+= 1 }
        return index
    }

    private static func level(_ text: Span<UInt8>, _ start: Int, _ end: Int) -> Level {
        guard end - start == 1 else { return .text }
        return text[start] == plus ? .any : text[start] == hash ? .rest : .text
    }

    private static func areEqual(
        _ a: Span<UInt8>, _ startA: Int, _ endA: Int, _ b: Span<UInt8>, _ startB: Int, _ endB: Int
    ) -> Bool {
        guard endA - startA == endB - startB else { return false }
        for index in 0..<(endA - startA) where a[startA + index] != b[startB + index] { return false }
        return true
    }
}
