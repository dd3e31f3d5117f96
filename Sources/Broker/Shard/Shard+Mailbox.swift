import NIOCore

// Messages between the mailboxes of loops are bounded by its deliveries: who publishes to a loop that has more than it should
// waits, as who publishes more than the disk writes does. Else a loop that has little to do itself could order any amount of work
// of another, and of the memory that waits for it.
extension EventLoopShard {
    /// Posts what this tick has gathered for another loop.
    func postGathered(to shard: Int, _ load: Int) {
        let peer = peers[shard]
        context.heap.add(load * MemoryLayout<Subscriber>.stride, to: .growth)
        if peer.mailboxLoad.add(load, ordering: .sequentiallyConsistent).newValue > mostMailboxLoad, peer !== self,
            !isStopping
        {
            isMailboxFull = true
            // It may have had room again before it could know that somebody waits.
            lookForMailboxRoom()
        }
    }

    /// What has been delivered of other loops' mailboxes; wakes those that wait for room.
    func settleMailboxLoad(_ load: Int) {
        guard load > 0 else { return }
        context.heap.add(-load * MemoryLayout<Subscriber>.stride, to: .growth)
        let left = mailboxLoad.subtract(load, ordering: .sequentiallyConsistent).newValue
        guard left <= mostMailboxLoad / 2 else { return }
        for peer in peers where peer.wantsMailboxRoom.load(ordering: .sequentiallyConsistent) {
            guard peer.wantsMailboxRoom.exchange(false, ordering: .sequentiallyConsistent) else { continue }
            peer.loop.execute { peer.lookForMailboxRoom() }
        }
    }

    /// Has publishers go on if all other loops have room for mailbox messages; also four times a second.
    func lookForMailboxRoom() {
        guard isMailboxFull else { return }
        wantsMailboxRoom.store(true, ordering: .sequentiallyConsistent)
        let isFull = peers.contains {
            $0 !== self && $0.mailboxLoad.load(ordering: .sequentiallyConsistent) > mostMailboxLoad / 2
        }
        guard !isFull || isStopping else { return }
        wantsMailboxRoom.store(false, ordering: .sequentiallyConsistent)
        isMailboxFull = false
        guard !work.waitingForMailbox.isEmpty else { return }
        work.input.append(contentsOf: work.waitingForMailbox)
        work.waitingForMailbox = []
        scheduleWork()
    }
}

extension MailboxMessage {
    /// The deliveries that it orders.
    var load: Int {
        if case .publish(_, let subscribers) = self { return max(1, subscribers.list.count) }
        return 1
    }
}
