import Arena
import MQTT
import NIOCore

// Publishes when memory is short: what is taken, and how the client is told of what is not.
extension ConnectionHandler {
    /// Whether a publish is taken although memory is short. The client is not read on in any case; what it has sent
    /// already is taken as long as there is more than the reserve.
    func admit(_ publish: IncomingPublish) -> Bool {
        pauseReading(.memory)
        guard shard.pressure.gauge.level == .critical else { return true }
        // Taken before: this is only about its acknowledgement.
        if publish.qos == .exactlyOnce, session?.state.isReceiving(publish.packetID) ?? false { return true }
        shard.noteRefusal(of: publish.payload.readableBytes)
        refuse(publish, .memoryShort)
        return false
    }

    /// The message is not kept, and the client shall know: 5.0 by the reason code of its acknowledgement, after which the
    /// client may send it again; 3.1.1, which has no such code, by the end of the connection without one.
    func refuse(_ publish: IncomingPublish, _ reason: CloseReason) {
        shard.context.counters.publishesRefused.increment()
        let type: PacketType
        switch publish.qos {
        case .atMostOnce: return rememberAlias(of: publish)
        case .atLeastOnce: type = .puback
        case .exactlyOnce:
            // PUBREC has gone out: it may be with some of its receivers already.
            if session?.state.isReceiving(publish.packetID) ?? false { return close(reason) }
            type = .pubrec
        }
        guard settings.version == .v5_0 else { return close(reason) }
        rememberAlias(of: publish)
        sendAck(type, publish.packetID, .quotaExceeded)
    }

    /// Refused or not, its topic alias is set (section 3.3.2.3.4).
    private func rememberAlias(of publish: IncomingPublish) {
        guard (1...limits.maxTopicAliases).contains(Int(publish.topicAlias)), let topic = publish.topic else { return }
        do throws(ArenaError) {
            try shard.checkRoom(topic.byteCount)
            try aliases.set(publish.topicAlias, topic, in: shard.arena, owner: owner)
        } catch {
            fail(error, while: "remembering a topic alias")
        }
    }
}
