import Glibc

/// The platform's words for its error numbers.
enum SystemError {
    static func text(_ code: CInt = errno) -> String { String(cString: strerror(code)) }
}

/// Reading whole files, with the platform's words for what went wrong.
///
/// Nothing here waits for a file that nobody writes: a pipe is read for so many seconds, a device not at all. (A regular
/// file on a mount that hangs is waited for; nobody can help that.)
package enum SmallFile {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// The text of a file of at most a mebibyte, nil if it cannot be read.
    static func read(_ path: String) -> String? { try? contents(of: path) }

    /// - Parameter limit: bytes from which on a file is refused.
    package static func contents(of path: String, limit: Int = 1 << 20) throws(Failure) -> String {
        String(decoding: try bytes(of: path, limit: limit), as: UTF8.self)
    }

    /// - Parameters:
    ///   - limit: bytes from which on a file is refused.
    ///   - pipeSeconds: how long a pipe is waited for, all of it.
    static func bytes(
        of path: String, limit: Int = 1 << 20, pipeSeconds: Double = Double(Limits.pipeSeconds)
    ) throws(Failure) -> [UInt8] {
        func failure(_ reason: String) -> Failure { Failure(description: "cannot read \(path): \(reason)") }
        // Not blocking: else a pipe without a writer would be waited for here already.
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard file >= 0 else {
            throw failure(errno == ENXIO ? "a socket or a device, not a file; name a file" : SystemError.text())
        }
        defer { Glibc.close(file) }
        let kind = try kind(of: file, failure)
        let deadline = ContinuousClock.now + .seconds(pipeSeconds)
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 65_536)
        while bytes.count <= limit {
            if kind == .pipe, !waitForInput(file, until: deadline) {
                throw failure(
                    "a pipe that nobody has written to its end within \(pipeSeconds) s; write to it, or name a file")
            }
            let count = Glibc.read(file, &block, block.count)
            if count < 0, errno == EINTR || errno == EAGAIN && kind == .pipe { continue }
            guard count >= 0 else { throw failure(SystemError.text()) }
            if count == 0 { return bytes }
            bytes += block[..<count]
        }
        throw failure("larger than \(limit) bytes")
    }

    private enum Kind {
        case regular, pipe
    }

    private static func kind(of file: CInt, _ failure: (String) -> Failure) throws(Failure) -> Kind {
        var status = stat()
        guard fstat(file, &status) == 0 else { throw failure(SystemError.text()) }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .regular
        case S_IFIFO: return .pipe
        case S_IFDIR: throw failure("a directory; name a file in it")
        // The usual name of an empty file.
        case S_IFCHR where status.st_rdev == nullDevice: return .regular
        default: throw failure("a device, not a file; name a file, or a pipe")
        }
    }

    /// Of `/dev/null`, which Linux numbers 1, 3.
    private static let nullDevice: dev_t = 1 << 8 | 3

    /// - Returns: false if there is nothing to read by then. A pipe at its end can be read; one that nobody has opened for
    ///   writing yet cannot.
    private static func waitForInput(_ file: CInt, until deadline: ContinuousClock.Instant) -> Bool {
        while true {
            let left = deadline - .now
            guard left > .zero else { return false }
            var wanted = pollfd(fd: file, events: Int16(POLLIN), revents: 0)
            let milliseconds = left.components.seconds * 1_000 + left.components.attoseconds / 1_000_000_000_000_000
            let count = poll(&wanted, 1, Int32(clamping: milliseconds + 1))
            if count > 0 { return true }
            if count < 0, errno != EINTR { return true }
        }
    }
}
