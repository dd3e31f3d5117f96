import Arena
import Ledger
import MQTT
import NIOConcurrencyHelpers
import Synchronization

/// A client's session (section 3.1.2.4). One object for its whole life, whichever loop serves it.
///
/// It belongs to the event loop `home` names: all else but the constants is touched on that loop only. Storing `home`
/// hands the session over: the old loop touches nothing after the store, the new one nothing before it has seen it.
final class Session: @unchecked Sendable {
    let clientID: String
    let owner: OwnerID
    /// False for Clean Session: it ends with its connection.
    let isPersistent: Bool
    private let homeIndex: Synchronization::Atomic<Int>

    var state = SessionState()
    var connection: ConnectionHandler?
    var will: Message?
    /// Filters in the trie with their granted QoS, for the end of the session.
    var subscriptions: [UTF8Key: QoS] = [:]
    /// The command filters, which concern this session alone and are not in the trie.
    var commandFilters: [UTF8Key: QoS] = [:]
    /// What both cost, for `Limits.maxSubscriptionBytesPerSession`.
    var subscriptionBytes = 0
    var pendingCommands = PendingCommands()
    var isEnded = false

    // While it moves from one loop to another.
    var isInTransit = false
    /// Sent straight to the new home; to be queued behind what is still forwarded by the old one.
    var arrivals: [Message] = []
    /// Connections that asked for it in the meantime.
    var claims: [(connection: ConnectionReference, discard: Bool)] = []

    init(clientID: String, owner: OwnerID, isPersistent: Bool, home: Int) {
        self.clientID = clientID
        self.owner = owner
        self.isPersistent = isPersistent
        homeIndex = Synchronization::Atomic(home)
    }
}

extension Session {
    /// The index of the shard that owns this.
    var home: Int { homeIndex.load(ordering: .acquiring) }

    /// The client identifier as log lines have it.
    var logName: String { LogLines.cut(clientID) }

    /// Hands the session over, by its present home.
    func move(to shard: Int) { homeIndex.store(shard, ordering: .releasing) }
}

/// The sessions of all clients by client identifier. Its lock is taken on connect and disconnect, and to find the
/// device of an RPC command; never for ordinary messages.
final class SessionRegistry: Sendable {
    private struct Table {
        var sessions: [UTF8Key: Session] = [:]
        var persistentCount = 0
    }

    enum Claim {
        /// Made for the claim, and in the registry now.
        case new(Session)
        case existing(Session)
        /// There are as many kept sessions as there may be.
        case full
    }

    private let table = NIOLockedValueBox(Table())

    /// The session of a client, or the one that `make` makes.
    ///
    /// - Parameters:
    ///   - isPersistent: whether a new one would be kept beyond its connection.
    ///   - limit: of such sessions.
    func claim(_ clientID: String, isPersistent: Bool, limit: Int, make: () -> Session) -> Claim {
        table.withLockedValue { table in
            let key = UTF8Key(clientID)
            if let session = table.sessions[key] { return .existing(session) }
            if isPersistent {
                guard table.persistentCount < limit else { return .full }
                table.persistentCount += 1
            }
            let session = make()
            assert(session.isPersistent == isPersistent)
            table.sessions[key] = session
            return .new(session)
        }
    }

    func find(_ clientID: String) -> Session? { table.withLockedValue { $0.sessions[UTF8Key(clientID)] } }

    /// Removes this session; one that has taken its name since stays.
    func remove(_ session: Session) {
        table.withLockedValue { table in
            let key = UTF8Key(session.clientID)
            guard table.sessions[key] === session else { return }
            table.sessions[key] = nil
            if session.isPersistent { table.persistentCount -= 1 }
        }
    }

    var count: Int { table.withLockedValue { $0.sessions.count } }
}
