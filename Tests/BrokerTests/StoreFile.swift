import SQLite

/// A broker's database, looked into or changed while no broker has it.
struct StoreFile {
    let path: String

    init(in directory: String) { path = "\(directory)/arena-broker.sqlite" }

    func count(_ table: String) throws -> Int {
        try DatabaseQueue(path: path).read { Int(try $0.integer("SELECT count(*) FROM \(table)") ?? -1) }
    }

    func change(_ sql: String) throws {
        try DatabaseQueue(path: path).write { try $0.execute(sql) }
    }
}
