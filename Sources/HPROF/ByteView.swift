/// A view of bytes that stay where they are for as long as their `MappedFile` lives. The numbers in it are big-endian.
///
/// Loads do not check: whoever loads has made sure that the bytes are there, as `RecordScanner` and `HeapObject` do
/// once for each record. A view is not kept longer than the file it came from.
struct ByteView {
    let base: UnsafeRawPointer
    let count: Int

    /// Whether `bytes` bytes from `offset` on are there.
    @inline(__always) func has(_ bytes: Int, at offset: Int) -> Bool {
        offset >= 0 && bytes >= 0 && offset <= count && bytes <= count - offset
    }

    @inline(__always) func u8(_ offset: Int) -> UInt8 { load(offset) }
    @inline(__always) func u16(_ offset: Int) -> UInt16 { UInt16(bigEndian: load(offset)) }
    @inline(__always) func u32(_ offset: Int) -> UInt32 { UInt32(bigEndian: load(offset)) }
    @inline(__always) func u64(_ offset: Int) -> UInt64 { UInt64(bigEndian: load(offset)) }

    /// An identifier of 4 or 8 bytes.
    @inline(__always) func id(_ offset: Int, _ size: Int) -> UInt64 {
        size == 8 ? u64(offset) : UInt64(u32(offset))
    }

    @inline(__always) private func load<T: BitwiseCopyable>(_ offset: Int) -> T {
        assert(has(MemoryLayout<T>.size, at: offset), "a load outside the file")
        return base.loadUnaligned(fromByteOffset: offset, as: T.self)
    }

    /// The text of `bytes` bytes; what is no UTF-8 of it is replaced.
    func text(_ offset: Int, _ bytes: Int) -> String {
        guard has(bytes, at: offset) else { return "" }
        return String(decoding: UnsafeRawBufferPointer(start: base + offset, count: bytes), as: UTF8.self)
    }
}
