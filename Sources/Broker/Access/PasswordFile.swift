import FoundationEssentials
import NIOConcurrencyHelpers

/// User names and password hashes: a file as `mosquitto_passwd` writes it, one user a line.
///
///     anna:$7$101$<salt>$<hash>      PBKDF2 with SHA-512, with the number of rounds
///     otto:$6$<salt>$<hash>          SHA-512 of password and salt, as older versions wrote it
public struct PasswordFile: Sendable {
    private var users: [UTF8Key: PasswordHash] = [:]

    public var userCount: Int { users.count }

    /// - Parameter name: what errors call the text: the file's path.
    /// - Throws: ``ConfigurationError``, which names file and line, and no password.
    public init(text: String, name: String) throws {
        for (index, line) in text.textLines.enumerated() {
            if line.isEmpty || line.hasPrefix("#") { continue }
            guard let colon = line.firstIndex(of: ":"), colon > line.startIndex,
                let hash = PasswordHash(line[line.index(after: colon)...])
            else {
                throw ConfigurationError(
                    "\(name):\(index + 1): expected user:$7$rounds$salt$hash or user:$6$salt$hash; "
                        + "arena-broker passwd and mosquitto_passwd write such lines")
            }
            users[UTF8Key(String(line[..<colon]))] = hash
        }
    }

    func contains(_ user: String) -> Bool { users[UTF8Key(user)] != nil }

    /// What to compare a password with. For a user that does not exist there is a hash too, which no password has: the
    /// time an answer takes does not tell who exists.
    func hash(of user: String) -> PasswordHash { users[UTF8Key(user)] ?? .nobody }
}

/// One password as it is kept.
public struct PasswordHash: Sendable, Equatable {
    /// How many rounds ``make(_:rounds:)`` takes if not told: some milliseconds for every login.
    public static let defaultRounds = 20_000
    /// Above this a file could keep the login threads busy for minutes.
    static let maxRounds = 10_000_000
    private static let hashBytes = 64
    private static let saltBytes = 16

    /// Nil for the older kind, which is hashed once.
    private let rounds: Int?
    private let salt: [UInt8]
    private let hash: [UInt8]

    /// The hash of nothing: an empty hash equals none.
    fileprivate static let nobody = PasswordHash(rounds: defaultRounds, salt: [0], hash: [])

    private init(rounds: Int?, salt: [UInt8], hash: [UInt8]) {
        self.rounds = rounds
        self.salt = salt
        self.hash = hash
    }

    /// Reads `$7$rounds$salt$hash` or `$6$salt$hash`.
    init?(_ text: Substring) {
        let parts = text.split(separator: "$", omittingEmptySubsequences: false)
        guard parts.count >= 4, parts[0].isEmpty else { return nil }
        func bytes(_ part: Substring) -> [UInt8]? { Data(base64Encoded: String(part)).map(Array.init) }
        switch (parts[1], parts.count) {
        case ("7", 5):
            guard let rounds = Int(parts[2]), 1...Self.maxRounds ~= rounds else { return nil }
            self.rounds = rounds
        case ("6", 4): rounds = nil
        default: return nil
        }
        guard let salt = bytes(parts[parts.count - 2]), let hash = bytes(parts[parts.count - 1]), !salt.isEmpty,
            hash.count == Self.hashBytes
        else { return nil }
        self.salt = salt
        self.hash = hash
    }

    /// The hash of a new password with a random salt.
    public static func make(_ password: [UInt8], rounds: Int = defaultRounds) throws -> PasswordHash {
        var random = SystemRandomNumberGenerator()
        let salt = (0..<saltBytes).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        guard let hash = Digest.pbkdf2(password, salt: salt, rounds: rounds, count: hashBytes) else {
            throw ConfigurationError("libcrypto does not hash passwords with SHA-512")
        }
        return PasswordHash(rounds: rounds, salt: salt, hash: hash)
    }

    /// As the file has it.
    public var text: String {
        let encoded = [salt, hash].map { Data($0).base64EncodedString() }
        guard let rounds else { return "$6$\(encoded[0])$\(encoded[1])" }
        return "$7$\(rounds)$\(encoded[0])$\(encoded[1])"
    }

    /// Whether this is the password. Takes milliseconds: not on an event loop.
    func matches(_ password: [UInt8]) -> Bool {
        let found =
            rounds.map { Digest.pbkdf2(password, salt: salt, rounds: $0, count: Self.hashBytes) }
            ?? Digest.sha512(password + salt)
        return found.map { Digest.areEqual($0, hash) } ?? false
    }
}
