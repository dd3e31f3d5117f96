internal import CSQLite

extension Database {
    /// What a statement reads, by table: the names of columns. Its compilation tells, through SQLite's authorizer.
    ///
    /// - Throws: ``DatabaseError`` for a statement that cannot be compiled.
    public func reads(of sql: String) throws(DatabaseError) -> [String: Set<String>] {
        let reads = Reads()
        sqlite3_set_authorizer(
            connection,
            { reads, action, table, column, _, _ in
                guard action == SQLITE_READ, let reads, let table else { return SQLITE_OK }
                let name = String(cString: table)
                Unmanaged<Reads>.fromOpaque(reads).takeUnretainedValue().columns[name, default: []].insert(
                    column.map { String(cString: $0) } ?? "")
                return SQLITE_OK
            }, Unmanaged.passUnretained(reads).toOpaque())
        defer { sqlite3_set_authorizer(connection, nil, nil) }
        _ = try prepare(sql)
        return withExtendedLifetime(reads) { reads.columns }
    }

    private final class Reads {
        var columns: [String: Set<String>] = [:]
    }
}
