/// Finds frames without a seek table, from what zstd itself writes: frame header, block headers, magic numbers.
struct FrameScanner {
    private let input: DumpInput
    private var window: [UInt8] = []
    private var windowStart: UInt64 = 0
    private static let windowBytes = 256 << 10

    init(_ input: DumpInput) { self.input = input }

    /// Up to `count` bytes at `offset`: fewer only at the end of the file.
    private mutating func bytes(at offset: UInt64, count: Int) throws(DumpError) -> ArraySlice<UInt8> {
        let end = min(offset + UInt64(count), input.size)
        if offset >= end { return [] }
        if offset < windowStart || end > windowStart + UInt64(window.count) {
            window = try input.bytes(at: offset, count: max(count, Self.windowBytes))
            windowStart = offset
        }
        let first = Int(offset - windowStart)
        return window[first..<min(first + count, window.count)]
    }

    /// The size of the frame at `offset`, found by walking its blocks (RFC 8878, section 3.1.1), or what is wrong.
    mutating func frameSize(at offset: UInt64) throws(DumpError) -> Result<UInt64, FrameProblem> {
        let start = try bytes(at: offset, count: FrameLimits.headerBytes)
        let header: ZstdFrameHeader
        do throws(FrameProblem) { header = try start.withParsed(ZstdFrameHeader.init) } catch { return .failure(error) }
        var size = UInt64(header.headerBytes)
        while true {
            let block = Array(try bytes(at: offset + size, count: 3))
            guard block.count == 3 else { return .failure(.cutOff) }
            let word = UInt64(block[0]) | UInt64(block[1]) << 8 | UInt64(block[2]) << 16
            let isLast = word & 1 != 0
            switch (word >> 1) & 3 {
            case 0, 2: size += 3 + word >> 3
            case 1: size += 3 + 1
            default: return .failure(.undecodable("a block of a reserved type"))
            }
            if size > UInt64(FrameLimits.frameBytes) { return .failure(.tooLarge(size)) }
            if isLast { break }
        }
        size += 4
        return size <= input.size - offset ? .success(size) : .failure(.cutOff)
    }

    /// The size of the skippable frame at `offset`, if one is there.
    mutating func skippableSize(at offset: UInt64) throws(DumpError) -> UInt64? {
        let start = Array(try bytes(at: offset, count: 8))
        guard start.count == 8 else { return nil }
        let words = start.withUnsafeBytes { $0.loadUnaligned(as: SIMD2<UInt32>.self) }
        guard UInt32(littleEndian: words[0]) & 0xFFFF_FFF0 == ZstdFrameHeader.skippableMagic & 0xFFFF_FFF0 else {
            return nil
        }
        return 8 + UInt64(UInt32(littleEndian: words[1]))
    }

    /// The first place from `offset` on where zstd's frame magic stands, or the end of the file.
    mutating func nextMagic(from offset: UInt64) throws(DumpError) -> UInt64 {
        var place = offset
        while place + 4 <= input.size {
            let piece = try bytes(at: place, count: Self.windowBytes)
            let found = piece.withUnsafeBytes { bytes -> Int? in
                guard bytes.count >= 4 else { return nil }
                for index in 0...bytes.count - 4 where bytes[index] == 0x28 {
                    let word = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt32.self))
                    if word == ZstdFrameHeader.magic { return index }
                }
                return nil
            }
            if let found { return place + UInt64(found) }
            place += UInt64(max(1, piece.count - 3))
        }
        return input.size
    }
}

extension ArraySlice<UInt8> {
    fileprivate func withParsed<T>(
        _ parse: (UnsafeRawBufferPointer) throws(FrameProblem) -> T
    ) throws(FrameProblem) -> T {
        let result: Result<T, FrameProblem> = withUnsafeBytes { bytes in
            do throws(FrameProblem) { return .success(try parse(bytes)) } catch { return .failure(error) }
        }
        return try result.get()
    }
}
