import MQTT
import Synchronization

/// The clients that share one subscription, `$share/{group}/{filter}` (section 4.8.2): each message goes to one of them.
///
/// Members are in the trie, under the filter. Here is what all loops that publish to the group have in common: whose
/// turn it is. Members take turns; one that is away, or has messages waiting, is passed over while another is free.
final class SharedGroup: Sendable {
    let name: String
    let filter: String
    /// The filter as it is subscribed to.
    var subscription: String { "\(SharedSubscription.prefix)\(name)/\(filter)" }
    private let turn = Atomic<Int>(0)
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
    ///   - qos: of the message: one that would be of QoS 0 is not for a member that is away.
    ///   - steps: grows by the members that were looked at.
    func choose(_ members: [Subscriber], qos: QoS, steps: inout Int) -> Subscriber? {
        guard !members.isEmpty else { return nil }
        let start = Int(UInt(bitPattern: turn.add(1, ordering: .relaxed).oldValue) % UInt(members.count))
        var second: (member: Subscriber, presence: Session.Presence)?
        // For what is on its way when the queues of all have filled.
        var last: Subscriber?
        for offset in 0..<members.count {
            let index = start + offset
            let member = members[index < members.count ? index : index - members.count]
            steps &+= 1
            if member.session.isQueueFull, min(qos, member.qos) != .atMostOnce {
                last = member
                continue
            }
            switch member.session.presence {
            case .ready: return member
            case .away where min(qos, member.qos) == .atMostOnce: break
            case let presence where presence > (second?.presence ?? .ended): second = (member, presence)
            default: break
            }
        }
        return second?.member ?? last
    }
}
