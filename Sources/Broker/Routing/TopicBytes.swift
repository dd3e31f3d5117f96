/// Comparing and hashing topics as bytes, eight at a time. Topics never become Strings on the data path.
enum TopicBytes {
    @inline(always)
    static func areEqual(_ a: Span<UInt8>, _ b: Span<UInt8>) -> Bool {
        let count = a.count
        guard count == b.count else { return false }
        var index = 0
        while index &+ 8 <= count {
            guard
                a.bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self)
                    == b.bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self)
            else { return false }
            index &+= 8
        }
        while index < count {
            guard a[index] == b[index] else { return false }
            index &+= 1
        }
        return true
    }

    @inline(always)
    static func hash(_ topic: Span<UInt8>) -> UInt64 {
        var state = processSeed ^ UInt64(truncatingIfNeeded: topic.count)
        var index = 0
        while index &+ 8 <= topic.count {
            mix(&state, topic.bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self))
            index &+= 8
        }
        var tail: UInt64 = 0
        while index < topic.count {
            tail = tail << 8 | UInt64(topic[index])
            index &+= 1
        }
        mix(&state, tail)
        return state
    }

    /// Folded multiplication, as in wyhash: the two halves of a 128-bit product.
    @inline(always)
    private static func mix(_ state: inout UInt64, _ word: UInt64) {
        let product = (state ^ word).multipliedFullWidth(by: 0x9e37_79b9_7f4a_7c15)
        state = product.high ^ product.low
    }

    /// Per process, so that clients cannot aim at one bucket.
    private static let processSeed = UInt64.random(in: .min ... .max)
}
