import Foundation
import GRDB
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
    /// Messages that could not be read, by the client of their session.
    private(set) var missing: [(client: String, messages: Int)] = []
    private(set) var lostSessions: [String] = []
    private(set) var mendedFrames = 0
    private var damagedPath = ""

    private static let copy = ".copy", new = ".new", recovered = ".recovered"

    /// - Parameter check: what was found; it is not sound.
    /// - Throws: `StartError`. Then the damaged store is as it was.
    static func recover(in directory: String, _ check: StoreCheck) throws(StartError) -> StoreRecovery {
        var recovery = StoreRecovery(promised: (check.promised ?? check.state?.seal)?.counts)
        let path = check.path
        do {
            try remove([path + copy, path + copy + "-wal", path + copy + "-shm", path + new, path + new + "-journal"])
            try recovery.rebuild(path)
            try remove([path + copy, path + copy + "-wal", path + copy + "-shm"])
        } catch {
            throw StartError(
                "\(path): what can be read of it could not be taken into a new one: \(StoreSchema.failure(error, path))"
            )
        }
        recovery.damagedPath = try keep(directory, path)
        try rename(path + new, path + recovered)
        try finish(in: directory)
        return recovery
    }

    /// Puts a recovered database in its place; nothing if there is none.
    ///
    /// - Throws: `StartError`.
    static func finish(in directory: String) throws(StartError) {
        let path = "\(directory)/\(StoreSchema.fileName)"
        guard FileStatus(path + recovered) != nil else { return }
        // The log is the old database's, and has a second name already.
        do { try remove([path + "-wal", path + "-shm", "\(directory)/\(StoreSeal.fileName)"]) } catch {
            throw StartError("\(error)")
        }
        try rename(path + recovered, path)
        let file = OwnedDescriptor(open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC))
        guard fsync(file.number) == 0 else { throw StartError("\(directory): \(SystemError.text())") }
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
        for session in lostSessions.prefix(Limits.mostSessionsNamed) {
            lines.append("the session of client \(LogLines.printable(session)) could not be read")
        }
        for (client, messages) in missing.prefix(Limits.mostSessionsNamed) {
            lines.append("client \(LogLines.printable(client)): \(messages) messages could not be read")
        }
        let unnamed =
            max(0, lostSessions.count - Limits.mostSessionsNamed) + max(0, missing.count - Limits.mostSessionsNamed)
        if unnamed > 0 { lines.append("and \(unnamed) more sessions") }
        return lines
    }

    // MARK: - The new database

    private mutating func rebuild(_ path: String) throws {
        let work = path + Self.copy
        guard let size = FileStatus(path)?.size, size > 0 else { return try makeEmpty(path + Self.new) }
        try FileManager.default.copyItem(atPath: path, toPath: work)
        if FileStatus(path + "-wal") != nil {
            try FileManager.default.copyItem(atPath: path + "-wal", toPath: work + "-wal")
            mendedFrames = try StoreLog.mend(work + "-wal", of: work)
        }
        var configuration = GRDB.Configuration()
        // Nothing of it needs to be safe before all of it is.
        configuration.prepareDatabase { try $0.execute(sql: "PRAGMA synchronous = OFF") }
        let target = try DatabaseQueue(path: path + Self.new, configuration: configuration)
        let source = try DatabaseQueue(path: work)
        try target.write { new in
            try StoreSchema.create(in: new)
            try source.writeWithoutTransaction { old in
                var salvage = StoreSalvage(from: old, to: new)
                try salvage.run()
                (missing, lostSessions) = (salvage.missing, salvage.lostSessions)
                var state = try StoreState.read(from: new)!
                state.seal.counts = try StoreState.count(in: new)
                // Its times are by the old store's clock.
                if let moment = try? StoreState.read(from: old)?.moment { state.moment = moment }
                try state.write(to: new)
                kept = state.seal.counts
            }
        }
        try source.close()
        try target.close()
        try Self.synchronize(path + Self.new)
    }

    private func makeEmpty(_ path: String) throws {
        let target = try DatabaseQueue(path: path)
        try target.write { try StoreSchema.create(in: $0) }
        try target.close()
        try Self.synchronize(path)
    }

    // MARK: - Files

    /// Gives the damaged files second names.
    ///
    /// - Returns: the database's.
    private static func keep(_ directory: String, _ path: String) throws(StartError) -> String {
        let time = Date.now.formatted(.iso8601.dateSeparator(.omitted).timeSeparator(.omitted))
        let kept = "\(path).damaged-\(time)"
        for (old, new) in [
            (path, kept), (path + "-wal", kept + "-wal"), ("\(directory)/\(StoreSeal.fileName)", kept + ".seal"),
        ] where FileStatus(old) != nil {
            guard link(old, new) == 0 else { throw StartError("\(new): \(SystemError.text())") }
        }
        return kept
    }

    private static func rename(_ old: String, _ new: String) throws(StartError) {
        guard Foundation.rename(old, new) == 0 else { throw StartError("\(new): \(SystemError.text())") }
    }

    private static func remove(_ paths: [String]) throws {
        for path in paths where unlink(path) != 0 && errno != ENOENT {
            throw StoreFileError("\(path): \(SystemError.text())")
        }
    }

    private static func synchronize(_ path: String) throws {
        let file = OwnedDescriptor(open(path, O_RDWR | O_CLOEXEC))
        guard file.number >= 0, fchmod(file.number, 0o600) == 0, fsync(file.number) == 0 else {
            throw StoreFileError("\(path): \(SystemError.text())")
        }
    }
}
