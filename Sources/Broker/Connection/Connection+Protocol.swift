import Arena
import ArenaNIO
import Ledger
import Logging
import MQTT
import NIOCore

// What packets mean (sections 3 and 4). Framing has checked the size, and that CONNECT comes first. CONNECT, PUBLISH
// and subscriptions have files of their own.
extension ConnectionHandler {
    func handle(_ header: FixedHeader, _ body: inout ByteBuffer, ownsBuffer: Bool) throws(DecodeError) {
        shard.traffic.packetsReceived.bump()
        shard.steps.take()
        if case .connected = phase {} else { return try handleBeforeSession(header, &body) }
        // The hot packets first.
        switch header.type {
        case .publish:
            let publish = try IncomingPublish.decode(header: header, body: &body, version: settings.version)
            if shard.pressure.isStale { shard.updatePressure() }
            if shard.pressure.isShort, !admit(publish) { return }
            do throws(ArenaError) {
                try handle(publish, ownsBuffer: ownsBuffer)
            } catch {
                shard.refused(error, while: "handling a publish")
                refuse(publish, .outOfMemory(error))
            }
        case .puback:
            // Whatever its code: the client has had the message (MQTT-4.4.0-2).
            let ack = try decodeAck(header, &body)
            acknowledged(ack.packetID) { $0.puback($1) }
        case .pubrec: received(try decodeAck(header, &body))
        case .pubrel:
            let ack = try decodeAck(header, &body)
            let mark = shard.writeBehind?.mark
            let isKnown = session.map { shard.update($0) { $0.state.release(ack.packetID) } } ?? false
            if isKnown, let session, session.isStored { shard.writeBehind?.receiptEnded(ack.packetID, by: session) }
            sendAck(since: mark, .pubcomp, ack.packetID, isKnown ? .success : .packetIdentifierNotFound)
        case .pubcomp:
            let ack = try decodeAck(header, &body)
            acknowledged(ack.packetID) { $0.pubcomp($1) }
        default: handleRare(try Packet.decode(header: header, body: &body, version: settings.version))
        }
    }

    /// CONNECT, and what may come while a client authenticates itself: AUTH and DISCONNECT (MQTT-3.1.2-30).
    private func handleBeforeSession(_ header: FixedHeader, _ body: inout ByteBuffer) throws(DecodeError) {
        if case .awaitingConnect = phase, let version = Connect.version(of: body, header: header) {
            settings.version = version
        }
        switch try Packet.decode(header: header, body: &body, version: settings.version) {
        case .connect(let connect):
            if case .awaitingConnect = phase { return handle(connect) }
            refuse(.protocolError)
            close(.protocolViolation("a second CONNECT", statement: "MQTT-3.1.0-2"))
        case .auth(let auth): handle(auth)
        case .disconnect: close(.disconnected)
        default:
            // A refusal before CONNACK is a CONNACK (MQTT-3.14.0-1).
            refuse(.protocolError)
            close(.protocolViolation("\(header.type.name) before CONNACK", statement: "MQTT-3.1.2-30"))
        }
    }

    private func handleRare(_ packet: Packet) {
        switch packet {
        case .connect: close(.protocolViolation("a second CONNECT", statement: "MQTT-3.1.0-2"))
        case .subscribe(let subscribe): handle(subscribe)
        case .unsubscribe(let unsubscribe): handle(unsubscribe)
        case .pingreq: send(.pingresp, size: 2)
        case .disconnect(let disconnect): handle(disconnect)
        case .auth(let auth): handle(auth)
        default:
            close(.protocolViolation("\(packet.type.name) is not for a client to send"))
        }
    }

    /// Closes for bytes that are not what they should be. In 5.0 with the exact reason (MQTT-4.13.1-1); in 3.1.1 only
    /// an unknown protocol version gets an answer.
    func reject(_ error: DecodeError) {
        if case .awaitingConnect = phase {
            if case .unsupportedProtocolVersion = error {
                refuse(.unsupportedProtocolVersion)
            } else if settings.version == .v5_0 {
                refuse(error.reasonCode, "\(error)")
            }
        }
        close(.malformed(error))
    }

    private func handle(_ disconnect: Disconnect) {
        guard let session else { return }
        if let interval = disconnect.properties.sessionExpiryInterval {
            // A session that was to end with its connection cannot be kept by its last packet.
            guard interval == 0 || session.isPersistent else {
                return close(
                    .protocolViolation("a session expiry interval where CONNECT had none (section 3.14.2.2.2)"))
            }
            shard.setExpiry(of: session, to: interval)
        }
        switch disconnect.code {
        case .normalDisconnection:
            // The will goes unpublished (MQTT-3.14.4-3, MQTT-3.1.2-10).
            shard.forgetWill(of: session)
            close(.disconnected)
        default: close(.disconnectedWithWill)
        }
    }

    // MARK: - Acknowledgements

    private func decodeAck(_ header: FixedHeader, _ body: inout ByteBuffer) throws(DecodeError) -> Ack {
        try Ack.decode(header: header, body: &body, version: settings.version)
    }

    private func received(_ ack: Ack) {
        guard let session else { return }
        if ack.code.isError {
            // The client refuses the message: no PUBREL follows (section 4.3.3).
            return acknowledged(ack.packetID) { $0.refused($1) }
        }
        // An unknown identifier is answered too: the client may repeat what we have completed.
        let mark = shard.writeBehind?.mark
        let isKnown = shard.update(session) { $0.state.pubrec(ack.packetID) }
        // Should we forget that, the client would get the message again after it has forgotten the identifier.
        sendAck(since: mark, .pubrel, ack.packetID, isKnown ? .success : .packetIdentifierNotFound)
    }

    /// Ends a delivery, and makes use of the room in the window.
    private func acknowledged(_ packetID: UInt16, _ end: (inout SessionState, UInt16) -> Bool) {
        guard let session else { return }
        guard shard.update(session, { end(&$0.state, packetID) }) else {
            shard.context.log.debug(
                "acknowledgement of an unknown packet",
                metadata: ["client": "\(session.logName)", "packet": "\(packetID)"])
            return
        }
        if session.state.canSendMore(limits: limits) || !session.retained.isEmpty { wantsToSend() }
    }
}
