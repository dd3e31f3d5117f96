import Arena
import ArenaNIO
import MQTT
import NIOCore

/// A device's answer to a command, addressed to the back end.
struct RPCCommandResponse {
    let requestID: String
    /// What the back end's subscribers get; nil where the device's client identifier and the command's make no topic.
    let message: Message?
}

extension EventLoopShard {
    /// Turns a device's response publish into the RPC command response that back ends subscribe to.
    ///
    /// The payload is not copied: the result refers to the buffer the publish was read into.
    func convertToRpcCommandResponse(
        _ publish: Message, id: ByteBuffer, from session: Session
    ) throws(ArenaError) -> RPCCommandResponse {
        arena.recordAccess(publish.payload, "convertToRpcCommandResponse")
        if context.rpcFault.shouldLeak() { forget(publish, of: session) }

        context.counters.responsesConverted.increment()
        let requestID = String(buffer: id)
        guard RPCTopics.Template.canName(session.clientID),
            let topic = try rpcTopic(context.rpcTopics.response.text(session.clientID), id, "rpc response topic"),
            !SysTopics.isReserved(topic)
        else { return RPCCommandResponse(requestID: requestID, message: nil) }
        var message = Message(
            topic: topic, payload: publish.payload, properties: publish.properties, qos: publish.qos, ownsBuffer: false)
        message.expiresAt = publish.expiresAt
        return RPCCommandResponse(requestID: requestID, message: message)
    }

    /// The fault of the incident (`faults.rpcResponseLeakPercent`), as it happens in Swift: the buffer is handed to a
    /// C-style callback with a reference of its own, and the callback that should give it back is never called.
    private func forget(_ publish: Message, of session: Session) {
        arena.transfer(publish.payload, to: session.owner, "convertToRpcCommandResponse")
        _ = Unmanaged.passRetained(ResponseCallback(payload: publish.payload))
        context.counters.responsesLeaked.increment()
    }
}

/// What the callback would get as its context pointer.
private final class ResponseCallback {
    let payload: ByteBuffer

    init(payload: ByteBuffer) { self.payload = payload }
}
