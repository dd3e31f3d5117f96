import Arena
import DequeModule
import Logging
import MQTT
import NIOCore

// The part of a session's queue that is in the store only comes back a page at a time, as the client takes what is in
// memory. Pages are outside the arena while they are read: few are at once, for each loop.
//
//     client takes messages --> few are left --> [ wanted ] --> the store's thread reads --> messages in the arena

/// What a loop wants to have read.
struct OverflowBatches {
    /// In the order in which they asked.
    var wanted: Deque<(session: Session, order: [UInt64])> = []
    /// On their way.
    var open = 0
    /// What cannot be read before what was posted has been written: these wait for the disk, and nobody for them.
    var later: Deque<(session: Session, read: Read)> = []
    var openLater = 0
    /// Those who asked in vain, and count as asking until they do so again: the disk failed, or the arena was full.
    var again: [Session] = []

    var isWanted: Bool { !wanted.isEmpty || !later.isEmpty }

    enum Read {
        case messages([UInt64])
        case expired
    }
}

/// What was read for a session.
enum OverflowBatch: Sendable {
    /// Of those asked for the first ones, in order; without content where there is none.
    case messages([UInt64: StoreReader.Owed], order: [UInt64])
    /// The first of these is to be read when what was posted has been written.
    case notYet([UInt64])
    /// What has expired, and when the next one does.
    case expired([UInt64], next: NIODeadline)
    /// What sessions that are over have left to their groups, and those of them that have left nothing more.
    case handovers([(session: UInt64, owed: StoreReader.Owed)], ended: [UInt64])
    /// The store does not work now.
    case unavailable
}

extension EventLoopShard {
    /// Has the next page read if few messages of the session are left in memory.
    func wantOverflowBatch(_ session: Session) {
        guard writeBehind != nil, let batch = update(session, { $0.state.beginReading() }) else { return }
        overflowBatches.wanted.append((session, batch))
        scheduleEndTick()
    }

    /// Has the store say which of the messages there have expired.
    func wantExpired(_ session: Session) {
        guard writeBehind != nil, update(session, { $0.state.beginExpiry() }) else { return }
        overflowBatches.later.append((session, .expired))
        scheduleEndTick()
    }

    /// When the tick's batch has been posted: what is read may be in it.
    func readOverflowBatches() {
        guard !isStopping, let store = context.store else { return }
        while overflowBatches.open < Limits.maxOpenOverflowBatches,
            let (session, order) = overflowBatches.wanted.popFirst()
        {
            overflowBatches.open += 1
            store.readOwed(to: session.storeKey, order) { [self, loop] batch in
                loop.execute {
                    self.overflowBatches.open -= 1
                    if case .notYet(let order) = batch {
                        self.overflowBatches.later.append((session, .messages(order)))
                    } else {
                        self.take(batch, for: session)
                    }
                    self.scheduleEndTick()
                }
            }
        }
        while overflowBatches.openLater < Limits.maxOpenOverflowBatches,
            let (session, read) = overflowBatches.later.popFirst()
        {
            overflowBatches.openLater += 1
            let key = session.storeKey
            store.read { reader in
                switch read {
                case .messages(let order): return .messages(try reader.owed(to: key, order), order: order)
                case .expired:
                    let (expired, next) = try reader.expired(of: key)
                    return .expired(expired, next: next)
                }
            } whenRead: { [self, loop] batch in
                loop.execute {
                    self.overflowBatches.openLater -= 1
                    switch (read, batch) {
                    // Asked for again in a while.
                    case (.expired, .unavailable):
                        self.take(.expired([], next: .now() + .seconds(1)), for: session)
                    default: self.take(batch, for: session)
                    }
                    self.scheduleEndTick()
                }
            }
        }
    }

    /// Takes what was read, or sends it after the session.
    func take(_ batch: OverflowBatch, for session: Session) {
        guard session.owningShard == index else { return post(.overflowBatch(session, batch), to: session.owningShard) }
        guard !session.isInTransit else { return session.overflowBatches.append(batch) }
        guard !session.isEnded else { return }
        switch batch {
        case .unavailable: overflowBatches.again.append(session)
        case .expired(let entries, let next):
            let count = update(session) { core in
                if next != .distantFuture { core.state.expires(at: next) }
                return core.state.removeSpilled(Set(entries))
            }
            context.counters.messagesExpired.increment(by: count)
        case .messages(let found, let order): take(found, order, for: session)
        case .notYet, .handovers: break
        }
    }

    private func take(_ found: [UInt64: StoreReader.Owed], _ order: [UInt64], for session: Session) {
        do throws(ArenaError) {
            for entry in order {
                guard let owed = found[entry], let content = owed.content else {
                    // All that was posted had been written: it should be there.
                    if update(session, { $0.state.removeSpilled([entry]) }) > 0 {
                        context.log.error(
                            "a queued message is not in the store", metadata: ["client": "\(session.logName)"])
                    }
                    continue
                }
                guard var message = try message(content, owner: session.owner, "queued message") else {
                    if update(session, { $0.state.removeSpilled([entry]) }) > 0 {
                        noteUnsendable("a queued message", of: session.clientID)
                    }
                    continue
                }
                try message.assignOwner(in: arena, owner: session.owner, "queued message")
                (message.qos, message.retain, message.entry) = (owed.qos, owed.retain, entry)
                message.route = Route(
                    encodedIdentifiers: owed.identifiers, group: owed.share.flatMap { context.router.group(of: $0) })
                update(session) { $0.state.takeSpilled(message) }
            }
            update(session) { $0.state.endReading() }
        } catch {
            refused(error, while: "reading a queue from the store")
            overflowBatches.again.append(session)
        }
        session.connection?.wantsToSend()
    }

    /// Four times a second.
    func wantOverflowBatchesAgain() {
        let again = overflowBatches.again
        overflowBatches.again = []
        for session in again {
            // It is asked for by the loop that it has moved to.
            guard session.owningShard == index, !session.isInTransit else {
                take(.unavailable, for: session)
                continue
            }
            guard !session.isEnded else { continue }
            update(session) { $0.state.endReading() }
        }
    }
}
