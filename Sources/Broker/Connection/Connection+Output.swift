import Arena
import ArenaNIO
import DequeModule
import Ledger
import MQTT
import NIOCore

// Sending: packets are appended to one segment, which is written and flushed once at the end of the tick.
extension ConnectionHandler {
    /// Whether the socket takes more, as far as is known before the flush.
    var canSend: Bool {
        guard case .connected = phase else { return false }
        return takesMore && output.backlog.isEmpty
    }

    /// Whether the socket takes more; when memory is short, a little of it at a time.
    private var takesMore: Bool {
        isWritable && (!shard.pressure.isShort || takesMoreWhenShort())
    }

    @inline(never)
    private func takesMoreWhenShort() -> Bool {
        guard shard.hasEgressMemory else {
            if !output.isStarved { shard.noteStarved(reference) }
            output.isStarved = true
            return false
        }
        return output.unwrittenBytes + output.bytesThisTick + output.segment.readableBytes < Limits.shortOutputBytes
    }

    /// What is kept for want of the client's reading, in bytes: what goes when it is disconnected.
    var bytesBehind: Int {
        guard case .connected = phase else { return 0 }
        let session = session.map { $0.isPersistent ? 0 : $0.state.queuedBytes } ?? 0
        return output.unwrittenBytes + output.backlogBytes + session
    }

    /// Sends a QoS 0 message, or puts it into the backlog. What there is no memory for is dropped for this client: it is
    /// no reason for the others of a fan-out to go without.
    func sendAtMostOnce(_ message: inout Message) {
        if canSend { return note(append(message, packetID: 0, dup: false, isAsked: true), message) }
        guard case .connected = phase else { return }
        if shard.pressure.gauge.level == .critical { return noteBacklogDrop() }
        do throws(ArenaError) {
            try message.assignOwner(in: shard.arena, owner: owner, "outbound backlog")
        } catch {
            shard.refused(error, while: "keeping a message for a client that takes no more")
            return noteBacklogDrop()
        }
        let bytes = message.heldBytes
        while output.backlog.count >= limits.maxBacklogMessages || output.backlogBytes + bytes > limits.maxBacklogBytes
        {
            noteBacklogDrop()
            guard let oldest = output.backlog.popFirst() else { return }
            output.backlogBytes -= oldest.heldBytes
        }
        output.backlog.append(message)
        output.backlogBytes += bytes
    }

    private func noteBacklogDrop() {
        shard.context.counters.backlogDrops.increment()
        if let session { shard.losses.add(session.clientID) }
    }

    /// Sends a QoS 1 or 2 message that is in the session's window. One that is larger than the client takes counts as
    /// delivered (MQTT-3.1.2-24, -25).
    ///
    /// - Parameter isAsked: as for ``append(_:packetID:dup:isAsked:)``.
    func send(_ message: Message, packetID: UInt16, dup: Bool, isAsked: Bool) {
        if isHeld(message, packetID: packetID, dup: dup) { return }
        sendNow(message, packetID: packetID, dup: dup, isAsked: isAsked)
    }

    func sendNow(_ message: Message, packetID: UInt16, dup: Bool, isAsked: Bool) {
        let outcome = append(message, packetID: packetID, dup: dup, isAsked: isAsked)
        note(outcome, message, mayHaveIt: dup)
        guard outcome != .done, let session else { return }
        if outcome == .withheld, message.qos == .exactlyOnce, dup {
            // The client may have it, and its identifier: it shall be rid of that, and has nothing new by it.
            let mark = shard.writeBehind?.mark
            shard.update(session) { _ = $0.state.pubrec(packetID) }
            return sendAck(since: mark, .pubrel, packetID)
        }
        shard.update(session) { $0.state.abandon(packetID) }
        // No acknowledgement will say that there is room: what was held may be all of the window.
        if session.state.canSendMore(limits: limits) { wantsToSend() }
    }

    /// What became of a message at the door.
    private enum Appending {
        /// On its way, or the connection is closed.
        case done
        /// Larger than the client takes.
        case tooLarge
        /// The client may not read it any more.
        case withheld
    }

    /// Counts what the client does not get. What it may not read goes to another member, if it is a group's.
    ///
    /// - Parameter mayHaveIt: it was sent before.
    @inline(__always)
    private func note(_ outcome: Appending, _ message: Message, mayHaveIt: Bool = false) {
        if outcome != .done { noteKeptBack(outcome, message, mayHaveIt: mayHaveIt) }
    }

    @inline(never)
    private func noteKeptBack(_ outcome: Appending, _ message: Message, mayHaveIt: Bool) {
        guard outcome == .withheld, let session else {
            shard.context.counters.messagesTooLarge.increment()
            return
        }
        output.withheldThisTick += 1
        shard.steps.take()
        shard.work.mostWithheld = max(shard.work.mostWithheld, output.withheldThisTick)
        shard.context.noteDenied("delivery", session, message.topic.text)
        // QoS 2 that was sent is this client's alone (MQTT-4.8.2-5).
        if !(mayHaveIt && message.qos == .exactlyOnce), shard.giveToAnother(message) { return }
        shard.context.counters.messagesWithheld.increment()
        shard.losses.add(session.clientID)
    }

    /// Sends what ``sendAck(since:_:_:_:)`` says: two bytes of header and a packet identifier, and in 5.0 a code if that is not
    /// success.
    func writeAck(_ type: PacketType, _ packetID: UInt16, _ code: ReasonCode) {
        guard reserve(5) else { return }
        shard.traffic.packetsSent.bump()
        let first = type.rawValue << 4 | (type.reservedFlags ?? 0)
        let hasCode = code != .success && settings.version == .v5_0 && settings.maximumPacketSize > 4
        output.segment.writeInteger(UInt32(first) << 24 | (hasCode ? 3 : 2) << 16 | UInt32(packetID))
        if hasCode { output.segment.writeInteger(code.rawValue) }
    }

    /// Sends a packet that is not on the hot path; `size` is at least what it takes. One that is larger than the client
    /// takes is not sent (MQTT-3.1.2-24).
    ///
    /// - Returns: false for such a one.
    @discardableResult
    func send(_ packet: Packet, size: Int) -> Bool {
        guard reserve(size) else { return true }
        let start = output.segment.writerIndex
        packet.encode(into: &output.segment, version: settings.version)
        guard output.segment.writerIndex - start <= settings.maximumPacketSize else {
            output.segment.moveWriterIndex(to: start)
            return false
        }
        shard.traffic.packetsSent.bump()
        return true
    }

    /// Has the backlog and the session's queue looked at when the tick ends.
    func wantsToSend() {
        guard !output.isDirty else { return }
        output.isDirty = true
        shard.markDirty(self)
    }

    // MARK: - Appending

    /// The one door: every PUBLISH to this client goes through here. What was kept for it (queued, in flight, in the
    /// backlog, in the store) is looked at by the rules of this moment, not by those of the moment when it came.
    ///
    /// - Parameter isAsked: the message came in this tick, from ``EventLoopShard/deliver(_:to:isForwarded:)``, which has
    ///   asked for the client's right to read it: rules do not change within a tick.
    @inline(__always)
    private func append(_ message: Message, packetID: UInt16, dup: Bool, isAsked: Bool) -> Appending {
        if !isAsked, let session, !session.mayReceive(message.topic) { return .withheld }
        return write(message, packetID: packetID, dup: dup) ? .done : .tooLarge
    }

    /// - Returns: false if the message is larger than the client takes.
    @inline(__always)
    private func write(_ message: Message, packetID: UInt16, dup: Bool) -> Bool {
        let payloadLength = message.payload.readableBytes
        // A slice sent from where it is keeps all of its buffer: right for a message that has one of its own.
        let isShared = message.ownsBuffer && payloadLength >= Limits.sharedPayloadBytes
        if shard.fanOut.isActive, let isSent = appendVariant(message, packetID: packetID, isShared: isShared) {
            return isSent
        }
        if settings.version == .v5_0 { return append5(message, packetID: packetID, dup: dup, isShared: isShared) }
        let headerRoom = 9 + message.topic.byteCount
        guard reserve(headerRoom + (isShared ? 0 : payloadLength)) else { return true }
        guard
            Publish.encodeHeader(
                into: &output.segment, topic: message.topic, qos: message.qos, dup: dup, retain: message.retain,
                packetID: packetID, payloadLength: payloadLength, version: .v3_1_1)
        else { return false }
        appendPayload(message, isShared: isShared)
        return true
    }

    /// Copies the packet that all receivers of a fan-out get; nil if this one needs one of its own.
    @inline(__always)
    private func appendVariant(_ message: Message, packetID: UInt16, isShared: Bool) -> Bool? {
        if settings.version == .v5_0, message.route != nil || settings.topicAliasMaximum > 0 { return nil }
        guard
            let variant = shard.fanOut.variant(
                message, version: settings.version, withPayload: !isShared, in: shard.arena, owner: shard.owner)
        else { return nil }
        let length = variant.bytes.readableBytes
        if length + (isShared ? message.payload.readableBytes : 0) > settings.maximumPacketSize { return false }
        guard reserve(length) else { return true }
        let start = output.segment.writerIndex
        output.segment.writeImmutableBuffer(variant.bytes)
        if packetID != 0 { output.segment.setInteger(packetID, at: start + variant.identifierOffset) }
        notePublish(message.payload.readableBytes)
        if isShared {
            handOver()
            handOver(message.payload, isSegment: false)
        }
        return true
    }

    /// 5.0: with the properties it came with, and with what is this connection's alone.
    private func append5(_ message: Message, packetID: UInt16, dup: Bool, isShared: Bool) -> Bool {
        var properties = OutgoingProperties()
        properties.forwardedProperties = message.properties
        if message.mayExpire { properties.messageExpiryInterval = message.remainingSeconds(at: .now()) }
        if let route = message.route { properties.identifiers = route.identifiers }
        let payloadLength = message.payload.readableBytes
        var topic = TopicName?.some(message.topic)
        if settings.topicAliasMaximum > 0 {
            properties.topicAlias = aliases.outgoingAlias(of: message.topic)
            if properties.topicAlias != 0 { topic = nil }
        }
        func size() -> Int {
            Publish.encodedSize(
                topicLength: topic?.byteCount ?? 0, qos: message.qos, payloadLength: payloadLength,
                properties: properties)
        }
        var packetSize = size()
        guard packetSize <= settings.maximumPacketSize else { return false }
        let aliasBytes = 3
        if settings.topicAliasMaximum > 0, properties.topicAlias == 0, message.topic.byteCount > aliasBytes,
            // The longer list may need a longer length.
            packetSize + aliasBytes + 2 <= settings.maximumPacketSize
        {
            properties.topicAlias = aliases.assign(
                message.topic, limit: settings.topicAliasMaximum, in: shard.arena, owner: owner)
            packetSize = size()
        }
        guard reserve(packetSize - (isShared ? payloadLength : 0)) else { return true }
        guard
            Publish.encodeHeader(
                into: &output.segment, topic: topic, qos: message.qos, dup: dup, retain: message.retain,
                packetID: packetID, payloadLength: payloadLength, properties: properties)
        else { return false }
        appendPayload(message, isShared: isShared)
        return true
    }

    @inline(__always)
    private func appendPayload(_ message: Message, isShared: Bool) {
        notePublish(message.payload.readableBytes)
        if isShared {
            handOver()
            handOver(message.payload, isSegment: false)
        } else {
            output.segment.writeImmutableBuffer(message.payload)
        }
    }

    @inline(__always)
    private func notePublish(_ payloadLength: Int) {
        shard.traffic.packetsSent.bump()
        shard.traffic.publishesSent.bump()
        shard.traffic.publishBytesSent.bump(by: payloadLength)
    }

    /// Makes room for `count` bytes in the segment, which therefore never grows by itself.
    ///
    /// - Returns: false if the arena refused; the connection is closed then.
    @inline(__always)
    private func reserve(_ count: Int) -> Bool {
        if output.segment.writableBytes >= count, output.isDirty { return true }
        return beginSegment(count)
    }

    @inline(never)
    private func beginSegment(_ count: Int) -> Bool {
        if case .closed = phase { return false }
        wantsToSend()
        if output.segment.writableBytes >= count { return true }
        if output.segment.readableBytes > 0 {
            handOver()
            output.segmentBytes = min(output.segmentBytes * 2, Limits.maxSegmentBytes)
        }
        do throws(ArenaError) {
            output.segment = try shard.arena.buffer(
                capacity: max(count, output.segmentBytes), owner: owner, "outbound segment")
            return true
        } catch {
            fail(error, while: "sending")
            return false
        }
    }

    // MARK: - Writing

    /// Writes the segment, without a flush.
    private func handOver() {
        guard output.segment.readableBytes > 0 else { return }
        let segment = output.segment
        output.segment = Output.none
        handOver(segment, isSegment: true)
    }

    private func handOver(_ buffer: ByteBuffer, isSegment: Bool) {
        // The socket may be gone before all that came from it has been handled.
        guard let channelContext else { return }
        output.handed.append(Output.Handed(buffer: buffer, isSegment: isSegment))
        output.handedBytes += buffer.readableBytes
        output.bytesThisTick += buffer.readableBytes
        output.totalBytes += buffer.readableBytes
        shard.traffic.bytesSent.bump(by: buffer.readableBytes)
        channelContext.write(wrapOutboundOut(buffer), promise: nil)
        // A large tick must not look like a slow socket. What waits in the TLS handler, the socket does not know of.
        if transport != nil {
            output.unflushedBytes += buffer.readableBytes
            if output.unflushedBytes >= Limits.highWatermark { flush() }
        } else if !isWritable {
            flush()
        }
    }

    private func flush() {
        output.unflushedBytes = 0
        channelContext?.flush()
    }

    /// Writes and flushes what the tick has gathered.
    func finishTick() {
        guard channelContext != nil else { return }
        output.withheldThisTick = 0
        // Still dirty while this lasts: what is appended on the way is written here.
        sendWaiting()
        handOver()
        output.segment = Output.none
        flush()
        output.isDirty = false
        if case .closed = phase { return closeWhenWritten() }
        adaptSegment()
        settle()
        // The flush may have made room. Without room, `channelWritabilityChanged` will say when there is.
        if hasWaiting, takesMore { if mayWithhold { wantsToSend() } else { deferRetained() } }
        if retainedRoom > 0, canSend { deferRetained() }
    }

    /// What is not sent does not fill the socket: so much of it a tick, whatever a queue has.
    private var mayWithhold: Bool {
        output.withheldThisTick == 0 || (output.withheldThisTick < Limits.withheldPerTick && !shard.steps.isSpent)
    }

    /// Whether anything could be sent now if the socket took it.
    private var hasWaiting: Bool {
        guard case .connected = phase else { return false }
        guard output.backlog.isEmpty else { return true }
        return session?.state.canSendMore(limits: limits) ?? false
    }

    /// Moves the backlog, then the session's queue, to the socket as far as it takes them.
    private func sendWaiting() {
        guard case .connected = phase else { return }
        while takesMore, mayWithhold, let message = output.backlog.popFirst() {
            output.backlogBytes -= message.heldBytes
            if message.mayExpire, message.isExpired(at: .now()) { continue }
            note(append(message, packetID: 0, dup: false, isAsked: false), message)
        }
        sendQueued()
        sendRetained()
    }

    private func sendQueued() {
        guard let session else { return }
        if session.state.canSendMore(limits: limits) { sendQueue(of: session) }
        if session.state.hasSpilled { shard.wantOverflowBatch(session) }
    }

    private func sendQueue(of session: Session) {
        // First, in order, what the client has not acknowledged (MQTT-4.4.0-1).
        while canSend, mayWithhold, let again = shard.update(session, { $0.state.nextRedelivery() }) {
            switch again {
            case .publish(let message, let packetID): send(message, packetID: packetID, dup: true, isAsked: false)
            case .pubrel(let packetID): sendAck(.pubrel, packetID)
            }
        }
        while canSend, mayWithhold, let (message, packetID) = shard.update(session, { $0.state.next(limits: limits) }) {
            send(message, packetID: packetID, dup: false, isAsked: false)
        }
    }

    /// Closes the socket once all is written, if a reason for it is among that: a consumer that was slow learns why when it
    /// reads on. For a while only, and not where the broker ends.
    func closeWhenWritten() {
        guard saysWhy, transport == nil, !shard.isStopping else { return closeSocket() }
        settle()
        guard output.unwrittenBytes > 0 else { return closeSocket() }
        guard !isLingering else { return }
        isLingering = true
        shard.watch(reference, .goodbye, until: .now() + .seconds(Int64(limits.lingerSeconds)))
    }

    /// The first segment of a tick is as large as what the last ones sent; it shrinks by half a tick.
    private func adaptSegment() {
        if output.bytesThisTick * 4 < output.segmentBytes {
            output.segmentBytes = max(output.segmentBytes / 2, Limits.minSegmentBytes)
        }
        output.bytesThisTick = 0
    }

    /// Forgets what has been written. NIO writes on flush, so most often that is everything, and no promise is needed.
    private func settle() {
        guard let channelContext else { return }
        let unwritten = (try? channelContext.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
        // Flushed, what is not plain TCP is with the transport, which names it.
        output.forgetWritten(unwritten: transport == nil ? unwritten : 0)
        if unwritten > 0, !output.isWatching { watchWrites() }
        noteUnwritten(unwritten)
    }

    /// The gate of all that a peer can cause to be written, by whichever handler: packets, pongs, handshakes, alerts. A peer
    /// that does not take what is said to it is not read, so that it causes no more; and closed if it goes on like that.
    ///
    /// - Parameter bytes: as the socket says, that it has not taken; the outermost handler asks whenever it has written.
    func noteUnwritten(_ bytes: Int) {
        output.unwrittenBytes = bytes
        if bytes > 0 { watchStall() }
        if bytes >= mostUnwritten { pauseReading(.output) } else { resumeReading(.output) }
    }

    /// At so many bytes it is not read. Each read brings answers of about its own length at most on top.
    private var mostUnwritten: Int {
        guard case .connected = phase else { return Limits.handshakeOutputBytes }
        return shard.pressure.isShort ? 2 * Limits.shortOutputBytes : Limits.pauseReadingBytes
    }

    /// Bytes that the socket has taken, of all there were for it.
    private var takenBytes: Int { (transport?.totalBytes ?? output.totalBytes) - output.unwrittenBytes }

    /// Has it checked whether the socket takes anything, one interval from now.
    private func watchStall() {
        guard limits.slowConsumerSeconds > 0, !output.isStallWatched, case .connected = phase else { return }
        output.isStallWatched = true
        output.takenBefore = takenBytes
        shard.watch(reference, .stall, until: .now() + .seconds(Int64(limits.slowConsumerSeconds)))
    }

    func checkStall() {
        output.isStallWatched = false
        guard case .connected = phase else { return }
        let before = output.takenBefore
        settle()
        guard output.unwrittenBytes > 0, before == takenBytes else { return }
        shard.context.counters.consumersStalled.increment()
        close(.stalled(bytes: bytesBehind, seconds: limits.slowConsumerSeconds))
    }

    /// After writes have completed. When memory is short or many wait, nothing else says that there is room for more.
    private func settleWritten() {
        output.isWatching = false
        settle()
        if case .closed = phase { return closeWhenWritten() }
        if hasWaiting || retainedRoom > 0, takesMore { wantsToSend() }
    }

    /// Learns of the completion of all writes so far by that of an empty write behind them.
    private func watchWrites() {
        output.isWatching = true
        if let transport {
            return transport.whenWritten { [self] in settleWritten() }
        }
        guard !output.handed.isEmpty else { return output.isWatching = false }
        let promise = channelContext.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in
            settleWritten()
        }
        channelContext.writeAndFlush(wrapOutboundOut(Output.none), promise: promise)
    }

    /// Gives the segments that are still being written to another owner, since the present one ends. Payloads are not
    /// this connection's to give: the retained store, or other sessions, answer for them.
    func retainOutput(as owner: OwnerID) {
        for handed in output.handed where handed.isSegment {
            shard.arena.transfer(handed.buffer, to: owner, "closing")
        }
        if output.segment.storageCapacity > 0 { shard.arena.transfer(output.segment, to: owner, "closing") }
    }
}
