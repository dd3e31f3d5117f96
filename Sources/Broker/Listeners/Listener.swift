import Ledger
import NIOConcurrencyHelpers
import NIOCore
import Synchronization

/// A listener that runs: its policy, which a reload replaces, and the connections it has.
final class Listener: Sendable {
    /// What connections are held to. A connection keeps what held when it came, but for what it may do, which follows
    /// each reload. An object, so that a connection has it for one reference.
    final class Settings: Sendable {
        let configuration: Configuration.Listener
        let access: AccessControl
        let maxPacketBytes: Int
        let connectTimeoutSeconds: Int
        let maxConnections: Int
        let failedLoginDelayMilliseconds: Int
        /// Nil without TLS.
        let tls: TLSContext?
        private let isDemonstration: Bool

        /// Reads the files that the configuration names.
        ///
        /// - Throws: ``ConfigurationError``.
        init(_ listener: Configuration.Listener, in configuration: Configuration) throws {
            let policy = configuration.policy(of: listener)
            self.configuration = listener
            access = try AccessControl(listener, in: configuration)
            maxPacketBytes = listener.maxPacketBytes ?? configuration.limits.maxPacketBytes
            connectTimeoutSeconds = listener.connectTimeoutSeconds ?? configuration.limits.connectTimeoutSeconds
            maxConnections = min(
                listener.maxConnections ?? configuration.limits.maxConnections, configuration.limits.maxConnections)
            tls = try TLSContext.make(listener, in: configuration)
            failedLoginDelayMilliseconds = configuration.access.failedLoginDelayMilliseconds
            isDemonstration = policy.isDemonstration
        }

        /// A file that somebody has only begun to write says nothing: a reload takes no silence for a permission, nor for an order
        /// to drop what clients may not read any more. What is to hold stands there.
        ///
        /// - Throws: ``ConfigurationError`` where `next` opens what these settings keep shut without saying so, or is empty.
        func checkSuccessor(_ next: Settings) throws(ConfigurationError) {
            let title = "listener \(next.configuration.title)"
            if next.isDemonstration, !isDemonstration {
                throw ConfigurationError(
                    "\(title): nothing says any more who may connect; if everybody may, say anonymous = true")
            }
            if access.list != nil, next.access.list == nil {
                throw ConfigurationError(
                    "\(title): aclFile is gone, and with it all rules; if everything is allowed, "
                        + "name a file that says: pattern readwrite #")
            }
            if access.passwords?.userCount ?? 0 > 0, next.access.passwords?.userCount == 0 {
                throw ConfigurationError("\(title): the password file has no users any more: is it being written?")
            }
            if access.list?.isEmpty == false, next.access.list?.isEmpty == true {
                throw ConfigurationError("\(title): the ACL file has no rules any more: is it being written?")
            }
        }
    }

    /// Answers for its connections.
    let owner: OwnerID
    let failedLogins = FailedLogins()
    private let box: NIOLockedValueBox<Settings>
    private let open = Synchronization::Atomic<Int>(0)
    private let byAddress = NIOLockedValueBox<[SourceAddress: Int]>([:])

    init(_ settings: Settings, owner: OwnerID) {
        self.owner = owner
        box = NIOLockedValueBox(settings)
    }

    /// Any thread.
    var settings: Settings {
        get { box.withLockedValue { $0 } }
        set { box.withLockedValue { $0 = newValue } }
    }

    var openConnections: Int { open.load(ordering: .relaxed) }

    /// Counts a connection, and says why it is one too many.
    func opened(_ settings: Settings) -> CloseReason? {
        let count = open.add(1, ordering: .relaxed).newValue
        return count > settings.maxConnections ? .tooManyConnections : nil
    }

    func closed() { open.subtract(1, ordering: .relaxed) }

    /// Counts a connection of an address, if that is limited. What is counted must be given to ``left(_:)``.
    ///
    /// - Returns: false for one too many.
    func came(_ address: SourceAddress, limit: Int) -> Bool {
        byAddress.withLockedValue { counts in
            counts[address, default: 0] += 1
            return counts[address]! <= limit
        }
    }

    func left(_ address: SourceAddress) {
        byAddress.withLockedValue { counts in
            guard let count = counts[address] else { return }
            counts[address] = count == 1 ? nil : count - 1
        }
    }
}
