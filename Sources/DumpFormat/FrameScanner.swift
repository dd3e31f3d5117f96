/// Finds frames without a seek table, from what zstd itself writes: frame header, block headers, magic numbers. What it reads
/// and walks through is counted in `budget`.
struct FrameScanner {
    private let input: DumpInput
    private var window: [UInt8] = []
    private var windowStart: UInt64 = 0
    private static let windowBytes = 64 << 10
    var budget: RecoveryBudget

    /// A frame as its header and its blocks' headers have it.
    struct Frame {
        let bytes: UInt64
        let contentBytes: Int
    }

    init(_ input: DumpInput) {
        self.input = input
        budget = RecoveryBudget(fileBytes: input.data(in: 0..<input.size).reduce(0) { $0 + UInt64($1.count) })
    }

    /// What the window has from `offset` on: `count` bytes or more, fewer only at the end of the file.
    private mutating func bytes(at offset: UInt64, count: Int) throws(DumpError) -> ArraySlice<UInt8> {
        let end = min(offset.addingClamped(UInt64(count)), input.size)
        if offset >= end { return [] }
        if offset < windowStart || end > windowStart + UInt64(window.count) {
            window = try input.bytes(at: offset, count: max(count, Self.windowBytes))
            windowStart = offset
            budget.spend(UInt64(window.count))
        }
        return window[Int(offset - windowStart)...]
    }

    /// The frame at `offset`, found by walking its blocks (RFC 8878, section 3.1.1), or what is wrong.
    mutating func frame(at offset: UInt64) throws(DumpError) -> Result<Frame, FrameProblem> {
        let start = try bytes(at: offset, count: FrameLimits.headerBytes)
        let header: ZstdFrameHeader
        do throws(FrameProblem) { header = try start.withParsed(ZstdFrameHeader.init) } catch { return .failure(error) }
        var size = UInt64(header.headerBytes)
        while true {
            budget.spend(RecoveryBudget.blockBytes)
            if budget.isSpent { return .failure(.notFollowed) }
            let block = try bytes(at: offset + size, count: 3)
            guard block.count >= 3 else { return .failure(.cutOff) }
            let word = (0..<3).reduce(UInt64(0)) { $0 | UInt64(block[block.startIndex + $1]) << UInt64(8 * $1) }
            let isLast = word & 1 != 0
            guard word >> 3 <= UInt64(FrameLimits.blockBytes) else {
                return .failure(.undecodable("a block of \(word >> 3) bytes, more than any has"))
            }
            switch (word >> 1) & 3 {
            case 0, 2: size += 3 + word >> 3
            case 1: size += 3 + 1
            default: return .failure(.undecodable("a block of a reserved type"))
            }
            if size > UInt64(FrameLimits.frameBytes) { return .failure(.tooLarge(size)) }
            if isLast { break }
        }
        size += 4
        guard size <= input.size - offset else { return .failure(.cutOff) }
        return .success(Frame(bytes: size, contentBytes: header.contentBytes))
    }

    /// The size of the skippable frame at `offset`, if one is there.
    mutating func skippableSize(at offset: UInt64) throws(DumpError) -> UInt64? {
        guard let magic = try word(at: offset), magic & 0xFFFF_FFF0 == ZstdFrameHeader.skippableMagic & 0xFFFF_FFF0,
            let size = try word(at: offset + 4)
        else { return nil }
        return 8 + UInt64(size)
    }

    /// Whether a frame begins at `offset`, or the file ends there.
    mutating func isBoundary(_ offset: UInt64) throws(DumpError) -> Bool {
        if offset == input.size { return true }
        if try word(at: offset) == ZstdFrameHeader.magic { return true }
        return try skippableSize(at: offset) != nil
    }

    private mutating func word(at offset: UInt64) throws(DumpError) -> UInt32? {
        let bytes = try bytes(at: offset, count: 4)
        guard bytes.count >= 4 else { return nil }
        return bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(as: UInt32.self)) }
    }

    /// The first place from `offset` on where zstd's frame magic stands, or the end of the file.
    mutating func nextMagic(from offset: UInt64) throws(DumpError) -> UInt64 {
        var place = offset
        while place.addingClamped(4) <= input.size {
            // A hole may be as long as it likes.
            guard let data = input.nextData(from: place) else { break }
            place = max(place, data)
            let piece = try bytes(at: place, count: 4)
            // The file has become shorter.
            guard piece.count >= 4 else { break }
            let found = piece.withUnsafeBytes { bytes -> Int? in
                for index in 0...bytes.count - 4 where bytes[index] == 0x28 {
                    let word = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: index, as: UInt32.self))
                    if word == ZstdFrameHeader.magic { return index }
                }
                return nil
            }
            if let found { return place + UInt64(found) }
            place += UInt64(piece.count - 3)
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
