import Glibc
import Ledger
import NIOCore

/// SQLite's write-ahead log, as far as it has to be known to read on behind a damaged frame (https://sqlite.org/fileformat2.html#walformat).
///
///     header (32 bytes): [ magic | version | page size | checkpoint | salt 1 | salt 2 | checksum 1 | checksum 2 ]
///     frame (24 + page): [ page number | pages after commit, or 0 | salt 1 | salt 2 | checksum 1 | checksum 2 ][ page ]
///
/// Each checksum goes on from that of the frame before, so that SQLite takes a log for ended where one bit is wrong. With new
/// checksums it reads all frames of these salts; older ones, of before the last checkpoint, have others.
enum StoreLog {
    private static let headerBytes = 32
    private static let frameHeaderBytes = 24
    /// With checksums of words as x86 and ARM have them.
    private static let magic: UInt32 = 0x377F_0682
    private static let version: UInt32 = 3_007_000

    /// Gives a log new checksums, so that SQLite reads it to its end.
    ///
    /// - Parameter database: whose log it is.
    /// - Returns: how many frames had another checksum than their bytes.
    static func mend(_ path: String, of database: String) throws -> Int {
        let file = OwnedDescriptor(open(path, O_RDWR | O_CLOEXEC))
        guard file.number >= 0 else { throw StoreFileError("\(path): \(SystemError.text())") }
        guard let pageBytes = try pageBytes(of: database, log: file) else { return 0 }
        let size = FileStatus(descriptor: file.number)?.size ?? 0
        let frameBytes = frameHeaderBytes + pageBytes
        guard size >= headerBytes + frameBytes else { return 0 }
        let stored = try read(file, headerBytes, at: 0)
        // The salts are in each frame too, wherever the damage is.
        let salts = try salts(file, stored, frameBytes, size)
        var header = ByteBuffer()
        header.writeMultipleIntegers(magic, version, UInt32(pageBytes))
        header.writeImmutableBuffer(stored.getSlice(at: 12, length: 4)!)
        header.writeInteger(salts)
        var sum = checksum((0, 0), header)
        header.writeMultipleIntegers(sum.0, sum.1)
        try write(file, header, at: 0)
        var damaged = header == stored ? 0 : 1
        // What the next checksum would be if nothing were damaged before it.
        var expected = sum
        var start = headerBytes
        var last = ByteBuffer()
        while start + frameBytes <= size {
            var frame = try read(file, frameBytes, at: start)
            let isLast = start + 2 * frameBytes > size
            if frame.getInteger(at: 8, as: UInt64.self) != salts {
                // One frame whose salts are damaged, or the first of an older log.
                guard !isLast, try read(file, 16, at: start + frameBytes).getInteger(at: 8, as: UInt64.self) == salts
                else { break }
                frame.setInteger(salts, at: 8)
            }
            let wasDamaged = frame.getInteger(at: 0, as: UInt32.self) == 0
            if wasDamaged {
                // There is no page 0, and SQLite would end there: the page of the frame before once more changes nothing.
                guard last.readableBytes == frameBytes else { break }
                let stored = frame.getSlice(at: 16, length: 8)!
                frame = last
                frame.setInteger(UInt32(0), at: 4)
                frame.setBuffer(stored, at: 16)
            }
            let was = (
                frame.getInteger(at: 16, as: UInt32.self) ?? 0, frame.getInteger(at: 20, as: UInt32.self) ?? 0
            )
            let parts = (frame.getSlice(at: 0, length: 8)!, frame.getSlice(at: 24, length: pageBytes)!)
            if wasDamaged || checksum(checksum(expected, parts.0), parts.1) != was { damaged += 1 }
            expected = was
            sum = checksum(checksum(sum, parts.0), parts.1)
            frame.setInteger(sum.0, at: 16)
            frame.setInteger(sum.1, at: 20)
            try write(file, frame, at: start)
            last = frame
            start += frameBytes
        }
        return damaged
    }

    /// Those of the header if they are the first frame's; otherwise those that the first two frames agree on.
    private static func salts(_ file: OwnedDescriptor, _ header: ByteBuffer, _ frameBytes: Int, _ size: Int) throws
        -> UInt64
    {
        let header = header.getInteger(at: 16, as: UInt64.self) ?? 0
        let first = try read(file, 16, at: headerBytes).getInteger(at: 8, as: UInt64.self) ?? 0
        guard first != header, size >= headerBytes + 2 * frameBytes else { return first }
        let second = try read(file, 16, at: headerBytes + frameBytes).getInteger(at: 8, as: UInt64.self) ?? 0
        return second == first ? first : header
    }

    /// As the database's header has it, in which 1 stands for 65,536; as the log's has it for a database that is gone, in whose
    /// place a page of zeros is put: SQLite deletes the log of an empty file.
    private static func pageBytes(of database: String, log: OwnedDescriptor) throws -> Int? {
        let file = OwnedDescriptor(open(database, O_RDWR | O_CLOEXEC))
        guard file.number >= 0 else { return nil }
        func isPossible(_ bytes: Int) -> Bool { 512...65_536 ~= bytes && bytes & (bytes - 1) == 0 }
        if let found = try read(file, 18, at: 0).getInteger(at: 16, as: UInt16.self) {
            let bytes = found == 1 ? 65_536 : Int(found)
            if isPossible(bytes) { return bytes }
        }
        guard let bytes = try read(log, 12, at: 0).getInteger(at: 8, as: UInt32.self).map(Int.init), isPossible(bytes)
        else { return nil }
        if FileStatus(descriptor: file.number)?.size == 0 {
            guard ftruncate(file.number, off_t(bytes)) == 0 else {
                throw StoreFileError("\(database): \(SystemError.text())")
            }
        }
        return bytes
    }

    private static func checksum(_ start: (UInt32, UInt32), _ bytes: ByteBuffer) -> (UInt32, UInt32) {
        var (first, second) = start
        bytes.withUnsafeReadableBytes { bytes in
            for offset in stride(from: 0, to: bytes.count & ~7, by: 8) {
                first &+= UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) &+ second
                second &+=
                    UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset + 4, as: UInt32.self)) &+ first
            }
        }
        return (first, second)
    }

    private static func read(_ file: OwnedDescriptor, _ count: Int, at offset: Int) throws -> ByteBuffer {
        var buffer = ByteBufferAllocator().buffer(capacity: count)
        var failure: CInt = 0
        buffer.writeWithUnsafeMutableBytes(minimumWritableBytes: count) { bytes in
            let found = pread(file.number, bytes.baseAddress!, count, off_t(offset))
            if found < 0 { failure = errno }
            return max(found, 0)
        }
        guard failure == 0 else { throw StoreFileError("a log cannot be read: \(SystemError.text(failure))") }
        return buffer
    }

    private static func write(_ file: OwnedDescriptor, _ buffer: ByteBuffer, at offset: Int) throws {
        let count = buffer.withUnsafeReadableBytes { pwrite(file.number, $0.baseAddress!, $0.count, off_t(offset)) }
        guard count == buffer.readableBytes else {
            throw StoreFileError("a log cannot be written: \(SystemError.text())")
        }
    }
}
