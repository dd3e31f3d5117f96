internal import CZstd
internal import Glibc

// The only file that calls libzstd.

/// Memory with one owner that grows and is reused: the buffers of the writer and of each reading thread.
struct ByteStore: ~Copyable {
    private(set) var base: UnsafeMutableRawPointer
    private(set) var capacity: Int
    /// Bytes in use, from `base` on.
    var count = 0

    init(capacity: Int) {
        self.capacity = max(64, capacity)
        base = .allocate(byteCount: self.capacity, alignment: 64)
    }

    deinit { base.deallocate() }

    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

    /// Makes room for `extra` bytes behind those in use and returns where they go.
    mutating func tail(_ extra: Int) -> UnsafeMutableRawBufferPointer {
        if count + extra > capacity {
            let larger = max(count + extra, capacity * 2)
            let moved = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 64)
            moved.copyMemory(from: base, byteCount: count)
            base.deallocate()
            base = moved
            capacity = larger
        }
        return UnsafeMutableRawBufferPointer(start: base + count, count: extra)
    }

    /// Empties the store and makes it hold `count` bytes, whose values are left to the caller.
    mutating func reset(_ count: Int) -> UnsafeMutableRawBufferPointer {
        self.count = 0
        let all = tail(count)
        self.count = count
        return all
    }

    /// The same for `count` elements of a type.
    mutating func reset<Element>(_ count: Int, of _: Element.Type) -> UnsafeMutableBufferPointer<Element> {
        reset(count * MemoryLayout<Element>.stride).bindMemory(to: Element.self)
    }
}

/// Makes independent frames, each with content size and checksum, with one context.
struct ZstdCompressor: ~Copyable {
    private let context: OpaquePointer

    init(level: Int32) {
        context = ZSTD_createCCtx()
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
        ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1)
        ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 1)
    }

    deinit { ZSTD_freeCCtx(context) }

    /// Appends the frame of `content` to `output` and returns its size.
    mutating func compress(_ content: UnsafeRawBufferPointer, to output: inout ByteStore) throws(FrameProblem) -> Int {
        let room = output.tail(ZSTD_compressBound(content.count))
        let size = ZSTD_compress2(context, room.baseAddress, room.count, content.baseAddress, content.count)
        if ZSTD_isError(size) != 0 { throw .undecodable(String(cString: ZSTD_getErrorName(size))) }
        output.count += size
        return size
    }
}

/// Takes frames apart with one context.
struct ZstdDecompressor: ~Copyable {
    private let context: OpaquePointer

    init() {
        context = ZSTD_createDCtx()
        ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, Int32(FrameLimits.contentBytes.trailingZeroBitCount))
    }

    deinit { ZSTD_freeDCtx(context) }

    /// Decodes one whole frame that must fill `content` exactly, and checks its checksum.
    mutating func decompress(
        _ frame: UnsafeRawBufferPointer, into content: UnsafeMutableRawBufferPointer
    ) throws(FrameProblem) {
        let size = ZSTD_decompressDCtx(context, content.baseAddress, content.count, frame.baseAddress, frame.count)
        if ZSTD_isError(size) != 0 {
            if ZSTD_getErrorCode(size) == ZSTD_error_checksum_wrong { throw .checksumMismatch }
            throw .undecodable(String(cString: ZSTD_getErrorName(size)))
        }
        if size != content.count { throw .undecodable("\(size) bytes where its header declares \(content.count)") }
    }

    /// The first bytes of what a foreign zstd stream holds, to tell the user what it is.
    mutating func peek(_ stream: UnsafeRawBufferPointer, upTo count: Int) -> [UInt8] {
        ZSTD_DCtx_reset(context, ZSTD_reset_session_only)
        var bytes = [UInt8](repeating: 0, count: count)
        var input = ZSTD_inBuffer(src: stream.baseAddress, size: stream.count, pos: 0)
        let produced = bytes.withUnsafeMutableBytes { buffer in
            var output = ZSTD_outBuffer(dst: buffer.baseAddress, size: buffer.count, pos: 0)
            while output.pos < output.size, input.pos < input.size {
                let before = (input.pos, output.pos)
                if ZSTD_isError(ZSTD_decompressStream(context, &output, &input)) != 0 { break }
                if (input.pos, output.pos) == before { break }
            }
            return output.pos
        }
        ZSTD_DCtx_reset(context, ZSTD_reset_session_only)
        bytes.removeLast(count - produced)
        return bytes
    }
}

/// What a frame may at most be: foreign bytes cannot ask for more.
enum FrameLimits {
    static let contentBytes = 64 << 20
    /// zstd's own bound of a compressed frame of `contentBytes`.
    static let frameBytes = contentBytes + contentBytes >> 8 + 64
    /// Bytes of the longest block, compressed or not (RFC 8878, section 3.1.1.2.4).
    static let blockBytes = 128 << 10
    /// Frames of a file: a directory of `contentBytes` names no more.
    static let frames = contentBytes / DirectoryEntry.recordBytes
    /// Bytes of the longest frame header.
    static let headerBytes = 18
}

/// What is wrong with one frame; the words end a sentence that names the frame.
enum FrameProblem: Error, Equatable, CustomStringConvertible {
    case cutOff
    case notAFrame
    case unreadable(String)
    case checksumMismatch
    case undecodable(String)
    case tooLarge(UInt64)
    case notABlock(String)
    case unexpected(String)
    /// The search for frames has come to its end.
    case notFollowed

    var description: String {
        switch self {
        case .cutOff: "the file ends inside it"
        case .notAFrame: "no zstd frame is there"
        case .unreadable(let reason): reason
        case .checksumMismatch: "checksum mismatch"
        case .undecodable(let reason): "cannot be decompressed: \(reason)"
        case .tooLarge(let bytes): "declares \(bytes) bytes, more than a frame of a dump may have"
        case .notABlock(let reason): "does not hold a block: \(reason)"
        case .unexpected(let reason): reason
        case .notFollowed: "was not followed to its end"
        }
    }
}

/// The header of a zstd frame (RFC 8878, section 3.1.1.1), as far as a dump needs it.
struct ZstdFrameHeader {
    static let magic: UInt32 = 0xFD2F_B528
    static let skippableMagic: UInt32 = 0x184D_2A5E

    let headerBytes: Int
    let contentBytes: Int
    let hasChecksum: Bool

    /// Reads a header that must declare its content size and carry a checksum, as every frame of a dump does.
    init(_ bytes: UnsafeRawBufferPointer) throws(FrameProblem) {
        guard bytes.count >= 5 else { throw .cutOff }
        guard UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self)) == Self.magic else { throw .notAFrame }
        let descriptor = bytes[4]
        let isSingleSegment = descriptor & 0x20 != 0
        let dictionaryBytes = [0, 1, 2, 4][Int(descriptor & 3)]
        let sizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][Int(descriptor >> 6)]
        guard descriptor & 0x08 == 0 else { throw .undecodable("a reserved bit of its header is set") }
        guard dictionaryBytes == 0 else { throw .undecodable("it wants a dictionary") }
        guard sizeBytes > 0 else { throw .undecodable("it does not declare its content size") }
        hasChecksum = descriptor & 0x04 != 0
        guard hasChecksum else { throw .undecodable("it has no checksum") }
        let sizeOffset = 5 + (isSingleSegment ? 0 : 1)
        headerBytes = sizeOffset + sizeBytes
        guard bytes.count >= headerBytes else { throw .cutOff }
        var size: UInt64 = sizeBytes == 2 ? 256 : 0
        for index in 0..<sizeBytes { size &+= UInt64(bytes[sizeOffset + index]) << UInt64(index * 8) }
        guard size <= UInt64(FrameLimits.contentBytes) else { throw .tooLarge(size) }
        contentBytes = Int(size)
    }
}
