import Arena
import Ledger
import MQTT
import NIOConcurrencyHelpers
import NIOCore
import Synchronization

/// A client's session (section 4.1). One object for its whole life, whichever loop serves it.
///
/// It belongs to the event loop `owningShard` names: all else but the constants and the atomics is touched on that loop
/// only. Storing `owningShard` hands the session over: the old loop touches nothing after the store, the new one nothing
/// before it has seen it.
///
/// What must outlive a restart is in plain values: `expiryInterval`, `subscriptions`, and the ``SessionCore``. They change
/// in few places, and with them the store (`WriteBehindBuffer`): `Shard+Sessions.swift`, `Shard+Subscriptions.swift`, and for the
/// core ``EventLoopShard/update(_:_:)`` alone.
final class Session: @unchecked Sendable {
    let clientID: String
    /// Who it belongs to, for its whole life: the user that made it; nil is a client without a name.
    let userName: String?
    let owner: OwnerID
    private let rpcTopics: RPCTopics
    /// By which the store knows it; 0 for one that is not stored, since it was not to outlive its first connection.
    let storeKey: UInt64
    private let owningShardIndex: Synchronization::Atomic<Int>
    fileprivate let presenceValue = Synchronization::Atomic<UInt8>(Presence.away.rawValue)
    fileprivate let isQueueFullValue = Synchronization::Atomic<Bool>(false)
    private let hasSharedRules = Synchronization::Atomic<Bool>(false)

    /// Seconds it outlives its connection (section 3.1.2.11.2): 0 is not at all, `UInt32.max` for ever.
    var expiryInterval: UInt32
    fileprivate(set) var core: SessionCore
    /// Where the wheel of the shard has its entry.
    var place = SessionWheel.Place()
    /// The store has a will of this session.
    var isWillStored = false
    /// A will that is published, and that the store is not yet told whom it is for.
    var leavingWill: UnfinishedFanOut?
    /// The shard's batch that has the last packet identifier of a QoS 2 message.
    var storedThrough: UInt64 = 0
    /// Filters in the trie, shared ones with their prefix.
    var subscriptions: FilterTable
    /// Those of them that are shared.
    var sharedCount = 0
    /// The command filters, which concern this session alone and are not in the trie.
    var commandFilters: FilterTable
    /// What both cost, for `Limits.maxSubscriptionBytesPerSession`.
    var subscriptionBytes = 0
    var pendingCommands = PendingCommands() { didSet { noteHeap() } }
    /// What its client may do by today's rules; nil is everything.
    private(set) var rules: AccessRules? {
        didSet {
            ruleBytes = rules?.heapBytes ?? 0
            noteHeap()
        }
    }
    private var ruleBytes = 0
    /// The same for the loops that choose among the members of a group. Made before the first of its shared subscriptions is
    /// where they find it, and there from then on.
    private var sharedRules: NIOLockedValueBox<AccessRules?>?
    /// By which its last connection came.
    private(set) var listener: Listener?
    /// Its connection is gone, and what follows from that has yet to happen.
    var isLeaving = false
    /// Subscriptions whose retained messages are yet to be sent, the first one's first.
    var retained: RetainedDeliveries

    /// It has, or has had, a shared subscription, and may have messages that are its group's when it ends.
    var mayHoldShared = false

    /// The number of the last claim that it was given up for.
    var claim: UInt64

    // While it moves from one loop to another the old one has the core, and hands it over with the last mailbox message. These
    // are the new one's.
    /// Sent on by the former owning shard.
    var forwarded: [Message] = []
    /// Sent straight to the new owning shard; to be queued behind those.
    var stagingQueue: [Message] = []
    /// Read for the former owning shard from the store.
    var overflowBatches: [OverflowBatch] = []
    /// Connections that asked for it in the meantime.
    var waiters: [SessionWaiter] = []
    /// Operators that want it ended.
    var operators: [Waiter<SessionEnding>] = []

    /// What it takes on the heap, with its place in the table of its shard, its rules and its commands.
    private var charge: HeapCharge
    private var ownBytes = 0

    init(
        clientID: String, userName: String?, owner: OwnerID, expiryInterval: UInt32, owningShard: Int,
        storeKey: UInt64 = 0,
        claim: UInt64 = 0, heap: HeapAccount, rpcTopics: RPCTopics
    ) {
        core = SessionCore(state: SessionState(heap: heap))
        subscriptions = FilterTable(heap: heap)
        commandFilters = FilterTable(heap: heap)
        retained = RetainedDeliveries(heap: heap)
        charge = HeapCharge(.sessions, in: heap)
        self.claim = claim
        self.rpcTopics = rpcTopics
        self.storeKey = storeKey
        self.clientID = clientID
        self.userName = userName
        self.owner = owner
        self.expiryInterval = expiryInterval
        owningShardIndex = Synchronization::Atomic(owningShard)
        ownBytes = HeapSize.object(self) + HeapSize.string(clientID) + Self.tableBytes
        noteHeap()
    }

    private func noteHeap() { charge.set(ownBytes + ruleBytes + pendingCommands.heapBytes) }

    /// A reference by a reference, with the room between them.
    private static let tableBytes = 32
    /// A lock and a reference.
    private static let boxBytes = 80

    /// How ready a session is for one more message of a shared subscription; any loop may ask.
    enum Presence: UInt8, Comparable {
        case ended
        /// The client is not connected.
        case away
        /// Connected, with messages waiting.
        case busy
        case ready

        static func < (a: Presence, b: Presence) -> Bool { a.rawValue < b.rawValue }
    }

    /// Whether messages to it are to be refused; any loop may ask.
    var isQueueFull: Bool { isQueueFullValue.load(ordering: .relaxed) }

    var presence: Presence { Presence(rawValue: presenceValue.load(ordering: .relaxed)) ?? .ended }
}

/// What of a session others hear of when it changes: the store, the members of its groups and those who publish to it,
/// and the wheel of its shard. So all changes go through ``EventLoopShard/update(_:_:)``, which tells them.
struct SessionCore: ~Copyable {
    var state: SessionState
    var connection: ConnectionHandler?
    var will: KeptWill?
    /// When it ends, if its client does not come back before.
    var endsAt = NIODeadline.distantFuture
    var isEnded = false
    /// Between two loops: its owning shard is the new one, and the old one may still have messages for it.
    var isInTransit = false

    init(state: consuming SessionState) { self.state = state }

    fileprivate var presence: Session.Presence {
        if isEnded { return .ended }
        // Of one whose peer has gone only what it has sent is yet to be handled.
        guard let connection, !connection.isPeerGone else { return .away }
        return state.queuedCount > 0 ? .busy : .ready
    }

    /// The next time at which something is due that no packet brings about.
    fileprivate var deadline: NIODeadline {
        if isEnded || isInTransit { return .distantFuture }
        return min(endsAt, will?.dueAt ?? .distantFuture, state.nextExpiry)
    }
}

// What everybody may see of the core, on its loop.
extension Session {
    var state: SessionState { _read { yield core.state } }
    var connection: ConnectionHandler? { core.connection }
    var will: KeptWill? { core.will }
    var endsAt: NIODeadline { core.endsAt }
    var isEnded: Bool { core.isEnded }
    var isInTransit: Bool { core.isInTransit }
}

extension EventLoopShard {
    /// Changes a session that this shard owns, and tells all who must hear of it: the store, the other loops, the wheel.
    ///
    /// - Parameter change: is to look at the core only, not at the session.
    @inline(__always)
    func update<Result>(_ session: Session, _ change: (inout SessionCore) -> Result) -> Result {
        assert(session.owningShard == index, "a session is changed by its owning shard only")
        let result = change(&session.core)
        settle(session)
        return result
    }

    /// Tells what has changed, if anything has.
    @inline(__always)
    func settle(_ session: Session) {
        if session.isStored, session.core.state.hasStoredChanges { noteStored(session) }
        let presence = session.core.presence.rawValue
        if session.presenceValue.load(ordering: .relaxed) != presence {
            session.presenceValue.store(presence, ordering: .relaxed)
        }
        if rejectsWhenFull {
            session.isQueueFullValue.store(session.core.state.isFull(for: 0, context.limits), ordering: .relaxed)
        }
        let deadline = session.core.deadline
        if deadline != session.place.deadline { watch(session, until: deadline) }
        // Whatever has emptied the part of its queue that is in memory: acknowledgements, expiry, a page of which nothing was
        // sent.
        if session.core.state.hasSpilled, session.core.state.isOverflowBatchDue {
            session.core.connection?.wantsToSend()
        }
    }

    private func noteStored(_ session: Session) {
        guard let writeBehind else { return }
        if writeBehind.note(session.core.state.takeStoredChanges(), of: session) {
            session.storedThrough = writeBehind.number
        }
    }
}

/// A connection that wants the session of its client.
struct SessionWaiter {
    let connection: ConnectionReference
    /// Only to end it.
    let discard: Bool
    /// ... for another user: what is in it is lost.
    var isForfeit = false
    /// In the order of the CONNECTs, of whichever loops: an older one does not take a session from a newer one.
    let number: UInt64
}

/// A will that waits for its client to vanish, and then for its delay (section 3.1.3.2.2). An object, since most sessions
/// have none and need not have room for one.
final class KeptWill {
    /// With RETAIN as the will asks for.
    let message: Message
    /// Seconds; also how long the session is given to come back.
    let delayInterval: UInt32
    /// Seconds from its publication; nil is never.
    let expiryInterval: UInt32?
    /// When it is published; the distant future while its client is there.
    let dueAt: NIODeadline

    init(
        message: Message, delayInterval: UInt32, expiryInterval: UInt32?, dueAt: NIODeadline = .distantFuture
    ) {
        self.message = message
        self.delayInterval = delayInterval
        self.expiryInterval = expiryInterval
        self.dueAt = dueAt
    }

    /// The same, with the delay begun.
    func due(at time: NIODeadline) -> KeptWill {
        KeptWill(message: message, delayInterval: delayInterval, expiryInterval: expiryInterval, dueAt: time)
    }
}

// What the client may do.
extension Session {
    /// What a user may have of a session that somebody has made. Any loop may ask.
    enum Title {
        /// All of it: it is the user's own.
        case owner
        /// Its name only, for a new one: nobody's name stands on it, or one that nobody has any more.
        case successor
        case none
    }

    /// - Parameter isKnown: whether anybody can come by a name.
    func title(of userName: String?, isKnown: (String) -> Bool) -> Title {
        guard let owner = self.userName else { return userName == nil ? .owner : .successor }
        // Byte for byte: to Swift two names may be equal that are two users.
        if let userName, UTF8Key(userName) == UTF8Key(owner) { return .owner }
        return isKnown(owner) ? .none : .successor
    }

    /// Its client has come by this listener, and may do what is allowed there today.
    func came(by listener: Listener) {
        self.listener = listener
        renewRules()
    }

    /// By which a stored session finds its listener again.
    var listenerName: String { listener?.settings.configuration.name ?? "" }

    /// After a reload, and after the session was where a reload could not find it.
    func renewRules() {
        rules = listener.flatMap(rules(at:))
        shareRules()
    }

    private func shareRules() {
        guard let sharedRules else { return }
        sharedRules.withLockedValue { $0 = rules }
        hasSharedRules.store(rules != nil, ordering: .releasing)
    }

    /// To be called before it is a member of any group.
    func becomesMember() {
        mayHoldShared = true
        guard sharedRules == nil else { return }
        sharedRules = NIOLockedValueBox(nil)
        ownBytes += Self.boxBytes
        noteHeap()
        shareRules()
    }

    /// What its client may do by today's rules of a listener. Any loop may ask.
    func rules(at listener: Listener) -> AccessRules? {
        listener.settings.access.rules(userName: userName, clientID: clientID)
    }

    func mayPublish(_ topic: TopicName) -> Bool { mayPublish(topic, by: rules) }

    /// Any loop may ask.
    func mayPublish(_ topic: TopicName, by rules: AccessRules?) -> Bool {
        rules?.mayWrite(topic.bytes.readableBytesUInt8Span) ?? rpcTopics.mayWrite(topic, as: clientID)
    }

    func mayReceive(_ topic: TopicName) -> Bool {
        rules?.mayRead(topic.bytes.readableBytesUInt8Span) ?? rpcTopics.mayRead(topic, as: clientID)
    }

    /// Whether a member of a group may be given a message of the group's. Any loop may ask.
    func mayBeGiven(_ topic: TopicName) -> Bool {
        let rules = hasSharedRules.load(ordering: .acquiring) ? sharedRules?.withLockedValue { $0 } : nil
        return rules?.mayRead(topic.bytes.readableBytesUInt8Span) ?? rpcTopics.mayRead(topic, as: clientID)
    }

    /// A shared subscription is as good as the filter in it.
    func maySubscribe(_ filter: String) -> Bool {
        let filter = SharedSubscription.parse(filter)?.filter ?? filter
        return rules?.maySubscribe(filter.utf8Span.span) ?? rpcTopics.maySubscribe(filter, as: clientID)
    }
}

extension Session {
    /// The index of the shard that owns this.
    var owningShard: Int { owningShardIndex.load(ordering: .acquiring) }

    /// Whether the store knows it. The same for its whole life, so that any loop may ask.
    var isStored: Bool { storeKey != 0 }

    /// Whether it outlives its connection.
    var isPersistent: Bool { expiryInterval > 0 }

    /// The client identifier as log lines have it.
    var logName: String { LogLines.cut(clientID) }

    /// Hands the session over, by its present owning shard.
    func move(to shard: Int) { owningShardIndex.store(shard, ordering: .releasing) }
}

/// The sessions of all clients by client identifier. Its lock is taken on connect and disconnect, and to find the
/// device of an RPC command; never for ordinary messages.
final class SessionRegistry: Sendable {
    private struct Entry {
        let session: Session
        var isPersistent: Bool
        /// The number of the last CONNECT that asked for it.
        var claim: UInt64
    }

    private struct Table {
        var sessions: [UTF8Key: Entry] = [:]
        var persistentCount = 0
        var lastClaim: UInt64 = 0
        /// What the table takes on the heap, as far as the account has heard of it.
        var countedBytes = 0
    }

    enum Claim {
        /// Made for the claim, and in the registry now.
        case new(Session)
        /// It is the user's, or nobody's.
        case existing(Session, Session.Title)
        /// It is another user's.
        case foreign
        /// There are as many kept sessions as there may be.
        case full
        /// A CONNECT that came later has asked for it already.
        case superseded
    }

    private let table = ObservableBox(Table())
    private let lastCount = Synchronization::Atomic<Int>(0)
    private let heap: HeapAccount

    init(heap: HeapAccount) { self.heap = heap }

    private func noteHeap(_ table: inout Table) {
        heap.set(&table.countedBytes, to: HeapSize.dictionary(table.sessions), for: .sessions)
    }

    /// The session of a client, or the one that `make` makes.
    ///
    /// - Parameters:
    ///   - number: of the claim, by which those of several loops are put in order; 0 for a new one, which is given its
    ///     number here.
    ///   - isPersistent: whether a new one would be kept beyond its connection.
    ///   - limit: of such sessions.
    ///   - isKnown: whether anybody can come by a user name; asked under the lock.
    func claim(
        _ clientID: String, of userName: String?, number: inout UInt64, isPersistent: Bool, limit: Int,
        isKnown: (String) -> Bool, make: (_ number: UInt64) -> Session
    ) -> Claim {
        table.withLockedValue { table in
            let key = UTF8Key(clientID)
            if number == 0 {
                table.lastClaim += 1
                number = table.lastClaim
            }
            if let entry = table.sessions[key] {
                let title = entry.session.title(of: userName, isKnown: isKnown)
                // First: whose session it is not, whatever he sends, does not supersede the owner either.
                guard title != .none else { return .foreign }
                guard number >= entry.claim else { return .superseded }
                table.sessions[key]?.claim = number
                return .existing(entry.session, title)
            }
            if isPersistent {
                guard table.persistentCount < limit else { return .full }
                table.persistentCount += 1
            }
            let session = make(number)
            assert(session.isPersistent == isPersistent)
            table.sessions[key] = Entry(session: session, isPersistent: isPersistent, claim: number)
            noteHeap(&table)
            return .new(session)
        }
    }

    /// Enters a session that comes out of the store.
    func restore(_ session: Session) {
        table.withLockedValue { table in
            table.sessions[UTF8Key(session.clientID)] = Entry(
                session: session, isPersistent: session.isPersistent, claim: 0)
            if session.isPersistent { table.persistentCount += 1 }
            noteHeap(&table)
        }
    }

    func find(_ clientID: String) -> Session? { table.withLockedValue { $0.sessions[UTF8Key(clientID)]?.session } }

    /// To be called when it has changed whether a session is kept beyond its connection.
    func note(_ session: Session, isPersistent: Bool) {
        table.withLockedValue { table in
            let key = UTF8Key(session.clientID)
            guard let entry = table.sessions[key], entry.session === session, entry.isPersistent != isPersistent else {
                return
            }
            table.sessions[key]?.isPersistent = isPersistent
            table.persistentCount += isPersistent ? 1 : -1
        }
    }

    /// Removes this session; one that has taken its name since stays.
    func remove(_ session: Session) {
        table.withLockedValue { table in
            let key = UTF8Key(session.clientID)
            guard let entry = table.sessions[key], entry.session === session else { return }
            table.sessions[key] = nil
            if entry.isPersistent { table.persistentCount -= 1 }
        }
    }

    /// The client identifiers that begin with `prefix`, as far as `limit`, in no order. Looks at every session.
    func clients(withPrefix prefix: String, limit: Int) -> [String] {
        table.withLockedValue { table in
            var found: [String] = []
            for entry in table.sessions.values where entry.session.clientID.utf8.starts(with: prefix.utf8) {
                found.append(entry.session.clientID)
                if found.count == limit { break }
            }
            return found
        }
    }

    var count: Int { table.figure(lastCount) { $0.sessions.count } }
}
