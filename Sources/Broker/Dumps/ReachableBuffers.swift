import Arena
import ArenaNIO
import Ledger
import NIOCore

// Every structure that keeps a buffer beyond the tick, for the proof of leaks: what is live in the arena and is not
// named here at a safepoint is lost. Whoever adds a place that keeps buffers adds it here.

extension EventLoopShard {
    /// Names all buffers that this shard's structures hold, and for the first shard those that belong to none; on its loop,
    /// between two ticks.
    func visitReachableBuffers(_ visitor: inout ReachableBufferVisitor) {
        visitOwnBuffers(&visitor)
        if index == 0 { context.visitSharedBuffers(&visitor, mayWait: true) }
    }

    /// Names all buffers that this shard's structures hold; on its loop, between two ticks.
    func visitOwnBuffers(_ visitor: inout ReachableBufferVisitor) {
        reads.visit(&visitor)
        fanOut.visit(owner: owner, &visitor)
        tlsReads.visit(&visitor)
        for transport in transports.values { transport.visit(&visitor) }
        connections.forEach { $0.visitReachableBuffers(&visitor) }
        for session in sessions.values { session.visitReachableBuffers(&visitor) }
        for migration in migrations.values { migration.session.visitReachableBuffers(&visitor) }
        for session in arriving.values { session.visitArrivals(&visitor) }
        for ended in work.ended {
            for message in ended.shared { message.visit(owner: ended.session.owner, kind: .offlineQueue, &visitor) }
        }
        for will in lateWills { will.message.visit(owner: owner, kind: .will, &visitor) }
        // What waits for this loop, and what this loop has not posted or handled yet.
        mailbox.forEach { $0.visit(owner: owner, &visitor) }
        forEachMailboxMessage { $0.visit(owner: owner, &visitor) }
        for fanOut in work.fanOuts {
            fanOut.message.visit(owner: owner, kind: .outbound, &visitor)
            fanOut.command?.message.visit(owner: context.rpcOwner, kind: .outbound, &visitor)
        }
    }
}

extension BrokerContext {
    /// Names what belongs to no shard. Buffers come here by way of `Arena.share`: where this cannot name them, it is not known
    /// whether anybody holds them.
    ///
    /// - Parameter mayWait: as long as it takes; else what is locked is left out.
    func visitSharedBuffers(_ visitor: inout ReachableBufferVisitor, mayWait: Bool) {
        visitRetained(mayWait: mayWait) { $0.visit(owner: $1, kind: .retained, &visitor) }
        commandResponses.forEach(mayWait: mayWait) { visitor.hold($0, owner: rpcOwner, kind: .pendingRPC) }
    }
}

extension Session {
    fileprivate func visitReachableBuffers(_ visitor: inout ReachableBufferVisitor) {
        // While its client is there, and while it waits for its delay.
        will?.message.visit(owner: owner, kind: .will, &visitor)
        state.forEachInflight { visitor.hold($0, $1, owner: owner, kind: .inflight) }
        state.forEachQueued { visitor.hold($0, $1, owner: owner, kind: .offlineQueue) }
    }

    /// What the loop has that it is on its way to.
    fileprivate func visitArrivals(_ visitor: inout ReachableBufferVisitor) {
        for message in forwarded + stagingQueue { message.visit(owner: owner, kind: .offlineQueue, &visitor) }
    }
}

extension ReachableBufferVisitor {
    /// By the message's slot, or by its buffers where it has none.
    fileprivate mutating func hold(_ reach: Message.Reach, _ message: Message?, owner: OwnerID, kind: ReferrerKind) {
        if let message { return message.visit(owner: owner, kind: kind, &self) }
        hold(reach.slot, bytes: Int(reach.bytes), owner: owner, kind: kind)
    }
}

extension Message {
    func visit(owner: OwnerID, kind: ReferrerKind, _ visitor: inout ReachableBufferVisitor) {
        if reach.isKnown { return visitor.hold(reach, nil, owner: owner, kind: kind) }
        visitor.hold(topic.bytes, owner: owner, kind: kind)
        guard !ownsBuffer else { return }
        visitor.hold(payload, owner: owner, kind: kind)
        if let properties { visitor.hold(properties, owner: owner, kind: kind) }
    }
}

extension Message {
    /// Before it is handed to another loop.
    func share(in arena: Arena) {
        if reach.isKnown { return arena.share(reach.slot) }
        Arena.share(topic.bytes)
        Arena.share(payload)
        if let properties { Arena.share(properties) }
    }
}

extension MailboxMessage {
    /// Before it is posted: from here on its buffers may be held by a loop that cannot be asked.
    func share(in arena: Arena) {
        switch self {
        case .publish(let message, _), .deliver(_, let message), .forward(_, let message), .command(_, let message):
            message.share(in: arena)
        case .adopt(let session, _, _):
            var visitor = ReachableBufferVisitor(pool: arena.pool)
            session.visitReachableBuffers(&visitor)
            for reference in visitor.finish().joined() { arena.share(SlotIndex(rawValue: reference.slot)) }
        case .takeOver, .barrier, .barrierPassed, .claimAgain, .superseded, .overflowBatch: break
        }
    }

    fileprivate func visit(owner: OwnerID, _ visitor: inout ReachableBufferVisitor) {
        switch self {
        case .publish(let message, _), .deliver(_, let message), .forward(_, let message), .command(_, let message):
            message.visit(owner: owner, kind: .outbound, &visitor)
        // On its way to its new owning shard it is in no shard's list.
        case .adopt(let session, _, _): session.visitReachableBuffers(&visitor)
        case .takeOver, .barrier, .barrierPassed, .claimAgain, .superseded, .overflowBatch: break
        }
    }
}
