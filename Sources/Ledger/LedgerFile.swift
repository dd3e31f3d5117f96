import Glibc

/// The file a flight recorder keeps the ledger in: a shared mapping, so that what the process wrote is there whatever
/// ends it. `create` is the way in.
///
/// The file is as long as the whole address space of the ledger and sparse: it takes the room of the rows in use. A
/// store into a hole of a full file system would be a SIGBUS, so before rows come into use their room is allocated
/// (`back`), in steps. Where there is none any more, the rest of that table becomes anonymous memory: the program goes
/// on as if nothing had been, and the file says which rows it has not.
///
/// Unsafe to use from two threads at once.
final class LedgerFile: @unchecked Sendable {
    private let path: String
    private let headBytes: Int
    /// Nil once the mapping is no more the file's.
    private var descriptor: Int32?
    /// Of the file that is to take its place.
    private var next: Int32?
    private var image: LedgerImage?
    /// Bytes of address space that each table has: whole pages.
    private var wholeBytes: [Int] = []
    /// Bytes of each table, from its first group on, that have room in the file.
    private var backed = [Int](repeating: 0, count: LedgerTable.allCases.count)
    /// Whether the rest of a table is anonymous memory.
    private var isDetached = [Bool](repeating: false, count: LedgerTable.allCases.count)

    /// Room is allocated so many bytes ahead: one system call for 4,096 slots.
    private static let step = 256 << 10

    /// Makes the file, `byteCount` bytes long, with room for its first `headBytes`. What is there under that name is
    /// renamed to `PATH.previous`.
    static func create(path: String, byteCount: Int, headBytes: Int) throws(LedgerMapError) -> LedgerFile {
        func failure(_ doing: String, _ code: Int32 = errno) -> LedgerMapError {
            LedgerMapError(
                byteCount: byteCount, code: code, problem: "\(path): \(doing): \(String(cString: strerror(code)))")
        }
        try check(path)
        try putAside(path)
        let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure("cannot make the flight recorder's file") }
        do throws(LedgerMapError) {
            // Held as long as the file is open: a second process must not take it for a leftover.
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else { throw failure("cannot lock it") }
            var limit = rlimit()
            if getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0, limit.rlim_cur < UInt(byteCount) {
                throw failure("the process may make no file of \(byteCount) bytes (ulimit -f)", EFBIG)
            }
            guard ftruncate(descriptor, off_t(byteCount)) == 0 else {
                throw failure("cannot make it \(byteCount) bytes long (sparse)")
            }
            let code = posix_fallocate(descriptor, 0, off_t(headBytes))
            guard code == 0 else { throw failure("no room for its first \(headBytes) bytes", code) }
            return LedgerFile(path: path, headBytes: headBytes, descriptor: descriptor)
        } catch {
            unlink(path)
            Glibc.close(descriptor)
            throw error
        }
    }

    private init(path: String, headBytes: Int, descriptor: Int32) {
        self.path = path
        self.headBytes = headBytes
        self.descriptor = descriptor
    }

    deinit { close() }

    private func close() {
        guard let descriptor else { return }
        // A child that was made in between and does not run its program yet has the file open too: it must not keep it locked.
        flock(descriptor, LOCK_UN)
        Glibc.close(descriptor)
        self.descriptor = nil
    }

    /// The mapping. The file's deletion by another hand does not harm it; its truncation does (SIGBUS), which a lease keeps
    /// from happening unforeseen (`FlightRecorderGuard`).
    func map(_ byteCount: Int) throws(LedgerMapError) -> UnsafeMutableRawPointer {
        let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor ?? -1, 0)
        guard let memory, memory != MAP_FAILED else {
            throw LedgerMapError(
                byteCount: byteCount, code: errno,
                problem: "\(path): cannot map it: \(String(cString: strerror(errno)))")
        }
        return memory
    }

    /// Room for the first step of every table, so that a file system without any is found out at the start.
    func adopt(_ image: LedgerImage, wholeBytes: [Int]) throws(LedgerMapError) {
        self.image = image
        self.wholeBytes = wholeBytes
        for table in LedgerTable.allCases where !allocate(table, upTo: 1) {
            throw LedgerMapError(
                byteCount: Self.step, code: ENOSPC,
                problem: "\(path): the file system has no room for the flight recorder: a few MiB are needed at once, "
                    + "and 64 bytes for each buffer later")
        }
    }

    func discard() { unlink(path) }

    /// Makes sure that bytes `0..<byteCount` of a group can be stored to.
    func back(_ table: LedgerTable, group: Int, byteCount: Int) {
        guard let image else { return }
        let descriptor = image.descriptor(table).pointee
        let end = group * Int(descriptor.rowsPerGroup * descriptor.stride) + byteCount
        if isDetached[table.rawValue] || end <= backed[table.rawValue] || allocate(table, upTo: end) { return }
        detach(table, image)
    }

    /// `.max` where a table has memory beside what there is room for.
    func backedBytes(_ table: LedgerTable) -> Int { isDetached[table.rawValue] ? .max : backed[table.rawValue] }

    /// The descriptor, as long as the file is mapped.
    var mapped: Int32? { descriptor }

    /// The region, and what of it is the file's.
    var parts: [LedgerFilePart] {
        guard let image, descriptor != nil else { return [] }
        return [LedgerFilePart(start: image.base, offset: 0, stored: headBytes, moving: headBytes, room: headBytes)]
            + LedgerTable.allCases.map { table in
                let (stored, whole) = (backed[table.rawValue], wholeBytes[table.rawValue])
                return LedgerFilePart(
                    start: image.start(table), offset: image.descriptor(table).pointee.offset, stored: stored,
                    moving: isDetached[table.rawValue] ? stored : whole, room: whole)
            }
    }

    /// All parts have been replaced by memory: the file is anybody's.
    func leave() {
        isDetached = isDetached.map { _ in true }
        close()
    }

    private var nextPath: String { path + ".next" }

    /// Makes another file of this size, with room for what this one has room for, which `takeNext` is to give this one's name.
    ///
    /// - Returns: its descriptor; nil where it cannot be made, or something else has this one's name.
    func makeNext(_ parts: [LedgerFilePart]) -> Int32? {
        guard let image, let descriptor, Self.isName(path, of: descriptor) else { return nil }
        // What is left of an attempt that a kill has ended.
        guard let found = try? Self.look(at: nextPath, isTaken: true), found == .nothing || unlink(nextPath) == 0 else {
            return nil
        }
        let made = open(nextPath, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard made >= 0 else { return nil }
        next = made
        let isReady =
            flock(made, LOCK_EX | LOCK_NB) == 0 && ftruncate(made, off_t(image.byteCount)) == 0
            && extendNext(parts)
        if !isReady { dropNext() }
        return next
    }

    /// Makes room in it for what has come into use since.
    func extendNext(_ parts: [LedgerFilePart]) -> Bool {
        guard let next else { return false }
        return parts.allSatisfy { $0.stored == 0 || posix_fallocate(next, off_t($0.offset), off_t($0.stored)) == 0 }
    }

    /// All parts have been moved to it.
    ///
    /// - Returns: false if it cannot have the name.
    func takeNext() -> Bool {
        guard let next, let descriptor, Self.isName(path, of: descriptor), rename(nextPath, path) == 0 else {
            return false
        }
        close()
        self.descriptor = next
        self.next = nil
        return true
    }

    func dropNext() {
        guard let next else { return }
        unlink(nextPath)
        Glibc.close(next)
        self.next = nil
    }

    private static func isName(_ path: String, of descriptor: Int32) -> Bool {
        guard let named = FileStatus(path, followsLinks: false), let opened = FileStatus(descriptor: descriptor) else {
            return false
        }
        return named.identity == opened.identity
    }

    /// False: there is no room.
    private func allocate(_ table: LedgerTable, upTo end: Int) -> Bool {
        let whole = wholeBytes[table.rawValue]
        let start = backed[table.rawValue]
        let target = min(whole, (end + Self.step - 1) / Self.step * Self.step)
        guard target > start else { return true }
        guard let descriptor else { return false }
        let place = off_t(image!.descriptor(table).pointee.offset) + off_t(start)
        var code: Int32
        repeat { code = posix_fallocate(descriptor, place, off_t(target - start)) } while code == EINTR
        guard code == 0 else { return false }
        backed[table.rawValue] = target
        return true
    }

    /// What of a table has no room becomes plain memory. Nothing has been stored there yet.
    private func detach(_ table: LedgerTable, _ image: LedgerImage) {
        let start = backed[table.rawValue]
        let bytes = wholeBytes[table.rawValue] - start
        let memory = mmap(
            image.start(table) + start, bytes, PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
        precondition(memory != MAP_FAILED, "the kernel refused address space it has given before: errno \(errno)")
        isDetached[table.rawValue] = true
        if image.flightRecord.pointee.lostWallTime == 0 {
            var now = timespec()
            clock_gettime(CLOCK_REALTIME, &now)
            image.flightRecord.pointee.lostWallTime =
                UInt64(clamping: now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
        }
        image.set(.lostFrom, of: table, to: start / Int(image.descriptor(table).pointee.stride) + 1)
    }

}

/// A part of the ledger's region: its head, or a table.
package struct LedgerFilePart {
    package let start: UnsafeMutableRawPointer
    /// In the file.
    package let offset: UInt64
    /// So many bytes have rows.
    package let stored: Int
    /// So many are mapped to the file.
    package let moving: Int
    package let room: Int
}

extension LedgerFile {
    /// What is at a path where a flight recorder's file is to be.
    private enum Found {
        case nothing
        /// Of a run that ended in order, or a file without anything in it.
        case toRemove
        /// Of a run that did not.
        case toKeep
    }

    /// Whether a file could be made there, and what is there put aside. Changes nothing.
    static func check(_ path: String) throws(LedgerMapError) {
        guard !FileStatus.isDanglingLink(path) else {
            throw LedgerMapError(
                byteCount: 0, code: ENOENT,
                problem: "\(path): is a symbolic link that leads nowhere; name the file itself")
        }
        let directory = FileStatus.parent(of: path)
        if let reason = FileStatus.whyNotWritable(directory) {
            throw LedgerMapError(
                byteCount: 0, code: errno, problem: "\(path): no file can be made in \(directory): \(reason)")
        }
        _ = try look(at: path)
        guard path.last != "/" else {
            throw LedgerMapError(
                byteCount: 0, code: EISDIR, problem: "\(path): is the name of a directory; name a file in it")
        }
    }

    /// Renames the file of an earlier run. The record of a run that ended in order does not take the place of one that
    /// did not, or a broker that cannot start, started again and again, would wipe out why.
    private static func putAside(_ path: String) throws(LedgerMapError) {
        func failure(_ problem: String) -> LedgerMapError {
            LedgerMapError(
                byteCount: 0, code: errno, problem: "\(path): \(problem): \(String(cString: strerror(errno)))")
        }
        switch try look(at: path, isTaken: true) {
        case .nothing: break
        case .toRemove: guard unlink(path) == 0 else { throw failure("cannot remove it") }
        case .toKeep:
            let previous = previousPath(path)
            guard rename(path, previous) == 0 else { throw failure("cannot rename it to \(previous)") }
        }
    }

    private static func previousPath(_ path: String) -> String { path + ".previous" }

    /// - Parameter isTaken: the file is to be put aside, so nobody may be recording into it.
    private static func look(at path: String, isTaken: Bool = false) throws(LedgerMapError) -> Found {
        func failure(_ problem: String) -> LedgerMapError {
            LedgerMapError(byteCount: 0, code: errno, problem: "\(path): \(problem)")
        }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        if descriptor < 0 {
            if errno == ENOENT { return .nothing }
            // A lease: who holds it records into the file.
            if errno == EWOULDBLOCK, !isTaken { return .toKeep }
            if errno == EWOULDBLOCK { throw failure("another process records into it; give each its own file") }
            throw failure("cannot look at the file of the run before: \(String(cString: strerror(errno)))")
        }
        defer { Glibc.close(descriptor) }
        var page = [UInt8](repeating: 0, count: LedgerHeader.size)
        let count = pread(descriptor, &page, page.count, 0)
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG, count >= 0 else {
            throw failure("is not a regular file; name another for the flight recorder")
        }
        let magic = page.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
        // Nothing but zeros is what a loss of power leaves of a file that had just been made.
        guard count == 0 || magic == LedgerHeader.magic || page.allSatisfy({ $0 == 0 }) else {
            throw failure("is there and is no flight recorder's file; name another, or move it away")
        }
        guard !isTaken || flock(descriptor, LOCK_SH | LOCK_NB) == 0 else {
            throw failure("another process records into it; give each its own file")
        }
        let end = page.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: FlightRecord.offset, as: UInt64.self) }
        let isOver = end == FlightRecord.End.inOrder.rawValue && access(previousPath(path), F_OK) == 0
        return count == 0 || isOver ? .toRemove : .toKeep
    }
}
