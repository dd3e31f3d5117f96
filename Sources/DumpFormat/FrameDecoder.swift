/// Reads one frame at a time: bytes from the file, header checks, decompression, block header. One per thread.
struct FrameDecoder: ~Copyable {
    private var decompressor = ZstdDecompressor()
    private var frame = ByteStore(capacity: 64 << 10)
    private var content = ByteStore(capacity: BlockHeader.bytes + BlockHeader.rowsPerBlock * 8)

    /// What follows the header of the block loaded last.
    var payload: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: content.bytes[BlockHeader.bytes...]) }
    /// Decompressed bytes of the block loaded last.
    var contentBytes: Int { content.count }

    /// Loads the frame that fills `size` bytes at `offset`. Nothing is allocated that its bytes have not been checked
    /// to ask for, and never more than `FrameLimits` allow.
    mutating func load(_ input: DumpInput, offset: UInt64, size: UInt64) throws(FrameProblem) -> BlockHeader {
        guard size <= UInt64(FrameLimits.frameBytes) else { throw .tooLarge(size) }
        guard offset <= input.size, size <= input.size - offset else { throw .cutOff }
        let bytes = frame.reset(Int(size))
        let read: Int
        do throws(DumpError) { read = try input.read(at: offset, into: bytes) } catch {
            throw .unreadable(error.message)
        }
        guard read == bytes.count else { throw .cutOff }
        let header = try ZstdFrameHeader(frame.bytes)
        try decompressor.decompress(frame.bytes, into: content.reset(header.contentBytes))
        return try BlockHeader(content.bytes)
    }

    /// Loads a block of a column, which must be the one the entry announces, and stores its rows.
    mutating func load(
        _ input: DumpInput, _ entry: DirectoryEntry, width: Int, to values: UnsafeMutableRawPointer
    ) throws(FrameProblem) {
        let block = try load(input, offset: entry.offset, size: UInt64(entry.size))
        guard block.section == entry.section, block.column == entry.column, block.firstRow == entry.firstRow,
            block.rows == entry.rows
        else { throw .unexpected("the frame there holds \(block.name)") }
        guard Int(block.width) == width else {
            throw .unexpected("its elements have \(block.width) bytes, \(width) expected")
        }
        guard let encoding = ColumnEncoding(rawValue: block.encoding) else {
            throw .unexpected("its encoding \(block.encoding) is unknown")
        }
        try encoding.decode(payload, rows: Int(block.rows), width: width, to: values)
    }

    /// What a zstd file that is not a dump holds.
    mutating func peek(_ stream: UnsafeRawBufferPointer, upTo count: Int) -> [UInt8] {
        decompressor.peek(stream, upTo: count)
    }
}
