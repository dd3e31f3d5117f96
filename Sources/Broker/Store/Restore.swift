import Arena
import ArenaNIO
import SQLite
import Ledger
import Logging
import MQTT
import NIOCore

// At the start, before anybody can connect: what the store has goes back to where it was, into buffers of the arena.

extension Broker {
    /// - Throws: `StartError` if the database is damaged, or has more than the memory limit takes.
    static func restore(from store: Store, to shards: [EventLoopShard], _ log: Logger) async throws {
        store.start(shards.map { shard in { number in shard.loop.execute { shard.stored(through: number) } } })
        do {
            try store.collectGarbage()
            let sessions = try store.queue.read { try store.reading($0).sessions() }
            var messages = 0
            for shard in shards {
                let share = sessions.enumerated().filter { $0.offset % shards.count == shard.index }.map(\.element)
                messages += try await shard.loop.submit { try shard.restore(share, from: store) }.get()
            }
            let first = shards[0]
            let retained = try await first.loop.submit { try first.restoreRetained(from: store) }.get()
            // Not before all are there: these may have something for any of them.
            let left = try store.queue.read { try store.reading($0).sessionsWithHandovers() }
            for shard in shards { try await shard.loop.submit { shard.beginTime() }.get() }
            try await first.loop.submit { for session in left { first.handOver(session) } }.get()
            log.info(
                "sessions and retained messages come from \(store.path)",
                metadata: ["sessions": "\(sessions.count)", "queued": "\(messages)", "retained": "\(retained)"])
        } catch let error as ArenaError {
            throw StartError("\(store.path) has more than the memory limit takes: \(error)")
        } catch {
            throw StoreSchema.failure(error, store.path)
        }
    }
}

extension EventLoopShard {
    /// - Returns: how many messages are owed to these sessions.
    func restore(_ sessions: [StoreReader.StoredSession], from store: Store) throws -> Int {
        // The bytes of a message are kept once for all sessions of this loop.
        var contents: [UInt64: Message] = [:]
        var count = 0
        for stored in sessions {
            let sessionRecord = try store.queue.read { try store.reading($0).sessionRecord(of: stored.id) }
            let session = Session(
                clientID: stored.clientID, userName: stored.userName,
                owner: context.pool.openOwner(.session, name: stored.clientID, parent: context.listenerOwner),
                expiryInterval: stored.expiryInterval, owningShard: index, storeKey: stored.id,
                heap: context.heap, rpcTopics: context.rpcTopics)
            session.came(
                by: context.listeners.first { $0.settings.configuration.name == stored.listenerName }
                    ?? context.listeners[0])
            self.sessions[ObjectIdentifier(session)] = session
            context.registry.restore(session)
            for (filter, options) in sessionRecord.subscriptions {
                session.subscriptionBytes += Limits.subscriptionBytes(filter)
                install(options, UTF8Key(filter), of: session)
            }
            noteUnusable(sessionRecord.unusable, of: session)
            for packetID in sessionRecord.receipts { update(session) { $0.state.restoreReceipt(packetID) } }
            for owed in sessionRecord.owed { try restore(owed, to: session, &contents) }
            for queued in sessionRecord.queued {
                update(session) {
                    $0.state.restoreSpilled(
                        queued.id, bytes: queued.bytes, expiresAt: queued.expiresAt)
                }
            }
            session.mayHoldShared = session.mayHoldShared || sessionRecord.hasShared
            count += sessionRecord.owed.count + sessionRecord.queued.count
            // A client that was connected when the broker ended has been away since now.
            let now = NIODeadline.now()
            if let endsAt = stored.endsAt {
                update(session) { $0.endsAt = endsAt }
            } else if stored.expiryInterval != .max {
                update(session) { $0.endsAt = now + .seconds(Int64(stored.expiryInterval)) }
            }
            if let will = sessionRecord.will {
                guard var message = try message(will.content, owner: session.owner, "stored will") else {
                    noteUnsendable("a stored will", of: session.clientID)
                    writeBehind?.forgetWill(of: session)
                    continue
                }
                (message.qos, message.retain) = (will.qos, will.retain)
                let kept = KeptWill(
                    message: message, delayInterval: will.delayInterval, expiryInterval: will.expiryInterval,
                    dueAt: will.dueAt ?? now + .seconds(Int64(will.delayInterval)))
                update(session) { $0.will = kept }
                session.isWillStored = true
            }
        }
        return count
    }

    /// Stored subscriptions that are none: they are left out, and forgotten.
    private func noteUnusable(_ filters: [[UInt8]], of session: Session) {
        guard !filters.isEmpty else { return }
        context.counters.subscriptionsUnusable.increment(by: filters.count)
        for filter in filters { writeBehind?.forgetSubscription(session, filter) }
        context.log.warning(
            "stored subscriptions that are none are left out",
            metadata: ["client": "\(session.logName)", "count": "\(filters.count)"])
    }

    /// From here on sessions that were restored may end, and their wills be published.
    func beginTime() {
        isTimeRunning = true
        for session in sessions.values { settle(session) }
    }

    private func restore(
        _ owed: StoreReader.Owed, to session: Session, _ contents: inout [UInt64: Message]
    ) throws(ArenaError) {
        guard let content = owed.content else {
            return update(session) { $0.state.restore(nil, serial: owed.serial ?? 0, stored: owed.id) }
        }
        var message: Message
        if let known = contents[content.id] {
            message = known
        } else {
            guard let read = try self.message(content, owner: session.owner, "stored message") else {
                noteUnsendable("a stored message", of: session.clientID)
                writeBehind?.removed(StoredEntry(session: session.storeKey, id: owed.id))
                return
            }
            message = read
        }
        try message.assignOwner(in: arena, owner: session.owner, sharedOwner: context.listenerOwner, "stored message")
        contents[content.id] = message
        (message.qos, message.retain, message.entry) = (owed.qos, owed.retain, owed.id)
        message.route = Route(
            encodedIdentifiers: owed.identifiers, group: owed.share.flatMap { context.router.group(of: $0) })
        if let serial = owed.serial {
            update(session) { $0.state.restore(message, serial: serial, stored: owed.id) }
        } else {
            update(session) { $0.state.restore(message) }
        }
    }

    /// A message out of the store, in a buffer of its own.
    ///
    /// - Returns: nil for what no broker can send: bytes that are no topic name, or no properties. Then there is nothing
    ///   to do but to drop it, and to say so (``noteUnsendable(_:of:)``).
    func message(
        _ content: StoreReader.Content, owner: OwnerID, _ label: StaticString
    ) throws(ArenaError) -> Message? {
        // Before there is room for it.
        guard content.topic.count <= Topic.maximumLength, content.payload.count <= VariableByteInteger.maximum else {
            return nil
        }
        var buffer = try arena.buffer(capacity: max(content.byteCount, 1), owner: owner, label)
        return content.message(in: &buffer)
    }

    /// - Returns: how many there are.
    func restoreRetained(from store: Store) throws -> Int {
        var last: [UInt8]?
        while true {
            let page = try store.queue.read { [last] in
                try store.reading($0).retained(after: last, limit: Limits.restoredPage)
            }
            guard let end = page.last else { return context.retained.count }
            last = end.content.topic
            for stored in page {
                guard var message = try message(stored.content, owner: owner, "stored retained message"),
                    // Nobody may publish there, so nobody could remove it.
                    !SysTopics.isReserved(message.topic)
                else {
                    noteUnsendable("a stored retained message", of: "")
                    writeBehind?.forgetRetained(stored.content.topic)
                    continue
                }
                message.qos = stored.qos
                _ = try context.retained.store(message, arena: arena)
            }
        }
    }
}
