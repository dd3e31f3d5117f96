import Analysis
import Glibc
import HPROF
import Synchronization

/// Dumps that come through standard input (`-`) or a pipe. A dump is read at many places, so what comes is copied to a
/// temporary file without a name first, in memory that does not grow with it.
enum PipedDump {
    /// Why there is none, in words behind "cannot read ...: ".
    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    private static let copies = Mutex<[String: UnnamedFile]>([:])

    /// A file with the bytes of `path`; nil where `path` is a file itself, or nothing that can be read. Commands read their
    /// dump more than once: the second time it is the same copy.
    static func file(for path: String) throws(Problem) -> String? {
        if let known = copies.withLock({ $0[path]?.path }) { return known }
        guard let source = try source(path) else { return nil }
        defer { if source != STDIN_FILENO { close(source) } }
        if source == STDIN_FILENO, let file = redirected { return file }
        Progress.begin(Origin.name(of: path))
        let copy: UnnamedFile
        do throws(HPROFError) {
            copy = try UnnamedFile(for: path)
        } catch {
            throw Problem(description: error.message)
        }
        try fill(copy, from: source)
        if copy.count == 0 {
            throw Problem(description: "nothing came through it; did the program that writes it fail?")
        }
        copies.withLock { $0[path] = copy }
        return copy.path
    }

    /// What to read from: standard input, or the pipe of that name, which is waited for until somebody writes to it.
    private static func source(_ path: String) throws(Problem) -> Int32? {
        guard path != "-" else {
            if isatty(STDIN_FILENO) == 1 {
                throw Problem(
                    description: "it is a terminal; let a program write to it: zstd -dc FILE | arena-analyze ... -")
            }
            return STDIN_FILENO
        }
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFIFO else { return nil }
        while true {
            let opened = open(path, O_RDONLY | O_CLOEXEC)
            if opened >= 0 { return opened }
            guard errno == EINTR else { throw Problem(description: String(cString: strerror(errno))) }
        }
    }

    /// Standard input as a file, where it is one (`- < FILE`) of which nothing was read yet.
    private static var redirected: String? {
        var status = stat()
        let isWholeFile =
            fstat(STDIN_FILENO, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
            && lseek(STDIN_FILENO, 0, SEEK_CUR) == 0
        let path = "/proc/self/fd/\(STDIN_FILENO)"
        return isWholeFile && access(path, R_OK) == 0 ? path : nil
    }

    /// So many bytes of something that is no dump are enough for a reader to say what it is.
    private static let enoughOfOthers = 1 << 20

    private static func fill(_ copy: UnnamedFile, from source: Int32) throws(Problem) {
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var start: [UInt8] = []
        while true {
            let got = read(source, &buffer, buffer.count)
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw Problem(description: String(cString: strerror(errno))) }
            if got == 0 { return }
            do {
                try buffer.withUnsafeBytes { try copy.append(UnsafeRawBufferPointer(rebasing: $0[..<got])) }
            } catch {
                throw Problem(description: (error as? HPROFError)?.message ?? "\(error)")
            }
            if start.count < 16 { start += buffer.prefix(min(got, 16)) }
            // `yes | arena-analyze summary -` ends as well.
            if copy.count >= enoughOfOthers, !mayBeDump(start) { return }
        }
    }

    private static func mayBeDump(_ start: [UInt8]) -> Bool {
        let starts = [
            Array("JAVA PROFILE".utf8), Array("ARLEDGER".utf8), [0x1F, 0x8B], [0x28, 0xB5, 0x2F, 0xFD],
        ]
        // The last are zstd's frames for metadata.
        return starts.contains { start.starts(with: $0) }
            || start.count > 3 && start[1...3].elementsEqual([0x2A, 0x4D, 0x18])
    }
}
