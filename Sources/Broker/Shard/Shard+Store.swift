import Arena
import MQTT
import NIOCore

// A shard and its write-behind buffer: what is noted for the store, and what becomes of it when it is durable.
extension EventLoopShard {
    /// The client is there: its session is as it says.
    func noteAttached(_ session: Session) {
        guard let writeBehind, session.isStored else { return }
        writeBehind.attach(session)
        // What it did on another connection, or on another loop, is durable when this is.
        session.storedThrough = writeBehind.lastNumber
    }

    /// A message that the store knows is not for the session after all.
    func discard(_ message: inout Message, for session: Session) {
        guard message.entry != 0, let writeBehind else { return }
        _ = writeBehind.note([.removed(message.entry)], of: session)
        message.entry = 0
    }

    /// A message that nobody can be sent: it is dropped, wherever it is from.
    func noteUnsendable(_ what: String, of client: String) {
        context.counters.messagesUnsendable.increment()
        losses.add(client)
        context.log.debug("\(what) that cannot be sent", metadata: ["client": "\(LogLines.cut(client))"])
    }

    func keep(_ will: KeptWill?, of session: Session) {
        update(session) { $0.will = will }
        guard session.isStored, let writeBehind, let will else { return }
        whenWillIsNoted(of: session) {
            guard !session.isEnded, session.will != nil else { return }
            writeBehind.keep(will, of: session)
            session.isWillStored = true
        }
    }

    func forgetWill(of session: Session) {
        update(session) { $0.will = nil }
        whenWillIsNoted(of: session) { [writeBehind] in
            guard session.isWillStored else { return }
            session.isWillStored = false
            writeBehind?.forgetWill(of: session)
        }
    }

    /// Forgets a session that the store goes on keeping: the broker ends.
    func leave(_ session: Session) {
        update(session) { core in
            core.isEnded = true
            core.will = nil
            core.state = SessionState(heap: context.heap)
        }
        context.registry.remove(session)
        unsubscribeAll(session)
        session.pendingCommands = PendingCommands()
        (session.forwarded, session.stagingQueue) = ([], [])
        arriving[ObjectIdentifier(session)] = nil
        sessions[ObjectIdentifier(session)] = nil
        sessionsWithCommands[ObjectIdentifier(session)] = nil
        context.pool.closeOwner(session.owner)
    }

    /// Batches up to this one are durable: says what has waited for that.
    func stored(through number: UInt64) {
        writeBehind?.release(through: number) { held in
            switch held {
            case .ack(let reference, let type, let packetID, let code):
                guard let connection = connections[reference], case .connected = connection.phase else { return }
                connection.writeAck(type, packetID, code)
            case .publish(let reference, let packetID, let dup):
                guard let connection = connections[reference], case .connected = connection.phase,
                    let message = connection.session?.state.message(sentAs: packetID)
                else { return }
                connection.sendNow(message, packetID: packetID, dup: dup, isAsked: false)
            case .other(let body): body()
            }
        }
        resumeWaiting()
    }

    /// Reads those again who had to wait for the store. When it fails they go on too, to be refused.
    func resumeWaiting() {
        guard !waitingForStore.isEmpty, let store = context.store, store.hasRoom || store.isFailing else { return }
        let waiting = waitingForStore
        waitingForStore = []
        for reference in waiting { connections[reference]?.goOnAfterStore() }
    }
}
