/// Why the arena could not do what it was asked.
public enum ArenaError: Error, Equatable, CustomStringConvertible {
    /// The limit does not allow it: bytes that would have been added to the counter, the counter, and the limit.
    case limit(needed: Int, used: Int, limit: Int)
    /// The operating system refused; its errno.
    case system(operation: String, bytes: Int, code: Int32)
    /// The configuration makes no sense.
    case configuration(String)

    public var description: String {
        switch self {
        case .limit(let needed, let used, let limit):
            "failed to allocate \(needed) byte(s) of arena memory (used: \(used), max: \(limit))"
        case .system(let operation, let bytes, let code):
            "failed to \(operation) \(bytes) byte(s) for the arena: errno \(code)"
        case .configuration(let message):
            message
        }
    }
}
