/// Who may connect by a listener, and what each client may do there. A value: a reload puts another in its place.
public struct AccessControl: Sendable {
    /// Whether a client may come without a user name.
    var allowsAnonymous: Bool
    var passwords: PasswordFile?
    var list: AccessControlList?

    /// Reads the files that a policy names.
    ///
    /// - Throws: ``ConfigurationError``, which names the key, and file and line.
    init(_ listener: Configuration.Listener, in configuration: Configuration) throws(ConfigurationError) {
        let policy = configuration.policy(of: listener)
        let mostBytes = Limits.maxAccessFileBytes(of: configuration.memoryLimit)
        func key(_ name: String, isOwn: Bool) -> String {
            isOwn ? configuration.key(name, of: listener) : "access.\(name)"
        }
        allowsAnonymous = policy.allowsAnonymous
        if let file = policy.passwordFile {
            passwords = try configuration.naming(key("passwordFile", isOwn: listener.passwordFile != nil)) {
                try PasswordFile(text: Self.contents(of: file, mostBytes), name: file)
            }
        }
        if let file = policy.aclFile {
            list = try configuration.naming(key("aclFile", isOwn: listener.aclFile != nil)) {
                try AccessControlList(text: Self.contents(of: file, mostBytes), name: file)
            }
        }
    }

    private static func contents(of path: String, _ mostBytes: Int) throws -> String {
        do throws(SmallFile.Failure) {
            return try SmallFile.contents(of: path, limit: mostBytes)
        } catch {
            throw ConfigurationError(error.description)
        }
    }

    /// What a CONNECT's credentials are worth.
    enum Verdict {
        case admitted(userName: String?)
        case refused(String, isAttempt: Bool)
        /// Decided by a hash, which is not computed on an event loop.
        case depends(on: PasswordHash, userName: String)
    }

    /// - Parameter certificateName: who the client's certificate says it is, if that is what counts here.
    func verdict(userName: String?, hasPassword: Bool, certificateName: String?) -> Verdict {
        if let certificateName { return .admitted(userName: certificateName) }
        guard let userName else {
            return allowsAnonymous
                ? .admitted(userName: nil)
                : .refused("no user name, and anonymous clients are not admitted", isAttempt: false)
        }
        guard let passwords else {
            // Nobody could say that the name is right: it counts for nothing.
            return allowsAnonymous
                ? .admitted(userName: nil) : .refused("there is no password file to know users by", isAttempt: true)
        }
        guard hasPassword else { return .refused("a user name without a password", isAttempt: true) }
        return .depends(on: passwords.hash(of: userName), userName: userName)
    }

    /// Whether anybody can log in by this name.
    func knows(_ userName: String) -> Bool { passwords?.contains(userName) ?? false }

    /// What the client may do; nil is everything.
    func rules(userName: String?, clientID: String) -> AccessRules? {
        list?.rules(userName: userName, clientID: clientID)
    }
}
