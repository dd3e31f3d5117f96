import Arena
import ArenaNIO
import Ledger
import MQTT
import NIOCore

/// The numbers that stand for topics on one connection (section 3.3.2.3.4), each direction with its own.
///
/// Every topic is an exact buffer of the arena, `Limits.maxTopicAliases` at most in each direction. They last as long
/// as the connection (MQTT-3.3.2-7).
struct TopicAliases {
    /// What the client has set; the alias is the index plus one.
    private var incoming: [TopicName?] = []
    /// What this server has set: the first topics that were sent, for good. Replacing them would cost a topic and an
    /// alias for every message once there are more topics than aliases.
    private var outgoing: [(hash: UInt64, topic: TopicName)] = []
    /// Where each of these is, by its hash; nil while they are few.
    private var places: [UInt64: Int]?
    private static let few = 16

    /// The topic a client has set for an alias.
    func topic(of alias: UInt16) -> TopicName? {
        Int(alias) <= incoming.count ? incoming[Int(alias) - 1] : nil
    }

    /// Remembers the client's topic, in place of what the alias stood for before.
    mutating func set(_ alias: UInt16, _ topic: TopicName, in arena: Arena, owner: OwnerID) throws(ArenaError) {
        let copy = try arena.copy(of: topic.bytes, owner: owner, "topic alias")
        while incoming.count < Int(alias) { incoming.append(nil) }
        incoming[Int(alias) - 1] = topic.moved(to: copy, at: 0)
    }

    /// The alias that the client knows for a topic; 0 for none.
    func outgoingAlias(of topic: TopicName) -> UInt16 {
        guard !outgoing.isEmpty else { return 0 }
        let hash = TopicBytes.hash(topic.bytes.readableBytesUInt8Span)
        if let places {
            // Two topics of one hash: the second one is never found, which costs its alias.
            guard let index = places[hash], outgoing[index].topic == topic else { return 0 }
            return UInt16(index + 1)
        }
        for index in outgoing.indices where outgoing[index].hash == hash && outgoing[index].topic == topic {
            return UInt16(index + 1)
        }
        return 0
    }

    /// A new alias for a topic, which must be sent with it; 0 if there is none left, or no memory to remember it.
    mutating func assign(_ topic: TopicName, limit: Int, in arena: Arena, owner: OwnerID) -> UInt16 {
        guard outgoing.count < limit, let copy = try? arena.copy(of: topic.bytes, owner: owner, "topic alias") else {
            return 0
        }
        let hash = TopicBytes.hash(copy.readableBytesUInt8Span)
        outgoing.append((hash, topic.moved(to: copy, at: 0)))
        if places != nil {
            places?[hash] = outgoing.count - 1
        } else if outgoing.count > Self.few {
            places = Dictionary(outgoing.enumerated().map { ($0.element.hash, $0.offset) }) { first, _ in first }
        }
        return UInt16(outgoing.count)
    }

    func visit(owner: OwnerID, _ visitor: inout ReachableBufferVisitor) {
        for topic in incoming { if let topic { visitor.hold(topic.bytes, owner: owner, kind: .readBuffer) } }
        for entry in outgoing { visitor.hold(entry.topic.bytes, owner: owner, kind: .outbound) }
    }
}
