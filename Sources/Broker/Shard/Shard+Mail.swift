import NIOCore

// Mail between loops is bounded by its deliveries: who publishes to a loop that has more than it should waits, as who
// publishes more than the disk writes does. Else a loop that has little to do itself could order any amount of work of another,
// and of the memory that waits for it.
extension EventLoopShard {
    /// Posts what this tick has gathered for another loop.
    func postGathered(to shard: Int, _ load: Int) {
        let peer = peers[shard]
        context.heap.add(load * MemoryLayout<Subscriber>.stride, to: .growth)
        if peer.mailLoad.add(load, ordering: .sequentiallyConsistent).newValue > mostMail, peer !== self, !isStopping {
            isMailFull = true
            // It may have had room again before it could know that somebody waits.
            lookForMailRoom()
        }
    }

    /// What has been delivered of other loops' mail; wakes those that wait for room.
    func settleMail(_ load: Int) {
        guard load > 0 else { return }
        context.heap.add(-load * MemoryLayout<Subscriber>.stride, to: .growth)
        let left = mailLoad.subtract(load, ordering: .sequentiallyConsistent).newValue
        guard left <= mostMail / 2 else { return }
        for peer in peers where peer.wantsMailRoom.load(ordering: .sequentiallyConsistent) {
            guard peer.wantsMailRoom.exchange(false, ordering: .sequentiallyConsistent) else { continue }
            peer.loop.execute { peer.lookForMailRoom() }
        }
    }

    /// Has publishers go on if all other loops have room for mail; also four times a second.
    func lookForMailRoom() {
        guard isMailFull else { return }
        wantsMailRoom.store(true, ordering: .sequentiallyConsistent)
        let isFull = peers.contains {
            $0 !== self && $0.mailLoad.load(ordering: .sequentiallyConsistent) > mostMail / 2
        }
        guard !isFull || isStopping else { return }
        wantsMailRoom.store(false, ordering: .sequentiallyConsistent)
        isMailFull = false
        guard !work.waitingForMail.isEmpty else { return }
        work.input.append(contentsOf: work.waitingForMail)
        work.waitingForMail = []
        scheduleWork()
    }
}

extension Mail {
    /// The deliveries that it orders.
    var load: Int {
        if case .publish(_, let subscribers) = self { return max(1, subscribers.list.count) }
        return 1
    }
}
