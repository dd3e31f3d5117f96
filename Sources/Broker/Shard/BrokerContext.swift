import Arena
import Ledger
import Logging
import NIOCore
public import Synchronization

/// What all shards share. Immutable, or safe to use from any thread.
final class BrokerContext: Sendable {
    let configuration: Configuration
    let pool: ArenaPool
    let log: Logger
    let router: Router
    let registry: SessionRegistry
    let retained: RetainedStore
    /// What outlives the process; nil where nothing does.
    let store: Store?
    let counters = Counters()
    let flightRecording: FlightRecording
    let losses = Losses()
    let heap: HeapAccount
    let heapTrim: HeapTrim
    let pressureEpisode = MemoryPressureEpisode()
    let rpcFault: RPCFault
    let rpcTopics: RPCTopics
    /// Of commands that came over HTTP.
    let commandResponses = CommandResponses()
    let waitingCommands = WaitingCommands()
    let commandNumbers = Atomic<UInt64>(0)
    let sys = SysTopics()
    /// Methods of enhanced authentication, by their names.
    let authenticators: [String: any EnhancedAuthenticator]
    let loginThreads = LoginThreads()
    private let hasCheckedTLS = Atomic(false)
    /// Answers for what belongs to clients of any listener: the first listener's.
    let listenerOwner: OwnerID
    let listeners: [Listener]
    let rpcOwner: OwnerID
    private let retainedOwner: OwnerID

    var limits: Limits { configuration.limits }

    init(
        configuration: Configuration, settings: [Listener.Settings], pool: ArenaPool, store: Store?, log: Logger,
        authenticators: [any EnhancedAuthenticator] = []
    ) {
        self.authenticators = Dictionary(authenticators.map { ($0.method, $0) }) { first, _ in first }
        self.configuration = configuration
        self.pool = pool
        self.log = log
        self.store = store
        flightRecording = FlightRecording(configuration)
        listeners = settings.map { settings in
            let listener = settings.configuration
            let address = listener.address(port: listener.port)
            let name = listener.name.isEmpty ? address : "\(listener.name) \(address)"
            return Listener(settings, owner: pool.openOwner(.listener, name: name, parent: .process))
        }
        listenerOwner = listeners[0].owner
        retainedOwner = pool.openOwner(.retained, name: "retained messages", parent: .process)
        rpcOwner = pool.openOwner(.rpcBridge, name: "rpc bridge", parent: .process)
        heap = HeapAccount(pool: pool)
        heapTrim = HeapTrim(limitBytes: pool.limitBytes)
        router = Router(heap: heap)
        registry = SessionRegistry(heap: heap)
        retained = RetainedStore(owner: retainedOwner, limits: configuration.limits, heap: heap)
        rpcTopics = RPCTopics(configuration.rpc)
        rpcFault = RPCFault(leakPercent: configuration.faults.rpcResponseLeakPercent)
    }

    /// What comes and goes with messages, on the heap: it is taken of the limit, but the pool is not told of it. Any thread.
    var passingBytes: Int { heap.bytes(of: .queues) + heap.bytes(of: .matches) + (store?.waitingBytes ?? 0) }

    /// - Parameter mayWait: as long as it takes; else nothing is visited while the store is locked.
    func visitRetained(mayWait: Bool = true, _ body: (Message, OwnerID) -> Void) {
        retained.forEach(mayWait: mayWait) { body($0, retainedOwner) }
    }

    /// Says once in the log if the buffers of TLS cannot be named: dumps would call them unreachable.
    func checkBuffers(of tls: TLSConnection) {
        guard !hasCheckedTLS.exchange(true, ordering: .relaxed), !tls.areBuffersKnown else { return }
        log.error(
            "this build cannot look into its TLS library: dumps will call two buffers of each TLS connection unreachable"
        )
    }

    /// Whether anybody can come by this name today. What belongs to another name is nobody's. Any thread.
    func knows(_ userName: String) -> Bool {
        // Whom certificates and other methods name is not written anywhere here.
        guard authenticators.isEmpty else { return true }
        return listeners.contains { listener in
            let settings = listener.settings
            return settings.configuration.certificateUserName || settings.access.knows(userName)
        }
    }

    /// Says what a client was not allowed to do.
    func noteDenied(_ what: String, _ session: Session, _ topic: @autoclosure () -> String) {
        counters.accessDenied.increment()
        guard log.logLevel <= .debug else { return }
        log.debug(
            "access denied: \(what)",
            metadata: [
                "client": "\(session.logName)", "topic": "\(LogLines.cut(topic()))",
                "user": "\(LogLines.cut(session.userName ?? ""))",
            ])
    }

    func closeOwners() {
        for owner in [rpcOwner, retainedOwner] + listeners.map(\.owner) { pool.closeOwner(owner) }
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
    /// Times a publisher was not read on, because memory was short.
    public let publisherPauses = Atomic<Int>(0)
    /// Publishes that were refused, since memory is short, the data directory cannot be written, or a queue is full and its
    /// policy is to reject: QoS 0 dropped, QoS 1 and 2 not acknowledged with success.
    public let publishesRefused = Atomic<Int>(0)
    /// Clients that were told "server busy", because memory was short.
    public let connectsRefused = Atomic<Int>(0)
    /// Consumers that were disconnected because they held much when memory was critical.
    public let consumersShed = Atomic<Int>(0)
    /// Clients that were disconnected because they read nothing for `Limits.slowConsumerSeconds`.
    public let consumersStalled = Atomic<Int>(0)
    /// QoS 0 messages given up for connections that took no more.
    public let backlogDrops = Atomic<Int>(0)
    /// QoS 1 and 2 messages given up because a session's queue was full.
    public let queueDrops = Atomic<Int>(0)
    /// Messages that were larger than their receiver takes.
    public let messagesTooLarge = Atomic<Int>(0)
    /// Messages that can be sent to nobody: their topic, made of a client's identifier or read from the data directory, is
    /// none, or what the store has of them is damaged.
    public let messagesUnsendable = Atomic<Int>(0)
    /// Subscriptions that the data directory had and that are none.
    public let subscriptionsUnusable = Atomic<Int>(0)
    /// Messages that were kept for a client and not sent to it, since it may not read them any more, or its session has gone to
    /// another user.
    public let messagesWithheld = Atomic<Int>(0)
    /// Messages that expired in a queue.
    public let messagesExpired = Atomic<Int>(0)
    /// Messages for a group of which nobody may read them, or nobody was there for QoS 0.
    public let sharedUndeliverable = Atomic<Int>(0)
    /// Sessions that ended because their clients did not come back in time.
    public let sessionsExpired = Atomic<Int>(0)
    /// Retained messages delivered but not kept, because the store was full.
    public let retainedRefused = Atomic<Int>(0)
    /// CONNECTs with a wrong user name or password.
    public let loginsFailed = Atomic<Int>(0)
    /// Publishes and subscriptions that access rules refused.
    public let accessDenied = Atomic<Int>(0)
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
