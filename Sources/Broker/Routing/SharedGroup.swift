import MQTT
import Synchronization

/// The clients that share one subscription, `$share/{group}/{filter}` (section 4.8.2): each message goes to one of them.
///
/// Members are in the trie, under the filter. Here is what all loops that publish to the group have in common: whose
/// turn it is. Members take turns; one that may not read the message, is away, or has messages waiting, is passed over
/// while another is free.
///
/// A message costs a bounded number of looks at members, however many there are, but where none of those may be given it. In a
/// large group they are these:
///
///     | those whose turn it is | those behind where the last search ended | the one that was found last |
///
/// So whoever is free is found after as many messages as it takes to come round, and from then on by each.
final class SharedGroup: Sendable {
    let name: String
    let filter: String
    /// The filter as it is subscribed to.
    var subscription: String { "\(SharedSubscription.prefix)\(name)/\(filter)" }
    private let turn = Atomic<Int>(0)
    /// Of a large group: where the next search begins, and the place of the member that was chosen last. Members that come
    /// and go change places: then it is as good as any.
    private let searched = Atomic<Int>(0)
    private let found = Atomic<Int>(0)
    /// What it takes on the heap.
    var heapBytes: Int { HeapSize.object(self) + HeapSize.string(name) + HeapSize.string(filter) }

    init(name: String, filter: String) {
        self.name = name
        self.filter = filter
    }

    /// The member whose turn it is. All loops take turns from one counter, so that shares are fair however many
    /// publish.
    ///
    /// - Parameters:
    ///   - topic: of the message: it is for nobody who may not read it.
    ///   - qos: of the message: one that would be of QoS 0 is not for a member that is away.
    ///   - steps: grows by the members that were looked at.
    func choose(_ members: [Subscriber], topic: TopicName, qos: QoS, steps: inout Int) -> Subscriber? {
        guard !members.isEmpty else { return nil }
        var search = Search(members: members, topic: topic, qos: qos)
        defer { steps &+= search.looks }
        let start = turn.add(1, ordering: .relaxed).oldValue
        guard members.count > 2 * Limits.memberLooks else {
            search.look(from: start, count: members.count)
            return search.best
        }
        if !search.look(from: start, count: Limits.memberLooks) {
            let next = searched.add(Limits.memberLooks, ordering: .relaxed).oldValue
            if !search.look(from: next, count: Limits.memberLooks) {
                search.look(from: found.load(ordering: .relaxed), count: 1)
            }
        }
        // Nobody yet to whom it may be given at all: then all that there are, before what is owed to the group is lost.
        if search.place == nil, qos != .atMostOnce { search.look(from: start, count: members.count) }
        if let place = search.place { found.store(place, ordering: .relaxed) }
        return search.best
    }

    /// The best member for one message, of those that were looked at.
    private struct Search {
        let members: [Subscriber]
        let topic: TopicName
        let qos: QoS
        var looks = 0
        /// Where the best one is. One whose queue is full is for what is on its way when the queues of all have filled.
        private(set) var place: Int?
        private var presence = Session.Presence.ended
        private var isFull = true

        var best: Subscriber? { place.map { members[$0] } }

        init(members: [Subscriber], topic: TopicName, qos: QoS) {
            (self.members, self.topic, self.qos) = (members, topic, qos)
        }

        /// - Returns: whether there can be none better.
        @discardableResult
        mutating func look(from start: Int, count: Int) -> Bool {
            var index = Int(UInt(bitPattern: start) % UInt(members.count))
            for _ in 0..<count {
                if look(at: index) { return true }
                index += 1
                if index == members.count { index = 0 }
            }
            return false
        }

        private mutating func look(at index: Int) -> Bool {
            let member = members[index]
            looks &+= 1
            let presence = member.session.presence
            let isAtMostOnce = min(qos, member.qos) == .atMostOnce
            guard presence > (isAtMostOnce ? .away : .ended), member.session.mayBeGiven(topic) else { return false }
            let isFull = !isAtMostOnce && member.session.isQueueFull
            guard self.isFull && !isFull || (self.isFull == isFull && presence > self.presence) else { return false }
            (place, self.presence, self.isFull) = (index, presence, isFull)
            return presence == .ready && !isFull
        }
    }
}
