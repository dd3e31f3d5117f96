internal import CSQLite

/// A compiled statement.
public final class Statement {
    /// `sqlite3_stmt *`
    public let handle: OpaquePointer

    init(_ handle: OpaquePointer) { self.handle = handle }

    deinit { sqlite3_finalize(handle) }

    /// Whether it changes nothing of a database.
    public var isReadOnly: Bool { sqlite3_stmt_readonly(handle) != 0 }

    /// Names of the columns of its result.
    public var columns: [String] {
        (0..<sqlite3_column_count(handle)).map { sqlite3_column_name(handle, $0).map { String(cString: $0) } ?? "" }
    }

    /// Ready for the next time. What is bound belongs to the caller, and is forgotten.
    func reset() {
        sqlite3_reset(handle)
        sqlite3_clear_bindings(handle)
    }

    public func bind(_ index: Int32, _ number: Int64?) {
        if let number { sqlite3_bind_int64(handle, index, number) } else { sqlite3_bind_null(handle, index) }
    }

    public func bind(_ index: Int32, _ number: UInt64) { bind(index, Int64(bitPattern: number)) }

    /// A copy of it, which outlives the step.
    public func bind(_ index: Int32, _ text: String) {
        var text = text
        text.withUTF8 { bind(index, UnsafeRawBufferPointer($0), Self.copied) }
    }

    /// Without a copy: the bytes must outlive the step.
    public func bind(_ index: Int32, blob bytes: UnsafeRawBufferPointer) {
        guard let start = bytes.baseAddress, !bytes.isEmpty else { return _ = sqlite3_bind_zeroblob(handle, index, 0) }
        sqlite3_bind_blob(handle, index, start, Int32(bytes.count), nil)
    }

    /// Without a copy: the bytes must outlive the step.
    public func bind(_ index: Int32, text bytes: UnsafeRawBufferPointer) { bind(index, bytes, nil) }

    private func bind(_ index: Int32, _ text: UnsafeRawBufferPointer, _ destructor: sqlite3_destructor_type?) {
        // Without a pointer it would be null.
        let start = text.isEmpty ? nil : text.assumingMemoryBound(to: CChar.self).baseAddress
        sqlite3_bind_text(handle, index, start ?? Self.noBytes, Int32(text.count), destructor)
    }

    func bind(_ values: [DatabaseValue]) {
        for (place, value) in values.enumerated() {
            let index = Int32(place + 1)
            switch value {
            case .null: sqlite3_bind_null(handle, index)
            case .integer(let number): bind(index, number)
            case .real(let number): sqlite3_bind_double(handle, index, number)
            case .text(let text): bind(index, text)
            case .blob(let bytes):
                bytes.withUnsafeBytes {
                    guard let start = $0.baseAddress, !$0.isEmpty else {
                        return _ = sqlite3_bind_zeroblob(handle, index, 0)
                    }
                    sqlite3_bind_blob(handle, index, start, Int32($0.count), Self.copied)
                }
            }
        }
    }

    /// `SQLITE_TRANSIENT`, a macro that Swift does not see: SQLite takes a copy.
    static let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
    /// Not looked at.
    private nonisolated(unsafe) static let noBytes = UnsafePointer(UnsafeMutablePointer<CChar>.allocate(capacity: 1))
}

/// A row of a result, while the statement stands on it. Columns count from 0.
public struct Row {
    private let handle: OpaquePointer

    init(_ handle: OpaquePointer) { self.handle = handle }

    public var count: Int { Int(sqlite3_column_count(handle)) }
    public func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }
    public func int(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }
    public func optionalInt(_ column: Int32) -> Int64? { isNull(column) ? nil : int(column) }
    public func number(_ column: Int32) -> UInt64 { UInt64(bitPattern: int(column)) }
    public func bool(_ column: Int32) -> Bool { int(column) != 0 }

    /// The bytes of a blob or text, until the statement goes on.
    public func bytes(_ column: Int32) -> UnsafeRawBufferPointer {
        let start = sqlite3_column_blob(handle, column)
        return UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(handle, column)))
    }

    public func text(_ column: Int32) -> String { String(decoding: bytes(column), as: UTF8.self) }

    public subscript(_ column: Int) -> DatabaseValue {
        let index = Int32(column)
        switch sqlite3_column_type(handle, index) {
        case SQLITE_INTEGER: return .integer(int(index))
        case SQLITE_FLOAT: return .real(sqlite3_column_double(handle, index))
        case SQLITE_TEXT: return .text(text(index))
        case SQLITE_BLOB: return .blob(Array(bytes(index)))
        default: return .null
        }
    }

    public var values: [DatabaseValue] { (0..<count).map { self[$0] } }
}

/// What a cell may have.
public enum DatabaseValue: Sendable, Equatable {
    case null
    case integer(Int64)
    case real(Double)
    case text(String)
    case blob([UInt8])

    /// Nil if it is something else.
    public var integer: Int64? { if case .integer(let number) = self { number } else { nil } }
    public var text: String? { if case .text(let text) = self { text } else { nil } }
}
