/// Why a dump could not be written or read: what was being done, to which file, what was found, what to do now.
public struct DumpError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Kind: Sendable, Equatable {
        case notFound
        case permissionDenied
        /// The file is readable, but it is not a dump; the message says what it looks like.
        case notADump
        /// Written by a newer major version of the format.
        case unsupportedVersion
        /// A dump, but what every answer needs cannot be read from it.
        case damaged
        /// Decoding needs more memory than the machine has.
        case tooLarge
        case alreadyExists
        case noSpace
        /// Any other failure of the operating system.
        case io
        /// The snapshot handed to the writer cannot be written.
        case invalidSnapshot
    }

    public let kind: Kind
    public let path: String
    public let message: String

    public init(_ kind: Kind, path: String, _ message: String) {
        self.kind = kind
        self.path = path
        self.message = message
    }

    /// What was found, and then in what, a line each.
    public var lines: [String] {
        message.split(separator: "\n").map { line in String(line.drop { $0 == " " }) }
    }

    public var description: String { path.isEmpty ? message : "\(path): \(message)" }
}
