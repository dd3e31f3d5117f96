import DequeModule
import MQTT
import NIOCore

/// What a session owes its client and is owed by it (section 4.1): packet identifiers, the inflight window, the queue
/// behind it and the QoS 2 receipts. Decides, and does no I/O: callers send what the results say.
///
///     publish --> [ spilled | queue ] --> [ inflight ] --> PUBACK / PUBREC, PUBCOMP
///                      bounded            bounded: Limits.maxInflight
///
/// With a store, little of the queue is in memory: the rest is spilled, there only (``SpilledQueue``).
///
/// A message goes straight into the window if the client is there and the queue is empty, else to the queue's end. A
/// full queue drops by `Limits.queuePolicy`. Entries leave the window when acknowledged, and what is still in it is
/// sent again, in its order, when the client comes back (MQTT-4.4.0-1, MQTT-4.6.0-1):
///
///     inflight   [ sent on this connection | to be sent again ]
///                                          ^ resent
///
/// The client may take fewer at once than it did before (Receive Maximum, MQTT-3.3.4-9), so that is not done in one go,
/// and nothing new goes out before it is done.
struct SessionState: ~Copyable {
    /// How far the delivery of an outgoing message has come.
    enum Stage: Equatable {
        /// QoS 1, sent: waits for PUBACK.
        case sent
        /// QoS 2, sent: waits for PUBREC.
        case sentExactlyOnce
        /// QoS 2, PUBREL sent: waits for PUBCOMP; the message itself is gone.
        case released
    }

    /// What became of a message that was offered.
    enum Offer: Equatable {
        case send(packetID: UInt16)
        case queued
        case dropped
        /// Queued, at the price of `count` older messages.
        case replaced(count: Int)
    }

    /// What is sent again to a client that came back.
    enum Redelivery {
        case publish(Message, packetID: UInt16)
        case pubrel(packetID: UInt16)
    }

    // Not private: in a debug build Swift 6.3.1 fails on a deque of a private type.
    struct Entry {
        /// Counts all messages; the packet identifier follows from it.
        var serial: UInt64
        var stage: Stage
        var message: Message?
        /// The message's.
        var reach: Message.Reach
        /// What the store calls it; 0 if it does not know it.
        var stored: UInt64

        var packetID: UInt16 { SessionState.packetID(serial) }
    }

    /// What the store must hear of, by the numbers it gave the messages.
    enum StoredChange: Equatable {
        case sent(UInt64, serial: UInt64, QoS)
        case released(UInt64)
        /// Delivered, or given up.
        case removed(UInt64)
    }

    /// Lends its elements, as the queue does.
    private var inflight = BlockDeque<Entry>(keeping: 16)
    private var queue = BlockDeque<Message>(keeping: 8)
    /// Behind `queue`.
    private var spilled = SpilledQueue()
    private var nextSerial: UInt64 = 0
    private var incoming: Set<UInt16> = []
    /// Entries of the window that this connection has been sent.
    private var resent = 0
    /// What the client takes at once (Receive Maximum).
    private var receiveMaximum = Int(UInt16.max)
    /// As it was when a message was offered last.
    private var lastWindow = Int.max
    /// What the part of the queue in memory holds.
    private(set) var queuedBytes = 0
    /// No message of that part expires before this.
    private(set) var nextQueuedExpiry = NIODeadline.distantFuture
    /// How many of its messages may be looked at to make room: eight for each that comes. To look through all of them each
    /// time, for the few that have expired since, would take as much as both numbers multiplied.
    private var looks = 1 << 32
    /// Since they were last taken; nothing while there is no store.
    private var storedChanges: [StoredChange] = []
    /// What all this takes on the heap, and what one more message would.
    private var charge: HeapCharge
    private var growth: HeapCharge

    init(heap: HeapAccount? = nil) {
        charge = HeapCharge(.queues, in: heap)
        growth = HeapCharge(.growth, in: heap)
    }

    /// To be called where the queue or the window may have grown or shrunk.
    private mutating func noteHeap() {
        charge.set(
            queue.heapBytes + inflight.heapBytes + spilled.heapBytes + incoming.capacity * Self.receiptBytes)
        growth.set(
            !spilled.isEmpty
                ? spilled.growthBytes
                : queue.isEmpty && inflight.count < lastWindow ? inflight.growthBytes : queue.growthBytes)
    }

    /// What an identifier takes in the set of those that wait for PUBREL, with the room between them.
    private static let receiptBytes = 3

    var hasStoredChanges: Bool { !storedChanges.isEmpty }

    mutating func takeStoredChanges() -> [StoredChange] {
        defer { storedChanges = [] }
        return storedChanges
    }

    private mutating func noteRemoved(_ stored: UInt64) {
        if stored != 0 { storedChanges.append(.removed(stored)) }
    }

    var inflightCount: Int { inflight.count }
    /// Messages in memory.
    var heldCount: Int { inflight.count + queue.count }
    var queuedCount: Int { queue.count + spilled.count }
    /// No queued message expires before this.
    var nextExpiry: NIODeadline { min(nextQueuedExpiry, spilled.nextExpiry) }
    var incomingCount: Int { incoming.count }

    /// Whether there is anything to send that the window has room for.
    func canSendMore(limits: Limits) -> Bool {
        if resent < inflight.count { return resent < receiveMaximum }
        return !queue.isEmpty && inflight.count < window(limits)
    }

    /// How many further messages would be sent at once.
    func room(limits: Limits) -> Int {
        queue.isEmpty && spilled.isEmpty && resent == inflight.count ? max(0, window(limits) - inflight.count) : 0
    }

    private func window(_ limits: Limits) -> Int { min(limits.maxInflight, receiveMaximum) }

    /// The client is there again: all that is in the window is due to be sent once more.
    mutating func resume(receiveMaximum: Int) {
        resent = 0
        self.receiveMaximum = receiveMaximum
    }

    /// What is due to be sent again next, if the client takes more.
    mutating func nextRedelivery() -> Redelivery? {
        guard resent < inflight.count, resent < receiveMaximum else { return nil }
        resent += 1
        return redelivery(at: resent - 1)
    }

    /// Identifiers run from 1 to 65,535: 0 is none (MQTT-2.3.1-1).
    private static func packetID(_ serial: UInt64) -> UInt16 { UInt16(serial % 65_535) + 1 }

    // MARK: - To the client

    /// Takes a QoS 1 or 2 message that owns its buffer, unless it ``spills(_:)``.
    ///
    /// - Parameter canSend: whether the client is connected and its socket takes more.
    mutating func offer(_ message: Message, canSend: Bool, limits: Limits) -> Offer {
        assert(message.qos != .atMostOnce && (message.ownsBuffer || spills(message)))
        lastWindow = window(limits)
        if canSend, queue.isEmpty, spilled.isEmpty, resent == inflight.count, inflight.count < lastWindow {
            return .send(packetID: send(message))
        }
        return enqueue(message, limits: limits)
    }

    /// The next queued message that the window has room for; it is in the window then. What has expired is passed over
    /// (MQTT-3.3.2-5).
    mutating func next(limits: Limits) -> (message: Message, packetID: UInt16)? {
        guard resent == inflight.count, inflight.count < window(limits) else { return nil }
        defer { noteHeap() }
        while let message = queue.popFirst() {
            queuedBytes -= message.heldBytes
            if message.mayExpire, message.isExpired(at: .now()) {
                noteRemoved(message.entry)
                continue
            }
            return (message, send(message))
        }
        return nil
    }

    /// Lets go of queued messages that have expired.
    ///
    /// - Returns: how many.
    @discardableResult
    mutating func purgeExpired(at now: NIODeadline) -> Int {
        guard nextQueuedExpiry <= now else { return 0 }
        nextQueuedExpiry = .distantFuture
        let expired = removeQueued { $0.isExpired(at: now) }
        for message in expired { noteRemoved(message.entry) }
        return expired.count
    }

    /// Takes messages out of the queue, and leaves the others in their order.
    private mutating func removeQueued(where isRemoved: (Message) -> Bool) -> [Message] {
        defer { noteHeap() }
        var removed: [Message] = []
        for _ in 0..<queue.count {
            guard let message = queue.popFirst() else { break }
            if isRemoved(message) {
                queuedBytes -= message.heldBytes
                removed.append(message)
            } else {
                nextQueuedExpiry = min(nextQueuedExpiry, message.expiresAt)
                queue.append(message)
            }
        }
        return removed
    }

    /// Ends a delivery without an answer: the message is larger than the client takes (MQTT-3.1.2-25).
    mutating func abandon(_ packetID: UInt16) {
        if let index = index(of: packetID) { remove(at: index) }
    }

    /// Takes out what came by shared subscriptions and may still be given to another member, where there is no store
    /// to take it from: what was not sent, and QoS 1 without an answer. QoS 2 that was sent is this client's alone
    /// (MQTT-4.8.2-5).
    mutating func takeShared() -> [Message] {
        var taken: [Message] = []
        for _ in 0..<inflight.count {
            guard let entry = inflight.popFirst() else { break }
            if entry.stage == .sent, let message = entry.message, message.route?.group != nil {
                taken.append(message)
            } else {
                inflight.append(entry)
            }
        }
        resent = min(resent, inflight.count)
        return taken + removeQueued { $0.route?.group != nil }
    }

    /// Messages that the client is owed, but for those in memory that are its groups'. Looks at all of them.
    var ownCount: Int {
        var count = spilled.count
        for index in inflight.indices {
            if let message = inflight[index].message, message.route?.group == nil { count += 1 }
        }
        queue.forEach { if $0.route?.group == nil { count += 1 } }
        return count
    }

    /// - Returns: whether the identifier was waiting for PUBACK.
    mutating func puback(_ packetID: UInt16) -> Bool {
        guard let index = index(of: packetID), inflight[index].stage == .sent else { return false }
        remove(at: index)
        return true
    }

    /// The message may be forgotten from here on, its identifier not (MQTT-4.3.3-1).
    ///
    /// - Returns: whether the identifier was waiting for PUBREC, or had got it: PUBREL is due in both cases.
    mutating func pubrec(_ packetID: UInt16) -> Bool {
        guard let index = index(of: packetID), inflight[index].stage != .sent else { return false }
        if inflight[index].stored != 0, inflight[index].stage != .released {
            storedChanges.append(.released(inflight[index].stored))
        }
        inflight[index].stage = .released
        inflight[index].message = nil
        inflight[index].reach = Message.Reach()
        return true
    }

    /// A PUBREC that refuses the message: that is the end of it (MQTT-4.3.3-4).
    mutating func refused(_ packetID: UInt16) -> Bool {
        guard let index = index(of: packetID), inflight[index].stage == .sentExactlyOnce else { return false }
        remove(at: index)
        return true
    }

    /// - Returns: whether the identifier was waiting for PUBCOMP.
    mutating func pubcomp(_ packetID: UInt16) -> Bool {
        guard let index = index(of: packetID), inflight[index].stage == .released else { return false }
        remove(at: index)
        return true
    }

    /// What must be sent again at position `index` of the window, 0 ..< `inflightCount`, after a reconnect.
    func redelivery(at index: Int) -> Redelivery {
        let entry = inflight[index]
        if let message = entry.message { return .publish(message, packetID: entry.packetID) }
        return .pubrel(packetID: entry.packetID)
    }

    // MARK: - From the client

    /// What to do with a QoS 2 PUBLISH.
    enum Receipt: Equatable {
        /// Not seen before: forward it.
        case first
        /// Seen, and not released yet: acknowledge only (MQTT-4.3.3-2).
        case duplicate
        /// The client has more open identifiers than it may.
        case tooMany
    }

    mutating func receive(_ packetID: UInt16, limits: Limits) -> Receipt {
        if incoming.contains(packetID) { return .duplicate }
        guard incoming.count < limits.maxIncomingQoS2 else { return .tooMany }
        incoming.insert(packetID)
        noteHeap()
        return .first
    }

    /// A PUBREL. An unknown identifier is answered by PUBCOMP all the same: ours may have been lost.
    ///
    /// - Returns: whether it was known.
    @discardableResult
    mutating func release(_ packetID: UInt16) -> Bool { incoming.remove(packetID) != nil }

    /// Whether a QoS 2 message of the client has this identifier and is not released yet.
    func isReceiving(_ packetID: UInt16) -> Bool { incoming.contains(packetID) }

    // MARK: - Out of the store

    /// Takes what was in the window: in the order of the serials. Without a message it waits for PUBCOMP.
    mutating func restore(_ message: Message?, serial: UInt64, stored: UInt64) {
        let stage: Stage =
            switch message?.qos {
            case nil: .released
            case .exactlyOnce: .sentExactlyOnce
            default: .sent
            }
        inflight.append(
            Entry(
                serial: serial, stage: stage, message: message, reach: message?.reach ?? Message.Reach(), stored: stored
            ))
        nextSerial = max(nextSerial, serial + 1)
        noteHeap()
    }

    /// Takes what was queued, in its order.
    mutating func restore(_ message: Message) {
        queue.append(message)
        queuedBytes += message.heldBytes
        nextQueuedExpiry = min(nextQueuedExpiry, message.expiresAt)
        noteHeap()
    }

    mutating func restoreReceipt(_ packetID: UInt16) {
        incoming.insert(packetID)
        noteHeap()
    }

    /// The message that has this identifier and waits for PUBACK or PUBREC.
    func message(sentAs packetID: UInt16) -> Message? { index(of: packetID).flatMap { inflight[$0].message } }

    // MARK: - For the dump

    /// Every message in the window, by what is known of its buffer, or the message itself where that is nothing.
    func forEachInflight(_ body: (Message.Reach, Message?) -> Void) {
        for index in inflight.indices {
            if inflight[index].reach.isKnown {
                body(inflight[index].reach, nil)
            } else if let message = inflight[index].message {
                body(message.reach, message)
            }
        }
    }

    /// The same for the queue.
    func forEachQueued(_ body: (Message.Reach, Message?) -> Void) {
        queue.forEach { message in body(message.reach, message.reach.isKnown ? nil : copy message) }
    }

    // MARK: -

    private mutating func send(_ message: Message) -> UInt16 {
        // Entries are in the order of their serials, so a clash needs one that is 65,535 messages old.
        if !inflight.isEmpty, nextSerial - inflight[0].serial >= 65_535 {
            while index(of: Self.packetID(nextSerial)) != nil { nextSerial += 1 }
        }
        let serial = nextSerial
        nextSerial += 1
        inflight.append(
            Entry(
                serial: serial, stage: message.qos == .exactlyOnce ? .sentExactlyOnce : .sent, message: message,
                reach: message.reach, stored: message.entry))
        if message.entry != 0 { storedChanges.append(.sent(message.entry, serial: serial, message.qos)) }
        resent = inflight.count
        noteHeap()
        return Self.packetID(serial)
    }

    private mutating func remove(at index: Int) {
        noteRemoved(inflight[index].stored)
        inflight.remove(at: index)
        if index < resent { resent -= 1 }
        noteHeap()
    }

    /// Acknowledgements come in order (MQTT-4.6.0-2), so this is most often found at the front. Else it is searched for by
    /// the serial that it must have, since entries are in the order of these; a window that spans more than all
    /// identifiers, which takes a client that never acknowledges one message, is looked through.
    private func index(of packetID: UInt16) -> Int? {
        guard !inflight.isEmpty else { return nil }
        let first = inflight[0].serial
        let offset = (Int(packetID) - Int(inflight[0].packetID) + 65_535) % 65_535
        if offset == 0 { return packetID == 0 ? nil : 0 }
        guard inflight[inflight.count - 1].serial - first < 65_535 else {
            return inflight.indices.first { inflight[$0].packetID == packetID }
        }
        let serial = first + UInt64(offset)
        var (low, high) = (1, inflight.count)
        while low < high {
            let middle = (low + high) / 2
            if inflight[middle].serial < serial { low = middle + 1 } else { high = middle }
        }
        return low < inflight.count && inflight[low].packetID == packetID ? low : nil
    }

    private mutating func enqueue(_ message: Message, limits: Limits) -> Offer {
        let (bytes, spills) = (message.heldBytes, message.entry != 0 && spills(message))
        var replaced = 0
        looks += 8
        if nextQueuedExpiry != .distantFuture, isFull(for: bytes, limits), looks >= queue.count {
            let now = NIODeadline.now()
            if nextQueuedExpiry <= now {
                looks = 0
                purgeExpired(at: now)
            }
        }
        while isFull(for: bytes, limits) {
            switch limits.queuePolicy {
            case .dropOldest where dropOldest(): replaced += 1
            // Publishers were refused when it was full: what is on its way since is taken.
            case .reject where !isFull(for: bytes, limits, times: 2): return keep(message, spills, replaced)
            default:
                noteRemoved(message.entry)
                return .dropped
            }
        }
        return keep(message, spills, replaced)
    }

    private mutating func keep(_ message: Message, _ spills: Bool, _ replaced: Int) -> Offer {
        if spills {
            spilled.append(message.entry, bytes: message.heldBytes, expiresAt: message.expiresAt)
        } else {
            queue.append(message)
            queuedBytes += message.heldBytes
            nextQueuedExpiry = min(nextQueuedExpiry, message.expiresAt)
        }
        noteHeap()
        return replaced == 0 ? .queued : .replaced(count: replaced)
    }

    private mutating func dropOldest() -> Bool {
        defer { noteHeap() }
        if let oldest = queue.popFirst() {
            noteRemoved(oldest.entry)
            queuedBytes -= oldest.heldBytes
            return true
        }
        guard let oldest = spilled.removeFirst() else { return false }
        noteRemoved(oldest)
        return true
    }

    /// Whether the queue takes no message of `bytes`.
    func isFull(for bytes: Int, _ limits: Limits, times: Int = 1) -> Bool {
        queuedCount >= limits.maxQueuedMessages * times
            || queuedBytes + spilled.bytes + bytes > limits.maxQueuedBytes * times
    }
}

// What is in the store only.
extension SessionState {
    var hasSpilled: Bool { !spilled.isEmpty }
    /// Bytes of messages that are in the store only.
    var spilledBytes: Int { spilled.bytes }

    /// Whether a message that the store has, or is to have, would be in the store only.
    func spills(_ message: Message) -> Bool {
        !spilled.isEmpty || queue.count >= Limits.queueMemoryMessages
            || (!queue.isEmpty && queuedBytes + message.heldBytes > Limits.queueMemoryBytes)
    }

    /// Whether few messages are left in memory, and there are others that nobody has asked for.
    var isOverflowBatchDue: Bool {
        !spilled.isEmpty && !spilled.isReading && queue.count <= Limits.queueMemoryMessages / 4
            && queuedBytes <= Limits.queueMemoryBytes / 4
    }

    /// - Returns: the page to be read now, if one is due.
    mutating func beginReading() -> [UInt64]? { isOverflowBatchDue ? spilled.beginReading() : nil }

    mutating func endReading() { spilled.endReading() }

    /// Takes a message that was read, unless it has been given up meanwhile.
    mutating func takeSpilled(_ message: Message) {
        guard spilled.take(message.entry) else { return }
        restore(message)
    }

    /// Out of the store, in its order.
    mutating func restoreSpilled(_ entry: UInt64, bytes: Int, expiresAt: NIODeadline) {
        spilled.append(entry, bytes: bytes, expiresAt: expiresAt)
        noteHeap()
    }

    /// Gives up what has expired.
    ///
    /// - Returns: how many.
    mutating func removeSpilled(_ entries: Set<UInt64>) -> Int {
        let count = spilled.remove(entries)
        if count > 0 { for entry in entries { noteRemoved(entry) } }
        noteHeap()
        return count
    }

    /// - Returns: whether there may be any that have expired.
    mutating func beginExpiry() -> Bool {
        guard spilled.nextExpiry <= .now() else { return false }
        spilled.beginExpiry()
        return !spilled.isEmpty
    }

    mutating func expires(at deadline: NIODeadline) { spilled.expires(at: deadline) }
}
