internal import CZlib
internal import CZstd

// The only file that calls zlib, and the only one of this module that calls libzstd.

/// How a heap dump is packed, told from its first bytes.
enum Compression {
    case gzip, zstd

    init?(startingWith bytes: [UInt8]) {
        if bytes.starts(with: [0x1F, 0x8B]) {
            self = .gzip
        } else if bytes.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) || Self.isSkippableFrame(bytes) {
            self = .zstd
        } else {
            return nil
        }
    }

    /// zstd's frames for metadata: 0x184D2A50 to 0x184D2A5F, little-endian.
    private static func isSkippableFrame(_ bytes: [UInt8]) -> Bool {
        bytes.count >= 4 && bytes[0] & 0xF0 == 0x50 && bytes[1...3].elementsEqual([0x2A, 0x4D, 0x18])
    }
}

/// Unpacks a gzip or zstd stream piece by piece, in memory that does not depend on its length. Several members or frames
/// one after the other are one stream, as a JVM writes them.
struct Decompressor: ~Copyable {
    enum State: Equatable {
        case wantsMore
        /// Whoever takes the output had enough.
        case stopped
        case damaged(String)
    }

    /// Whether the stream has begun and not ended.
    private(set) var isInsideStream = false
    private let zstd: OpaquePointer?
    private let zlib: UnsafeMutablePointer<z_stream>?
    private var output = [UInt8](repeating: 0, count: 1 << 20)

    init(_ compression: Compression) {
        switch compression {
        case .zstd:
            zlib = nil
            zstd = ZSTD_createDStream()
            // `zstd --long=31` is the largest window there is.
            ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, 31)
        case .gzip:
            zstd = nil
            let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
            stream.initialize(to: z_stream())
            // 15 bits of window, and 16 to say that the header is gzip's.
            inflateInit2_(stream, 15 + 16, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
            zlib = stream
        }
    }

    deinit {
        if let zstd { ZSTD_freeDStream(zstd) }
        if let zlib {
            inflateEnd(zlib)
            zlib.deallocate()
        }
    }

    /// Unpacks `input` and hands the output to `take`, piece by piece, until that returns false.
    mutating func feed(_ input: [UInt8], _ take: (UnsafeRawBufferPointer) -> Bool) -> State {
        zstd == nil ? feedZlib(input, take) : feedZstd(input, take)
    }

    private mutating func feedZstd(_ input: [UInt8], _ take: (UnsafeRawBufferPointer) -> Bool) -> State {
        let context = zstd
        var inside = isInsideStream
        let state = input.withUnsafeBytes { source in
            output.withUnsafeMutableBytes { target in
                var piece = ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
                var isFull = false
                while piece.pos < piece.size || isFull {
                    var room = ZSTD_outBuffer(dst: target.baseAddress, size: target.count, pos: 0)
                    let hint = ZSTD_decompressStream(context, &room, &piece)
                    if ZSTD_isError(hint) != 0 { return State.damaged(String(cString: ZSTD_getErrorName(hint))) }
                    inside = hint != 0
                    isFull = room.pos == room.size
                    if room.pos > 0, !take(UnsafeRawBufferPointer(rebasing: target[..<room.pos])) { return .stopped }
                    if room.pos == 0, piece.pos == piece.size { break }
                }
                return .wantsMore
            }
        }
        isInsideStream = inside
        return state
    }

    private mutating func feedZlib(_ input: [UInt8], _ take: (UnsafeRawBufferPointer) -> Bool) -> State {
        let stream = zlib!
        var inside = isInsideStream
        let state = input.withUnsafeBytes { source in
            output.withUnsafeMutableBytes { target in
                stream.pointee.next_in = UnsafeMutablePointer(
                    mutating: source.bindMemory(to: UInt8.self).baseAddress)
                stream.pointee.avail_in = UInt32(source.count)
                while true {
                    stream.pointee.next_out = target.bindMemory(to: UInt8.self).baseAddress
                    stream.pointee.avail_out = UInt32(target.count)
                    if stream.pointee.avail_in > 0 { inside = true }
                    let code = inflate(stream, Z_NO_FLUSH)
                    let produced = target.count - Int(stream.pointee.avail_out)
                    if produced > 0, !take(UnsafeRawBufferPointer(rebasing: target[..<produced])) {
                        return State.stopped
                    }
                    switch code {
                    case Z_STREAM_END:
                        inside = false
                        inflateReset(stream)
                        if stream.pointee.avail_in == 0 { return .wantsMore }
                    case Z_OK:
                        if stream.pointee.avail_in == 0, stream.pointee.avail_out > 0 { return .wantsMore }
                    case Z_BUF_ERROR:
                        return .wantsMore
                    default:
                        return .damaged(stream.pointee.msg.map { String(cString: $0) } ?? "zlib error \(code)")
                    }
                }
            }
        }
        isInsideStream = inside
        return state
    }
}
