import Arena
import Ledger
import Logging
public import Synchronization

/// What all shards share. Immutable, or safe to use from any thread.
final class BrokerContext: Sendable {
    let configuration: Configuration
    let pool: ArenaPool
    let log: Logger
    let router = Router()
    let registry = SessionRegistry()
    let retained: RetainedStore
    let counters = Counters()
    let flightRecording: FlightRecording
    let losses = Losses()
    let rpcFault: RPCFault
    let sys = SysTopics()
    /// Methods of enhanced authentication, by their names.
    let authenticators: [String: any EnhancedAuthenticator]
    let listenerOwner: OwnerID
    let rpcOwner: OwnerID
    private let retainedOwner: OwnerID

    var limits: Limits { configuration.limits }

    init(
        configuration: Configuration, pool: ArenaPool, log: Logger, authenticators: [any EnhancedAuthenticator] = []
    ) {
        self.authenticators = Dictionary(authenticators.map { ($0.method, $0) }) { first, _ in first }
        self.configuration = configuration
        self.pool = pool
        self.log = log
        flightRecording = FlightRecording(configuration)
        listenerOwner = pool.openOwner(
            .listener, name: configuration.address(port: configuration.port), parent: .process)
        retainedOwner = pool.openOwner(.retained, name: "retained messages", parent: .process)
        rpcOwner = pool.openOwner(.rpcBridge, name: "rpc bridge", parent: .process)
        retained = RetainedStore(owner: retainedOwner, limits: configuration.limits)
        rpcFault = RPCFault(leakPercent: configuration.faults.rpcResponseLeakPercent)
    }

    func visitRetained(_ body: (Message, OwnerID) -> Void) {
        retained.forEach { body($0, retainedOwner) }
    }

    func closeOwners() {
        for owner in [rpcOwner, retainedOwner, listenerOwner] { pool.closeOwner(owner) }
    }
}

/// Counts of what is rare. What happens for every message is not counted here: it would cost a shared cache line.
public final class Counters: Sendable {
    public let connectionsOpen = Atomic<Int>(0)
    public let connectionsAccepted = Atomic<Int>(0)
    /// Clients whose CONNECT has been accepted: now, since the start, and the most at once.
    public let clientsConnected = Atomic<Int>(0)
    public let connectionsServed = Atomic<Int>(0)
    public let clientsMaximum = Atomic<Int>(0)
    /// Refused by the arena, for whatever purpose.
    public let allocationFailures = Atomic<Int>(0)
    /// QoS 0 messages given up for connections that took no more.
    public let backlogDrops = Atomic<Int>(0)
    /// QoS 1 and 2 messages given up because a session's queue was full.
    public let queueDrops = Atomic<Int>(0)
    /// Messages that were larger than their receiver takes.
    public let messagesTooLarge = Atomic<Int>(0)
    /// Messages that expired in a queue.
    public let messagesExpired = Atomic<Int>(0)
    /// Messages of QoS 0 for a group of which nobody was there.
    public let sharedUndeliverable = Atomic<Int>(0)
    /// Sessions that ended because their clients did not come back in time.
    public let sessionsExpired = Atomic<Int>(0)
    /// Retained messages delivered but not kept, because the store was full.
    public let retainedRefused = Atomic<Int>(0)
    public let commandsDelivered = Atomic<Int>(0)
    /// Commands to devices that are not there or do not listen, or have too many open already.
    public let commandsUndeliverable = Atomic<Int>(0)
    public let commandsTimedOut = Atomic<Int>(0)
    public let responsesConverted = Atomic<Int>(0)
    /// Responses nobody waits for.
    public let responsesUnmatched = Atomic<Int>(0)
    /// Responses whose buffer the configured fault made the handler forget.
    public let responsesLeaked = Atomic<Int>(0)

    init() {}
}

extension Atomic where Value == Int {
    /// - Returns: the new count.
    @discardableResult
    func increment(by count: Int = 1) -> Int { add(count, ordering: .relaxed).newValue }

    func raise(to value: Int) { max(value, ordering: .relaxed) }

    /// The count now.
    public var value: Int { load(ordering: .relaxed) }
}
