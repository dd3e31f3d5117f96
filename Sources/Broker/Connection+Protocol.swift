import Arena
import ArenaNIO
import Ledger
import Logging
import MQTT
import NIOCore

// What packets mean (sections 3 and 4). Framing has checked the size, and that CONNECT comes first.
extension ConnectionHandler {
    func handle(_ header: FixedHeader, _ body: inout ByteBuffer, ownsBuffer: Bool) throws(DecodeError) {
        // The hot packets first.
        switch header.type {
        case .publish:
            let publish = try Publish.decode(header: header, body: &body, version: .v3_1_1)
            do throws(ArenaError) {
                try handle(publish, ownsBuffer: ownsBuffer)
            } catch {
                fail(error, while: "handling a publish")
            }
        case .puback: acknowledged(try decodeAck(header, &body)) { $0.puback($1) }
        case .pubrec:
            let packetID = try decodeAck(header, &body)
            // An unknown identifier is answered too: the client may repeat what we have completed.
            _ = session?.state.pubrec(packetID)
            sendAck(.pubrel, packetID)
        case .pubrel:
            let packetID = try decodeAck(header, &body)
            session?.state.release(packetID)
            sendAck(.pubcomp, packetID)
        case .pubcomp: acknowledged(try decodeAck(header, &body)) { $0.pubcomp($1) }
        default: try handleRare(Packet.decode(header: header, body: &body, version: .v3_1_1))
        }
    }

    private func handleRare(_ packet: Packet) {
        switch packet {
        case .connect(let connect):
            if case .awaitingConnect = phase {
                handle(connect)
            } else {
                close(.protocolViolation("a second CONNECT", statement: "MQTT-3.1.0-2"))
            }
        case .subscribe(let subscribe): handle(subscribe)
        case .unsubscribe(let unsubscribe): handle(unsubscribe)
        case .pingreq: send(.pingresp, size: 2)
        case .disconnect:
            // The will goes unpublished (MQTT-3.14.4-3).
            session?.will = nil
            close(.disconnected)
        default:
            close(.protocolViolation("\(packet.type.name) is not for a client to send"))
        }
    }

    /// Closes for bytes that are not what they should be. Only an unknown protocol version gets an answer.
    func reject(_ error: DecodeError) {
        if case .unsupportedProtocolVersion = error, case .awaitingConnect = phase {
            refuse(.unsupportedProtocolVersion)
        }
        close(.malformed(error))
    }

    // MARK: - CONNECT

    private func handle(_ connect: Connect) {
        guard connect.version == .v3_1_1 else {
            refuse(.unsupportedProtocolVersion)
            return close(.refused("protocol version \(connect.version) is not served", statement: "MQTT-3.1.2-2"))
        }
        var connect = connect
        if connect.clientID.isEmpty {
            guard connect.cleanStart else {
                refuse(.clientIdentifierNotValid)
                return close(.refused("an empty client identifier with a kept session", statement: "MQTT-3.1.3-8"))
            }
            // Unique as long as it is needed (MQTT-3.1.3-6).
            connect.clientID = "auto-\(shard.index)-\(String(UInt64.random(in: .min ... .max), radix: 36))"
        }
        if let will = connect.will, will.retain, Topic.levelCount(will.topic) > limits.maxTopicLevels {
            return close(.refused("a retained will whose topic has more than \(limits.maxTopicLevels) levels"))
        }
        // Nobody asks for it, and an empty payload would keep the packet alive where nobody could name it.
        connect.password = nil
        if connect.will?.payload.readableBytes == 0 { connect.will?.payload = ByteBuffer() }
        connectPacket = connect
        claimSession()
    }

    /// Takes the client's session, makes one, or asks the shard that has it.
    func claimSession() {
        guard let connect = connectPacket else { return }
        if case .closed = phase { return }
        let broker = shard.context
        let claim = broker.registry.claim(
            connect.clientID, isPersistent: !connect.cleanStart, limit: limits.maxSessions
        ) {
            Session(
                clientID: connect.clientID,
                owner: broker.pool.openOwner(.session, name: connect.clientID, parent: broker.listenerOwner),
                isPersistent: !connect.cleanStart, home: shard.index)
        }
        switch claim {
        case .new(let session):
            shard.sessions[ObjectIdentifier(session)] = session
            begin(session, isPresent: false)
        case .existing(let session):
            awaitSession()
            shard.takeOver(session, for: reference, discard: connect.cleanStart || !session.isPersistent)
        case .full:
            refuse(.serverUnavailable)
            close(.refused("\(limits.maxSessions) sessions are kept already (limits.maxSessions)"))
        }
    }

    /// Answers CONNECT and serves the session: what is owed to the client first.
    func begin(_ session: Session, isPresent: Bool) {
        guard let connect = connectPacket else { return }
        connectPacket = nil
        connected(to: session, keepAlive: connect.keepAlive)
        do throws(ArenaError) {
            session.will = try connect.will.map { will throws(ArenaError) in try keepWill(will, session) }
        } catch {
            refuse(.serverUnavailable)
            return fail(error, while: "keeping a will")
        }
        send(.connack(ConnAck(sessionPresent: isPresent, code: .success)), size: 4)
        shard.context.log.debug(
            "client connected",
            metadata: ["client": "\(session.logName)", "peer": "\(peer)", "loop": "\(shard.index)"])
        redeliver(session)
        wantsToSend()
        resumeInput()
    }

    private func keepWill(_ will: Will, _ session: Session) throws(ArenaError) -> Message {
        let topic = will.topic.utf8
        var buffer = try shard.arena.buffer(
            capacity: topic.count + will.payload.readableBytes, owner: session.owner, "will")
        buffer.writeString(will.topic)
        buffer.writeImmutableBuffer(will.payload)
        return Message(
            topic: buffer.getSlice(at: 0, length: topic.count)!,
            payload: buffer.getSlice(at: topic.count, length: will.payload.readableBytes)!,
            qos: will.qos, retain: will.retain, ownsBuffer: true)
    }

    /// Sends again, in order, what the client has not acknowledged (MQTT-4.4.0-1).
    private func redeliver(_ session: Session) {
        for index in 0..<session.state.inflightCount {
            switch session.state.redelivery(at: index) {
            case .publish(let message, let packetID): send(message, packetID: packetID, dup: true)
            case .pubrel(let packetID): sendAck(.pubrel, packetID)
            }
        }
    }

    private func refuse(_ code: ReasonCode) { send(.connack(ConnAck(code: code)), size: 4) }

    // MARK: - PUBLISH and its acknowledgements

    private func handle(_ publish: Publish, ownsBuffer: Bool) throws(ArenaError) {
        guard let session else { return }
        if publish.retain, Topic.levelCount(publish.topic) > limits.maxTopicLevels {
            return close(.refused("a retained message whose topic has more than \(limits.maxTopicLevels) levels"))
        }
        switch publish.qos {
        case .atMostOnce: try forward(publish, from: session, ownsBuffer: ownsBuffer)
        case .atLeastOnce:
            try forward(publish, from: session, ownsBuffer: ownsBuffer)
            // Not before the message is where it must be: a refusal leaves it unacknowledged (MQTT-4.3.2-2).
            sendAck(.puback, publish.packetID)
        case .exactlyOnce:
            switch session.state.receive(publish.packetID, limits: limits) {
            case .first:
                try forward(publish, from: session, ownsBuffer: ownsBuffer)
                sendAck(.pubrec, publish.packetID)
            case .duplicate: sendAck(.pubrec, publish.packetID)
            case .tooMany:
                close(.refused("more than \(limits.maxIncomingQoS2) QoS 2 messages without PUBREL"))
            }
        }
    }

    private func forward(_ publish: Publish, from session: Session, ownsBuffer: Bool) throws(ArenaError) {
        if RPCTopic.isPossible(publish.topic), try shard.bridge(publish, from: session) { return }
        var message = Message(
            topic: publish.topic, payload: publish.payload, qos: publish.qos, ownsBuffer: ownsBuffer)
        try shard.publish(&message, retain: publish.retain, by: session.owner)
    }

    private func decodeAck(_ header: FixedHeader, _ body: inout ByteBuffer) throws(DecodeError) -> UInt16 {
        try Ack.decode(header: header, body: &body, version: .v3_1_1).packetID
    }

    /// Ends a delivery, and makes use of the room in the window.
    private func acknowledged(_ packetID: UInt16, _ end: (inout SessionState, UInt16) -> Bool) {
        guard let session else { return }
        guard end(&session.state, packetID) else {
            shard.context.log.debug(
                "acknowledgement of an unknown packet",
                metadata: ["client": "\(session.logName)", "packet": "\(packetID)"])
            return
        }
        if session.state.queuedCount > 0 { wantsToSend() }
    }

    // MARK: - SUBSCRIBE, UNSUBSCRIBE

    private func handle(_ subscribe: Subscribe) {
        guard let session else { return }
        let codes = subscribe.filters.map { add($0, to: session) }
        // SUBACK first, then what is retained: the order clients expect.
        send(.suback(SubAck(packetID: subscribe.packetID, codes: codes)), size: 8 + codes.count)
        for (subscription, code) in zip(subscribe.filters, codes) where !code.isError {
            guard case .connected = phase else { return }
            if RPCTopic.isCommandFilter(subscription.filter) { continue }
            do throws(ArenaError) {
                for var message in shard.context.retained.match(subscription.filter) {
                    message.qos = min(message.qos, subscription.qos)
                    try shard.deliver(&message, to: session)
                }
            } catch {
                return fail(error, while: "delivering retained messages")
            }
        }
    }

    private func add(_ subscription: Subscription, to session: Session) -> ReasonCode {
        let filter = UTF8Key(subscription.filter)
        guard Topic.levelCount(filter.text) <= limits.maxTopicLevels else { return .unspecifiedError }
        if session.subscriptions[filter] == nil, session.commandFilters[filter] == nil {
            let bytes = Limits.subscriptionBytes(filter.text)
            guard session.subscriptions.count + session.commandFilters.count < limits.maxSubscriptionsPerSession,
                session.subscriptionBytes + bytes <= limits.maxSubscriptionBytesPerSession
            else { return .unspecifiedError }
            session.subscriptionBytes += bytes
        }
        if RPCTopic.isCommandFilter(filter.text) {
            session.commandFilters[filter] = subscription.qos
        } else {
            session.subscriptions[filter] = subscription.qos
            shard.context.router.subscribe(session, subscription.filter, subscription.qos)
        }
        return switch subscription.qos {
        case .atMostOnce: .success
        case .atLeastOnce: .grantedQoS1
        case .exactlyOnce: .grantedQoS2
        }
    }

    private func handle(_ unsubscribe: Unsubscribe) {
        guard let session else { return }
        for filter in unsubscribe.filters.map(UTF8Key.init) {
            let isCommands = session.commandFilters.removeValue(forKey: filter) != nil
            let isSubscription = session.subscriptions.removeValue(forKey: filter) != nil
            if isSubscription { shard.context.router.unsubscribe(session, filter.text) }
            if isCommands || isSubscription { session.subscriptionBytes -= Limits.subscriptionBytes(filter.text) }
        }
        send(.unsuback(UnsubAck(packetID: unsubscribe.packetID)), size: 4)
    }
}
