import Arena
import ArenaNIO
import DequeModule
import Ledger
import Logging
import MQTT
import NIOCore

// The RPC bridge's part in publishing: see `RPCTopic`.
extension EventLoopShard {
    /// Handles a publish to one of the bridge's topics.
    ///
    /// - Returns: false if the store is yet to be told who gets it: see ``whenNoted(_:)``.
    func bridge(
        _ publish: inout Message, _ match: Match, _ topic: RPCTopic, from session: Session
    ) throws(ArenaError) -> Bool {
        switch topic {
        case .request(let device, let id):
            // Whom an ACL lets watch commands by an ordinary subscription gets them too.
            guard let (device, command) = try command(publish, to: device, id: id) else {
                return try route(&publish, match, from: session)
            }
            guard goesInPieces(match) else {
                try send(command, to: device, by: session.owner)
                return try route(&publish, match, from: session)
            }
            // The store hears of all of it at once.
            var kept = command
            try kept.copyIfBorrowed(in: arena, owner: context.rpcOwner, "rpc command")
            let before = work.fanOuts.last
            let isNoted = try route(&publish, match, from: session)
            if let fanOut = work.fanOuts.last, fanOut !== before, !fanOut.hasBegun {
                fanOut.command = UnfinishedFanOut.Command(device: device, message: kept, publisher: session.owner)
            } else {
                // It has begun, or has expired.
                try send(kept, to: device, by: session.owner)
            }
            return isNoted
        case .response(let id): return try handleResponse(publish, id: id, from: session)
        }
    }

    /// What the device gets; nil if it cannot be sent.
    private func command(
        _ publish: Message, to device: ByteBuffer, id: ByteBuffer
    ) throws(ArenaError) -> (Session, Message)? {
        let name = String(buffer: device)
        guard let session = context.registry.find(name) else {
            undeliverable("a device that has no session", name)
            return nil
        }
        guard let topic = try rpcTopic(context.rpcTopics.commandPrefix, id, "rpc command topic") else {
            undeliverable("a device, whose topic would be too long", name)
            return nil
        }
        var message = Message(
            topic: topic, payload: publish.payload, properties: publish.properties, qos: publish.qos, ownsBuffer: false)
        message.expiresAt = publish.expiresAt
        return (session, message)
    }

    func send(_ command: Message, to session: Session, by publisher: OwnerID) throws(ArenaError) {
        var message = command
        let owningShard = session.owningShard
        if owningShard == index {
            try deliverCommand(&message, to: session)
        } else {
            if !message.ownsBuffer { reads.noteKept(by: publisher) }
            if session.isStored, message.qos != .atMostOnce { writeBehind?.keep(&message, for: session) }
            post(.command(session, message.forAnotherLoop), to: owningShard)
        }
    }

    /// A topic of the bridge's making, in a buffer of its own: `me` in place of a device's name, or the name in place of
    /// `me`, may make it longer than it came.
    ///
    /// - Returns: nil if it is none.
    func rpcTopic(
        _ prefix: String, _ id: ByteBuffer, _ label: StaticString, file: StaticString = #fileID, line: UInt32 = #line,
        function: StaticString = #function
    ) throws(ArenaError) -> TopicName? {
        let count = prefix.utf8.count + id.readableBytes
        guard count <= Topic.maximumLength else { return nil }
        var buffer = try arena.buffer(
            capacity: count, owner: context.rpcOwner, label, file: file, line: line, function: function)
        buffer.writeString(prefix)
        buffer.writeImmutableBuffer(id)
        return try? TopicName(buffer)
    }

    /// Hands a command to the device's session and notes that its response is due.
    func deliverCommand(_ message: inout Message, to session: Session) throws(ArenaError) {
        let owningShard = session.owningShard
        guard owningShard == index else { return post(.command(session, message), to: owningShard) }
        let deadline = NIODeadline.now() + .seconds(Int64(context.configuration.rpc.timeoutSeconds))
        _ = try deliverCommand(&message, to: session, deadline: deadline, waiter: nil)
    }

    enum CommandDelivery { case delivered, notListening, tooMany }

    /// The same for a session that this shard owns.
    ///
    /// - Parameter waiter: who gets the response; nil: those who subscribe to it.
    func deliverCommand(
        _ message: inout Message, to session: Session, deadline: NIODeadline, waiter: CommandWaiter?
    ) throws(ArenaError) -> CommandDelivery {
        guard let granted = session.commandFilters.values.map(\.qos).max(), !session.isEnded else {
            discard(&message, for: session)
            undeliverable("a device that does not listen", session.clientID)
            return .notListening
        }
        var id = message.topic.bytes
        id.moveReaderIndex(forwardBy: context.rpcTopics.commandPrefix.utf8.count)
        let isOpen = session.pendingCommands.insert(
            String(buffer: id), deadline: deadline, waiter: waiter, limit: context.limits.maxPendingRPCPerDevice)
        guard isOpen else {
            discard(&message, for: session)
            undeliverable("a device with too many open", session.clientID)
            return .tooMany
        }
        sessionsWithCommands[ObjectIdentifier(session)] = session
        message.qos = min(message.qos, granted)
        if message.qos == .atMostOnce { discard(&message, for: session) }
        context.counters.commandsDelivered.increment()
        try deliver(&message, to: session)
        return .delivered
    }

    private func undeliverable(_ why: String, _ client: String) {
        context.counters.commandsUndeliverable.increment()
        losses.add(client)
        context.log.debug("rpc command for \(why)", metadata: ["client": "\(LogLines.cut(client))"])
    }

    private func handleResponse(
        _ publish: Message, id: ByteBuffer, from session: Session
    ) throws(ArenaError) -> Bool {
        let pending = session.pendingCommands.remove(String(buffer: id))
        guard pending != nil || !context.configuration.rpc.requirePending else {
            context.counters.responsesUnmatched.increment()
            losses.add(session.clientID)
            context.log.debug("rpc response that nobody waits for", metadata: ["client": "\(session.logName)"])
            return true
        }
        let waiter = pending ?? nil
        do throws(ArenaError) {
            let response = try convertToRpcCommandResponse(publish, id: id, from: session)
            // Who waits alone needs no topic.
            if let waiter {
                try answer(waiter, with: publish)
                return true
            }
            guard var message = response.message else {
                noteUnsendable("an rpc response", of: session.logName)
                return true
            }
            return try self.publish(&message, retain: false, from: session)
        } catch {
            waiter?.complete(.noMemory)
            throw error
        }
    }

    /// Once a second.
    func expireCommands() {
        if work.commands.isEmpty { work.commands = Deque(sessionsWithCommands.keys) }
        _ = goOnWithCommands()
    }

    func goOnWithCommands() -> Bool {
        let (now, isMoving) = (NIODeadline.now(), !work.commands.isEmpty)
        while !steps.isSpent, let key = work.commands.popFirst() {
            steps.take(Limits.stepsPerSweptSession)
            guard let session = sessionsWithCommands[key] else { continue }
            let expired = session.pendingCommands.removeExpired(at: now)
            if expired > 0 {
                context.counters.commandsTimedOut.increment(by: expired)
                losses.add(session.clientID, count: expired)
                context.log.debug(
                    "rpc commands timed out", metadata: ["client": "\(session.logName)", "count": "\(expired)"])
            }
            if session.pendingCommands.isEmpty { sessionsWithCommands[key] = nil }
        }
        if !work.commands.isEmpty { scheduleWork() }
        return isMoving
    }
}
