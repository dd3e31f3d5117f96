import Arena
import ArenaNIO
import Ledger
package import MQTT
import NIOConcurrencyHelpers
package import NIOCore
import Synchronization

/// What became of a command that somebody waits for.
package enum CommandOutcome: Sendable {
    /// The device's answer, which waits in ``CommandResponses`` under this number.
    case response(CommandResponses.Ticket, contentType: String?)
    case unknownDevice
    /// It has a session, and no subscription to its commands.
    case notListening
    /// As many commands as may be are open for it.
    case tooMany
    /// The arena has no room for the command or the response.
    case noMemory
    case timedOut
    /// The device's session ended meanwhile.
    case ended
    /// The broker is about to end.
    case ending
}

/// Who waits for the response to one command. A session that ends lets go of it, and that completes it too.
typealias CommandWaiter = Waiter<CommandOutcome>

/// Who waits for something that a loop is to do: completed once, whatever happens first.
final class Waiter<Outcome: Sendable>: Sendable {
    private let continuation: NIOLockedValueBox<CheckedContinuation<Outcome, Never>?>
    private let whenLetGo: Outcome

    /// - Parameter whenLetGo: what completes it when nobody has it any more.
    init(_ continuation: CheckedContinuation<Outcome, Never>, whenLetGo: Outcome) {
        self.continuation = NIOLockedValueBox(continuation)
        self.whenLetGo = whenLetGo
    }

    deinit { complete(whenLetGo) }

    /// - Returns: false if it was complete already.
    @discardableResult
    func complete(_ outcome: Outcome) -> Bool {
        let waiting = continuation.withLockedValue { waiting in
            defer { waiting = nil }
            return waiting
        }
        waiting?.resume(returning: outcome)
        return waiting != nil
    }
}

/// Responses on their way from a device to HTTP: in the arena and named as held until the last byte has been handed on.
package final class CommandResponses: Sendable {
    /// Keeps one response until it is let go.
    package final class Ticket: Sendable {
        fileprivate let responses: CommandResponses
        fileprivate let number: UInt64
        package let payload: ByteBuffer

        fileprivate init(_ payload: ByteBuffer, _ number: UInt64, in responses: CommandResponses) {
            self.payload = payload
            self.number = number
            self.responses = responses
        }

        deinit { responses.remove(number) }
    }

    private struct Table {
        var next: UInt64 = 0
        var payloads: [UInt64: ByteBuffer] = [:]
    }

    private let table = ObservableBox(Table())

    var count: Int { table.withLockedValue { $0.payloads.count } }

    func keep(_ payload: ByteBuffer) -> Ticket {
        Arena.share(payload)
        let number = table.withLockedValue { table in
            table.next += 1
            table.payloads[table.next] = payload
            return table.next
        }
        return Ticket(payload, number, in: self)
    }

    /// - Parameter mayWait: as long as it takes; else nothing is visited while somebody keeps the table locked.
    func forEach(mayWait: Bool = true, _ body: (ByteBuffer) -> Void) {
        table.observe(mayWait: mayWait) { table in for payload in table.payloads.values { body(payload) } }
    }

    private func remove(_ number: UInt64) {
        // Freed outside the lock.
        let payload = table.withLockedValue { $0.payloads.removeValue(forKey: number) }
        withExtendedLifetime(payload) {}
    }
}

/// A command from outside MQTT.
package struct CommandRequest: Sendable {
    package var payload: ByteBuffer
    /// For devices of 5.0.
    package var contentType: String?
    /// The device gets it with the QoS of its subscription if that is lower.
    package var qos: QoS
    package var timeout: TimeAmount

    package init(payload: ByteBuffer, contentType: String? = nil, qos: QoS = .atLeastOnce, timeout: TimeAmount) {
        self.payload = payload
        self.contentType = contentType
        self.qos = qos
        self.timeout = timeout
    }
}

extension BrokerContext {
    /// Sends a command to a device and waits for its response. Any thread that is no event loop's.
    ///
    /// - Parameter shards: of this broker.
    func command(_ request: CommandRequest, to device: String, _ shards: [EventLoopShard]) async -> CommandOutcome {
        guard let session = registry.find(device) else {
            counters.commandsUndeliverable.increment()
            return .unknownDevice
        }
        let number = commandNumbers.add(1, ordering: .relaxed).newValue
        let id = "h\(number)"
        let deadline = NIODeadline.now() + request.timeout
        let timer = NIOLockedValueBox<Scheduled<Void>?>(nil)
        let outcome = await withCheckedContinuation { continuation in
            let waiter = CommandWaiter(continuation, whenLetGo: .ended)
            guard waitingCommands.add(waiter, number) else {
                waiter.complete(.ending)
                return
            }
            let loop = shards[session.owningShard].loop
            // Weakly: a session that ends must be able to complete it.
            let scheduled = loop.scheduleTask(deadline: deadline) { [weak waiter] in
                _ = waiter?.complete(.timedOut)
            }
            timer.withLockedValue { $0 = scheduled }
            issue(request, id, to: session, deadline, waiter, shards)
        }
        timer.withLockedValue { $0?.cancel() }
        waitingCommands.remove(number)
        return outcome
    }

    private func issue(
        _ request: CommandRequest, _ id: String, to session: Session, _ deadline: NIODeadline, _ waiter: CommandWaiter,
        _ shards: [EventLoopShard]
    ) {
        let shard = shards[session.owningShard]
        shard.loop.execute { [self] in
            guard session.owningShard == shard.index else {
                return issue(request, id, to: session, deadline, waiter, shards)
            }
            shard.issue(request, id, to: session, deadline, waiter)
        }
    }
}

extension EventLoopShard {
    /// Sends a command to a device that this shard owns. On the loop.
    func issue(
        _ request: CommandRequest, _ id: String, to session: Session, _ deadline: NIODeadline, _ waiter: CommandWaiter
    ) {
        do throws(ArenaError) {
            guard var message = try commandMessage(request, id) else {
                waiter.complete(.notListening)
                return
            }
            message.expiresAt = deadline
            switch try deliverCommand(&message, to: session, deadline: deadline, waiter: waiter) {
            case .delivered: break
            case .notListening: waiter.complete(.notListening)
            case .tooMany: waiter.complete(.tooMany)
            }
        } catch {
            waiter.complete(.noMemory)
            refused(error, while: "sending a command")
        }
    }

    /// Topic, properties and payload in a buffer of its own; nil if the configured topics make none with the identifier.
    private func commandMessage(_ request: CommandRequest, _ id: String) throws(ArenaError) -> Message? {
        guard let topic = try? TopicName(context.rpcTopics.commandPrefix + id),
            let responseTopic = try? TopicName(context.rpcTopics.responsePrefix + id)
        else { return nil }
        // For devices of 5.0; those of 3.1.1 have the identifier in the topic.
        var properties = PublishProperties()
        properties.contentType = request.contentType
        properties.responseTopic = responseTopic
        properties.correlationData = ByteBuffer(string: id)
        let (topicLength, listLength) = (topic.byteCount, properties.forwardedPropertiesLength)
        var buffer = try arena.buffer(
            capacity: topicLength + listLength + request.payload.readableBytes, owner: context.rpcOwner, "rpc command")
        buffer.writeImmutableBuffer(topic.bytes)
        properties.writePassedOn(to: &buffer)
        buffer.writeImmutableBuffer(request.payload)
        return Message(
            topic: topic.moved(to: buffer, at: 0),
            payload: buffer.getSlice(at: topicLength + listLength, length: request.payload.readableBytes)!,
            properties: buffer.getSlice(at: topicLength, length: listLength)!, qos: request.qos, ownsBuffer: true)
    }

    /// Hands a device's response to who waits for it, in a buffer of its own.
    func answer(_ waiter: CommandWaiter, with message: Message) throws(ArenaError) {
        let contentType = message.properties.flatMap(PublishProperties.init(forwardedProperties:))?.contentType
        var payload = ByteBuffer()
        if message.payload.readableBytes > 0 {
            payload = try arena.buffer(
                capacity: message.payload.readableBytes, owner: context.rpcOwner, "rpc response")
            payload.writeImmutableBuffer(message.payload)
        }
        waiter.complete(.response(context.commandResponses.keep(payload), contentType: contentType))
    }
}
