import Glibc
import Ledger

/// The directory that dumps go to. Checked at the start: the moment it is needed is the wrong one to find out.
public enum DumpDirectory {
    /// - Throws: `StartError` if `path` is no directory that files can be created in.
    public static func check(_ path: String) throws(StartError) {
        guard let status = FileStatus(path) else {
            throw StartError("dump directory \(path): \(SystemError.text())")
        }
        guard status.isDirectory else { throw StartError("dump directory \(path): not a directory") }
        guard access(path, W_OK | X_OK) == 0 else {
            throw StartError("dump directory \(path): \(SystemError.text())")
        }
    }
}
