import Dispatch
import Logging
import NIOCore

// What whoever runs the broker may do to a session, over HTTP.

/// What became of the wish to end a session.
package enum SessionEnding: Sendable {
    /// It is over, and stays so after a kill.
    case ended
    /// It is over, and the data directory does not know yet.
    case notDurableYet
    /// There is none.
    case unknown
    /// It was over already.
    case wasOver
    /// Its event loop has not come to it.
    case notYet
    /// The data directory cannot be written, so that the end could not be made to last: the session goes on.
    case refused
    /// The broker is about to end.
    case stopping
}

extension BrokerContext {
    /// Ends a session wherever it is, and waits until that is durable. Any thread that is no event loop's.
    ///
    /// - Parameter shards: of this broker.
    func endSession(_ clientID: String, _ shards: [EventLoopShard]) async -> SessionEnding {
        var isOver = false
        // Another of its name may have begun since.
        for _ in 0..<8 {
            guard let session = registry.find(clientID) else { return isOver ? .ended : .unknown }
            let ending = await withCheckedContinuation { continuation in
                let waiter = Waiter(continuation, whenLetGo: SessionEnding.stopping)
                // By no loop: the session's may hang.
                DispatchQueue.global().asyncAfter(deadline: .now() + .seconds(2 * limits.durableEndSeconds)) {
                    waiter.complete(.notYet)
                }
                end(session, for: waiter, shards)
            }
            guard ending == .wasOver else { return ending }
            isOver = true
        }
        return .notYet
    }

    private func end(_ session: Session, for waiter: Waiter<SessionEnding>, _ shards: [EventLoopShard]) {
        let shard = shards[session.owningShard]
        shard.loop.execute { [self] in
            guard session.owningShard == shard.index else { return end(session, for: waiter, shards) }
            shard.end(session, for: waiter)
        }
    }
}

extension EventLoopShard {
    /// Disconnects the client of a session that this shard owns, and ends the session as if it had expired. On the loop.
    func end(_ session: Session, for waiter: Waiter<SessionEnding>) {
        guard !isStopping else { return _ = waiter.complete(.stopping) }
        // When it has arrived.
        guard !session.isInTransit else { return session.operators.append(waiter) }
        if session.isStored, context.store?.isFailing == true { return _ = waiter.complete(.refused) }
        guard !session.isEnded else { return _ = waiter.complete(.wasOver) }
        context.log.notice("a session is ended by the operator", metadata: ["client": "\(session.logName)"])
        session.connection?.close(.endedByOperator)
        finishLeaving(session)
        end(session)
        whenEndIsDurable(of: session) { _ = waiter.complete(.ended) }
        guard session.isStored else { return }
        loop.scheduleTask(in: .seconds(Int64(context.limits.durableEndSeconds))) { _ = waiter.complete(.notDurableYet) }
    }
}
