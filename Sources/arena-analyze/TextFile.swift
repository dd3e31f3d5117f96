import ArgumentParser
import Glibc

/// Small files that people write.
enum TextFile {
    static let maximumBytes = 1 << 20

    /// The whole text; ends with exit code 1 and the reason where there is none.
    static func read(_ path: String) throws -> String {
        guard let file = fopen(path, "r") else {
            throw failure(path, String(cString: strerror(errno)))
        }
        defer { fclose(file) }
        var bytes = [UInt8](repeating: 0, count: maximumBytes + 1)
        let count = fread(&bytes, 1, bytes.count, file)
        if ferror(file) != 0 { throw failure(path, String(cString: strerror(errno))) }
        if count > maximumBytes { throw failure(path, "it is larger than 1 MiB, and so no such file") }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }

    private static func failure(_ path: String, _ reason: String) -> ExitCode {
        Terminal.complain("cannot read \(path): \(reason)")
        return Exit.noAnswer
    }
}
