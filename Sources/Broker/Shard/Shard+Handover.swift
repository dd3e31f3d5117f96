import Arena
import DequeModule
import MQTT
import NIOCore

// What a session that ends has of shared subscriptions goes to other members (section 4.8.2): all that was not sent, and
// QoS 1 without an answer (MQTT-4.8.2-5).
//
// With a store it is there that it is: these entries outlive their session, and are given away a page at a time, each
// one removed in the transaction that has it for another member. So a long queue never comes into memory as a whole, and
// a kill between two pages loses nothing: the next start goes on.
//
//     session ends --> [ waiting ] --> the store's thread reads a page --> other members, until nothing is left

/// Sessions that are over and have left something to their groups, by the numbers that the store knows them by.
struct Handovers {
    private var waiting: Deque<UInt64> = []
    private var known: Set<UInt64> = []
    /// A page is on its way.
    private var isReading = false
    /// The disk failed, or the arena was full: goes on a quarter of a second later.
    private(set) var isResting = false

    var isDue: Bool { !waiting.isEmpty && !isReading && !isResting }

    mutating func add(_ session: UInt64) {
        if known.insert(session).inserted { waiting.append(session) }
    }

    /// - Returns: those to be read for. What is left to them meanwhile is read for again.
    mutating func begin() -> [UInt64] {
        isReading = true
        let batch = Array(waiting.prefix(Limits.queueMemoryMessages))
        waiting.removeFirst(batch.count)
        known.subtract(batch)
        return batch
    }

    /// Those that have something left wait again, before the others.
    mutating func end(left: [UInt64], rests: Bool) {
        isReading = false
        isResting = rests
        for session in left.reversed() where known.insert(session).inserted { waiting.prepend(session) }
    }

    mutating func goOn() { isResting = false }
}

extension EventLoopShard {
    /// Has what the session has left to its groups given to other members.
    func handOver(_ session: UInt64) {
        guard writeBehind != nil else { return }
        handovers.add(session)
        scheduleEndTick()
    }

    /// When the tick's batch has been posted: what is read may be in it.
    func readHandovers() {
        guard !isStopping, let store = context.store else { return }
        let sessions = handovers.begin()
        store.read { reader in
            let batch = try reader.handovers(of: sessions)
            return .handovers(batch.messages, ended: batch.ended)
        } whenRead: { [self] batch in
            loop.execute { self.takeHandovers(batch, of: sessions) }
        }
    }

    private func takeHandovers(_ batch: OverflowBatch, of sessions: [UInt64]) {
        defer { scheduleEndTick() }
        // The next broker goes on with it.
        guard !isStopping else { return }
        guard case .handovers(let messages, let ended) = batch else {
            return handovers.end(left: sessions, rests: true)
        }
        var isRefused = false
        do throws(ArenaError) {
            for (session, owed) in messages {
                guard let content = owed.content else { continue }
                if var message = try message(content, owner: owner, "message of a session that ended") {
                    (message.qos, message.retain) = (owed.qos, owed.retain)
                    if let group = owed.share.flatMap({ context.router.group(of: $0) }),
                        try !redispatch(&message, in: group)
                    {
                        context.counters.sharedUndeliverable.increment()
                    }
                } else {
                    noteUnsendable("a message of a session that ended", of: "")
                }
                writeBehind?.removed(StoredEntry(session: session, id: owed.id))
            }
        } catch {
            refused(error, while: "giving a shared message to another member")
            isRefused = true
        }
        handovers.end(left: sessions.filter { !ended.contains($0) }, rests: isRefused)
    }

    func goOnWithHandovers() {
        handovers.goOn()
        scheduleEndTick()
    }

    /// A message is for a session that is over: if it is its group's, another member gets it.
    func passOn(_ message: Message, from session: Session) {
        guard !isStopping, message.route?.group != nil else { return }
        // The store has it, behind what else the session has left.
        guard message.entry == 0 else { return handOver(session.storeKey) }
        if !giveToAnother(message) { context.counters.sharedUndeliverable.increment() }
    }

    /// A message has come to a session whose client may not read it: since it was chosen, rules have changed.
    func turnAway(_ message: inout Message, from session: Session) {
        if message.route?.group != nil {
            // What the store has of it is for the next broker.
            guard !isStopping else { return }
            if !giveToAnother(message) { context.counters.sharedUndeliverable.increment() }
        }
        discard(&message, for: session)
    }

    /// Gives a message of a shared subscription to another member, who may read it. What the store has of it for the first one
    /// is to be given up after this: in the same batch.
    ///
    /// - Returns: false if there is none, or it is nobody's but the first one's.
    func giveToAnother(_ message: Message) -> Bool {
        guard !isStopping, let group = message.route?.group else { return false }
        var message = message
        do throws(ArenaError) {
            return try redispatch(&message, in: group)
        } catch {
            refused(error, while: "giving a shared message to another member")
            return false
        }
    }

    /// Gives a message to whichever member's turn it is.
    ///
    /// - Returns: false if there is none for it.
    private func redispatch(_ message: inout Message, in group: SharedGroup) throws(ArenaError) -> Bool {
        var looks = 0
        let members = groupMembers.members(of: group, in: context.router, steps: &looks)
        let chosen = group.choose(members, topic: message.topic, qos: message.qos, steps: &looks)
        steps.take(looks)
        guard let next = chosen else { return false }
        (message.entry, message.contentID) = (0, 0)
        message.qos = min(message.qos, next.qos)
        message.route = next.route
        try send(&message, to: next.session)
        return true
    }
}

/// The members of groups that messages are given to one after the other: made once, until any subscription changes.
struct GroupMembers {
    private var version: UInt64 = 0
    private var groups: [ObjectIdentifier: (group: SharedGroup, members: [Subscriber])] = [:]
    private var count = 0

    /// - Parameter steps: grows by the members that were made.
    mutating func members(of group: SharedGroup, in router: Router, steps: inout Int) -> [Subscriber] {
        // Read before the members: a change in between makes them stale, never wrong.
        trim(version: router.version)
        if let known = groups[ObjectIdentifier(group)] { return known.members }
        let members = router.members(of: group)
        steps += members.count
        if count + members.count > Limits.rememberedMembers { (groups, count) = ([:], 0) }
        count += members.count
        groups[ObjectIdentifier(group)] = (group, members)
        return members
    }

    /// Forgets what an older version said.
    mutating func trim(version: UInt64) {
        guard version != self.version else { return }
        (self.version, groups, count) = (version, [:], 0)
    }
}
