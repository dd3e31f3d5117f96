internal import Glibc

/// A temporary file that has no name: it is gone when nobody has it open any more, however the process ends.
///
/// It is in `TMPDIR` or else in `/var/tmp`, and never takes the last sixteenth of the room there.
///
/// One thread fills it; when it is full, any may know where it is.
public final class UnnamedFile: @unchecked Sendable {
    let descriptor: Int32
    /// What it is opened by, again and at any place, while this object lives.
    public var path: String { "/proc/self/fd/\(descriptor)" }
    public private(set) var count: UInt64 = 0
    private let directory: String
    private let room: UInt64
    private let source: String

    /// `O_TMPFILE` of open(2), which Swift does not see, without `O_DIRECTORY`.
    private static let noName: Int32 = 0o20000000

    /// A copy of what is in `source`, or is made of it: errors name that.
    public init(for source: String) throws(HPROFError) {
        self.source = source
        directory = getenv("TMPDIR").map { String(cString: $0) } ?? "/var/tmp"
        var opened = open(directory, Self.noName | O_DIRECTORY | O_RDWR | O_CLOEXEC, 0o600)
        if opened < 0 {
            // Not every file system has them.
            var name = Array("\(directory)/arena-analyze.XXXXXX".utf8CString)
            opened = mkstemp(&name)
            guard opened >= 0 else { throw .system(errno, "making a temporary file in \(directory)", source) }
            unlink(name)
            _ = fcntl(opened, F_SETFD, FD_CLOEXEC)
        }
        descriptor = opened
        var space = statvfs()
        let isKnown = fstatvfs(descriptor, &space) == 0
        let free = isKnown ? UInt64(space.f_bavail) * UInt64(space.f_frsize) : 0
        room = free - free / 16
    }

    deinit { close(descriptor) }

    /// Fills `buffer` from `offset`, as far as there is something. How many bytes that were.
    func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) -> Int {
        var done = 0
        while done < buffer.count {
            let got = pread(descriptor, buffer.baseAddress! + done, buffer.count - done, off_t(offset + done))
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { break }
            done += got
        }
        return done
    }

    public func append(_ bytes: UnsafeRawBufferPointer) throws(HPROFError) {
        guard count + UInt64(bytes.count) <= room else {
            throw HPROFError(
                .io, path: source, at: count,
                "its temporary copy needs more room than \(directory) has; set TMPDIR to a larger place")
        }
        var done = 0
        while done < bytes.count {
            let result = write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            if result < 0, errno == EINTR { continue }
            guard result > 0 else {
                throw .system(result == 0 ? ENOSPC : errno, "writing a temporary copy to \(directory)", source)
            }
            done += result
        }
        count += UInt64(bytes.count)
    }
}
