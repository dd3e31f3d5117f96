/// Puts blocks into frames, as docs/dump-format.md has it, whatever the blocks say.
struct DumpBuilder {
    private(set) var bytes: [UInt8] = []
    private var frames: [(compressed: UInt32, content: UInt32)] = []
    private var directory: [UInt8] = []

    private static let headerBytes = 32

    /// Takes the next block off `input`: as long as its header says, at most what is there. Directories are left out.
    static func nextBlock(_ input: inout Slice<UnsafeBufferPointer<UInt8>>) -> [UInt8]? {
        guard input.count >= headerBytes else { return nil }
        let header = Array(input.prefix(headerBytes))
        let payload = Int(word(header, 24, 4))
        // Where the length is nonsense, the block has the rest, and its header stays as it is.
        let count = headerBytes + min(payload, input.count - headerBytes)
        defer { input = input.dropFirst(count) }
        return Array(input.prefix(count))
    }

    mutating func append(_ block: [UInt8]) {
        if Self.word(block, 4, 2) == 0xFFFF { return }
        let offset = bytes.count
        appendFrame(block)
        // section, column, rows, first row: as the header has them.
        directory += block[4..<8] + block[12..<16] + block[16..<24]
        Self.append(UInt64(offset), 8, to: &directory)
        Self.append(UInt64(frames.last!.compressed), 4, to: &directory)
        Self.append(UInt64(block.count), 4, to: &directory)
    }

    mutating func appendDirectory() {
        var block = Array("ABLK".utf8)
        Self.append(0xFFFF, 4, to: &block)
        Self.append(32, 4, to: &block)
        Self.append(UInt64(frames.count), 4, to: &block)
        Self.append(0, 8, to: &block)
        Self.append(UInt64(directory.count), 4, to: &block)
        Self.append(0, 4, to: &block)
        appendFrame(block + directory)
        Self.append(0x184D_2A5E, 4, to: &bytes)
        Self.append(UInt64(frames.count * 8 + 9), 4, to: &bytes)
        for frame in frames {
            Self.append(UInt64(frame.compressed), 4, to: &bytes)
            Self.append(UInt64(frame.content), 4, to: &bytes)
        }
        Self.append(UInt64(frames.count), 4, to: &bytes)
        Self.append(0, 1, to: &bytes)
        Self.append(0x8F92_EAB1, 4, to: &bytes)
    }

    /// A frame of raw blocks (RFC 8878, section 3.1.1): magic, descriptor (4-byte size, one segment, checksum), size.
    private mutating func appendFrame(_ content: [UInt8]) {
        let start = bytes.count
        Self.append(0xFD2F_B528, 4, to: &bytes)
        bytes.append(0xA4)
        Self.append(UInt64(content.count), 4, to: &bytes)
        var next = 0
        repeat {
            let size = min(content.count - next, 128 << 10)
            let isLast = next + size == content.count
            Self.append(UInt64(size << 3 | (isLast ? 1 : 0)), 3, to: &bytes)
            bytes += content[next..<next + size]
            next += size
        } while next < content.count
        Self.append(XXH64.hash(content) & 0xFFFF_FFFF, 4, to: &bytes)
        frames.append((UInt32(bytes.count - start), UInt32(content.count)))
    }

    private static func append(_ value: UInt64, _ count: Int, to bytes: inout [UInt8]) {
        for index in 0..<count { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(index * 8))) }
    }

    private static func word(_ bytes: [UInt8], _ offset: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64($1 * 8) }
    }
}

/// The checksum of zstd frames: XXH64 with seed 0 (the xxHash specification, section "XXH64").
enum XXH64 {
    private static let primes: [5 of UInt64] = [
        0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63,
        0x27D4_EB2F_1656_67C5,
    ]

    static func hash(_ bytes: [UInt8]) -> UInt64 {
        bytes.withUnsafeBytes { bytes in
            var place = 0
            var sum: UInt64
            if bytes.count >= 32 {
                var lanes: [4 of UInt64] = [primes[0] &+ primes[1], primes[1], 0, 0 &- primes[0]]
                while place + 32 <= bytes.count {
                    for lane in 0..<4 {
                        let word = bytes.loadUnaligned(fromByteOffset: place + lane * 8, as: UInt64.self)
                        lanes[lane] = round(lanes[lane], word)
                    }
                    place += 32
                }
                sum = rotate(lanes[0], 1) &+ rotate(lanes[1], 7) &+ rotate(lanes[2], 12) &+ rotate(lanes[3], 18)
                for lane in 0..<4 { sum = (sum ^ round(0, lanes[lane])) &* primes[0] &+ primes[3] }
            } else {
                sum = primes[4]
            }
            sum &+= UInt64(bytes.count)
            while place + 8 <= bytes.count {
                let word = bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)
                sum = rotate(sum ^ round(0, word), 27) &* primes[0] &+ primes[3]
                place += 8
            }
            if place + 4 <= bytes.count {
                let word = UInt64(bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
                sum = rotate(sum ^ word &* primes[0], 23) &* primes[1] &+ primes[2]
                place += 4
            }
            while place < bytes.count {
                sum = rotate(sum ^ UInt64(bytes[place]) &* primes[4], 11) &* primes[0]
                place += 1
            }
            sum = (sum ^ sum >> 33) &* primes[1]
            sum = (sum ^ sum >> 29) &* primes[2]
            return sum ^ sum >> 32
        }
    }

    private static func rotate(_ value: UInt64, _ count: UInt64) -> UInt64 { value << count | value >> (64 - count) }

    private static func round(_ lane: UInt64, _ word: UInt64) -> UInt64 {
        rotate(lane &+ word &* primes[1], 31) &* primes[0]
    }
}
