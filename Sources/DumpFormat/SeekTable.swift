/// The table at the end of the file in zstd's *seekable format* (contrib/seekable_format in the zstd repository): the
/// sizes of all frames, in a skippable frame, so that a reader can go straight to any of them.
///
///     +------------+------------+----------------------------------------+------------------------------------+
///     | 0x184D2A5E | frame size | per frame: compressed u32, content u32 | frames u32, flags u8, 0x8F92EAB1   |
///     +------------+------------+----------------------------------------+------------------------------------+
enum SeekTable {
    struct Frame: Equatable {
        var compressedBytes: UInt32
        var contentBytes: UInt32
    }

    static let footerMagic: UInt32 = 0x8F92_EAB1
    static let footerBytes = 9
    private static let prefixBytes = 8
    /// Set in the flags when every entry also has a checksum of the frame's content, which other writers add.
    private static let checksumFlag: UInt8 = 0x80
    private static let reservedFlags: UInt8 = 0x7C

    static func encode(_ frames: [Frame]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(prefixBytes + frames.count * 8 + footerBytes)
        append(ZstdFrameHeader.skippableMagic, to: &bytes)
        append(UInt32(frames.count * 8 + footerBytes), to: &bytes)
        for frame in frames {
            append(frame.compressedBytes, to: &bytes)
            append(frame.contentBytes, to: &bytes)
        }
        append(UInt32(frames.count), to: &bytes)
        bytes.append(0)
        append(footerMagic, to: &bytes)
        return bytes
    }

    private static func append(_ value: UInt32, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    /// The table, or nil where the file does not end with one that covers it exactly.
    static func read(_ input: DumpInput) throws(DumpError) -> [Frame]? {
        guard input.size >= UInt64(prefixBytes + footerBytes) else { return nil }
        let footer = try input.bytes(at: input.size - UInt64(footerBytes), count: footerBytes)
        guard footer.count == footerBytes, word(footer, 5) == footerMagic, footer[4] & reservedFlags == 0 else {
            return nil
        }
        let count = UInt64(word(footer, 0))
        // A table in a hole may have any number of rows.
        guard count <= UInt64(FrameLimits.frames) + 1 else { return nil }
        let stride = footer[4] & checksumFlag == 0 ? 8 : 12
        let tableBytes = count * UInt64(stride) + UInt64(prefixBytes + footerBytes)
        guard tableBytes <= input.size else { return nil }
        let start = input.size - tableBytes
        let table = try input.bytes(at: start, count: Int(tableBytes))
        guard table.count == Int(tableBytes), word(table, 0) == ZstdFrameHeader.skippableMagic,
            UInt64(word(table, 4)) == tableBytes - UInt64(prefixBytes)
        else { return nil }
        var frames: [Frame] = []
        frames.reserveCapacity(Int(count))
        var covered: UInt64 = 0
        for index in 0..<Int(count) {
            let place = prefixBytes + index * stride
            let frame = Frame(compressedBytes: word(table, place), contentBytes: word(table, place + 4))
            covered += UInt64(frame.compressedBytes)
            frames.append(frame)
        }
        return covered == start ? frames : nil
    }

    private static func word(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
    }
}
