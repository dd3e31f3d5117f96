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
        for filter in session.subscriptions.keys { context.router.unsubscribe(session, filter) }
        session.subscriptions = [:]
        session.commandFilters = [:]
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
                do throws(ArenaError) {
                    try publish(&will, retain: will.retain, by: session.owner)
                } catch {
                    refused(error, while: "publishing the will of \(session.clientID)")
                }
            }
        }
        if !session.isPersistent { end(session) }
    }

    // MARK: - Take-over
    //
    // A client connects while a session of its name exists (MQTT-3.1.4-2). The new connection asks the session's home
    // to give it up. The home closes the old connection, and hands the session over by storing its new home. Mail that
    // still arrives here is sent after it (`deliver`); mail that reaches the new home before the word to adopt finds
    // a session without a connection, and is queued. So nothing is lost, and nothing is delivered twice.

    /// Gives a session up for a client that has connected anew, or ends it if a clean one was asked for.
    func takeOver(_ session: Session, for connection: ConnectionReference, discard: Bool) {
        let home = session.home
        guard home == index else { return post(.takeOver(session, connection, discard: discard), to: home) }
        session.connection?.close(.takenOver)
        if discard, !session.isEnded { end(session) }
        guard !session.isEnded else { return reply(.claimAgain(connection), to: connection.shard) }
        if connection.shard != index {
            sessions[ObjectIdentifier(session)] = nil
            sessionsWithCommands[ObjectIdentifier(session)] = nil
            session.move(to: connection.shard)
            context.router.changed()
        }
        reply(.adopt(session, connection), to: connection.shard)
    }

    private func reply(_ mail: Mail, to shard: Int) {
        // To this shard too by mail: the connection that asked is in the middle of handling its CONNECT.
        post(mail, to: shard)
    }

    func adopt(_ session: Session, for reference: ConnectionReference) {
        // It may have been claimed by yet another connection since.
        guard session.home == index else {
            connections[reference]?.claimSession()
            return
        }
        sessions[ObjectIdentifier(session)] = session
        if !session.pendingCommands.isEmpty { sessionsWithCommands[ObjectIdentifier(session)] = session }
        guard let connection = connections[reference] else { return }
        guard !session.isEnded, session.connection == nil else { return connection.claimSession() }
        connection.begin(session, isPresent: true)
    }
}
