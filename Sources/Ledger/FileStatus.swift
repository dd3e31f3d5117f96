import Glibc

/// What a path leads to. Here, in a module without Foundation: where the compiler reads both, it depends on the order of the
/// files which of the two declares `stat`, and with that whether a file that imports one of them builds.
package struct FileStatus {
    /// With the kind of file, as `st_mode` has it.
    package let mode: UInt32
    package let size: Int
    package let user: UInt32
    package let group: UInt32

    /// - Returns: nil where there is nothing that can be looked at; `errno` says why.
    package init?(_ path: String, followsLinks: Bool = true) {
        var status = stat()
        guard (followsLinks ? stat(path, &status) : lstat(path, &status)) == 0 else { return nil }
        (mode, size) = (status.st_mode, Int(status.st_size))
        (user, group) = (status.st_uid, status.st_gid)
    }

    package var isDirectory: Bool { mode & S_IFMT == S_IFDIR }
    package var isSocket: Bool { mode & S_IFMT == S_IFSOCK }
    package var isRegularFile: Bool { mode & S_IFMT == S_IFREG }
    /// Who may read, write and execute it.
    package var permissions: UInt32 { mode & 0o777 }
}
