internal import Glibc

// Every system call of this module is in this file.

/// A file's bytes in memory without being read into it: the page cache holds what was touched, and may drop it again.
///
/// A compressed dump is unpacked to a temporary file first, which loses its name at once and so goes away with
/// the process. Random access needs the bytes somewhere, and memory is where a heap dump larger than it does not fit. The
/// file is in `TMPDIR` or else in `/var/tmp`, and never takes the last sixteenth of the room there.
final class MappedFile {
    let view: ByteView
    /// What of a compressed file could not be unpacked.
    let problem: String?

    init(path: String) throws(HPROFError) {
        let descriptor = try Self.openForReading(path)
        defer { close(descriptor) }
        let start = Self.read(descriptor, upTo: 18)
        guard let compression = Compression(startingWith: start) else {
            view = try Self.map(descriptor, path)
            problem = nil
            return
        }
        let temporary = try Self.temporaryFile(path)
        defer { close(temporary.descriptor) }
        let unpacked = try Self.unpack(descriptor, compression, into: temporary, path)
        view = try Self.map(temporary.descriptor, path)
        problem = unpacked
    }

    /// Lets go of the pages of these bytes: they come back from the page cache when they are looked at again.
    func letGo(_ bytes: Range<Int>) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let (start, end) = (
            (bytes.lowerBound + page - 1) / page * page, min(bytes.upperBound, view.count) / page * page
        )
        guard start < end else { return }
        madvise(UnsafeMutableRawPointer(mutating: view.base) + start, end - start, MADV_DONTNEED)
    }

    deinit { if view.count > 0 { munmap(UnsafeMutableRawPointer(mutating: view.base), view.count) } }

    /// The first bytes of a file, unpacked if need be; empty where there are none.
    static func peek(path: String, upTo count: Int) -> [UInt8] {
        guard let descriptor = try? openForReading(path) else { return [] }
        defer { close(descriptor) }
        let start = read(descriptor, upTo: 64 << 10)
        guard let compression = Compression(startingWith: start) else { return Array(start.prefix(count)) }
        var result: [UInt8] = []
        var decompressor = Decompressor(compression)
        _ = decompressor.feed(start) { piece in
            result += piece.prefix(count - result.count)
            return result.count < count
        }
        return result
    }

    private static func openForReading(_ path: String) throws(HPROFError) -> Int32 {
        // Not blocking, so that a pipe is refused instead of waited for.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw .system(errno, "opening the heap dump", path) }
        var status = stat()
        if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG { return descriptor }
        close(descriptor)
        throw HPROFError(.io, path: path, "it is not a regular file; save the dump to a file first")
    }

    private static func read(_ descriptor: Int32, upTo count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = pread(descriptor, &bytes, count, 0)
        return Array(bytes.prefix(max(0, got)))
    }

    private static func map(_ descriptor: Int32, _ path: String) throws(HPROFError) -> ByteView {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system(errno, "looking at the heap dump", path) }
        let size = Int(status.st_size)
        guard size > 0 else { throw HPROFError(.notAHeapDump, path: path, at: 0, "the file is empty") }
        guard let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
            throw .system(errno, "mapping the heap dump into memory", path)
        }
        madvise(base, size, MADV_SEQUENTIAL)
        return ByteView(base: UnsafeRawPointer(base), count: size)
    }

    // MARK: Unpacking

    private struct Temporary {
        var descriptor: Int32
        var directory: String
        var room: UInt64
    }

    private static func temporaryFile(_ path: String) throws(HPROFError) -> Temporary {
        let directory = getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
        var name = Array("\(directory)/arena-analyze.XXXXXX".utf8CString)
        let descriptor = mkstemp(&name)
        guard descriptor >= 0 else {
            throw .system(errno, "making a temporary file in \(directory) to unpack the heap dump to", path)
        }
        unlink(name)
        var space = statvfs()
        let known = fstatvfs(descriptor, &space) == 0
        let free = known ? UInt64(space.f_bavail) * UInt64(space.f_frsize) : 0
        return Temporary(descriptor: descriptor, directory: directory, room: free - free / 16)
    }

    /// Returns what could not be unpacked, nil where all was.
    private static func unpack(
        _ source: Int32, _ compression: Compression, into target: Temporary, _ path: String
    ) throws(HPROFError) -> String? {
        var decompressor = Decompressor(compression)
        var input = [UInt8](repeating: 0, count: 1 << 20)
        var written: UInt64 = 0
        var failure: HPROFError?
        while true {
            let got = Glibc.read(source, &input, input.count)
            if got < 0 {
                if errno == EINTR { continue }
                throw .system(errno, "reading the heap dump", path)
            }
            if got == 0 { break }
            let state = decompressor.feed(got == input.count ? input : Array(input[..<got])) { piece in
                written += UInt64(piece.count)
                if written > target.room {
                    failure = HPROFError(
                        .compression, path: path, at: written,
                        "unpacked it needs more room than \(target.directory) has; set TMPDIR to a larger place")
                } else if let error = write(piece, to: target.descriptor) {
                    failure = .system(error, "unpacking the heap dump to \(target.directory)", path)
                }
                return failure == nil
            }
            if let failure { throw failure }
            if case .damaged(let reason) = state {
                if written == 0 { throw HPROFError(.compression, path: path, "it cannot be unpacked: \(reason)") }
                return "the compressed file is damaged behind \(written) unpacked bytes: \(reason)"
            }
        }
        if decompressor.isInsideStream {
            if written == 0 { throw HPROFError(.compression, path: path, "the compressed file ends at its start") }
            return "the compressed file is cut off behind \(written) unpacked bytes"
        }
        return nil
    }

    private static func write(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) -> Int32? {
        var done = 0
        while done < bytes.count {
            let result = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if result < 0, errno == EINTR { continue }
            if result <= 0 { return result == 0 ? ENOSPC : errno }
            done += result
        }
        return nil
    }
}

extension HPROFError {
    fileprivate static func system(_ code: Int32, _ doing: String, _ path: String) -> HPROFError {
        HPROFError(.io, path: path, "\(doing): \(String(cString: strerror(code)))")
    }
}
