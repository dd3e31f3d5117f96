import Arena
import ArenaNIO
import Ledger
import Logging
import MQTT
import NIOCore

// CONNECT (section 3.1): who the client is, which session it gets, and what it is told in CONNACK.
extension ConnectionHandler {
    func handle(_ connect: Connect) {
        var connect = connect
        settings = ClientSettings(connect, limits: limits)
        if connect.clientID.isEmpty {
            guard connect.version == .v5_0 || connect.cleanStart else {
                refuse(.clientIdentifierNotValid)
                return close(.refused("an empty client identifier with a kept session", statement: "MQTT-3.1.3-8"))
            }
            // Unique as long as it is needed (MQTT-3.1.3-6), and told to a 5.0 client (MQTT-3.2.2-16).
            connect.clientID = "auto-\(shard.index)-\(String(UInt64.random(in: .min ... .max), radix: 36))"
            isClientIDAssigned = true
        }
        if let will = connect.will, will.retain, Topic.levelCount(will.topic) > limits.maxTopicLevels {
            let text = "a retained will whose topic has more than \(limits.maxTopicLevels) levels"
            if connect.version == .v5_0 { refuse(.topicNameInvalid, text) }
            return close(.refused(text, code: .topicNameInvalid))
        }
        if let will = connect.will, SysTopics.isReserved(will.topic) {
            let text = "a will on a topic that is the broker's"
            shard.context.counters.accessDenied.increment()
            // Its own word in 5.0; of 3.1.1's this is the nearest.
            refuse(connect.version == .v5_0 ? .topicNameInvalid : .notAuthorized, text)
            return close(.refused(text, code: .topicNameInvalid))
        }
        // An empty payload would keep the packet alive where nobody could name it.
        if connect.will?.payload.readableBytes == 0 { connect.will?.payload = ByteBuffer() }
        let authenticationData = connect.properties.authenticationData
        connect.properties.authenticationData = nil
        guard let method = connect.properties.authenticationMethod else { return logIn(connect) }
        connect.password = nil
        connectPacket = connect
        beginAuthentication(method, authenticationData)
    }

    /// Takes the client's session, makes one, or asks the shard that has it.
    func claimSession() {
        guard let connect = connectPacket else { return }
        if case .closed = phase { return }
        let broker = shard.context
        if shard.pressure.isShort, !isReplacing, broker.registry.find(connect.clientID) == nil {
            broker.counters.connectsRefused.increment()
            refuse(connect.version == .v5_0 ? .serverBusy : .serverUnavailable)
            return close(.memoryShort)
        }
        guard
            broker.heap.admits(Limits.heapBytesPerSession, for: .sessions) || isReplacing
                || broker.registry.find(connect.clientID) != nil
        else {
            let text = "there is no memory for another session"
            broker.counters.connectsRefused.increment()
            refuse(connect.version == .v5_0 ? .quotaExceeded : .serverUnavailable, text)
            return close(.refused(text, code: .quotaExceeded))
        }
        let expiryInterval = expiryInterval(of: connect)
        if expiryInterval > 0, let store = broker.store, store.isFailing, store.isFull {
            refuse(.serverUnavailable, "the data directory cannot be written")
            return close(.refused("the data directory cannot be written", code: .serverUnavailable))
        }
        let claim = broker.registry.claim(
            connect.clientID, of: userName, number: &claimNumber, isPersistent: expiryInterval > 0,
            limit: limits.maxSessions, isKnown: broker.knows
        ) { number in
            Session(
                clientID: connect.clientID, userName: userName,
                owner: broker.pool.openOwner(.session, name: connect.clientID, parent: listener.owner),
                expiryInterval: expiryInterval, owningShard: shard.index,
                storeKey: expiryInterval > 0 ? broker.store?.takeNumbers() ?? 0 : 0, claim: number,
                heap: broker.heap, rpcTopics: broker.rpcTopics)
        }
        switch claim {
        case .new(let session):
            shard.sessions[ObjectIdentifier(session)] = session
            begin(session, isPresent: false)
        case .foreign:
            // Neither to be read by another user, nor to be ended by one (MQTT-3.1.3-8).
            broker.counters.accessDenied.increment()
            let text = "the client identifier is that of another user's session"
            refuse(.clientIdentifierNotValid, text)
            close(.refused(text, code: .clientIdentifierNotValid))
        case .existing(let session, let title):
            let discard = connect.cleanStart || title == .successor
            // Its end could not be made to last.
            if discard, session.isStored, broker.store?.isFailing == true {
                refuse(.serverUnavailable, "the data directory cannot be written")
                return close(.refused("the data directory cannot be written", code: .serverUnavailable))
            }
            awaitSession()
            isReplacing = discard
            shard.takeOver(
                session,
                for: SessionWaiter(
                    connection: reference, discard: discard, isForfeit: title == .successor, number: claimNumber))
        case .full:
            let text = "\(limits.maxSessions) sessions are kept already (limits.maxSessions)"
            refuse(connect.version == .v5_0 ? .quotaExceeded : .serverUnavailable, text)
            close(.refused(text, code: .quotaExceeded))
        case .superseded: close(.takenOver)
        }
    }

    /// How long the session is kept: 3.1.1 knows only "not at all" and "for ever".
    private func expiryInterval(of connect: Connect) -> UInt32 {
        let asked: UInt32 =
            switch connect.version {
            case .v3_1_1: connect.cleanStart ? 0 : .max
            case .v5_0: connect.properties.sessionExpiryInterval ?? 0
            }
        return min(asked, UInt32(clamping: limits.maxSessionExpirySeconds))
    }

    /// Answers CONNECT and serves the session: what is owed to the client first.
    func begin(_ session: Session, isPresent: Bool) {
        guard let connect = connectPacket else { return }
        connectPacket = nil
        let expiryInterval = expiryInterval(of: connect)
        let will: KeptWill?
        do throws(ArenaError) {
            will = try connect.will.map { will throws(ArenaError) in try keepWill(will, session) }
        } catch {
            refuse(connect.version == .v5_0 ? .quotaExceeded : .serverUnavailable)
            // One that was there before stays as it was.
            if !isPresent { shard.end(session) }
            return fail(error, while: "keeping a will")
        }
        // By the rights that it was left with: those of this connection may be others.
        shard.settleWill(of: session)
        session.came(by: listener)
        shard.attach(session, expiryInterval: expiryInterval)
        heldThrough = session.storedThrough
        connected(to: session)
        shard.keep(will, of: session)
        var properties = ConnAckProperties(connect, settings, expiryInterval: expiryInterval, limits: limits)
        if connect.version == .v5_0, policy.maxPacketBytes < Packet.maximumLength {
            properties.maximumPacketSize = UInt32(policy.maxPacketBytes)
        }
        if isClientIDAssigned, connect.version == .v5_0 { properties.assignedClientIdentifier = connect.clientID }
        if let data = finalAuthenticationData { properties.authenticationData = ByteBuffer(bytes: data) }
        finalAuthenticationData = nil
        let connack = ConnAck(sessionPresent: isPresent, code: .success, properties: properties)
        guard send(.connack(connack), size: Self.connackBytes(properties)) else {
            return close(.refused("CONNACK is larger than the client takes", code: .packetTooLarge))
        }
        isAnswered = true
        shard.context.log.debug(
            "client connected",
            metadata: ["client": "\(session.logName)", "peer": "\(peer)", "loop": "\(shard.index)"])
        shard.update(session) { $0.state.resume(receiveMaximum: settings.receiveMaximum) }
        wantsToSend()
        resumeInput()
    }

    private func keepWill(_ will: Will, _ session: Session) throws(ArenaError) -> KeptWill {
        let topic = will.topic.byteCount
        let properties = will.properties.forwardedPropertiesLength
        var buffer = try shard.arena.buffer(
            capacity: topic + properties + will.payload.readableBytes, owner: session.owner, "will")
        buffer.writeImmutableBuffer(will.topic.bytes)
        if properties > 0 { will.properties.writePassedOn(to: &buffer) }
        buffer.writeImmutableBuffer(will.payload)
        let message = Message(
            topic: will.topic.moved(to: buffer, at: 0),
            payload: buffer.getSlice(at: topic + properties, length: will.payload.readableBytes)!,
            properties: properties > 0 ? buffer.getSlice(at: topic, length: properties)! : nil,
            qos: will.qos, retain: will.retain, ownsBuffer: true)
        return KeptWill(
            message: message, delayInterval: will.properties.delayInterval ?? 0,
            expiryInterval: will.properties.messageExpiryInterval)
    }

    /// Refuses a CONNECT. The text goes to 5.0 clients only.
    func refuse(_ code: ReasonCode, _ text: String? = nil) {
        var properties = ConnAckProperties()
        if settings.version == .v5_0 { properties.reasonString = text }
        // A reason that does not fit is left out (MQTT-3.2.2-19).
        if Self.connackBytes(properties) > settings.maximumPacketSize { properties.reasonString = nil }
        send(.connack(ConnAck(code: code, properties: properties)), size: Self.connackBytes(properties))
    }

    /// At least what the packet takes.
    private static func connackBytes(_ properties: ConnAckProperties) -> Int {
        64 + (properties.assignedClientIdentifier?.utf8.count ?? 0) + (properties.reasonString?.utf8.count ?? 0)
            + (properties.authenticationMethod?.utf8.count ?? 0) + (properties.authenticationData?.readableBytes ?? 0)
    }
}
