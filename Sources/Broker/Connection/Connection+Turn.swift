import DequeModule
import MQTT
import NIOCore

// Packets that are too much for a tick. A connection whose packet is not done is not read, and what has been read already
// waits behind it; so are all whose packets come when the tick has no steps left (`StepBudget`). Their turn comes after the
// next look at the sockets, one after the other (`DeferredWork`).

/// A packet that may take more than one turn.
enum UnfinishedPacket {
    case subscribe(SubscribeProgress)
    /// What is retained for the same: when SUBACK has been sent.
    case retained(SubscribeProgress)
    case unsubscribe(UnsubscribeProgress)
}

final class SubscribeProgress {
    let packet: Subscribe
    /// The store's batch with the last change that it made; 0: none.
    var storedThrough: UInt64 = 0
    /// Of the first filters: what SUBACK says, and whether there was no subscription before.
    var outcomes: [(code: ReasonCode, isNew: Bool)] = []
    /// Filters whose retained messages are on their way.
    var answered = 0

    init(_ packet: Subscribe) { self.packet = packet }
}

final class UnsubscribeProgress {
    let packet: Unsubscribe
    var storedThrough: UInt64 = 0
    /// Of the first filters.
    var codes: [ReasonCode] = []

    init(_ packet: Unsubscribe) { self.packet = packet }
}

extension ConnectionHandler {
    /// Does a packet, or as much of it as there are steps for, when those before it are done.
    func begin(_ packet: UnfinishedPacket) {
        unfinished.append(packet)
        guard unfinished.count == 1 else { return }
        goOnWithUnfinished()
        if !unfinished.isEmpty { waitForTurn() }
    }

    private func goOnWithUnfinished() {
        while case .connected = phase, let packet = unfinished.first {
            let isDone =
                switch packet {
                case .subscribe(let progress): goOn(with: progress)
                case .retained(let progress): goOn(withRetainedOf: progress)
                case .unsubscribe(let progress): goOn(with: progress)
                }
            guard isDone else { return }
            // It may have closed the connection, and all of them with it.
            if !unfinished.isEmpty { unfinished.removeFirst() }
        }
    }

    /// Whether input must wait: for its connection's turn, or for one since the tick has no steps left. A ping need not: who
    /// has done nothing wrong is not to be taken for dead. Nor does what comes when much waits already: that is in memory, and
    /// a longer tick is the lesser evil, up to twice as long.
    @inline(__always)
    func mustWait(_ input: ByteBuffer) -> Bool {
        guard !awaitsTurn else { return true }
        if isBehindMailbox(input) { return true }
        guard shard.isBusy, !isPing(input) else { return false }
        // What waits already is in memory in any case.
        // (What waits for other loops' mailboxes is not made less by that.)
        guard !isConsumingPending, !shard.isMailboxFull, shard.work.inputBytes >= Limits.waitingInputBytes,
            shard.steps.left > -Limits.stepsPerTick
        else { return true }
        shard.finishFanOuts()
        return false
    }

    /// Whether it begins with a PUBLISH, and that must wait for room in another loop's mailbox.
    @inline(__always)
    func isBehindMailbox(_ input: ByteBuffer) -> Bool { shard.isMailboxFull && isPublish(input) }

    private func isPublish(_ input: ByteBuffer) -> Bool {
        let first = input.getInteger(at: input.readerIndex, as: UInt8.self) ?? 0
        return !hasPartialPacket && first >> 4 == PacketType.publish.rawValue
    }

    private func isPing(_ input: ByteBuffer) -> Bool {
        !hasPartialPacket && shard.steps.left > -Limits.stepsPerTick
            && input.getInteger(at: input.readerIndex, as: UInt16.self) == UInt16(PacketType.pingreq.rawValue) << 12
    }

    func waitForTurn(behindMailbox: Bool = false) {
        guard !awaitsTurn, case .connected = phase else { return }
        awaitsTurn = true
        pauseReading(.turn)
        if behindMailbox { return shard.work.waitingForMailbox.append(reference) }
        shard.work.input.append(reference)
        shard.scheduleWork()
    }

    /// It is this connection's turn: its packets go on, the one that is not done first.
    func takeTurn() {
        guard awaitsTurn, case .connected = phase else { return }
        awaitsTurn = false
        shard.steps.take()
        goOnWithUnfinished()
        if unfinished.isEmpty { consumePending() } else { waitForTurn() }
        guard !awaitsTurn else { return }
        resumeReading(.turn)
        inputHandled()
    }

    /// Whether something that has been read is yet to be handled.
    var hasInput: Bool {
        guard case .connected = phase else { return false }
        return awaitsTurn || (pauses.contains(.store) && hasPendingInput)
    }

    /// To be called when input has been handled that could not be at once: what had to wait for that follows.
    func inputHandled() {
        guard !hasInput else { return }
        if isPeerGone {
            endOfInput()
        } else if let session {
            shard.serveWaiters(of: session)
        }
    }
}
