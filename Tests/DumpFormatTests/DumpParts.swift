@testable import DumpFormat

/// A dump taken apart into the contents of its frames and put together again, so that tests can make files with sound
/// checksums and unsound meaning.
struct DumpParts {
    /// Decompressed blocks in the order of the file, without the directory.
    var contents: [[UInt8]]

    init(_ bytes: [UInt8]) throws {
        let file = TemporaryFile(bytes)
        let input = try DumpInput(path: file.path)
        let table = try SeekTable.read(input)!
        var decoder = FrameDecoder()
        var offset: UInt64 = 0
        contents = []
        for frame in table.dropLast() {
            var header = [UInt8](repeating: 0, count: BlockHeader.bytes)
            let block = try decoder.load(input, offset: offset, size: UInt64(frame.compressedBytes))
            header.withUnsafeMutableBytes { block.store(to: $0.baseAddress!) }
            contents.append(header + Array(decoder.payload))
            offset += UInt64(frame.compressedBytes)
        }
    }

    /// The file, with a directory that announces what the blocks say, but for what `change` makes of it.
    func assemble(_ change: (inout [DirectoryEntry]) -> Void = { _ in }) throws -> [UInt8] {
        var compressor = ZstdCompressor(level: 1)
        var output = ByteStore(capacity: 1 << 16)
        var entries: [DirectoryEntry] = []
        for content in contents {
            let header = BlockHeader(unchecked: content)
            let offset = UInt64(output.count)
            let size = try compress(content, &compressor, &output)
            entries.append(
                DirectoryEntry(
                    section: header.section, column: header.column, rows: header.rows, firstRow: header.firstRow,
                    offset: offset, size: UInt32(size), contentBytes: UInt32(content.count)))
        }
        change(&entries)
        var frames = entries.map { SeekTable.Frame(compressedBytes: $0.size, contentBytes: $0.contentBytes) }
        let records = DirectoryEntry.encode(entries)
        var directory = [UInt8](repeating: 0, count: BlockHeader.bytes)
        directory.withUnsafeMutableBytes {
            BlockHeader(
                section: 0xFFFF, column: 0, width: 32, encoding: 0, rows: UInt32(entries.count), firstRow: 0,
                payloadBytes: UInt32(records.count)
            ).store(to: $0.baseAddress!)
        }
        directory += records
        let size = try compress(directory, &compressor, &output)
        frames.append(SeekTable.Frame(compressedBytes: UInt32(size), contentBytes: UInt32(directory.count)))
        return Array(output.bytes) + SeekTable.encode(frames)
    }

    private func compress(
        _ content: [UInt8], _ compressor: inout ZstdCompressor, _ output: inout ByteStore
    ) throws -> Int {
        var copy = ByteStore(capacity: content.count)
        content.withUnsafeBytes { copy.reset(content.count).copyMemory(from: $0) }
        return try compressor.compress(copy.bytes, to: &output)
    }

    /// The number of the first block of a column.
    func block(_ section: UInt16, _ column: UInt16) -> Int? {
        contents.firstIndex {
            let header = BlockHeader(unchecked: $0)
            return header.section == section && header.column == column
        }
    }

    mutating func changeHeader(_ block: Int, _ change: (inout BlockHeader) -> Void) {
        var header = BlockHeader(unchecked: contents[block])
        change(&header)
        contents[block].withUnsafeMutableBytes { header.store(to: $0.baseAddress!) }
    }

    /// A block of a section nobody knows.
    static func block(section: UInt16, column: UInt16, payload: [UInt8]) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: BlockHeader.bytes)
        bytes.withUnsafeMutableBytes {
            BlockHeader(
                section: section, column: column, width: 1, encoding: 0, rows: UInt32(payload.count), firstRow: 0,
                payloadBytes: UInt32(payload.count)
            ).store(to: $0.baseAddress!)
        }
        return bytes + payload
    }
}

extension BlockHeader {
    /// Whatever the bytes say.
    init(unchecked bytes: [UInt8]) {
        func load<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
            bytes.withUnsafeBytes { T(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: T.self)) }
        }
        self.init(
            section: load(4, UInt16.self), column: load(6, UInt16.self), width: bytes[8], encoding: bytes[9],
            rows: load(12, UInt32.self), firstRow: load(16, UInt64.self), payloadBytes: load(24, UInt32.self))
    }
}

extension DumpParts {
    func isBlock(_ index: Int, section: UInt16, column: UInt16, firstRow: UInt64) -> Bool {
        let header = BlockHeader(unchecked: contents[index])
        return header.section == section && header.column == column && header.firstRow == firstRow
    }

    /// Where the frame of a block starts in the assembled file.
    func offset(of block: Int) throws -> Int {
        var offset = 0
        _ = try assemble { offset = Int($0[block].offset) }
        return offset
    }
}
