import Arena
import MQTT
import NIOCore

// The life of sessions: begun here, moved here from other shards, ended.
extension EventLoopShard {
    /// Ends a session for good: its subscriptions, its messages, its name.
    func end(_ session: Session) {
        guard !session.isEnded else { return }
        session.isEnded = true
        context.registry.remove(session)
        for filter in session.subscriptions.keys { context.router.unsubscribe(session, filter.text) }
        session.subscriptions = [:]
        session.commandFilters = [:]
        session.subscriptionBytes = 0
        session.pendingCommands = PendingCommands()
        session.state = SessionState()
        session.will = nil
        sessions[ObjectIdentifier(session)] = nil
        sessionsWithCommands[ObjectIdentifier(session)] = nil
        context.pool.closeOwner(session.owner)
    }

    /// Called when the network connection of a session is gone: publishes its will unless the client said goodbye,
    /// and ends the session if it is not to outlive its connection.
    func detach(_ session: Session, publishWill: Bool) {
        session.connection = nil
        if var will = session.will {
            session.will = nil
            if publishWill {
                // Those who are subscribed already get it without RETAIN (MQTT-3.3.1-9).
                let isRetained = will.retain
                will.retain = false
                do throws(ArenaError) {
                    try publish(&will, retain: isRetained, by: session.owner)
                } catch {
                    refused(error, while: "publishing the will of \(session.logName)")
                }
            }
        }
        if !session.isPersistent { end(session) }
    }

    // MARK: - Take-over
    //
    // A client connects while a session of its name exists (MQTT-3.1.4-2). The new connection asks the session's home
    // to give it up. On the same loop that is all. Else the session moves, and no message may be lost, delivered twice
    // or overtaken by a later one of its publisher (MQTT-4.6.0-6):
    //
    //     old home                           other shards                    new home
    //     closes the old connection
    //     stores the new home  - - - - - - - new mail goes there - - - - - > keeps it in `arrivals`
    //     sends a fence to all  - - - - - -> answer behind their last mail
    //     forwards what still comes  - - - - - - - - - - - - - - - - - - - > queues it
    //     has all answers: "adopt"  - - - - - - - - - - - - - - - - - - - -> queues `arrivals`, begins

    /// Gives a session up for a client that has connected anew, or ends it if a clean one was asked for.
    func takeOver(_ session: Session, for connection: ConnectionReference, discard: Bool) {
        let home = session.home
        guard home == index else { return post(.takeOver(session, connection, discard: discard), to: home) }
        if session.isInTransit { return session.claims.append((connection, discard)) }
        session.connection?.close(.takenOver)
        if discard, !session.isEnded { end(session) }
        // To this shard too by mail: the connection that asks is in the middle of handling its CONNECT.
        guard !session.isEnded else { return post(.claimAgain(connection), to: connection.shard) }
        guard connection.shard != index else { return post(.adopt(session, connection), to: index) }

        sessions[ObjectIdentifier(session)] = nil
        sessionsWithCommands[ObjectIdentifier(session)] = nil
        departures[ObjectIdentifier(session)] = Departure(
            session: session, connection: connection, answersDue: peers.count - 1)
        session.isInTransit = true
        session.move(to: connection.shard)
        context.router.changed()
        for shard in peers.indices where shard != index { post(.fence(session, from: index), to: shard) }
    }

    /// A shard has seen the new home: whatever it sent here before has been forwarded.
    func fencePassed(_ session: Session) {
        let id = ObjectIdentifier(session)
        departures[id]?.answersDue -= 1
        guard let departure = departures[id], departure.answersDue == 0 else { return }
        departures[id] = nil
        post(.adopt(session, departure.connection), to: departure.connection.shard)
    }

    /// Takes a session that has arrived, and serves the connection it came for.
    func adopt(_ session: Session, for reference: ConnectionReference) {
        // On one loop, another connection may have taken it on since: start again.
        guard session.home == index, !session.isEnded, session.connection == nil else {
            connections[reference]?.claimSession()
            return
        }
        session.isInTransit = false
        sessions[ObjectIdentifier(session)] = session
        if !session.pendingCommands.isEmpty { sessionsWithCommands[ObjectIdentifier(session)] = session }
        for message in session.arrivals { queue(message, for: session) }
        session.arrivals = []
        connections[reference]?.begin(session, isPresent: true)
        let claims = session.claims
        session.claims = []
        for claim in claims { takeOver(session, for: claim.connection, discard: claim.discard) }
    }
}

/// A session on its way to another shard.
struct Departure {
    let session: Session
    let connection: ConnectionReference
    /// Shards whose mail to the session may still come here.
    var answersDue: Int
}
