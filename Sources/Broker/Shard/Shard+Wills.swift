import Arena
import DequeModule
import MQTT
import NIOCore

/// A will that is due, and that has not been published: the disk fails, or there is no memory for it. The session may be
/// over, or its client back with another will; this one is owed all the same.
struct LateWill {
    /// Which may have moved to another loop since.
    let session: Session
    let listener: Listener?
    /// With RETAIN as the will asks for.
    let message: Message
}

extension EventLoopShard {
    /// Publishes a will that is due, or has it tried again. What the store has of it is forgotten not before it is done.
    func publishWill(_ will: LateWill, by rules: AccessRules?) {
        if !tryWill(will, by: rules) { keepWill(will) }
    }

    /// In every tick of the shard's clock; not more than a tick should do.
    func publishLateWills() {
        guard context.store?.isFailing != true else { return }
        for _ in 0..<min(lateWills.count, Limits.endingsPerTick) where !isBusy {
            let will = lateWills.removeFirst()
            let rules = will.listener.flatMap { will.session.rules(at: $0) }
            // There may be memory for another.
            guard tryWill(will, by: rules) else { return lateWills.append(will) }
        }
        if lateWills.isEmpty { lateWills = [] }
    }

    private func keepWill(_ will: LateWill) {
        guard lateWills.count < Limits.maxLateWills else {
            context.counters.publishesRefused.increment()
            return losses.add(will.session.clientID)
        }
        // Its session may end.
        arena.transfer(will.message.topic.bytes, to: owner, "will that is late")
        lateWills.append(will)
    }

    /// - Returns: whether it is done, one way or the other.
    private func tryWill(_ will: LateWill, by rules: AccessRules?) -> Bool {
        let (session, topic) = (will.session, will.message.topic)
        // A stored one may be older than the rule about reserved topics.
        guard session.mayPublish(topic, by: rules), !SysTopics.isReserved(topic) else {
            context.noteDenied("will", session, topic.text)
            forgetStoredWill(of: session)
            return true
        }
        let match = match(topic)
        let mustBeStored = will.message.retain || (will.message.qos != .atMostOnce && match.requiresPersistence)
        if mustBeStored, context.store?.isFailing == true { return false }
        var message = will.message
        do throws(ArenaError) {
            guard try publish(&message, retain: message.retain, from: session) else {
                if message.retain, session.isWillStored, session.owningShard == index, !session.isInTransit,
                    session.will == nil
                {
                    writeBehind?.willIsRetained(of: session)
                }
                whenNoted(.will(of: session))
                return true
            }
        } catch {
            refused(error, while: "publishing the will of \(session.logName)")
            return false
        }
        forgetStoredWill(of: session)
        return true
    }

    /// What the store has is this will, unless the client has come back with another since.
    func forgetStoredWill(of session: Session) {
        guard session.owningShard == index else {
            guard !isStopping, peers.indices.contains(session.owningShard) else { return }
            let owningShard = peers[session.owningShard]
            return owningShard.loop.execute { owningShard.forgetStoredWill(of: session) }
        }
        guard !session.isInTransit else {
            // When it has arrived.
            return _ = loop.scheduleTask(in: .milliseconds(Int64(Limits.tickMilliseconds))) { [self] in
                guard !isStopping else { return }
                forgetStoredWill(of: session)
            }
        }
        if !session.isEnded, session.will == nil { forgetWill(of: session) }
    }
}
