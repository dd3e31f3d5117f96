import SQLite
import Glibc
import Ledger
import Logging

/// Looks at a store that nobody serves from, or that another process does, and changes nothing: holds what is there to what was
/// promised.
package struct StoreCheck {
    enum Kind: Equatable {
        /// No database, or one with nothing in it.
        case nothing
        /// Another program's.
        case foreign
        case layout(Int64)
    }

    /// The database; a name that need not lead anywhere.
    let path: String
    /// What was sealed last.
    var promised: StoreSeal?
    /// What the database says of itself.
    var state: StoreState?
    /// What there is, row by row; nil if that cannot be counted.
    var found: StoreSeal.Counts?
    private(set) var kind = Kind.nothing
    /// What is wrong, a sentence each.
    private(set) var problems: [String] = []

    private let isThorough: Bool

    /// - Parameters:
    ///   - mostBytes: from which size on the structure is not looked through.
    ///   - isThorough: takes longer, and sees more.
    /// - Throws: `StartError` if it cannot be looked at.
    init(_ directory: String, mostBytes: Int = .max, isThorough: Bool = false) throws(StartError) {
        self.isThorough = isThorough
        path = "\(directory)/\(StoreSchema.fileName)"
        // Before the database, which another process may write to meanwhile.
        do { promised = try StoreSeal.read(in: directory) } catch { problems.append(error.description) }
        if promised?.isDamaged == true { problems.append("it was found damaged while it was used") }
        let size = FileStatus(path)?.size ?? 0
        // SQLite would take an empty file for a new database, and delete its log.
        guard size > 0 else {
            kind = .nothing
            let hasLog = (FileStatus(path + "-wal")?.size ?? 0) > 0
            if hasLog || (promised?.transactions ?? 0) > 0 { problems.append("the database is gone") }
            return
        }
        do {
            let queue = try StoreSchema.openToRead(path)
            let interruption = Result { try queue.read { try look(at: $0, size <= mostBytes) } }
            try queue.close()
            try interruption.get()
        } catch let error as DatabaseError where StoreDamage.isDamage(error) {
            problems.append(error.message)
        } catch let error as DatabaseError where error.isReadOnly && (promised?.transactions ?? 0) == 0 {
            // It was cut from power while it was made. Whoever opens it to write goes back to before that.
            kind = .nothing
        } catch {
            throw StoreSchema.failure(error, path)
        }
    }

    package var isSound: Bool { problems.isEmpty }

    /// What it is, where nothing is wrong with it.
    package var verdict: String {
        switch kind {
        case .nothing: "there is no store"
        case .foreign: "a database of another program, or an empty one"
        case .layout(StoreSchema.version): "sound"
        case .layout(let layout) where layout >= StoreSchema.firstLayoutWithState && layout < StoreSchema.version:
            "sound; of an earlier version (layout \(layout))"
        case .layout(let layout) where layout < StoreSchema.version:
            "sound, as far as its pages go; of an earlier version (layout \(layout)), which has promised nothing"
        case .layout(let layout): "of a newer version (layout \(layout), this one knows \(StoreSchema.version))"
        }
    }

    private mutating func look(at database: Database, _ isWhole: Bool) throws {
        let tables = Set(try database.texts("SELECT name FROM sqlite_schema"))
        let layout = try StoreSchema.layout(of: database)
        kind = layout.map { .layout($0) } ?? (tables.isEmpty ? .nothing : .foreign)
        // Only versions with a state have sealed anything.
        if let promised, promised.transactions > 0, (layout ?? 0) < StoreSchema.firstLayoutWithState {
            problems.append("it has nothing of the \(promised.transactions) transactions that were sealed")
        }
        // Another program's, or of a later version: whoever opens it says so.
        guard let layout, layout <= StoreSchema.version else { return }
        if isWhole { problems += try Self.structure(of: database, isThorough: isThorough) }
        // What has no state yet can be held to nothing.
        guard layout >= StoreSchema.firstLayoutWithState else { return }
        let gone = StoreSchema.tableNames.filter { !tables.contains($0) }
        guard gone.isEmpty else { return problems.append("it has no table \(gone.joined(separator: ", "))") }
        // First of all: what there is is held to it, wherever the look at it ends.
        guard let state = try StoreState.read(from: database) else {
            return problems.append("its row of state is gone")
        }
        self.state = state
        try lookAtRows(of: database)
        if isWhole, layout >= StoreSchema.firstLayoutWithChecksums {
            for (table, _) in RowChecksum.columns { problems += try Self.changedRows(of: table, in: database) }
        }
        if let promised {
            if promised.store != state.seal.store {
                problems.append("it is another store than the one that was sealed here")
            } else if promised.transactions > state.seal.transactions {
                problems.append(
                    """
                    the last \(promised.transactions - state.seal.transactions) of \(promised.transactions) transactions \
                    are missing
                    """)
            }
        }
        let found = try StoreState.count(in: database)
        self.found = found
        let counts = state.seal.counts
        for (what, now, before) in [
            ("sessions", found.sessions, counts.sessions), ("messages", found.messages, counts.messages),
            ("retained messages", found.retained, counts.retained),
        ] where now < before {
            problems.append("of \(before) \(what) there are \(now)")
        }
    }

    /// What no row can be, and each start would trip over, or say nothing of.
    private mutating func lookAtRows(of database: Database) throws {
        for (sentence, sql) in [
            (
                "messages are owed of which nothing is there",
                "SELECT count(*) FROM entry WHERE message IS NOT NULL AND message NOT IN (SELECT id FROM message)"
            ),
            (
                "retained messages have a topic that is no bytes",
                "SELECT count(*) FROM retained WHERE typeof(topic) <> 'blob'"
            ),
            (
                "rows have a number that no store gives",
                """
                SELECT (SELECT count(*) FROM session WHERE id > ?1) + (SELECT count(*) FROM message WHERE id > ?1)
                    + (SELECT count(*) FROM entry WHERE id > ?1)
                """
            ),
        ] {
            let values: [DatabaseValue] = sql.contains("?1") ? [.integer(StoreSchema.lastNumber)] : []
            let count = try database.integer(sql, values) ?? 0
            if count > 0 { problems.append("\(count) \(sentence)") }
        }
    }

    /// What is said of rows that are not as they were written; nothing if all are, or if the table has no checksums.
    static func changedRows(of table: String, in database: Database) throws -> [String] {
        guard let isWrong = RowChecksum.isWrong(in: table) else { return [] }
        let count = try database.integer("SELECT count(*) FROM \(table) WHERE \(isWrong)") ?? 0
        return count > 0 ? ["\(count) rows of table \(table) are not as they were written"] : []
    }

    /// What is wrong with the pages and trees of a database.
    ///
    /// - Parameters:
    ///   - table: only of that one.
    ///   - isThorough: also whether each index has what its table has.
    static func structure(
        of database: Database, table: String? = nil, isThorough: Bool = false
    ) throws -> [String] {
        let argument = table.map { "'\($0)'" } ?? "3"
        let check = isThorough ? "integrity_check" : "quick_check"
        let lines = try database.texts("PRAGMA \(check)(\(argument))").filter { $0 != "ok" }
        // One text of some lines, the first of which names the database.
        return lines.flatMap { $0.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("***") } }
    }

    /// What a broker would say of it that does not start.
    package var description: String {
        func text(_ counts: StoreSeal.Counts) -> String {
            "sessions \(counts.sessions), messages owed to them \(counts.messages), retained \(counts.retained)"
        }
        var parts = ["\(path): damaged: \(problems.joined(separator: "; "))"]
        if let promised {
            parts.append(
                "promised\(promised.isClosed ? " when the broker ended in order" : ""): \(text(promised.counts))")
        }
        if let found {
            parts.append("found: \(text(found))")
        } else if let state {
            parts.append(
                "its last transaction noted: \(text(state.seal.counts)); what can be read is not counted before it is recovered"
            )
        }
        return parts.joined(separator: "; ")
    }

    /// For a store that is sound.
    package var summary: [(name: String, value: String)] {
        guard let found else { return [] }
        var lines = [
            ("sessions", "\(found.sessions)"), ("messages owed", "\(found.messages)"),
            ("retained", "\(found.retained)"),
        ]
        if let state { lines.insert(("transactions", "\(state.seal.transactions)"), at: 0) }
        lines.append(("ended in order", promised.map { $0.isClosed ? "yes" : "no" } ?? "unknown, there is no seal"))
        return lines
    }

    /// - Throws: `StartError` for a store that is damaged, unless that is to be accepted.
    static func refuseDamage(
        in directory: String, bytesChecked: Int, acceptsDamage: Bool, _ log: Logger
    ) throws(StartError) {
        let check = try StoreCheck(directory, mostBytes: acceptsDamage ? .max : bytesChecked)
        guard check.kind != .foreign || check.promised != nil else {
            throw StartError("\(check.path): a database of another program")
        }
        guard !check.isSound else {
            if check.promised == nil, check.state != nil {
                log.warning("\(check.path): there is no seal beside it, so nobody knows whether something is missing")
            }
            return
        }
        guard acceptsDamage else { throw StartError("\(check.description); \(StoreDamage.wayOut)") }
        log.error("\(check.description)")
        for line in try StoreRecovery.recover(in: directory, check).lines { log.error("\(line)") }
    }
}

enum StoreDamage {
    static func isDamage(_ error: DatabaseError) -> Bool {
        error.isCorrupt || error.isIO
    }

    /// What can be done about it.
    static let wayOut = """
        put a copy of the whole directory in its place, or take what can still be read: arena-broker recover, or start with \
        --accept-damaged-store
        """
}
