import Glibc
import Ledger
import Logging

/// Where a store is: its directory and its database, held by descriptor. Locked, so that nobody else serves from them, and
/// private, since what is in there was sent by users.
///
/// The locks are on the files themselves, not on one beside them that somebody may delete: on the directory, so that nobody
/// makes a second database in it, and on the database, so that nobody serves from it under another name. The system lets go
/// of both when the process ends, however it ends. (They are `flock` locks, which have nothing to do with the POSIX locks that SQLite
/// takes. But the system drops those of a process when it closes *any* descriptor of the file: so the database is open here before
/// SQLite opens it, and until SQLite has closed it.)
final class StorePlace: Sendable {
    let directory: String
    var database: String { "\(directory)/\(StoreSchema.fileName)" }
    private let directoryFile: FileLock
    private let databaseFile: FileLock

    /// - Parameter prepare: is called when nobody else can have the directory, before the database is opened or made.
    /// - Throws: `StartError` if another process has it, or if others may write there.
    init(
        _ directory: String, log: Logger, prepare: (_ directory: String) throws(StartError) -> Void
    ) throws(StartError) {
        self.directory = directory
        if mkdir(directory, 0o700) == 0 {
            try Self.synchronizeNames(in: FileStatus.parent(of: directory))
        } else if errno != EEXIST {
            throw StartError("data directory \(directory): \(SystemError.text())")
        }
        directoryFile = try Self.lock(directory, O_RDONLY | O_DIRECTORY, of: directory)
        try Self.refuseStrangers(directory)
        try Self.refuseEarlierVersion(directory)
        for name in StoreSchema.fileNames + [StoreSeal.fileName] { try Self.makePrivate("\(directory)/\(name)", log) }
        try prepare(directory)
        let flags = O_RDWR | O_CREAT | O_NOFOLLOW
        databaseFile = try Self.lock("\(directory)/\(StoreSchema.fileName)", flags, of: directory)
    }

    /// Without it the power may take away what was made there, with all that is in it by then.
    private static func synchronizeNames(in directory: String) throws(StartError) {
        let file = OwnedDescriptor(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        // Some file systems cannot, and say so.
        guard file.number >= 0, fsync(file.number) == 0 || errno == EINVAL else {
            throw StartError("\(directory): \(SystemError.text())")
        }
    }

    private static func lock(_ path: String, _ flags: CInt, of directory: String) throws(StartError) -> FileLock {
        let file = OwnedDescriptor(open(path, flags | O_CLOEXEC, 0o600))
        guard file.number >= 0 else { throw StartError("\(path): \(SystemError.text())") }
        guard flock(file.number, LOCK_EX | LOCK_NB) == 0 else {
            throw StartError(
                errno == EWOULDBLOCK
                    ? "\(directory): in use by another process; one broker a data directory"
                    : "\(path): cannot be locked: \(SystemError.text())")
        }
        return FileLock(file)
    }

    /// Whoever may write to a directory can put another database there.
    private static func refuseStrangers(_ directory: String) throws(StartError) {
        guard let status = FileStatus(directory), status.permissions & UInt32(S_IWOTH) != 0 else { return }
        throw StartError(
            """
            data directory \(directory): everybody may write there (mode \(String(status.permissions, radix: 8))); name a \
            directory of its own, or: chmod o-w \(directory)
            """)
    }

    /// Until 0.1.0 the lock was a file beside the database.
    private static func refuseEarlierVersion(_ directory: String) throws(StartError) {
        let path = "\(directory)/arena-broker.lock"
        guard FileStatus(path) != nil else { return }
        let file = try lock(path, O_RDWR, of: directory)
        guard unlink(path) == 0 else { throw StartError("\(path): \(SystemError.text())") }
        _ = file
    }

    /// Takes from others what they may do with a file of an earlier version, or of a backup.
    private static func makePrivate(_ path: String, _ log: Logger) throws(StartError) {
        guard let status = FileStatus(path, followsLinks: false), status.permissions & 0o077 != 0 else { return }
        let mode = String(status.permissions, radix: 8)
        // Somebody has given it to us so; it is not ours to change.
        guard status.user == geteuid() else {
            return log.warning(
                "\(path): others may read what users have sent (mode \(mode)), and it is not ours to change")
        }
        guard chmod(path, 0o600) == 0 else {
            throw StartError(
                "\(path): others may read it (mode \(mode)), and that cannot be mended: \(SystemError.text()); chmod 600"
            )
        }
        log.warning("\(path): others could read what users have sent (mode \(mode)); it is 600 now")
    }

    /// Lets others have it. SQLite has closed its files.
    func release() {
        databaseFile.release()
        directoryFile.release()
    }

    /// Whether the path of the database leads to what is locked.
    private func isStillHere() -> Bool {
        FileStatus(database)?.identity == FileStatus(descriptor: databaseFile.number)?.identity
    }

    /// What the paths of an open store lead to now.
    ///
    /// - Throws: `StartError` if they do not lead to what is locked.
    func identities() throws(StartError) -> StoreIdentities {
        guard isStillHere(), FileStatus(directory)?.identity == FileStatus(descriptor: directoryFile.number)?.identity
        else {
            throw StartError("\(database): replaced while it was opened")
        }
        return StoreIdentities(
            of: [directory, database, "\(database)-wal", "\(database)-shm", "\(directory)/\(StoreSeal.fileName)"])
    }
}

/// Which files a store consists of. Its paths must go on leading to these: what is written into a file without a name is
/// gone with the process, and promises nothing.
struct StoreIdentities: Sendable {
    private let files: [(path: String, identity: FileIdentity?)]

    init(of paths: [String]) { files = paths.map { ($0, FileStatus($0)?.identity) } }

    /// A path leads elsewhere, or nowhere.
    struct Moved: Error, CustomStringConvertible {
        let description: String
    }

    /// By what a file is known as long as nobody writes to it, puts another in its place, or gives it one more name. (What is
    /// beside it may be gone: a recovery that was interrupted has removed the log already.)
    static func fingerprint(of path: String) -> String {
        FileStatus(path).map {
            "\($0.identity.device):\($0.identity.inode) \($0.size) \($0.changedNanoseconds)"
        } ?? "nothing"
    }

    /// Five calls of the system, each some microseconds.
    func check() throws(Moved) {
        for (path, identity) in files {
            let found = FileStatus(path)?.identity
            guard found != identity || found == nil else { continue }
            throw Moved(
                description: """
                    \(path) was \(found == nil ? "deleted or moved" : "replaced by another file") while the store was in use; \
                    put back what was there, or restart the broker, which then has what it finds there
                    """)
        }
    }
}

/// A file that nobody else has, until this ends: closing it would not do, since a child that some other thread has begun has
/// all descriptors too, until it is a program of its own.
private final class FileLock: Sendable {
    private let file: OwnedDescriptor
    var number: CInt { file.number }

    /// - Parameter file: locked.
    init(_ file: OwnedDescriptor) { self.file = file }

    func release() { flock(file.number, LOCK_UN) }

    deinit { release() }
}
