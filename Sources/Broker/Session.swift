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
    var subscriptions: [String: QoS] = [:]
    /// The command filters, which concern this session alone and are not in the trie.
    var commandFilters: [String: QoS] = [:]
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

    /// Hands the session over, by its present home.
    func move(to shard: Int) { homeIndex.store(shard, ordering: .releasing) }
}

/// The sessions of all clients by client identifier. Its lock is taken on connect and disconnect, and to find the
/// device of an RPC command; never for ordinary messages.
final class SessionRegistry: Sendable {
    private let sessions = NIOLockedValueBox<[String: Session]>([:])

    /// The session of a client, or the one that `make` makes, which is in the registry then.
    func claim(_ clientID: String, make: () -> Session) -> (session: Session, isNew: Bool) {
        sessions.withLockedValue { sessions in
            if let session = sessions[clientID] { return (session, false) }
            let session = make()
            sessions[clientID] = session
            return (session, true)
        }
    }

    func find(_ clientID: String) -> Session? { sessions.withLockedValue { $0[clientID] } }

    /// Removes this session; one that has taken its name since stays.
    func remove(_ session: Session) {
        sessions.withLockedValue { sessions in
            if sessions[session.clientID] === session { sessions[session.clientID] = nil }
        }
    }

    var count: Int { sessions.withLockedValue { $0.count } }
}
