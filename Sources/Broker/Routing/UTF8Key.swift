/// A text from the wire as a key: a client identifier, a topic filter, a command's identifier.
///
/// Compared byte for byte, as MQTT has it (sections 1.5.3 and 4.7.3). Swift compares canonical equivalents as equal: the
/// two spellings of "é", which are two topics and two clients, would be one.
struct UTF8Key: Hashable, Sendable {
    let text: String

    init(_ text: String) { self.text = text }

    var byteCount: Int { text.utf8.count }

    /// The levels of a topic name or filter, which is valid UTF-8.
    static func levels(_ topic: Span<UInt8>) -> [UTF8Key] {
        var levels: [UTF8Key] = []
        var start = 0
        while start <= topic.count {
            var end = start
            while end < topic.count, topic[end] != UInt8(ascii: "/") { end += 1 }
            let level = topic.extracting(start..<end)
            levels.append(UTF8Key(level.withUnsafeBufferPointer { String(decoding: $0, as: UTF8.self) }))
            start = end + 1
        }
        return levels
    }

    static func == (a: UTF8Key, b: UTF8Key) -> Bool { TopicBytes.areEqual(a.text.utf8Span.span, b.text.utf8Span.span) }

    func hash(into hasher: inout Hasher) {
        let bytes = text.utf8Span.span
        var index = 0
        while index &+ 8 <= bytes.count {
            hasher.combine(bytes.bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self))
            index &+= 8
        }
        var tail = UInt64(truncatingIfNeeded: bytes.count)
        while index < bytes.count {
            tail = tail << 8 | UInt64(bytes[index])
            index &+= 1
        }
        hasher.combine(tail)
    }
}
