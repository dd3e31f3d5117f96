import Broker
import Crypto
import NIOConcurrencyHelpers

/// The tokens of a file, one a line; empty lines and such that begin with `#` are passed over. Only their digests are
/// kept: comparing these takes the same time whatever is right of a guess.
final class AccessTokens: Sendable {
    private let digests: NIOLockedValueBox<[SHA256.Digest]>
    private let path: String

    /// - Throws: ``ConfigurationError``.
    init(file path: String) throws(ConfigurationError) {
        self.path = path
        digests = NIOLockedValueBox(try Self.read(path))
    }

    /// What the file has now; nothing changes before ``take(_:)``.
    ///
    /// - Throws: ``ConfigurationError`` if it cannot be used.
    func readAgain() throws(ConfigurationError) -> [SHA256.Digest] { try Self.read(path) }

    func take(_ new: [SHA256.Digest]) { digests.withLockedValue { $0 = new } }

    /// - Parameter authorization: the header of that name, `Bearer TOKEN`.
    func accept(_ authorization: String?) -> Bool {
        let scheme = "bearer "
        guard let authorization, authorization.prefix(scheme.count).lowercased() == scheme else { return false }
        let digest = SHA256.hash(data: Array(authorization.dropFirst(scheme.count).utf8))
        return digests.withLockedValue { digests in digests.reduce(false) { $0 || $1 == digest } }
    }

    private static func read(_ path: String) throws(ConfigurationError) -> [SHA256.Digest] {
        let text: String
        do throws(SmallFile.Failure) { text = try SmallFile.contents(of: path) } catch {
            throw ConfigurationError("http.tokenFile: \(error.description)")
        }
        var digests: [SHA256.Digest] = []
        for (number, line) in text.textLines.enumerated() {
            let token = line.utf8.filter { $0 > 0x20 }
            if token.isEmpty || token.first == UInt8(ascii: "#") { continue }
            guard token.count >= Limits.minTokenCharacters else {
                throw ConfigurationError(
                    "http.tokenFile: \(path):\(number + 1): a token has at least \(Limits.minTokenCharacters) characters"
                )
            }
            digests.append(SHA256.hash(data: token))
        }
        guard !digests.isEmpty else { throw ConfigurationError("http.tokenFile: \(path) has no token") }
        return digests
    }
}
