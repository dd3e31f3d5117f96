import Arena
import ArenaNIO
import MQTT
import NIOCore

// PUBLISH from the client (section 3.3).
extension ConnectionHandler {
    func handle(_ publish: IncomingPublish, ownsBuffer: Bool) throws(ArenaError) {
        guard let session else { return }
        shard.traffic.publishesReceived.bump()
        shard.traffic.publishBytesReceived.bump(by: publish.payload.readableBytes)
        guard var message = try message(publish, ownsBuffer: ownsBuffer) else { return }
        if publish.retain, Topic.levelCount(message.topic) > limits.maxTopicLevels {
            return close(
                .refused(
                    "a retained message whose topic has more than \(limits.maxTopicLevels) levels",
                    code: .topicNameInvalid))
        }
        let topics = shard.context.rpcTopics
        let rpc = topics.isPossible(message.topic) ? topics.parse(message.topic) : nil
        let match = shard.match(message.topic)
        let isAllowed = session.mayPublish(message.topic)
        if !isAllowed { shard.context.noteDenied("publish", session, message.topic.text) }
        // A 3.1.1 client is told nothing, as mosquitto has it (section 3.3.5).
        let isForbidden = !isAllowed || SysTopics.isReserved(message.topic)
        let mark = shard.writeBehind?.mark
        let mustBeStored = !isForbidden && mustBeStored(publish, match, from: session)
        if mustBeStored, shard.context.store?.isFailing == true, !session.state.isReceiving(publish.packetID) {
            return refuse(publish, .refused("the data directory cannot be written", code: .quotaExceeded))
        }
        if limits.queuePolicy == .reject, publish.qos != .atMostOnce, !isForbidden,
            shard.hasFullQueue(match, message.topic), !session.state.isReceiving(publish.packetID)
        {
            return refuse(
                publish, .refused("the queue of a subscriber is full (limits.queuePolicy)", code: .quotaExceeded))
        }
        defer { waitForStore(since: mark) }
        switch publish.qos {
        case .atMostOnce:
            if isForbidden { return }
            try retain(publish, message, rpc)
            _ = try forward(&message, match, rpc, from: session)
        case .atLeastOnce:
            if settings.version == .v5_0, session.state.isReceiving(publish.packetID) {
                return sendAck(.puback, publish.packetID, .packetIdentifierInUse)
            }
            if isForbidden { return sendAck(.puback, publish.packetID, .notAuthorized) }
            guard try retain(publish, message, rpc) else { return sendAck(.puback, publish.packetID, .quotaExceeded) }
            let isNoted = try forward(&message, match, rpc, from: session)
            // Not before the message is where it must be: a refusal leaves it unacknowledged (MQTT-4.3.2-2).
            acknowledge(since: mark, .puback, publish.packetID, acknowledgement(match, rpc), isNoted: isNoted)
        case .exactlyOnce:
            if isForbidden { return sendAck(.pubrec, publish.packetID, .notAuthorized) }
            switch shard.update(session, { $0.state.receive(publish.packetID, limits: limits) }) {
            case .first:
                try takeOnce(publish, &message, match, rpc, from: session, since: mark, mustBeStored: mustBeStored)
            case .duplicate: sendAck(.pubrec, publish.packetID)
            case .tooMany:
                close(
                    .refused(
                        "more than \(limits.maxIncomingQoS2) QoS 2 messages without PUBREL",
                        code: .receiveMaximumExceeded, statement: "MQTT-3.3.4-7"))
            }
        }
    }

    /// A QoS 2 message whose packet identifier is new.
    private func takeOnce(
        _ publish: IncomingPublish, _ message: inout Message, _ match: Match, _ rpc: RPCTopic?, from session: Session,
        since mark: UInt64?, mustBeStored: Bool
    ) throws(ArenaError) {
        // All that may fail for want of memory comes before PUBREC, all that is sent on comes after it.
        let isFirst = !mustBeStored && rpc == nil
        var (isAcknowledged, isNoted) = (false, true)
        do throws(ArenaError) {
            guard try retain(publish, message, rpc) else {
                shard.update(session) { _ = $0.state.release(publish.packetID) }
                return sendAck(.pubrec, publish.packetID, .quotaExceeded)
            }
            if !match.isEmpty { try message.copyIfBorrowed(in: shard.arena, owner: session.owner, "incoming message") }
            if isFirst {
                sendAck(.pubrec, publish.packetID, acknowledgement(match, rpc))
                isAcknowledged = true
            }
            isNoted = try forward(&message, match, rpc, from: session)
        } catch {
            // Else the client's next attempt would count as a repetition, and be lost.
            if !isAcknowledged { shard.update(session) { _ = $0.state.release(publish.packetID) } }
            throw error
        }
        if isFirst { return }
        if mustBeStored, isNoted, session.isStored { shard.writeBehind?.received(publish.packetID, by: session) }
        acknowledge(since: mark, .pubrec, publish.packetID, acknowledgement(match, rpc), isNoted: isNoted)
    }

    /// The message with its topic, whether that came or its alias; nil if the connection is closed for it.
    @inline(__always)
    private func message(_ publish: IncomingPublish, ownsBuffer: Bool) throws(ArenaError) -> Message? {
        guard let topic = publish.topic, publish.topicAlias == 0, publish.morePassedOn.isEmpty,
            publish.messageExpiryInterval == nil
        else {
            return try rareMessage(publish, ownsBuffer: ownsBuffer)
        }
        return Message(
            topic: topic, payload: publish.payload, properties: publish.forwardedProperties, qos: publish.qos,
            retain: publish.retain, ownsBuffer: ownsBuffer)
    }

    @inline(never)
    private func rareMessage(_ publish: IncomingPublish, ownsBuffer: Bool) throws(ArenaError) -> Message? {
        var (topic, ownsBuffer) = (publish.topic, ownsBuffer)
        if publish.topicAlias != 0 {
            guard publish.topicAlias <= limits.maxTopicAliases else {
                close(
                    .protocolViolation(
                        "topic alias \(publish.topicAlias), at most \(limits.maxTopicAliases) are accepted",
                        code: .topicAliasInvalid, statement: "MQTT-3.3.2-9"))
                return nil
            }
            if let topic {
                try shard.checkRoom(topic.byteCount)
                try aliases.set(publish.topicAlias, topic, in: shard.arena, owner: owner)
            } else if let known = aliases.topic(of: publish.topicAlias) {
                topic = known
                ownsBuffer = false
            } else {
                close(.protocolViolation("topic alias \(publish.topicAlias), which stands for no topic yet"))
                return nil
            }
        }
        // Without an alias there is one: the decoder has looked.
        guard let topic else { return nil }
        var message = Message(
            topic: topic, payload: publish.payload, properties: publish.forwardedProperties, qos: publish.qos,
            retain: publish.retain, ownsBuffer: ownsBuffer)
        if !publish.morePassedOn.isEmpty {
            message.properties = try joined(publish)
            message.ownsBuffer = false
        }
        if let seconds = publish.messageExpiryInterval {
            message.expiresAt = .now() + .seconds(Int64(seconds))
        }
        return message
    }

    /// The properties that are passed on, in one buffer, without the one for this hop that stood between them.
    private func joined(_ publish: IncomingPublish) throws(ArenaError) -> ByteBuffer {
        let pieces = [publish.forwardedProperties].compactMap { $0 } + publish.morePassedOn
        var buffer = try shard.arena.buffer(
            capacity: pieces.reduce(0) { $0 + $1.readableBytes }, owner: owner, "properties")
        for piece in pieces { buffer.writeImmutableBuffer(piece) }
        return buffer
    }

    /// Keeps the message for later subscribers, if it is to be.
    ///
    /// - Returns: false if it should have been, there is no room, and the client can be told. One that cannot be told
    ///   (3.1.1, QoS 0) has its message delivered at least.
    @discardableResult
    private func retain(_ publish: IncomingPublish, _ message: Message, _ rpc: RPCTopic?) throws(ArenaError) -> Bool {
        guard publish.retain else { return true }
        // What devices answer is for the back end alone.
        if case .response = rpc { return true }
        return try shard.retain(message) || settings.version == .v3_1_1
    }

    /// - Returns: false if the store is yet to be told who gets it, which must be before it is acknowledged.
    private func forward(
        _ message: inout Message, _ match: Match, _ rpc: RPCTopic?, from session: Session
    ) throws(ArenaError) -> Bool {
        if let rpc { return try shard.bridge(&message, match, rpc, from: session) }
        return try shard.route(&message, match, from: session)
    }

    private func acknowledgement(_ match: Match, _ rpc: RPCTopic?) -> ReasonCode {
        match.isEmpty && rpc == nil ? .noMatchingSubscribers : .success
    }
}
