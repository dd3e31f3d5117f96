import CZlib
import SQLite
import CSQLite

/// A checksum that each row has over the names and contents in it: SQLite sees damage to its trees, but takes whatever bytes a
/// row has for those that were written. Numbers are without one: each is held to what it may be when it is read.
///
/// Rows of layouts before ``StoreSchema/firstLayoutWithChecksums`` have none, nor have those that another program has added.
enum RowChecksum {
    /// What it is over, in each table that has one.
    static let columns: [(table: String, columns: String)] = [
        ("session", "client, user, listener"), ("subscription", "filter"), ("message", "topic, properties, payload"),
        ("will", "topic, properties, payload"), ("retained", "topic, properties, payload"),
    ]

    /// The condition for rows of a table that are not as they were written; nil for a table without checksums.
    static func isWrong(in table: String) -> String? {
        columns.first { $0.table == table }.map {
            "\(table).checksum IS NOT NULL AND \(table).checksum IS NOT row_checksum(\($0.columns))"
        }
    }

    /// Makes `row_checksum(...)` known to a connection: the CRC-32 of any number of values, each with its length before it.
    static func install(in database: Database) throws {
        let code = sqlite3_create_function_v2(
            database.connection, "row_checksum", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, nil,
            { context, count, values in
                guard let context, let values else { return }
                var checksum = crc32(0, nil, 0)
                for index in 0..<Int(count) {
                    let value = values[index]
                    // The text of a number, too. Before its length, which may change with it.
                    let bytes = sqlite3_value_blob(value)
                    let isNull = sqlite3_value_type(value) == SQLITE_NULL
                    var length = (isNull ? -1 : Int64(sqlite3_value_bytes(value))).littleEndian
                    checksum = withUnsafeBytes(of: &length) { add($0, to: checksum) }
                    let content = UnsafeRawBufferPointer(start: bytes, count: Int(max(0, length)))
                    if !content.isEmpty { checksum = add(content, to: checksum) }
                }
                sqlite3_result_int64(context, Int64(checksum))
            }, nil, nil, nil)
        try database.expect(code)
    }
}

// Outside, since a C function may not refer to a type.
private func add(_ bytes: UnsafeRawBufferPointer, to checksum: UInt) -> UInt {
    // No value is larger than SQLite's limit of 1,000,000,000 bytes.
    crc32(checksum, bytes.bindMemory(to: UInt8.self).baseAddress, UInt32(bytes.count))
}
