import Ledger

/// The directory that dumps go to. Checked at the start: the moment it is needed is the wrong one to find out.
enum DumpDirectory {
    /// - Throws: `StartError` if `path` is no directory that files can be created in.
    static func check(_ path: String) throws(StartError) {
        if let reason = FileStatus.whyNotWritable(path) { throw StartError("dump directory \(path): \(reason)") }
    }
}
