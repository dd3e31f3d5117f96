internal import Glibc
package import Ledger

/// A directory that is held by a descriptor: what is done in it is done in this one, whatever its name leads to meanwhile.
/// Names are those of its entries, and an entry that is a symbolic link is not followed.
package final class HeldDirectory: Sendable {
    package let path: String
    let descriptor: CInt

    /// Which symbolic links are followed on the way to it.
    package enum Links {
        case followed
        /// None, in no place of an absolute path: what `path` was when it was resolved is what is opened, or nothing.
        case refused
    }

    package init(_ path: String, links: Links = .followed) throws(DumpError) {
        self.path = path
        descriptor =
            switch links {
            case .followed: try Self.enter(AT_FDCWD, path, O_RDONLY, path)
            case .refused: try Self.walk(path)
            }
    }

    deinit { close(descriptor) }

    private static func walk(_ path: String) throws(DumpError) -> CInt {
        let steps = path.split(separator: "/")
        var place = try enter(AT_FDCWD, "/", steps.isEmpty ? O_RDONLY : onlyPath, path)
        for (number, step) in steps.enumerated() {
            let before = place
            defer { close(before) }
            place = try enter(before, String(step), O_NOFOLLOW | (number + 1 < steps.count ? onlyPath : O_RDONLY), path)
        }
        return place
    }

    /// `O_PATH`, which Swift does not import: a directory that is gone through need not be readable.
    private static let onlyPath: CInt = 0o10000000

    private static func enter(
        _ directory: CInt, _ name: String, _ flags: CInt, _ path: String
    ) throws(DumpError) -> CInt {
        let (opened, error) = retrying { Int(openat(directory, name, flags | O_DIRECTORY | O_CLOEXEC)) }
        if opened >= 0 { return CInt(opened) }
        if flags & O_NOFOLLOW != 0, FileStatus(name, in: directory)?.isLink == true {
            throw DumpError(
                .io, path: path, "opening the directory: \(name) is a symbolic link now, and is not followed")
        }
        let kind = DumpError.system(error, "", path: path).kind
        throw DumpError(kind, path: path, "opening the directory: \(String(cString: strerror(error)))")
    }

    package func path(of name: String) -> String { "\(path)/\(name)" }

    /// Of whatever is in it; none where it cannot be read.
    package var names: [String] {
        let (opened, _) = retrying { Int(openat(descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) }
        guard opened >= 0 else { return [] }
        guard let entries = fdopendir(CInt(opened)) else {
            close(CInt(opened))
            return []
        }
        defer { closedir(entries) }
        var names: [String] = []
        while let entry = readdir(entries) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                })
        }
        return names
    }

    package func status(_ name: String) -> FileStatus? { FileStatus(name, in: descriptor) }

    /// - Returns: the platform's error number, 0 where it is gone.
    @discardableResult
    package func remove(_ name: String) -> Int32 { unlinkat(descriptor, name, 0) == 0 ? 0 : errno }

    /// - Returns: a descriptor, or the platform's error number.
    func open(_ name: String, _ flags: CInt, _ mode: mode_t = 0) -> (descriptor: CInt, error: Int32) {
        let (opened, error) = retrying { Int(openat(descriptor, name, flags | O_NOFOLLOW | O_CLOEXEC, mode)) }
        return (CInt(opened), error)
    }

    /// - Returns: the platform's error number, or 0.
    func rename(_ name: String, to new: String) -> Int32 {
        renameat(descriptor, name, descriptor, new) == 0 ? 0 : errno
    }

    /// Makes its names durable. Some file systems cannot; the files themselves are safe by then.
    func synchronize() { _ = retrying { Int(fsync(descriptor)) } }
}
