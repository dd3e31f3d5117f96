import Glibc

/// What a path leads to. Here, in a module without Foundation: where the compiler reads both, it depends on the order of the
/// files which of the two declares `stat`, and with that whether a file that imports one of them builds.
package struct FileStatus {
    /// With the kind of file, as `st_mode` has it.
    package let mode: UInt32
    package let size: Int
    package let user: UInt32
    package let group: UInt32
    /// Which file it is, whatever it is called.
    package let identity: FileIdentity
    /// When it was written last, in milliseconds since 1970.
    package let modified: Int64
    /// When anything of it was changed last, its names too, in nanoseconds since 1970. Nobody can set this.
    package let changedNanoseconds: Int64

    /// - Returns: nil where there is nothing that can be looked at; `errno` says why.
    package init?(_ path: String, followsLinks: Bool = true) {
        self.init(path, in: AT_FDCWD, followsLinks: followsLinks)
    }

    /// Of what a name leads to in a directory that is open.
    package init?(_ name: String, in directory: CInt, followsLinks: Bool = false) {
        var status = stat()
        guard fstatat(directory, name, &status, followsLinks ? 0 : AT_SYMLINK_NOFOLLOW) == 0 else { return nil }
        self.init(status)
    }

    /// Of an open file.
    package init?(descriptor: CInt) {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return nil }
        self.init(status)
    }

    private init(_ status: stat) {
        (mode, size) = (status.st_mode, Int(status.st_size))
        (user, group) = (status.st_uid, status.st_gid)
        changedNanoseconds = Int64(status.st_ctim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_ctim.tv_nsec)
        modified = Int64(status.st_mtim.tv_sec) * 1_000
        identity = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }

    /// The directory that a file is in, or would be.
    package static func parent(of path: String) -> String {
        var rest = path[...]
        while rest.count > 1, rest.last == "/" { rest.removeLast() }
        guard let slash = rest.lastIndex(of: "/") else { return "." }
        return slash == rest.startIndex ? "/" : String(rest[..<slash])
    }

    /// One name for what a path leads to or would, however its directory is spelt; the path as it is where there is no such
    /// directory.
    package static func place(of path: String) -> String {
        guard let directory = realpath(parent(of: path), nil) else { return path }
        defer { free(directory) }
        let name = path.split(separator: "/").last ?? ""
        return "\(String(cString: directory))/\(name)"
    }

    /// Whether there is a symbolic link that leads nowhere: neither a file that could be used nor a place to make one.
    package static func isDanglingLink(_ path: String) -> Bool {
        FileStatus(path) == nil && FileStatus(path, followsLinks: false)?.isLink == true
    }

    /// Why no file can be made in a directory, or taken out of it; nil where that can be done.
    package static func whyNotWritable(_ directory: String) -> String? {
        guard let status = FileStatus(directory) else { return String(cString: strerror(errno)) }
        guard status.isDirectory else { return String(cString: strerror(ENOTDIR)) }
        return access(directory, W_OK | X_OK) == 0 ? nil : String(cString: strerror(errno))
    }

    package var isDirectory: Bool { mode & S_IFMT == S_IFDIR }
    package var isLink: Bool { mode & S_IFMT == S_IFLNK }
    package var isSocket: Bool { mode & S_IFMT == S_IFSOCK }
    package var isRegularFile: Bool { mode & S_IFMT == S_IFREG }
    /// Who may read, write and execute it.
    package var permissions: UInt32 { mode & 0o777 }
}

/// Which file it is, by what the system calls it: a name may lead to another one a moment later.
package struct FileIdentity: Hashable, Sendable {
    package let device: UInt64
    package let inode: UInt64
}
