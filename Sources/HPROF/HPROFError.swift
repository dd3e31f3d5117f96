/// Why a heap dump could not be opened: what was being done, where in the file, what was found, what to do now.
///
/// A file that is damaged or torn *behind* its header is no error: `Heap.problems` says what is missing of it.
public struct HPROFError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        /// The operating system refused; the message has its words.
        case io
        /// The file is readable, but it is no heap dump.
        case notAHeapDump
        /// A heap dump of a kind that is not known: another version, or identifiers of an odd size.
        case unsupported
        /// A heap dump that ends, or cannot be unpacked, before anything could be read of it.
        case damaged
    }

    public let kind: Kind
    public let path: String
    /// Where in the (uncompressed) bytes; nil where the file as a whole is meant.
    public let offset: UInt64?
    public let message: String

    init(_ kind: Kind, path: String, at offset: UInt64? = nil, _ message: String) {
        self.kind = kind
        self.path = path
        self.offset = offset
        self.message = message
    }

    public var description: String {
        let place = offset.map { " at byte \($0)" } ?? ""
        return "\(path)\(place): \(message)"
    }
}

/// What is wrong with one place of a heap dump that was read nevertheless.
public struct HPROFProblem: Sendable, Equatable, CustomStringConvertible {
    public let offset: UInt64
    public let message: String

    public var description: String { "at byte \(offset): \(message)" }
}
