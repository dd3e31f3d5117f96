import DumpFormat
import Glibc
import Ledger

/// The directory that dumps go to, opened for each dump: whatever happens to it meanwhile, all of one dump (the file, its name, the
/// old ones that go) is done in the same directory.
///
/// Links in its path are followed when it is resolved, at the start and at a reload, and not again: a link that has taken its
/// place would lead dumps, and the removal of old ones, elsewhere. One that was removed and made anew is used.
struct DumpDirectory: Sendable {
    /// Absolute, so that the log says where a dump is whatever the working directory; without links.
    let path: String

    /// Checked at the start: the moment it is needed is the wrong one to find out.
    ///
    /// - Throws: `StartError` if `path` is no directory that files can be created in.
    init(_ path: String) throws(StartError) {
        if let reason = FileStatus.whyNotWritable(path) { throw StartError("dump directory \(path): \(reason)") }
        guard let resolved = realpath(path, nil) else {
            throw StartError("dump directory \(path): \(String(cString: strerror(errno)))")
        }
        defer { free(resolved) }
        self.path = String(cString: resolved)
    }

    func open() throws(DumpError) -> HeldDirectory {
        do {
            return try HeldDirectory(path, links: .refused)
        } catch {
            throw DumpError(
                error.kind, path: path,
                "\(error.message); make it anew, or have its links followed once more (SIGHUP)")
        }
    }
}
