import MQTT
import NIOCore

// What waits for the store: acknowledgements that promise to keep something, packet identifiers of QoS 2, and clients
// that publish faster than the disk writes. Without a store, and for all that promises nothing, this is one test.
extension ConnectionHandler {
    /// Sends an acknowledgement: at once, or when what was noted since `mark` is durable. One that promises nothing waits
    /// too where others wait already, since they must keep their order (MQTT-4.6.0-2 to -4).
    func sendAck(
        since mark: UInt64? = nil, _ type: PacketType, _ packetID: UInt16, _ code: ReasonCode = .success
    ) {
        guard let writeBehind = shard.writeBehind else { return writeAck(type, packetID, code) }
        holdAcks(since: mark)
        guard heldThrough > writeBehind.durable else { return writeAck(type, packetID, code) }
        heldThrough = writeBehind.hold(heldThrough, .ack(reference, type, packetID, code))
    }

    private func holdAcks(since mark: UInt64?) {
        if let mark, let writeBehind = shard.writeBehind, writeBehind.mark != mark { heldThrough = writeBehind.number }
    }

    /// Acknowledges a publish of which something was noted since `mark`: when all is that the store must have.
    ///
    /// - Parameter isNoted: false if there is more to come.
    func acknowledge(since mark: UInt64?, _ type: PacketType, _ packetID: UInt16, _ code: ReasonCode, isNoted: Bool) {
        guard let session, !isNoted else { return sendAck(since: mark, type, packetID, code) }
        holdAcks(since: mark)
        shard.whenNoted(.acknowledgement(to: session, on: reference, type, packetID: packetID, code))
    }

    /// Now it is.
    func acknowledgeNoted(since mark: UInt64?, _ type: PacketType, _ packetID: UInt16, _ code: ReasonCode) {
        guard case .connected = phase else { return }
        waitForStore(since: mark)
        sendAck(since: mark, type, packetID, code)
    }

    /// Does a part of a packet that may take several ticks. The batch that its changes went to, if there were any, becomes
    /// the one that the packet's answer waits for: a later one may have nothing in it and never be posted.
    func noting<Result>(_ storedThrough: inout UInt64, _ body: () -> Result) -> Result {
        let mark = shard.writeBehind?.mark
        let result = body()
        if let writeBehind = shard.writeBehind, writeBehind.mark != mark { storedThrough = writeBehind.number }
        return result
    }

    /// Does something rare when a batch is durable, if the client is still there then; at once if it is durable already.
    func whenStored(through number: UInt64, _ body: @escaping (ConnectionHandler) -> Void) {
        guard let writeBehind = shard.writeBehind, number > writeBehind.durable else { return body(self) }
        writeBehind.hold(
            number,
            .other { [shard, reference] in
                guard let connection = shard.connections[reference!], case .connected = connection.phase else { return }
                body(connection)
            })
    }

    /// Whether a message has to wait: QoS 2 until its identifier is durable, since its receiver would take the message for
    /// another one should we forget which it was; and QoS 1 behind it, to keep the order (MQTT-4.6.0-1).
    func isHeld(_ message: Message, packetID: UInt16, dup: Bool) -> Bool {
        guard let writeBehind = shard.writeBehind, let session, session.isStored else { return false }
        let needed =
            message.qos == .exactlyOnce
            ? max(session.storedThrough, publishesHeldThrough) : publishesHeldThrough
        guard needed > writeBehind.durable else { return false }
        publishesHeldThrough = writeBehind.hold(needed, .publish(reference, packetID: packetID, dup: dup))
        return true
    }

    /// Whether a publish is to be acknowledged only after the store has it.
    func mustBeStored(_ publish: IncomingPublish, _ match: Match, from session: Session) -> Bool {
        guard shard.writeBehind != nil, publish.qos != .atMostOnce else { return false }
        return match.requiresPersistence || publish.retain || (publish.qos == .exactlyOnce && session.isStored)
    }

    /// Reads no further while the store has more to do than it may, if anything was noted since `mark`.
    func waitForStore(since mark: UInt64?) {
        guard let mark, let writeBehind = shard.writeBehind, writeBehind.mark != mark else { return }
        waitForStore()
    }

    /// Reads no further while the store has more to do than it may.
    func waitForStore() {
        guard let writeBehind = shard.writeBehind, writeBehind.store.isFull else { return }
        guard !pauses.contains(.store), case .connected = phase else { return }
        pauseReading(.store)
        shard.waitingForStore.append(reference)
    }

    func goOnAfterStore() {
        resumeReading(.store)
        if case .connected = phase { consumePending() }
        inputHandled()
    }
}
