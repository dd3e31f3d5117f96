import DumpFormat
import SQLite
import CSQLite

/// A snapshot as an SQLite database: in memory for a query, in a file for an export.
///
/// The schema comes first and the rows later, so that a statement can be compiled, asked what it reads, and given just
/// that: tables, and columns of tables, that it does not name stay empty.
struct DumpDatabase {
    let queue: DatabaseQueue
    /// The tables that SQLite sees without a copy. A file must stand alone, and is filled from them.
    private let modules: [BulkModule]
    private let isFile: Bool
    /// SQLite has its address.
    private let steps: QueryLimits.StepCount?

    /// In memory, for a statement of anybody's. Must live as long as its queue is used.
    init(_ limits: QueryLimits) throws {
        queue = try DatabaseQueue(path: nil, Self.configuration)
        modules = DumpTables.large.map { BulkModule($0) }
        isFile = false
        steps = try queue.use { try limits.apply(to: $0) }
        try createSchema()
    }

    /// In a new file at `path`. A crash leaves rubbish there: write beside the goal and rename.
    init(path: String) throws {
        queue = try DatabaseQueue(path: path, Self.configuration)
        modules = DumpTables.large.map { BulkModule($0) }
        isFile = true
        steps = nil
        try createSchema()
    }

    private static var configuration: DatabaseQueue.Configuration {
        var configuration = DatabaseQueue.Configuration()
        configuration.prepare = { database in
            // The file is new or there is none: nothing to roll back to.
            // Rows come in order, and are never looked at again: a small cache of large pages is as good as a large one.
            try database.execute(
                """
                PRAGMA page_size = 16384; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; \
                PRAGMA cache_size = -16384; PRAGMA locking_mode = EXCLUSIVE
                """)
            // No second database: ATTACH would create a file.
            sqlite3_limit(database.connection, SQLITE_LIMIT_ATTACHED, 0)
        }
        return configuration
    }

    private func createSchema() throws {
        try queue.write { database in
            for module in modules {
                try module.register(database)
                try database.execute(isFile ? module.createSource : module.createStatement)
            }
            let others = DumpTables.all.filter { table in
                isFile || !modules.contains { $0.table.name == table.name }
            }
            for table in others { try database.execute(table.createStatement) }
            for view in DumpView.all { try database.execute("CREATE VIEW \(view.name) AS\n\(view.sql)") }
        }
    }

    // MARK: Loading

    /// Fills tables, all in one transaction: those named, with the columns named, or all of both.
    ///
    /// `rows` are those of tables whose rows are not in the snapshot itself.
    func load(_ snapshot: Snapshot, _ parts: [Part]? = nil, rows: [String: DumpParts] = [:]) throws {
        let facts = DumpFacts(snapshot)
        try queue.write { database in
            for part in parts ?? DumpTables.all.map({ Part(table: $0, columns: nil) }) {
                if isFile, let module = modules.first(where: { $0.table.name == part.table.name }) {
                    try copy(module, rows[part.table.name], facts, into: database)
                } else if let module = modules.first(where: { $0.table.name == part.table.name }) {
                    module.fill(facts, columns: part.columns)
                } else {
                    try insert(part, facts, into: database)
                }
            }
        }
    }

    /// SQLite takes the rows itself, block by block: half the time of binding each cell to a statement.
    private func copy(
        _ module: BulkModule, _ parts: DumpParts?, _ facts: DumpFacts, into database: Database
    ) throws {
        guard let parts else {
            module.fill(facts, columns: nil)
            try database.run(module.copyStatement)
            return module.empty()
        }
        let ahead = PartAhead(parts)
        for part in 0..<parts.count {
            module.fill(try ahead.take(part), columns: nil)
            try Workers.run(beside: { if part + 1 < ahead.parts.count { ahead.read(part + 1) } }) {
                try database.run(module.copyStatement)
            }
        }
        module.empty()
    }

    /// Reads a part while SQLite takes in the one before. No lock: only one of the two threads uses it at a time.
    private final class PartAhead: @unchecked Sendable {
        let parts: DumpParts
        private var part: Result<DumpFacts, any Error>?

        init(_ parts: DumpParts) { self.parts = parts }

        func read(_ number: Int) { part = Result { try parts.facts(number) } }

        func take(_ number: Int) throws -> DumpFacts {
            if part == nil { read(number) }
            defer { part = nil }
            return try part!.get()
        }
    }

    /// A table, and the columns of it that matter; nil for all of them.
    struct Part {
        let table: DumpTable
        let columns: Set<String>?
    }

    /// Binds cells straight to the compiled statement: for a million rows, an array of values each would cost more
    /// than the insertion.
    private func insert(_ part: Part, _ facts: DumpFacts, into database: Database) throws {
        let columns = part.table.columns.filter { part.columns?.contains($0.name) ?? true }
        let places = columns.isEmpty ? "DEFAULT VALUES" : "VALUES (\(columns.map { _ in "?" }.joined(separator: ", ")))"
        let names = columns.isEmpty ? "" : "(\(columns.map(\.name).joined(separator: ", ")))"
        let statement = try database.prepare("INSERT INTO \(part.table.name)\(names) \(places)")
        let handle = statement.handle
        let cells = columns.map { $0.cells(facts) }
        for row in 0..<part.table.rowCount(facts) {
            for (index, cell) in cells.enumerated() {
                let place = Int32(index + 1)
                switch cell(row) {
                case .null: sqlite3_bind_null(handle, place)
                case .integer(let number): sqlite3_bind_int64(handle, place, number)
                case .text(let text): sqlite3_bind_text(handle, place, text, -1, Self.copied)
                }
            }
            let code = sqlite3_step(handle)
            guard code == SQLITE_DONE else {
                let message = String(cString: sqlite3_errmsg(database.connection))
                throw DatabaseError(code, "filling \(part.table.name): \(message)")
            }
            sqlite3_reset(handle)
        }
    }

    /// `SQLITE_TRANSIENT`, a macro that Swift does not see: SQLite takes a copy.
    static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)

    // MARK: Statements

    /// What a statement reads of a dump.
    static func parts(of sql: String, _ database: Database) throws -> [Part] {
        let reads = try database.reads(of: sql)
        return DumpTables.all.compactMap { table in
            reads[table.name].map { Part(table: table, columns: $0.intersection(table.columns.map(\.name))) }
        }
    }
}

extension DumpTable {
    var createStatement: String {
        let columns = columns.map { column in
            "  \(column.name) \(column.type.rawValue)\(column.name == key ? " PRIMARY KEY" : "")"
        }
        return "CREATE TABLE \(name) (\n\(columns.joined(separator: ",\n"))\n)"
    }

    /// The column that other tables refer to.
    private var key: String? {
        switch name {
        case "buffers": "buffer"
        case "chunks": "chunk"
        case "sites": "site"
        case "owners": "owner"
        case "arenas": "arena"
        default: nil
        }
    }
}
