import Logging
import NIOCore

// What whoever runs the broker may do to a session, over HTTP.

/// What became of the wish to end a session.
package enum SessionEnding: Sendable {
    /// It is over, and stays so after a kill.
    case ended
    /// It is over, and the data directory does not know yet.
    case notSafeYet
    /// There is none.
    case unknown
    /// The data directory cannot be written, so that the end could not be made to last: the session goes on.
    case refused
    /// The broker is about to end.
    case stopping
}

extension BrokerContext {
    /// Ends a session wherever it is, and waits until that is safe. Any thread that is no event loop's.
    ///
    /// - Parameter shards: of this broker.
    func endSession(_ clientID: String, _ shards: [EventLoopShard]) async -> SessionEnding {
        guard let session = registry.find(clientID) else { return .unknown }
        return await withCheckedContinuation { continuation in
            end(session, for: Waiter(continuation, whenLetGo: .stopping), shards)
        }
    }

    private func end(_ session: Session, for waiter: Waiter<SessionEnding>, _ shards: [EventLoopShard]) {
        let shard = shards[session.home]
        shard.loop.execute { [self] in
            guard session.home == shard.index else { return end(session, for: waiter, shards) }
            shard.end(session, for: waiter)
        }
    }
}

extension EventLoopShard {
    /// Disconnects the client of a session whose home this is, and ends the session as if it had expired. On the loop.
    func end(_ session: Session, for waiter: Waiter<SessionEnding>) {
        guard !isStopping else { return _ = waiter.complete(.stopping) }
        // When it has arrived.
        guard !session.isInTransit else { return session.operators.append(waiter) }
        if session.isStored, context.store?.isFailing == true { return _ = waiter.complete(.refused) }
        if !session.isEnded {
            context.log.notice("a session is ended by the operator", metadata: ["client": "\(session.logName)"])
            session.connection?.close(.endedByOperator)
            finishLeaving(session)
            end(session)
        }
        guard session.isStored, let journal, journal.lastNumber > journal.durable else {
            return _ = waiter.complete(.ended)
        }
        journal.hold(journal.lastNumber, .other { _ = waiter.complete(.ended) })
        loop.scheduleTask(in: .seconds(Int64(Limits.safeEndSeconds))) { _ = waiter.complete(.notSafeYet) }
    }
}
