import Arena
import Ledger
import MQTT
import NIOCore

/// A message that goes to more sessions than one piece of work should deal with, or that is behind such a one.
///
///     note for the store, choose members of groups | tell the other loops, answer the publisher | deliver
///
/// What comes behind it waits: packets, and mailbox messages. So the order of messages is that in which they were
/// published, and nobody can have more of them waiting than what was on its way already.
final class UnfinishedFanOut {
    fileprivate(set) var message: Message
    /// Those of this loop first; the others hear of it when it has been noted for all.
    fileprivate var lists: [List]
    fileprivate let shares: [Match.Share]
    /// Whose own subscriptions may ask not to get it; nil if it is of another loop.
    fileprivate let publisher: Session?
    /// What the store is to know of it, gathered over as many ticks as it takes, and durable as a whole or not at all: whoever
    /// publishes it again after a kill (QoS 2, a will) publishes it to all. Nil where there is nothing to be noted.
    fileprivate var notes: StoreNotes?
    /// The members whose turn it is, as far as they were chosen.
    fileprivate var chosen: [Chosen?] = []
    /// What its publisher waits for.
    fileprivate var promise: Promise?
    /// The command that the message is too.
    var command: Command?
    /// What the store is to be told in the same batch, or not before it.
    fileprivate var whenBegun: [() -> Void] = []
    /// The store, the other loops and the publisher have heard of it.
    fileprivate(set) var hasBegun = false
    /// While it is noted: the list and the subscriber in it whose turn is next; behind the lists come the shares. Then whom it
    /// is to be delivered to next: this loop's list first, then the shares.
    fileprivate var list = 0
    fileprivate var next = 0
    private var charge: HeapCharge

    fileprivate struct List {
        let shard: Int
        let subscribers: Subscribers
        /// What the store calls it for the first of them; 0 where it does not know of it.
        var firstEntry: UInt64
    }

    fileprivate struct Chosen {
        let member: Subscriber
        let entry: UInt64
    }

    struct Command {
        let device: Session
        let message: Message
        let publisher: OwnerID
    }

    /// What is owed once the store has been told who gets the message.
    enum Promise {
        /// PUBACK or PUBREC; of QoS 2 the session remembers that it was received.
        case acknowledgement(to: Session, on: ConnectionReference, PacketType, packetID: UInt16, ReasonCode)
        /// That the will is published not once more after a kill.
        case will(of: Session)
    }

    fileprivate init(
        _ message: Message, _ lists: [List], _ shares: [Match.Share] = [], from publisher: Session?, isNoted: Bool,
        heap: HeapAccount
    ) {
        (self.message, self.lists, self.shares, self.publisher) = (message, lists, shares, publisher)
        notes = isNoted ? nil : StoreNotes()
        charge = HeapCharge(.queues, in: heap)
    }

    fileprivate func noteHeap() {
        charge.set((notes?.batch.cost ?? 0) + chosen.capacity * MemoryLayout<Chosen?>.stride)
    }
}

extension EventLoopShard {
    /// Delivers a message to local subscribers, to those of other shards by a mailbox message.
    ///
    /// - Returns: false if the store is yet to be told who gets it: see ``whenNoted(_:)``.
    @discardableResult
    func route(_ message: inout Message, _ match: Match, from session: Session?) throws(ArenaError) -> Bool {
        if message.mayExpire, message.isExpired(at: .now()) { return true }
        let isLong = goesInPieces(match)
        // What is acknowledged must not be refused by the loop that it goes to, nor later.
        if !message.ownsBuffer,
            isLong || (message.qos != .atMostOnce && match.groups.contains(where: { $0.shard != index }))
        {
            try message.copyIfBorrowed(
                in: arena, owner: session?.owner ?? owner, isLong ? "message to many" : "message to another loop")
        }
        guard !isLong else { return routeInPieces(message, match, from: session) }
        for group in match.groups where group.shard != index {
            steps.take(group.subscribers.list.count)
            if !message.ownsBuffer { reads.noteKept(by: session?.owner ?? owner) }
            if group.requiresPersistence { writeBehind?.keep(&message, for: group.subscribers) }
            post(message, to: group.shard, group.subscribers)
            message.entry = 0
        }
        if let group = match.groups.first(where: { $0.shard == index }) {
            var next = 0
            try deliver(
                &message, to: group.subscribers, from: &next, through: group.subscribers.list.count, publisher: session)
        }
        for share in match.shares { try deliver(&message, to: share) }
        return true
    }

    /// Whether a message to them is delivered piece by piece: it goes to many, or is behind one that does.
    func goesInPieces(_ match: Match) -> Bool {
        match.receivers > context.limits.receiversPerPiece || !work.fanOuts.isEmpty
    }

    private func routeInPieces(_ message: Message, _ match: Match, from session: Session?) -> Bool {
        let isNoted = writeBehind == nil || message.qos == .atMostOnce || !match.requiresPersistence
        let groups = match.groups.filter { $0.shard == index } + match.groups.filter { $0.shard != index }
        let fanOut = UnfinishedFanOut(
            message, groups.map { UnfinishedFanOut.List(shard: $0.shard, subscribers: $0.subscribers, firstEntry: 0) },
            match.shares, from: session, isNoted: isNoted, heap: context.heap)
        work.fanOuts.append(fanOut)
        if isNoted, work.fanOuts.count == 1 { begin(fanOut) }
        scheduleWork()
        return isNoted
    }

    private func post(_ message: Message, to shard: Int, _ subscribers: Subscribers) {
        context.heap.add(Self.expectedGrowth(message, subscribers), to: .growth)
        post(.publish(message.forAnotherLoop, subscribers), to: shard)
    }

    /// What is owed for the message that was routed last, when it has been noted for all who get it.
    func whenNoted(_ promise: UnfinishedFanOut.Promise) {
        let fanOut = work.fanOuts[work.fanOuts.count - 1]
        fanOut.promise = promise
        // Of a session of another loop, that one would have to wait.
        if case .will(let session) = promise, isHere(session) { session.leavingWill = fanOut }
    }

    private func isHere(_ session: Session) -> Bool { session.owningShard == index && !session.isInTransit }

    /// What the store has of a session is its will too, which must be there until it knows whom that is for: notes what would
    /// end or replace it in that same batch; now if no will is on its way.
    func whenWillIsNoted(of session: Session, _ body: @escaping () -> Void) {
        if let fanOut = session.leavingWill, !fanOut.hasBegun { fanOut.whenBegun.append(body) } else { body() }
    }

    /// What a message on its way to so many sessions of another loop will take of the heap. Few take no more than the message
    /// itself, which is counted.
    private static func expectedGrowth(_ message: Message, _ subscribers: Subscribers) -> Int {
        let count = subscribers.list.count
        guard count >= Limits.fewReceivers, message.qos != .atMostOnce else { return 0 }
        return count * MemoryLayout<SessionState.Entry>.stride
    }

    /// Delivers a message that was published on another loop: now, or piece by piece.
    func deliver(_ message: inout Message, postedTo subscribers: Subscribers) throws(ArenaError) {
        let growth = Self.expectedGrowth(message, subscribers)
        defer { context.heap.add(-growth, to: .growth) }
        let count = subscribers.list.count
        guard count > context.limits.receiversPerPiece || !work.fanOuts.isEmpty else {
            var next = 0
            return try deliver(&message, to: subscribers, from: &next, through: count, publisher: nil)
        }
        try message.copyIfBorrowed(in: arena, owner: owner, "message to many")
        // The loop that it comes from has noted it, unless sessions are stored that were not then.
        let isNoted =
            writeBehind == nil || message.qos == .atMostOnce || message.entry != 0
            || !subscribers.list.contains(where: \.isStored)
        let list = UnfinishedFanOut.List(shard: index, subscribers: subscribers, firstEntry: message.entry)
        work.fanOuts.append(UnfinishedFanOut(message, [list], from: nil, isNoted: isNoted, heap: context.heap))
        scheduleWork()
    }

    /// - Parameter next: the first one; behind the last one that was tried afterwards.
    private func deliver(
        _ message: inout Message, to subscribers: Subscribers, from next: inout Int, through end: Int,
        publisher: Session?
    ) throws(ArenaError) {
        guard next < end else { return }
        steps.take(end - next)
        let (qos, retain, firstEntry) = (message.qos, message.retain, message.entry)
        let list = subscribers.list
        if list.count > 1, !message.ownsBuffer, message.payload.readableBytes >= Limits.sharedPayloadBytes {
            // One copy, which all of them are sent from.
            try message.assignOwner(in: arena, owner: context.listenerOwner, "fan-out payload")
        }
        let outer = fanOut.begin(receivers: list.count)
        defer { fanOut.end(outer) }
        while next < end {
            let offset = next
            var subscriber = list[next]
            next += 1
            if subscriber.noLocal, subscriber.session === publisher {
                // Only the subscriptions that do not ask for that (MQTT-3.8.3-3).
                guard let own = subscriber.own else { continue }
                subscriber = own
            }
            message.qos = min(qos, subscriber.qos)
            message.entry = firstEntry == 0 || !subscriber.isStored ? 0 : firstEntry + UInt64(offset)
            message.retain = retain && subscriber.retainAsPublished
            message.route = subscriber.route
            try deliver(&message, to: subscriber.session)
        }
        (message.qos, message.retain, message.route, message.entry) = (qos, retain, nil, firstEntry)
        // The next publish may have to be refused.
        if list.count >= Limits.fewReceivers { pressure.isStale = true }
    }

    /// One member of the group gets the message.
    private func deliver(_ message: inout Message, to share: Match.Share) throws(ArenaError) {
        guard let member = choose(from: share, for: message) else { return }
        try deliver(&message, toMember: member)
    }

    private func choose(from share: Match.Share, for message: Message) -> Subscriber? {
        var looks = 0
        let chosen = share.group.choose(share.members, topic: message.topic, qos: message.qos, steps: &looks)
        steps.take(looks)
        if chosen == nil { context.counters.sharedUndeliverable.increment() }
        return chosen
    }

    private func deliver(_ message: inout Message, toMember member: Subscriber, entry: UInt64 = 0) throws(ArenaError) {
        let (qos, retain) = (message.qos, message.retain)
        message.qos = min(qos, member.qos)
        message.retain = retain && member.retainAsPublished
        message.route = member.route
        message.entry = entry
        defer { (message.qos, message.retain, message.route, message.entry) = (qos, retain, nil, 0) }
        try send(&message, to: member.session)
    }

    // MARK: - Piece by piece

    func goOnWithFanOuts() {
        let count = max(1, context.limits.receiversPerPiece / 4)
        while !steps.isSpent, let first = work.fanOuts.first { goOn(with: first, atMost: count) }
        if work.fanOuts.isEmpty { work.slicesOwed = Self.sliceCount }
    }

    /// All of them; at the end of the broker.
    func finishFanOuts() {
        while let first = work.fanOuts.first { goOn(with: first, atMost: .max) }
    }

    private func goOn(with fanOut: UnfinishedFanOut, atMost count: Int) {
        steps.take()
        if !fanOut.hasBegun {
            guard note(fanOut, atMost: count) else { return fanOut.noteHeap() }
            begin(fanOut)
        }
        if deliver(fanOut, atMost: count) { work.fanOuts.removeFirst() }
    }

    /// Notes it for some more of those who get it.
    ///
    /// - Returns: whether it has been noted for all.
    private func note(_ fanOut: UnfinishedFanOut, atMost count: Int) -> Bool {
        guard fanOut.notes != nil, let store = writeBehind?.store else { return true }
        if fanOut.list < fanOut.lists.count {
            let list = fanOut.lists[fanOut.list].subscribers
            if fanOut.next == 0 { fanOut.lists[fanOut.list].firstEntry = store.takeNumbers(list.list.count) }
            let end = fanOut.next + min(count, list.list.count - fanOut.next)
            steps.take(end - fanOut.next)
            fanOut.notes?.keep(
                &fanOut.message, for: list, fanOut.next..<end, firstEntry: fanOut.lists[fanOut.list].firstEntry,
                from: fanOut.lists[fanOut.list].shard == index ? fanOut.publisher : nil, in: store)
            fanOut.next = end
            if end == list.list.count { (fanOut.list, fanOut.next) = (fanOut.list + 1, 0) }
        } else if fanOut.chosen.count < fanOut.shares.count {
            let share = fanOut.shares[fanOut.chosen.count]
            let member = choose(from: share, for: fanOut.message)
            var entry: UInt64 = 0
            if let member, member.isStored {
                entry = store.takeNumbers()
                fanOut.notes?.keep(&fanOut.message, for: member, entry: entry, in: store)
            }
            fanOut.chosen.append(member.map { UnfinishedFanOut.Chosen(member: $0, entry: entry) })
        }
        return fanOut.list == fanOut.lists.count && fanOut.chosen.count == fanOut.shares.count
    }

    /// The store is told, then the other loops, then the publisher.
    private func begin(_ fanOut: UnfinishedFanOut) {
        fanOut.hasBegun = true
        fanOut.next = 0
        let mark = writeBehind?.mark
        if let notes = fanOut.notes { writeBehind?.begin(with: notes) }
        fanOut.notes = nil
        fanOut.noteHeap()
        for list in fanOut.lists where list.shard != index {
            // Where it was noted, that was counted.
            if list.firstEntry == 0 { steps.take(list.subscribers.list.count) }
            fanOut.message.entry = list.firstEntry
            post(fanOut.message, to: list.shard, list.subscribers)
        }
        fanOut.message.entry = 0
        switch fanOut.promise {
        case .acknowledgement(let session, let reference, let type, let packetID, let code):
            if type == .pubrec, session.isStored, !session.isEnded { writeBehind?.received(packetID, by: session) }
            connections[reference]?.acknowledgeNoted(since: mark, type, packetID, code)
        case .will(let session):
            if isHere(session), session.leavingWill === fanOut { session.leavingWill = nil }
            forgetStoredWill(of: session)
        case nil: break
        }
        fanOut.promise = nil
        if let command = fanOut.command {
            do throws(ArenaError) {
                try send(command.message, to: command.device, by: command.publisher)
            } catch {
                refused(error, while: "sending a command")
            }
            fanOut.command = nil
        }
        for body in fanOut.whenBegun { body() }
        fanOut.whenBegun = []
    }

    /// Delivers it to some more of this loop's sessions.
    ///
    /// - Returns: whether it is done.
    private func deliver(_ fanOut: UnfinishedFanOut, atMost count: Int) -> Bool {
        let own = fanOut.lists.first.flatMap { $0.shard == index ? $0 : nil }
        let many = own?.subscribers.list.count ?? 0
        do throws(ArenaError) {
            if let own, fanOut.next < many {
                fanOut.message.entry = own.firstEntry
                try deliver(
                    &fanOut.message, to: own.subscribers, from: &fanOut.next,
                    through: fanOut.next + min(count, many - fanOut.next), publisher: fanOut.publisher)
            } else if fanOut.next < many + fanOut.shares.count {
                let share = fanOut.next - many
                fanOut.next += 1
                if fanOut.chosen.isEmpty {
                    fanOut.message.entry = 0
                    try deliver(&fanOut.message, to: fanOut.shares[share])
                } else if let chosen = fanOut.chosen[share] {
                    try deliver(&fanOut.message, toMember: chosen.member, entry: chosen.entry)
                }
            }
        } catch {
            refused(error, while: "delivering a message to many")
        }
        return fanOut.next == many + fanOut.shares.count
    }
}
