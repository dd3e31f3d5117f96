/// Stable stand-ins for names: the same name under the same key is the same pseudonym, in every dump; without the key,
/// a name can be neither found nor tried out.
public struct Pseudonyms: Sendable {
    private let key: SipHash.Key

    /// A key of its own for each: two redacted dumps cannot be compared by name.
    public init() {
        var generator = SystemRandomNumberGenerator()
        key = SipHash.Key(generator.next(), generator.next())
    }

    /// From a passphrase. A short one can be guessed, and with it every name tried out.
    public init(passphrase: String) {
        let bytes = Array(passphrase.utf8)
        key = SipHash.Key(
            SipHash.hash(bytes, key: .init(0x6172_656e_612d_6b65, 1)),
            SipHash.hash(bytes, key: .init(0x6172_656e_612d_6b65, 2)))
    }

    /// `client-1f3a9c0d2b44`; nothing for nothing.
    public func name(_ secret: String, kind: String) -> String {
        if secret.isEmpty { return "" }
        let digits = String(SipHash.hash(Array(secret.utf8), key: key) >> 16, radix: 16)
        return "\(kind)-" + String(repeating: "0", count: 12 - digits.count) + digits
    }
}

/// SipHash-2-4, a keyed hash: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
enum SipHash {
    struct Key: Sendable {
        let low: UInt64
        let high: UInt64

        init(_ low: UInt64, _ high: UInt64) {
            self.low = low
            self.high = high
        }
    }

    static func hash(_ bytes: [UInt8], key: Key) -> UInt64 {
        var state = State(key)
        for start in stride(from: 0, to: bytes.count - bytes.count % 8, by: 8) {
            state.absorb(word(bytes[start..<start + 8]))
        }
        state.absorb(word(bytes[(bytes.count - bytes.count % 8)...]) | UInt64(bytes.count & 0xFF) << 56)
        return state.finish()
    }

    /// Little-endian.
    private static func word(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    private struct State {
        var v0, v1, v2, v3: UInt64

        init(_ key: Key) {
            v0 = key.low ^ 0x736f_6d65_7073_6575
            v1 = key.high ^ 0x646f_7261_6e64_6f6d
            v2 = key.low ^ 0x6c79_6765_6e65_7261
            v3 = key.high ^ 0x7465_6462_7974_6573
        }

        mutating func absorb(_ word: UInt64) {
            v3 ^= word
            rounds(2)
            v0 ^= word
        }

        mutating func finish() -> UInt64 {
            v2 ^= 0xFF
            rounds(4)
            return v0 ^ v1 ^ v2 ^ v3
        }

        private mutating func rounds(_ count: Int) {
            for _ in 0..<count {
                v0 &+= v1
                v2 &+= v3
                v1 = Self.rotated(v1, 13) ^ v0
                v3 = Self.rotated(v3, 16) ^ v2
                v0 = Self.rotated(v0, 32)
                v2 &+= v1
                v0 &+= v3
                v1 = Self.rotated(v1, 17) ^ v2
                v3 = Self.rotated(v3, 21) ^ v0
                v2 = Self.rotated(v2, 32)
            }
        }

        private static func rotated(_ word: UInt64, _ bits: UInt64) -> UInt64 { word << bits | word >> (64 - bits) }
    }
}
