import DequeModule
import MQTT
import NIOCore

/// Changes for the store that are gathered, with the bytes of the messages in them.
struct StoreNotes {
    var batch = StoreBatch()
    /// The lowest number of a message whose bytes are in the batch; each batch has bytes of its own.
    fileprivate var firstContent = UInt64.max

    /// Notes that the message is owed to those of some subscribers that are stored.
    ///
    /// - Parameters:
    ///   - firstEntry: the number of the first of all subscribers.
    ///   - publisher: whose own subscriptions may ask not to get it; nil if it is of another loop.
    mutating func keep(
        _ message: inout Message, for subscribers: Subscribers, _ range: Range<Int>, firstEntry: UInt64,
        from publisher: Session?, in store: Store
    ) {
        for offset in range {
            let subscriber = subscribers.list[offset]
            let isOwn = subscriber.noLocal && subscriber.session === publisher
            guard let subscriber = isOwn ? subscriber.own : subscriber, subscriber.isStored else { continue }
            keep(&message, for: subscriber, entry: firstEntry + UInt64(offset), in: store)
        }
    }

    /// Notes that the message is owed to a subscriber that is stored.
    mutating func keep(_ message: inout Message, for subscriber: Subscriber, entry: UInt64, in store: Store) {
        keep(
            entry, &message, qos: min(message.qos, subscriber.qos),
            retain: message.retain && subscriber.retainAsPublished, route: subscriber.route, subscriber.session,
            in: store)
    }

    fileprivate mutating func keep(
        _ entry: UInt64, _ message: inout Message, qos: QoS, retain: Bool, route: Route?, _ session: Session,
        in store: Store
    ) {
        if message.contentID < firstContent {
            message.contentID = store.takeNumbers()
            firstContent = min(firstContent, message.contentID)
            batch.append(.message(batch.copy(message, id: message.contentID)))
        }
        let identifiers = (route?.identifiers).flatMap { $0.isEmpty ? nil : batch.copy($0) }
        let share = (route?.group).map { batch.copy($0.subscription) }
        batch.append(
            .entry(
                StoreBatch.Entry(
                    entry: StoredEntry(session: session.storeKey, id: entry), message: message.contentID, qos: qos,
                    retain: retain, identifiers: identifiers, share: share)))
    }
}

/// One event loop's way to the store: gathers the changes of a tick into a batch, and holds back what may be said only
/// when they are durable.
///
/// Used on its loop only. Batches are numbered from 1; the open one is posted when the tick ends, before the mailbox messages of
/// the tick, so that the store hears of a message before any other loop does.
final class WriteBehindBuffer {
    let store: Store
    private let shard: Int
    private var notes = StoreNotes()
    /// The batch that changes go to now.
    private(set) var number: UInt64 = 1
    /// Batches up to this one are durable.
    private(set) var durable: UInt64 = 0
    /// Changes with each change that is noted: compare before and after.
    private(set) var mark: UInt64 = 0
    private var held: Deque<(number: UInt64, action: Held)> = []

    /// What waits for a batch.
    enum Held {
        case ack(ConnectionReference, PacketType, UInt16, ReasonCode)
        /// QoS 2 on its way out: its packet identifier must outlive us before anybody has seen it. And what is behind it.
        case publish(ConnectionReference, packetID: UInt16, dup: Bool)
        /// Something rare.
        case other(() -> Void)
    }

    /// Called when there is something to post.
    var whenFirstChanged: () -> Void = {}

    init(store: Store, shard: Int) {
        self.store = store
        self.shard = shard
    }

    // MARK: - Batches

    private func append(_ change: StoreBatch.Change) {
        mark &+= 1
        if !hasChanges { whenFirstChanged() }
        notes.batch.append(change)
    }

    /// The batch with the last change so far.
    var lastNumber: UInt64 { hasChanges ? number : number - 1 }

    /// Whether there is anything to post.
    var hasChanges: Bool { !notes.batch.isEmpty }

    func post() {
        guard hasChanges else { return }
        let posted = notes.batch
        notes = StoreNotes()
        number += 1
        store.post(posted, from: shard, number: number - 1)
    }

    /// What was gathered beside this is a batch of its own, and is the open one now: what belongs to it may follow.
    func begin(with gathered: StoreNotes) {
        guard !gathered.batch.isEmpty else { return }
        post()
        whenFirstChanged()
        mark &+= 1
        notes = gathered
        // Its numbers may be older than those of messages that batches before it have.
        notes.firstContent = .max
    }

    /// Posts the last batch. Nobody is left to be told of it.
    func end() {
        post()
        held = []
    }

    /// Has `action` given out when batch `number` is durable, and not before what is held already.
    ///
    /// - Returns: the batch that it waits for.
    @discardableResult
    func hold(_ number: UInt64, _ action: Held) -> UInt64 {
        let number = max(number, held.last?.number ?? 0)
        held.append((number, action))
        return number
    }

    /// Batches up to `number` are durable: gives what waited for them, in its order.
    func release(through number: UInt64, _ body: (Held) -> Void) {
        durable = number
        while let first = held.first, first.number <= number {
            held.removeFirst()
            body(first.action)
        }
    }

    // MARK: - Sessions

    /// The client is there, and all of it that may change at this time.
    func attach(_ session: Session) {
        append(
            .session(
                session.storeKey, client: notes.batch.copy(session.clientID), expiryInterval: session.expiryInterval,
                user: session.userName.map { notes.batch.copy($0) }, listener: notes.batch.copy(session.listenerName)))
    }

    func end(_ session: Session) { append(.sessionEnded(session.storeKey)) }

    /// The client is gone.
    func detach(_ session: Session) {
        append(.sessionEnds(session.storeKey, at: session.endsAt))
    }

    func subscribe(_ session: Session, _ filter: String, _ options: SubscriptionOptions) {
        append(.subscribed(session.storeKey, filter: notes.batch.copy(filter), options))
    }

    func unsubscribe(_ session: Session, _ filter: String) {
        append(.unsubscribed(session.storeKey, filter: notes.batch.copy(filter)))
    }

    /// What the store has of a session's subscriptions and is none.
    func forgetSubscription(_ session: Session, _ filter: [UInt8]) {
        append(.unsubscribed(session.storeKey, filter: notes.batch.copy(filter)))
    }

    func keep(_ will: KeptWill, of session: Session) {
        append(
            .will(
                session.storeKey, notes.batch.copy(will.message, id: 0), delayInterval: will.delayInterval,
                expiryInterval: will.expiryInterval))
    }

    /// Its client is gone, and it waits for its delay.
    func willIsDue(of session: Session) {
        guard let time = session.will?.dueAt, time != .distantFuture else { return }
        append(.willIsDue(session.storeKey, at: time))
    }

    /// In the batch that retains it: one that is published once more after a kill does not replace what is retained by then.
    func willIsRetained(of session: Session) { append(.willIsRetained(session.storeKey)) }

    func forgetWill(of session: Session) { append(.willGone(session.storeKey)) }

    func received(_ packetID: UInt16, by session: Session) {
        append(.received(session.storeKey, packetID: packetID))
    }

    func receiptEnded(_ packetID: UInt16, by session: Session) {
        append(.receiptEnded(session.storeKey, packetID: packetID))
    }

    // MARK: - Messages

    /// Notes that the message is owed to the session, and marks it so.
    func keep(_ message: inout Message, for session: Session) {
        message.entry = store.takeNumbers()
        noting { [store, entry = message.entry] notes in
            notes.keep(
                entry, &message, qos: message.qos, retain: message.retain, route: message.route, session, in: store)
        }
    }

    /// Notes that the message is owed to those of the sessions that are stored: the first has the number
    /// that the message is marked with, the next one the next, and so on.
    func keep(_ message: inout Message, for subscribers: Subscribers) {
        guard message.qos != .atMostOnce else { return }
        message.entry = store.takeNumbers(subscribers.list.count)
        noting { [store, first = message.entry] notes in
            notes.keep(
                &message, for: subscribers, 0..<subscribers.list.count, firstEntry: first, from: nil, in: store)
        }
    }

    private func noting(_ body: (inout StoreNotes) -> Void) {
        let wasEmpty = !hasChanges
        body(&notes)
        guard hasChanges else { return }
        mark &+= 1
        if wasEmpty { whenFirstChanged() }
    }

    /// What became of a session's messages.
    ///
    /// - Returns: whether a QoS 2 message was given its packet identifier.
    func note(_ changes: [SessionState.StoredChange], of session: Session) -> Bool {
        var hasIdentifier = false
        for change in changes {
            switch change {
            case .sent(let id, let serial, let qos):
                append(.sent(StoredEntry(session: session.storeKey, id: id), serial: serial))
                if qos == .exactlyOnce { hasIdentifier = true }
            case .released(let id): append(.released(StoredEntry(session: session.storeKey, id: id)))
            case .removed(let id): append(.removed(StoredEntry(session: session.storeKey, id: id)))
            }
        }
        return hasIdentifier
    }

    /// The store need not keep it any more: what a session has left to its group is another member's now, or nobody's; or it
    /// can be sent to nobody.
    func removed(_ entry: StoredEntry) { append(.removed(entry)) }

    // MARK: - Retained messages
    //
    // All loops write to one tree, and the store must have the last of two messages to a topic that the tree has. So these
    // changes are in one list, in the order in which the tree took them; what is in a loop's own batch only says that
    // there is one.

    /// An empty payload clears the topic. To be called where the tree changes, under its lock.
    func retain(_ message: Message) {
        store.noteRetained { batch in
            if message.payload.readableBytes == 0 {
                let topic = batch.copy(message.topic.bytes)
                batch.append(.retainedGone(topic: topic))
            } else {
                let content = batch.copy(message, id: 0)
                batch.append(.retained(content))
            }
        }
        append(.retainedNoted)
    }

    /// What the store has under a topic that is none.
    func forgetRetained(_ topic: [UInt8]) {
        store.noteRetained { batch in
            let topic = batch.copy(topic)
            batch.append(.retainedGone(topic: topic))
        }
        append(.retainedNoted)
    }

    /// A retained message has expired.
    func retainedExpired(_ message: Message) {
        store.noteRetained { batch in
            let topic = batch.copy(message.topic.bytes)
            batch.append(.retainedGone(topic: topic))
        }
        append(.retainedNoted)
    }
}
