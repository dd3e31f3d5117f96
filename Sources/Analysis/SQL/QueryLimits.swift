import DumpFormat
import SQLite
import CSQLite

/// What one statement may take of the machine. It is refused, or ended, where it would take more, and the answer says which
/// of these it was.
struct QueryLimits {
    /// Of one text or blob.
    var valueBytes: Int32 = 16 << 20
    /// Of a table or an answer.
    var columns: Int32 = 500
    /// Of SQLite's virtual machine, at some 50 million a second: as many as a billion rows take.
    var steps: UInt64 = 20_000_000_000
    /// What SQLite has, copies of tables and rows that it sorts among it.
    var heapBytes = physicalMemory() / 2
    /// The rows of the answer.
    var answerBytes = physicalMemory() / 4

    /// SQLite asks whether to go on after so many.
    private static let stepsAtOnce: Int32 = 10_000

    /// Puts them in force for a connection. Its memory is that of the process: SQLite knows no other bound.
    ///
    /// - Returns: what must live as long as the connection is used.
    func apply(to database: Database) throws -> StepCount {
        let connection = database.connection
        for (limit, value) in [
            (SQLITE_LIMIT_LENGTH, valueBytes), (SQLITE_LIMIT_COLUMN, columns), (SQLITE_LIMIT_SQL_LENGTH, 1 << 20),
            (SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        ] {
            sqlite3_limit(connection, limit, value)
        }
        // Where there is memory for what is sorted it is not a disk that is filled.
        try database.execute("PRAGMA temp_store = MEMORY")
        sqlite3_hard_heap_limit64(Int64(clamping: heapBytes))
        let count = StepCount(steps / UInt64(Self.stepsAtOnce))
        sqlite3_progress_handler(
            connection, Self.stepsAtOnce, { Unmanaged<StepCount>.fromOpaque($0!).takeUnretainedValue().take() },
            Unmanaged.passUnretained(count).toOpaque())
        return count
    }

    /// Counts the steps of a statement in pieces, and ends it after the last.
    final class StepCount {
        private var left: UInt64

        init(_ pieces: UInt64) { left = pieces }

        /// Other than 0: it ends.
        func take() -> Int32 {
            if left == 0 { return 1 }
            left -= 1
            return 0
        }
    }

    /// Why a statement was refused or ended for one of these; nil where it was for something else.
    func reason(_ error: DatabaseError) -> String? {
        switch error.code {
        case SQLITE_TOOBIG: "a text or blob of it has more than \(Format.bytes(UInt64(valueBytes)))"
        case SQLITE_INTERRUPT:
            """
            it was ended after \(Format.count(steps)) steps of SQLite's, the most that one may take; is there a join without \
            a condition? `export --to sqlite` makes a database that may be asked without limits
            """
        case SQLITE_NOMEM:
            """
            it needs more than \(Format.bytes(heapBytes)) of memory, half of this machine's; sort or group fewer rows, or \
            ask the database that `export --to sqlite` makes
            """
        default: nil
        }
    }
}

/// What the rows of an answer take.
struct AnswerSize {
    private(set) var bytes: UInt64 = 0
    private static let cellBytes = UInt64(MemoryLayout<Value>.stride)

    mutating func add(_ row: [Value]) {
        for value in row {
            bytes += Self.cellBytes
            if case .text(let text) = value { bytes += UInt64(text.utf8.count) }
        }
    }
}
