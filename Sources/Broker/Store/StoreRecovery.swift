import FoundationEssentials
import Glibc
import SQLite
import Ledger

/// Makes a new store of what can be read of a damaged one, which stays beside it.
///
///     database, log --copy--> .copy --mended log, rows that can be read--> .new --whole, on the disk--> .recovered
///     database, log, seal --second names--> .damaged-TIME; then .recovered becomes the database
///
/// It can be interrupted at any moment: until there is a `.recovered` nothing has been changed, and from then on the next
/// start ends what was begun (``finish(in:)``).
package struct StoreRecovery {
    /// What the new store has.
    private(set) var kept = StoreSeal.Counts()
    /// What was promised, where that can be known.
    private let promised: StoreSeal.Counts?
    private var salvage = StoreSalvage.Result()
    private var mendedFrames = 0
    private var unreadBlocks = 0
    private var isUnreadable = false
    private var damagedPath = ""

    private static let copy = ".copy", new = ".new", recovered = ".recovered", said = ".recovered.txt"

    /// - Parameter check: what was found; it is not sound.
    /// - Throws: `StartError`. Then the damaged store is as it was.
    static func recover(in directory: String, _ check: StoreCheck) throws(StartError) -> StoreRecovery {
        let seals = [check.promised, check.state?.seal].compactMap { $0 }
        var recovery = StoreRecovery(promised: seals.max { $0.transactions < $1.transactions }?.counts)
        let path = check.path
        let temporary = [copy, copy + "-wal", copy + "-shm", new, new + "-wal", new + "-shm", said].map { path + $0 }
        do {
            try remove(temporary)
            try recovery.rebuild(path, in: directory)
            // Before the fingerprint, which a second name changes.
            recovery.damagedPath = try keep(directory, path)
            // What is lost is said even if this ends here and another start goes on with it, which does so with what was
            // recovered of what is there, and nothing else.
            let lines = [StoreIdentities.fingerprint(of: path)] + recovery.lines
            try SyncedFile.write(lines.joined(separator: "\n"), to: path + said, like: directory)
            try rename(path + new, path + recovered)
            try remove(temporary.dropLast())
        } catch {
            try? remove(temporary)
            throw StartError(
                "what can be read of \(path) could not be taken into a new one: \(StoreSchema.failure(error, path))")
        }
        _ = try finish(in: directory)
        return recovery
    }

    /// Puts a recovered database in its place; nothing if there is none.
    ///
    /// - Returns: what is to be said of it.
    /// - Throws: `StartError`.
    static func finish(in directory: String) throws(StartError) -> [String] {
        let path = "\(directory)/\(StoreSchema.fileName)"
        guard FileStatus(path + recovered, followsLinks: false) != nil else { return [] }
        var lines = (SmallFile.read(path + said) ?? "").split(separator: "\n").map(String.init)
        guard lines.first == StoreIdentities.fingerprint(of: path), FileStatus(path + recovered)?.isRegularFile == true
        else {
            return ["\(path + recovered) was not made of the database that is there now, and is left alone; remove it"]
        }
        lines.removeFirst()
        do {
            // The log is the old database's, and has a second name already.
            try remove([path + "-wal", path + "-shm", path + "-journal", "\(directory)/\(StoreSeal.fileName)"])
            try rename(path + recovered, path)
            let file = OwnedDescriptor(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
            guard fsync(file.number) == 0 else { throw StoreFileError("\(directory): \(SystemError.text())") }
            try remove([path + said])
            try seal(path, in: directory)
        } catch {
            throw StoreSchema.failure(error, path)
        }
        return lines
    }

    /// From here on it is held to what it has.
    private static func seal(_ path: String, in directory: String) throws {
        let queue = try StoreSchema.openToRead(path)
        let state = try queue.read { try StoreState.read(from: $0) }
        try queue.close()
        guard let state else { return }
        var file = try StoreSealFile(in: directory)
        try file.write(state.seal)
        try file.synchronize()
        try SyncedFile.finish("\(directory)/\(StoreSeal.fileName)", like: directory)
    }

    private init(promised: StoreSeal.Counts?) { self.promised = promised }

    /// What is said of it: first what is kept, then what is not.
    package var lines: [String] {
        var lines = [
            """
            a new store has what could be read: \(kept.sessions) sessions, \(kept.messages) messages owed to them, \
            \(kept.retained) retained messages; the damaged one is \(damagedPath)
            """
        ]
        if mendedFrames > 0 {
            lines.append("\(mendedFrames) pages of the log are not as they were written, and were taken as they are")
        }
        if let promised {
            let less = [
                ("sessions", promised.sessions - kept.sessions), ("messages", promised.messages - kept.messages),
                ("retained messages", promised.retained - kept.retained),
            ].filter { $0.1 > 0 }.map { "\($0.1) \($0.0)" }
            lines.append(
                less.isEmpty ? "nothing of what was promised is missing" : "missing: \(less.joined(separator: ", "))")
        }
        if isUnreadable { lines.append("nothing of the damaged one can be read") }
        if unreadBlocks > 0 { lines.append("\(unreadBlocks) blocks of 4,096 bytes could not be read from the disk") }
        for session in salvage.lostSessions.prefix(Limits.mostSessionsNamed) {
            lines.append(
                "the session of client \(LogLines.printable(session)) could not be read, or not whole, and is left out")
        }
        for (client, messages) in salvage.missing.prefix(Limits.mostSessionsNamed) {
            lines.append("client \(LogLines.printable(client)): \(messages) messages could not be read")
        }
        let unnamed = [salvage.lostSessions.count, salvage.missing.count].map { max(0, $0 - Limits.mostSessionsNamed) }
        if unnamed != [0, 0] { lines.append("and \(unnamed[0] + unnamed[1]) more sessions") }
        if salvage.areWillsMissing { lines.append("wills could not all be read") }
        return lines
    }

    // MARK: - The new database

    private mutating func rebuild(_ path: String, in directory: String) throws {
        let work = path + Self.copy
        unreadBlocks += try SyncedFile.copyWhatCanBeRead(path, to: work)
        if FileStatus(path + "-wal") != nil {
            unreadBlocks += try SyncedFile.copyWhatCanBeRead(path + "-wal", to: work + "-wal")
            mendedFrames = try StoreLog.mend(work + "-wal", of: work)
        }
        var configuration = DatabaseQueue.Configuration()
        // With its log from the first: whoever opens it changes nothing about that.
        configuration.hasLog = true
        // Nothing of it needs to be durable before all of it is.
        configuration.prepare = { try $0.execute("PRAGMA synchronous = OFF") }
        let target = try DatabaseQueue(path: path + Self.new, configuration)
        try target.write { try StoreSchema.create(in: $0) }
        do {
            var damaged = DatabaseQueue.Configuration()
            // Else SQLite reads nothing of a database that is shorter than its first page says.
            damaged.prepare = { database in
                try RowChecksum.install(in: database)
                try database.execute("PRAGMA writable_schema = ON")
            }
            let source = try DatabaseQueue(path: work, damaged)
            // Of a version without it, unless it says so for a bit that is wrong.
            let hasState = try source.read { (try? StoreState.read(from: $0)) != nil }
            if !hasState { try source.write { try StoreSchema.prepare($0, path) } }
            try target.write { new in try source.use { try copy($0, to: new) } }
            try source.close()
        } catch let error as DatabaseError where StoreDamage.isDamage(error) {
            // Not even what names the tables.
            isUnreadable = true
        } catch is StartError {
            // Nor that it is one of ours.
            isUnreadable = true
        }
        kept = try target.write { database in
            var state = try StoreState.read(from: database)!
            state.seal.counts = try StoreState.count(in: database)
            try state.write(to: database)
            return state.seal.counts
        }
        try target.close()
        try SyncedFile.finish(path + Self.new, like: directory)
    }

    private mutating func copy(_ old: Database, to new: Database) throws {
        salvage = try StoreSalvage.run(from: old, to: new)
        // Its times are by the old store's clock.
        guard var state = try StoreState.read(from: new) else { return }
        // If that is lost, lives bound what is left of all times.
        if let moment = (try? StoreState.read(from: old))?.moment { state.moment = moment }
        try state.write(to: new)
    }

    // MARK: - Files

    /// Gives the damaged files second names.
    ///
    /// - Returns: the database's.
    private static func keep(_ directory: String, _ path: String) throws(StartError) -> String {
        let time = Date.now.formatted(.iso8601.dateSeparator(.omitted).timeSeparator(.omitted))
        let names = [path: "", path + "-wal": "-wal", "\(directory)/\(StoreSeal.fileName)": ".seal"]
        for number in 1...Limits.mostDamagedStores {
            let kept = "\(path).damaged-\(time)\(number == 1 ? "" : "-\(number)")"
            guard names.values.allSatisfy({ FileStatus(kept + $0, followsLinks: false) == nil }) else { continue }
            for (old, ending) in names where FileStatus(old) != nil {
                guard link(old, kept + ending) == 0 else { throw StartError("\(kept + ending): \(SystemError.text())") }
            }
            return kept
        }
        throw StartError(
            "\(path).damaged-\(time): there are \(Limits.mostDamagedStores) of them; remove those that are not needed")
    }

    private static func rename(_ old: String, _ new: String) throws(StartError) {
        guard Glibc.rename(old, new) == 0 else { throw StartError("\(new): \(SystemError.text())") }
    }

    private static func remove(_ paths: [String]) throws {
        for path in paths where unlink(path) != 0 && errno != ENOENT {
            throw StoreFileError("\(path): \(SystemError.text())")
        }
    }
}

/// Whole files, on the disk and for the directory's owner, whoever runs the command.
private enum SyncedFile {
    static func write(_ text: String, to path: String, like directory: String) throws {
        try Data(text.utf8).write(to: URL(filePath: path))
        try finish(path, like: directory)
    }

    static func finish(_ path: String, like directory: String) throws {
        let file = OwnedDescriptor(open(path, O_RDWR | O_CLOEXEC))
        guard file.number >= 0, fchmod(file.number, 0o600) == 0, fsync(file.number) == 0 else {
            throw StoreFileError("\(path): \(SystemError.text())")
        }
        guard let owner = FileStatus(directory), owner.user != geteuid() else { return }
        guard fchown(file.number, owner.user, owner.group) == 0 else {
            throw StoreFileError("\(path): \(SystemError.text())")
        }
    }

    /// Copies a file that may be gone, or of which a disk gives back only parts: the rest is zeros.
    ///
    /// - Returns: how many blocks could not be read.
    static func copyWhatCanBeRead(_ path: String, to copy: String) throws -> Int {
        let target = OwnedDescriptor(open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600))
        guard target.number >= 0 else { throw StoreFileError("\(copy): \(SystemError.text())") }
        let source = OwnedDescriptor(open(path, O_RDONLY | O_CLOEXEC))
        guard source.number >= 0 else {
            guard errno == ENOENT else { throw StoreFileError("\(path): \(SystemError.text())") }
            return 0
        }
        let size = FileStatus(descriptor: source.number)?.size ?? 0
        var unread = 0
        var offset = 0
        var block = [UInt8](repeating: 0, count: 4_096)
        while offset < size {
            let wanted = min(block.count, size - offset)
            var count = pread(source.number, &block, wanted, off_t(offset))
            if count < 0 && errno == EINTR { continue }
            guard count != 0 else { break }
            if count < 0 {
                unread += 1
                block = [UInt8](repeating: 0, count: block.count)
                count = wanted
            }
            guard pwrite(target.number, block, count, off_t(offset)) == count else {
                throw StoreFileError("\(copy): \(SystemError.text())")
            }
            offset += count
        }
        return unread
    }
}
