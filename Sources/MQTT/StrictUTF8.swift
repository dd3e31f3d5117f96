/// UTF-8 as MQTT wants it: well-formed (no surrogates, nothing overlong, nothing past U+10FFFF: MQTT-1.5.4-1, in
/// 3.1.1 MQTT-1.5.3-1) and without U+0000 (MQTT-1.5.4-2, MQTT-1.5.3-2). Works on bytes; no String is made.
enum StrictUTF8 {
    enum Verdict: Equatable {
        case valid
        /// An ill-formed sequence starts at the offset.
        case illFormed(at: Int)
        /// U+0000 stands at the offset.
        case null(at: Int)
    }

    static func check(_ bytes: RawSpan) -> Verdict {
        var index = 0
        while index < bytes.byteCount {
            // Nearly all of it is ASCII: eight bytes at a time while none is 0 or above 0x7F. A byte of 0 borrows
            // and so sets its upper bit; the slow path below then finds out which byte it was.
            while index &+ 8 <= bytes.byteCount {
                let word = bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self)
                guard (word | (word &- 0x0101_0101_0101_0101)) & 0x8080_8080_8080_8080 == 0 else { break }
                index &+= 8
            }
            guard index < bytes.byteCount else { break }
            let lead = bytes[index]
            if lead == 0 { return .null(at: index) }
            if lead < 0x80 {
                index &+= 1
                continue
            }
            guard let length = sequenceLength(bytes, at: index, lead: lead) else { return .illFormed(at: index) }
            index &+= length
        }
        return .valid
    }

    /// The length of the multi-byte sequence at `index`, nil if it is ill-formed (Unicode, table 3-7).
    private static func sequenceLength(_ bytes: RawSpan, at index: Int, lead: UInt8) -> Int? {
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch lead {
        case 0xC2...0xDF: length = 2
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xE1...0xEF: length = 3
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF1...0xF3: length = 4
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        default: return nil
        }
        guard bytes.byteCount - index >= length, second.contains(bytes[index + 1]) else { return nil }
        for position in 2..<max(length, 2) {
            guard bytes[index + position] & 0xC0 == 0x80 else { return nil }
        }
        return length
    }
}

extension RawSpan {
    /// One byte; traps out of bounds, like any subscript.
    @inline(__always)
    subscript(index: Int) -> UInt8 { unsafeLoad(fromByteOffset: index, as: UInt8.self) }
}
