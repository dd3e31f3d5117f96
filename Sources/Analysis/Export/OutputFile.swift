public import DumpFormat
import Glibc

/// Where a command's output goes: the only way in which one writes to a file.
///
/// A regular file appears under its name whole and on disk, or not at all, and replaces another only if told to. Into
/// anything else, a device, a pipe or standard output (`-`), the bytes are written as they come: it stays what it is.
public struct OutputFile: ~Copyable {
    public struct Problem: Error, CustomStringConvertible {
        public let description: String
        /// The reader of a pipe has gone away.
        public let isBrokenPipe: Bool

        init(description: String) {
            self.description = description
            isBrokenPipe = false
        }

        fileprivate init(writing path: String, _ code: Int32) {
            description = "cannot write \(path): \(String(cString: strerror(code)))"
            isBrokenPipe = code == EPIPE
        }
    }

    /// As users call it.
    private let path: String
    private let descriptor: Int32
    /// Nil where the bytes are written into what is there.
    private let file: (partialPath: String, goal: String)?
    private var isCommitted = false

    /// - Parameter replacing: a regular file that is there.
    public static func create(path: String, replacing: Bool) throws(Problem) -> OutputFile {
        if path == "-" { return try stream("standard output", dup(STDOUT_FILENO)) }
        var status = stat()
        guard stat(path, &status) == 0 else {
            if lstat(path, &status) == 0 {
                throw Problem(description: "cannot write \(path): it is a symbolic link that leads nowhere")
            }
            return try file(path, goal: path)
        }
        switch status.st_mode & S_IFMT {
        case S_IFDIR: throw Problem(description: "cannot write \(path): it is a directory")
        case S_IFREG:
            guard replacing else {
                throw Problem(description: "\(path) exists and is left as it is; --force replaces it")
            }
            // What a link leads to is replaced, not the link: /dev/stdout is one.
            guard let goal = realpath(path, nil) else { throw Problem(writing: path, errno) }
            defer { free(goal) }
            return try file(path, goal: String(cString: goal))
        default: return try stream(path, open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY))
        }
    }

    private static func stream(_ path: String, _ descriptor: Int32) throws(Problem) -> OutputFile {
        guard descriptor >= 0 else { throw Problem(writing: path, errno) }
        // Who writes to a pipe that nobody reads is told so by `write`.
        signal(SIGPIPE, SIG_IGN)
        return OutputFile(path: path, descriptor: descriptor, file: nil)
    }

    /// Beside the goal, so that the renaming cannot fail for another disk. Readable by its owner only, as dumps are.
    private static func file(_ path: String, goal: String) throws(Problem) -> OutputFile {
        let partialPath = "\(goal).\(getpid()).partial"
        let descriptor = open(partialPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Problem(writing: path, errno) }
        return OutputFile(path: path, descriptor: descriptor, file: (partialPath, goal))
    }

    private init(path: String, descriptor: Int32, file: (partialPath: String, goal: String)?) {
        self.path = path
        self.descriptor = descriptor
        self.file = file
    }

    deinit {
        close(descriptor)
        if !isCommitted, let file { unlink(file.partialPath) }
    }

    /// For what must be a file while it is written, as a database: where its bytes go until `commit`.
    public func partialPath(for what: String) throws(Problem) -> String {
        guard let file else {
            throw Problem(description: "cannot write \(path): \(what) needs a regular file; name one")
        }
        return file.partialPath
    }

    /// Valid as long as the file is neither committed nor gone.
    public var sink: DescriptorSink { DescriptorSink(descriptor: descriptor, path: path) }

    public func write(_ text: String) throws(Problem) { try write(Array(text.utf8)) }

    public func write(_ bytes: [UInt8]) throws(Problem) {
        let problem = bytes.withUnsafeBytes { bytes -> Problem? in
            do throws(Problem) { try write(bytes) } catch { return error }
            return nil
        }
        if let problem { throw problem }
    }

    public func write(_ bytes: UnsafeRawBufferPointer) throws(Problem) {
        var rest = bytes
        while !rest.isEmpty {
            let written = Glibc.write(descriptor, rest.baseAddress, rest.count)
            if written < 0 {
                if errno == EINTR { continue }
                throw Problem(writing: path, errno)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    /// All has been written: a file gets its name.
    public consuming func commit() throws(Problem) {
        guard let file else { return }
        while fsync(descriptor) != 0 {
            guard errno == EINTR else { throw Problem(writing: path, errno) }
        }
        guard rename(file.partialPath, file.goal) == 0 else { throw Problem(writing: path, errno) }
        isCommitted = true
    }
}
