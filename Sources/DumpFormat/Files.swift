internal import Glibc
internal import Ledger

// Every system call of this module is in this file, HeldDirectory.swift and Workers.swift.

extension DumpError {
    /// An error number of the platform as a typed error; `doing` is a verb phrase such as "opening the dump".
    static func system(_ code: Int32, _ doing: String, path: String) -> DumpError {
        let reason = String(cString: strerror(code))
        switch code {
        case ENOENT:
            return DumpError(.notFound, path: path, "\(doing): there is no such file; check the path")
        case ENOTDIR:
            return DumpError(.notFound, path: path, "\(doing): \(reason); check the path")
        case EACCES, EPERM:
            return DumpError(
                .permissionDenied, path: path,
                "\(doing): permission denied; dumps have mode 0600, so run as the user who owns the file")
        case ENOSPC, EDQUOT, EFBIG:
            return DumpError(.noSpace, path: path, "\(doing): \(reason); make room, or choose another directory")
        case EEXIST:
            return DumpError(.alreadyExists, path: path, "\(doing): the file exists already and is not overwritten")
        default:
            return DumpError(.io, path: path, "\(doing): \(reason) (error \(code))")
        }
    }
}

/// `SEEK_DATA` and `SEEK_HOLE` of lseek(2), which Swift does not see.
private let seekData: Int32 = 3
private let seekHole: Int32 = 4

/// Calls again while a signal interrupts; returns the error number when the call fails.
func retrying(_ call: () -> Int) -> (result: Int, error: Int32) {
    while true {
        let result = call()
        if result >= 0 { return (result, 0) }
        if errno != EINTR { return (result, errno) }
    }
}

/// A dump opened for reading at any offset, from any thread.
final class DumpInput: Sendable {
    let path: String
    let size: UInt64
    private let source: Source

    private enum Source {
        case file(Int32)
        case memory([UInt8])
    }

    /// A dump that is in memory; `path` is the name used in errors.
    init(bytes: [UInt8], path: String) {
        self.path = path
        size = UInt64(bytes.count)
        source = .memory(bytes)
    }

    convenience init(path: String) throws(DumpError) {
        // Not blocking, so that a pipe is refused below instead of waited for.
        var (opened, error) = retrying { Int(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) }
        if opened < 0, error == EWOULDBLOCK, FileStatus(path)?.isRegularFile == true {
            // A flight recorder lets readers in once a second.
            (opened, error) = retrying { Int(open(path, O_RDONLY | O_CLOEXEC)) }
        }
        guard opened >= 0 else { throw .system(error, "opening the dump", path: path) }
        try self.init(descriptor: Int32(opened), path: path)
    }

    convenience init(_ name: String, in directory: HeldDirectory) throws(DumpError) {
        let path = directory.path(of: name)
        let (opened, error) = directory.open(name, O_RDONLY | O_NONBLOCK)
        guard opened >= 0 else { throw .system(error, "opening the dump", path: path) }
        try self.init(descriptor: opened, path: path)
    }

    /// Takes the descriptor, and closes it in any case.
    private init(descriptor: Int32, path: String) throws(DumpError) {
        self.path = path
        source = .file(descriptor)
        var status = stat()
        let failed = fstat(descriptor, &status) != 0
        let statError = errno
        size = failed ? 0 : UInt64(max(0, status.st_size))
        if failed { throw .system(statError, "opening the dump", path: path) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: throw DumpError(.notADump, path: path, "is a directory; name one of the dump files in it")
        default:
            throw DumpError(
                .notADump, path: path,
                "is not a regular file; a dump is read at many places, so copy it to a file first")
        }
    }

    deinit {
        if case .file(let descriptor) = source { close(descriptor) }
    }

    /// Whether a process has locked the file, as the one that records into it does.
    var isLocked: Bool {
        guard case .file(let descriptor) = source else { return false }
        if flock(descriptor, LOCK_SH | LOCK_NB) == 0 {
            flock(descriptor, LOCK_UN)
            return false
        }
        return errno == EWOULDBLOCK
    }

    /// Fills `buffer` from `offset` and returns the bytes read: fewer than asked for only at the end of the file.
    func read(at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(DumpError) -> Int {
        let descriptor: Int32
        switch source {
        case .file(let opened): descriptor = opened
        case .memory(let bytes):
            guard offset < size else { return 0 }
            let count = min(buffer.count, bytes.count - Int(offset))
            bytes.withUnsafeBytes {
                buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + count]))
            }
            return count
        }
        var done = 0
        while done < buffer.count, let place = off_t(exactly: offset + UInt64(done)) {
            let (result, error) = retrying {
                pread(descriptor, buffer.baseAddress! + done, buffer.count - done, place)
            }
            if result < 0 { throw .system(error, "reading at byte \(place)", path: path) }
            if result == 0 { break }
            done += result
        }
        return done
    }

    /// The parts of a range that have room on the disk, in order. What is between them, holes, reads as zeros, and takes
    /// nothing however long it is. Where the file system does not tell, it is all of the range.
    func data(in range: Range<UInt64>) -> [Range<UInt64>] {
        let range = range.clamped(to: 0..<size)
        guard case .file(let descriptor) = source else { return range.isEmpty ? [] : [range] }
        var parts: [Range<UInt64>] = []
        var place = range.lowerBound
        while place < range.upperBound {
            let start = lseek(descriptor, off_t(place), seekData)
            if start < 0 {
                // Nothing but a hole up to the end of the file.
                if errno == ENXIO { break }
                return [range]
            }
            guard UInt64(start) < range.upperBound else { break }
            let end = lseek(descriptor, start, seekHole)
            guard end > start else { return [range] }
            parts.append(UInt64(start)..<min(UInt64(end), range.upperBound))
            place = UInt64(end)
        }
        return parts
    }

    /// The first place from `offset` on that is in no hole; nil where there is nothing but a hole up to the end of the file.
    func nextData(from offset: UInt64) -> UInt64? {
        guard case .file(let descriptor) = source else { return offset }
        let place = lseek(descriptor, off_t(clamping: offset), seekData)
        if place >= 0 { return UInt64(place) }
        return errno == ENXIO ? nil : offset
    }

    func bytes(at offset: UInt64, count: Int) throws(DumpError) -> [UInt8] {
        guard offset < size else { return [] }
        var bytes = [UInt8](repeating: 0, count: Int(min(UInt64(max(0, count)), size - offset)))
        let read: Result<Int, DumpError> = bytes.withUnsafeMutableBytes { buffer in
            do throws(DumpError) { return .success(try self.read(at: offset, into: buffer)) } catch {
                return .failure(error)
            }
        }
        bytes.removeLast(bytes.count - (try read.get()))
        return bytes
    }
}

/// Zeros, which take memory where something is stored.
struct ZeroedMemory: ~Copyable {
    let base: UnsafeMutableRawPointer
    let byteCount: Int

    /// `path` is the name used in errors.
    init(_ byteCount: Int, path: String) throws(DumpError) {
        let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let memory, memory != MAP_FAILED else {
            throw .system(errno, "making room for \(byteCount) bytes", path: path)
        }
        (base, self.byteCount) = (memory, byteCount)
    }

    deinit { munmap(base, byteCount) }
}

/// Where the bytes of a dump go.
public protocol DumpSink {
    mutating func write(_ bytes: UnsafeRawBufferPointer) throws(DumpError)
}

/// Writes to an open descriptor that somebody else owns: a `DumpFile`, a socket, a pipe.
public struct DescriptorSink: DumpSink {
    let descriptor: Int32
    let path: String

    /// `path` is the name used in errors.
    public init(descriptor: Int32, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    public mutating func write(_ bytes: UnsafeRawBufferPointer) throws(DumpError) {
        var done = 0
        while done < bytes.count {
            let (result, error) = retrying { Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done) }
            if result < 0 { throw .system(error, "writing the dump", path: path) }
            if result == 0 { throw .system(ENOSPC, "writing the dump", path: path) }
            done += result
        }
    }
}

/// A file that appears under its name whole and on disk, or not at all.
///
/// Bytes go to `.NAME.partial` beside it, readable by its owner only; `commit` makes them durable and gives them their
/// name. A `DumpFile` that goes away without `commit` takes the partial file with it. It is locked as long as it is
/// written: one that is not has been left by a process that died.
public struct DumpFile: ~Copyable {
    package static let partialSuffix = ".partial"
    package static func partialName(of name: String) -> String { ".\(name)\(partialSuffix)" }

    private let directory: HeldDirectory
    private let name: String
    private let descriptor: Int32
    private var isCommitted = false

    private var path: String { directory.path(of: name) }

    /// Starts the file `directory/name`. An existing file of that name is an error unless `replacing`.
    public static func create(
        directory: String, name: String, replacing: Bool = false
    ) throws(DumpError) -> DumpFile {
        try create(in: HeldDirectory(directory), name: name, replacing: replacing)
    }

    package static func create(
        in directory: HeldDirectory, name: String, replacing: Bool = false
    ) throws(DumpError) -> DumpFile {
        let path = directory.path(of: name)
        let partial = partialName(of: name)
        if !replacing, directory.status(name) != nil { throw .system(EEXIST, "creating the dump", path: path) }
        // What is there under the partial name was left by a process that died while it wrote.
        let removal = directory.remove(partial)
        if removal != 0, removal != ENOENT { throw .system(removal, "creating the dump", path: path) }
        while true {
            let (descriptor, error) = directory.open(partial, O_WRONLY | O_CREAT | O_EXCL, 0o600)
            guard descriptor >= 0 else { throw .system(error, "creating the dump", path: path) }
            // Where a file system knows no locks there is none, as before.
            _ = retrying { Int(flock(descriptor, LOCK_EX)) }
            var status = stat()
            if fstat(descriptor, &status) == 0, status.st_nlink == 0 {
                // Between the two calls another process took it for a leftover.
                close(descriptor)
                continue
            }
            return DumpFile(directory: directory, name: name, descriptor: descriptor)
        }
    }

    /// Removes a partial file that no process is writing.
    ///
    /// - Returns: whether it did.
    package static func removeIfLeft(_ partial: String, in directory: HeldDirectory) -> Bool {
        let (descriptor, _) = directory.open(partial, O_RDWR | O_NONBLOCK)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
            flock(descriptor, LOCK_EX | LOCK_NB) == 0
        else { return false }
        return directory.remove(partial) == 0
    }

    private init(directory: HeldDirectory, name: String, descriptor: Int32) {
        self.directory = directory
        self.name = name
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
        if !isCommitted { directory.remove(Self.partialName(of: name)) }
    }

    /// Valid as long as the file is neither committed nor gone.
    public var sink: DescriptorSink { DescriptorSink(descriptor: descriptor, path: path) }

    /// Makes the bytes durable, gives the file its name, makes the name durable, and returns the path.
    public consuming func commit() throws(DumpError) -> String {
        let synced = retrying { Int(fsync(descriptor)) }
        if synced.result < 0 { throw .system(synced.error, "writing the dump to disk", path: path) }
        let error = directory.rename(Self.partialName(of: name), to: name)
        if error != 0 { throw .system(error, "naming the dump", path: path) }
        isCommitted = true
        directory.synchronize()
        return path
    }
}
