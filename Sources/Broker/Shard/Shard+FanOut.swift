import Arena
import MQTT
import NIOCore

/// A message that goes to more sessions of a loop than one piece of work should deal with, or that is behind such a one.
///
/// What comes behind it waits: packets, and mail from other loops. So the order of messages is that in which they were
/// published, and nobody can have more of them waiting than what was on its way already.
struct UnfinishedFanOut {
    var message: Message
    let subscribers: Subscribers
    /// Of the subscribers first, then of the shares.
    var next = 0
    let shares: [Match.Share]
    /// Whose own subscriptions may ask not to get it; nil if it is of another loop.
    let publisher: Session?
    /// Members of groups are noted for the store as they are chosen: the last batch that has some.
    var storedThrough: UInt64 = 0
    /// What its publisher waits for.
    var acknowledgement: Acknowledgement?

    struct Acknowledgement {
        let publisher: ConnectionReference
        let type: PacketType
        let packetID: UInt16
        let code: ReasonCode
    }

    var isDone: Bool { next == subscribers.list.count + shares.count }
}

extension EventLoopShard {
    /// Delivers a message to local subscribers, to those of other shards by mail.
    ///
    /// - Parameter mayWait: whether the caller can wait with what it owes for the message: then members of groups are chosen in
    ///   turn with a store too, which must have them before. What is not done again as a whole if the broker is killed
    ///   meanwhile (QoS 2, wills) cannot.
    /// - Returns: whether it must wait: see ``acknowledgeWhenRouted(_:)``.
    @discardableResult
    func route(
        _ message: inout Message, _ match: Match, from session: Session?, mayWait: Bool = false
    ) throws(ArenaError) -> Bool {
        let unfinished = work.fanOuts.count
        if message.mayExpire, message.isExpired(at: .now()) { return false }
        let isLong = match.receivers > Limits.receiversPerPiece
        // What is acknowledged must not be refused by the loop that it goes to, nor later.
        if !message.ownsBuffer,
            isLong || (message.qos != .atMostOnce && match.groups.contains(where: { $0.shard != index }))
        {
            try message.own(in: arena, owner: session?.owner ?? owner, "message to another loop")
        }
        for group in match.groups where group.shard != index {
            steps.take(group.subscribers.list.count)
            if !message.ownsBuffer { reads.noteKept(by: session?.owner ?? owner) }
            if group.obliges { journal?.keep(&message, for: group.subscribers) }
            context.heap.add(Self.expectedGrowth(message, group.subscribers), to: .growth)
            post(.publish(message, group.subscribers), to: group.shard)
            message.entry = 0
        }
        let sharesWait = isLong && (journal == nil || message.qos == .atMostOnce || mayWait)
        if let group = match.groups.first(where: { $0.shard == index }) {
            try deliver(
                &message, to: group.subscribers, shares: sharesWait ? match.shares : [], from: session)
        } else if sharesWait {
            try deliver(&message, to: Subscribers([]), shares: match.shares, from: session)
        }
        if !sharesWait {
            for share in match.shares { try deliver(&message, to: share) }
        }
        return mayWait && work.fanOuts.count > unfinished && !match.shares.isEmpty && journal != nil
    }

    /// Of the message that was routed last.
    func acknowledgeWhenRouted(_ acknowledgement: UnfinishedFanOut.Acknowledgement) {
        work.fanOuts[work.fanOuts.count - 1].acknowledgement = acknowledgement
    }

    /// What a message on its way to so many sessions of another loop will take of the heap. Few take no more than the message
    /// itself, which is counted.
    private static func expectedGrowth(_ message: Message, _ subscribers: Subscribers) -> Int {
        let count = subscribers.list.count
        guard count >= Limits.fewReceivers, message.qos != .atMostOnce else { return 0 }
        return count * MemoryLayout<SessionState.Entry>.stride
    }

    /// Delivers a message that was published on another loop.
    func deliver(_ message: inout Message, mailedTo subscribers: Subscribers) throws(ArenaError) {
        let growth = Self.expectedGrowth(message, subscribers)
        defer { context.heap.add(-growth, to: .growth) }
        try deliver(&message, to: subscribers, from: nil)
    }

    /// Delivers a message to sessions of this loop: now, or piece by piece.
    ///
    /// - Parameter publisher: whose own subscriptions may ask not to get it; nil if it is of another loop.
    func deliver(
        _ message: inout Message, to subscribers: Subscribers, shares: [Match.Share] = [], from publisher: Session?
    ) throws(ArenaError) {
        let count = subscribers.list.count
        guard count + shares.count > Limits.receiversPerPiece || !work.fanOuts.isEmpty else {
            var next = 0
            try deliver(&message, to: subscribers, from: &next, through: count, publisher: publisher)
            for share in shares { try deliver(&message, to: share) }
            return
        }
        try message.own(in: arena, owner: owner, "message to many")
        let entry = message.entry
        // What is owed must be noted before it is acknowledged; where it comes from another loop, that one has done so.
        if entry == 0, subscribers.list.contains(where: \.isStored) {
            journal?.keep(&message, for: subscribers, from: publisher)
        }
        work.fanOuts.append(
            UnfinishedFanOut(message: message, subscribers: subscribers, shares: shares, publisher: publisher))
        message.entry = entry
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
            try message.keep(in: arena, owner: context.listenerOwner, "fan-out payload")
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
    fileprivate func deliver(_ message: inout Message, to share: Match.Share) throws(ArenaError) {
        var looks = 0
        let chosen = share.group.choose(share.members, topic: message.topic, qos: message.qos, steps: &looks)
        steps.take(looks)
        guard let member = chosen else {
            context.counters.sharedUndeliverable.increment()
            return
        }
        let (qos, retain) = (message.qos, message.retain)
        message.qos = min(qos, member.qos)
        message.retain = retain && member.retainAsPublished
        message.route = member.route
        try send(&message, to: member.session)
        (message.qos, message.retain, message.route, message.entry) = (qos, retain, nil, 0)
    }

    // MARK: - Piece by piece

    func goOnWithFanOuts() {
        while !steps.isSpent, !work.fanOuts.isEmpty { deliverPiece(atMost: Limits.receiversPerPiece / 4) }
        if work.fanOuts.isEmpty { work.slicesOwed = Self.sliceCount }
    }

    /// All of them; at the end of the broker.
    func finishFanOuts() {
        while !work.fanOuts.isEmpty { deliverPiece(atMost: .max) }
    }

    private func deliverPiece(atMost count: Int) {
        var first = work.fanOuts[0]
        let many = first.subscribers.list.count
        do throws(ArenaError) {
            if first.next < many {
                let end = first.next + min(count, many - first.next)
                try deliver(
                    &first.message, to: first.subscribers, from: &first.next, through: end, publisher: first.publisher)
            } else if !first.isDone {
                let share = first.shares[first.next - many]
                first.next += 1
                // What the store calls it is the subscribers'.
                first.message.entry = 0
                let mark = journal?.mark
                defer { if let journal, journal.mark != mark { first.storedThrough = journal.number } }
                try deliver(&first.message, to: share)
            }
        } catch {
            refused(error, while: "delivering a message to many")
        }
        guard first.isDone else { return work.fanOuts[0] = first }
        work.fanOuts.removeFirst()
        if let acknowledgement = first.acknowledgement, let connection = connections[acknowledgement.publisher] {
            connection.acknowledge(acknowledgement, storedThrough: first.storedThrough)
        }
    }
}
