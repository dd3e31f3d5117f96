import Broker
import NIOConcurrencyHelpers

/// The tokens of a file, one a line; empty lines and such that begin with `#` are passed over. Only their digests are
/// kept: comparing these takes the same time whatever is right of a guess.
final class AccessTokens: Sendable {
    private let digests: NIOLockedValueBox<[[UInt8]]>
    private let path: String

    /// - Throws: ``ConfigurationError``.
    init(file path: String) throws(ConfigurationError) {
        self.path = path
        digests = NIOLockedValueBox(try Self.read(path))
    }

    /// What the file has now; nothing changes before ``take(_:)``.
    ///
    /// - Throws: ``ConfigurationError`` if it cannot be used.
    func readAgain() throws(ConfigurationError) -> [[UInt8]] { try Self.read(path) }

    func take(_ new: [[UInt8]]) { digests.withLockedValue { $0 = new } }

    /// - Parameter authorization: the header of that name, `Bearer TOKEN`.
    func accept(_ authorization: String?) -> Bool {
        let scheme = "bearer "
        guard let authorization, authorization.prefix(scheme.count).lowercased() == scheme else { return false }
        guard let digest = Digest.sha256(Array(authorization.dropFirst(scheme.count).utf8)) else { return false }
        return digests.withLockedValue { digests in digests.reduce(false) { Digest.areEqual($1, digest) || $0 } }
    }

    private static func read(_ path: String) throws(ConfigurationError) -> [[UInt8]] {
        let text: String
        do throws(SmallFile.Failure) { text = try SmallFile.contents(of: path) } catch {
            throw ConfigurationError(error.description)
        }
        var digests: [[UInt8]] = []
        for (number, line) in text.textLines.enumerated() {
            let token = line.utf8.filter { $0 > 0x20 }
            if token.isEmpty || token.first == UInt8(ascii: "#") { continue }
            guard token.count >= Limits.minTokenCharacters else {
                throw ConfigurationError(
                    "\(path):\(number + 1): a token has at least \(Limits.minTokenCharacters) characters"
                )
            }
            guard let digest = Digest.sha256(token) else {
                throw ConfigurationError("libcrypto does not offer SHA-256")
            }
            digests.append(digest)
        }
        guard !digests.isEmpty else { throw ConfigurationError("\(path) has no token") }
        return digests
    }
}
