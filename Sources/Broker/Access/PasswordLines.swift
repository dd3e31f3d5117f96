import Glibc
import Ledger

/// A password file as the text that it is, for changing one user and leaving the rest.
public struct PasswordLines {
    private var lines: [String] = []

    public init() {}

    /// - Throws: ``ConfigurationError``.
    public init(file path: String) throws {
        do throws(SmallFile.Failure) {
            let text = try SmallFile.contents(of: path, limit: Limits.maxAccessFileBytes)
            lines = text.textLines.filter { !$0.isEmpty }
        } catch {
            throw ConfigurationError(error.description)
        }
    }

    public mutating func set(_ user: String, _ hash: PasswordHash) {
        let line = "\(user):\(hash.text)"
        if let index = lines.firstIndex(where: { Self.isLine($0, of: user) }) {
            lines[index] = line
        } else {
            lines.append(line)
        }
    }

    /// - Returns: whether there was such a user.
    public mutating func remove(_ user: String) -> Bool {
        let count = lines.count
        lines.removeAll { Self.isLine($0, of: user) }
        return lines.count < count
    }

    private static func isLine(_ line: String, of user: String) -> Bool { line.utf8.starts(with: "\(user):".utf8) }

    /// Puts the whole in the file's place at once: a broker that reads it sees the old or the new.
    ///
    /// - Throws: ``ConfigurationError``.
    public func write(to path: String) throws {
        let temporary = "\(path).new-\(getpid())"
        let status = FileStatus(path)
        let mode = status?.permissions ?? 0o600
        let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
        guard file >= 0 else { throw failure(temporary) }
        let text = lines.map { $0 + "\n" }.joined()
        var isWritten = text.isEmpty
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
            guard count > 0 else { break }
            rest = rest.dropFirst(count)
            isWritten = rest.isEmpty
        }
        isWritten = isWritten && fsync(file) == 0
        // Who may read it stays as it was, also when root changes what is the broker's.
        if let status {
            isWritten = isWritten && fchmod(file, mode) == 0
            if status.user != geteuid() { isWritten = isWritten && fchown(file, status.user, status.group) == 0 }
        }
        let error = failure(temporary)
        close(file)
        guard isWritten, rename(temporary, path) == 0 else {
            unlink(temporary)
            throw error
        }
    }

    private func failure(_ path: String) -> ConfigurationError {
        ConfigurationError("cannot write \(path): \(SystemError.text())")
    }
}
