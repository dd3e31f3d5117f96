import Glibc

/// Keeps a second broker away from a data directory. The system lets go of it when the process ends, however it ends.
final class DirectoryLock: Sendable {
    static let fileName = "arena-broker.lock"
    private let file: CInt

    /// - Throws: `StartError` if another has it.
    init(_ directory: String) throws(StartError) {
        let path = "\(directory)/\(Self.fileName)"
        file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw StartError("\(path): \(SystemError.text())") }
        guard flock(file, LOCK_EX | LOCK_NB) == 0 else {
            throw StartError(
                errno == EWOULDBLOCK
                    ? "\(directory): in use by another process; one broker a data directory"
                    : "\(path): \(SystemError.text())")
        }
    }

    func release() { flock(file, LOCK_UN) }

    deinit { close(file) }
}
