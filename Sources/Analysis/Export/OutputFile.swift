import Glibc

/// A file that appears under its name whole, or not at all, and replaces another only if told to.
public struct OutputFile: ~Copyable {
    public struct Problem: Error, CustomStringConvertible {
        public let description: String

        init(description: String) { self.description = description }
    }

    public let path: String
    /// Where the bytes go until `commit`: beside the goal, so that the renaming cannot fail for another disk. Readable by
    /// its owner only, as dumps are.
    public let partialPath: String
    private let descriptor: Int32
    private var isCommitted = false

    public static func create(path: String, replacing: Bool) throws(Problem) -> OutputFile {
        var status = stat()
        if stat(path, &status) == 0 {
            if status.st_mode & S_IFMT == S_IFDIR {
                throw Problem(description: "cannot write \(path): it is a directory")
            }
            // A device would be replaced by a file.
            guard status.st_mode & S_IFMT == S_IFREG else {
                throw Problem(description: "cannot write \(path): it is not a regular file; `-o -` is standard output")
            }
            guard replacing else {
                throw Problem(description: "\(path) exists and is left as it is; --force replaces it")
            }
        }
        let partialPath = "\(path).\(getpid()).partial"
        let descriptor = open(partialPath, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw problem(path) }
        return OutputFile(path: path, partialPath: partialPath, descriptor: descriptor)
    }

    private init(path: String, partialPath: String, descriptor: Int32) {
        self.path = path
        self.partialPath = partialPath
        self.descriptor = descriptor
    }

    deinit {
        close(descriptor)
        if !isCommitted { unlink(partialPath) }
    }

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
                throw Self.problem(path)
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[written...])
        }
    }

    public consuming func commit() throws(Problem) {
        guard rename(partialPath, path) == 0 else { throw Self.problem(path) }
        isCommitted = true
    }

    private static func problem(_ path: String) -> Problem {
        Problem(description: "cannot write \(path): \(String(cString: strerror(errno)))")
    }
}
