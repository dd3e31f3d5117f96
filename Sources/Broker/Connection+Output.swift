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
        return channelContext.channel.isWritable && output.backlog.isEmpty
    }

    /// Sends a QoS 0 message, or puts it into the backlog.
    func sendAtMostOnce(_ message: inout Message) throws(ArenaError) {
        if canSend { return append(message, packetID: 0, dup: false) }
        guard case .connected = phase else { return }
        try message.keep(in: shard.arena, owner: owner, "outbound backlog")
        let bytes = message.heldBytes
        while output.backlog.count >= limits.maxBacklogMessages || output.backlogBytes + bytes > limits.maxBacklogBytes
        {
            shard.context.counters.backlogDrops.increment()
            if let session { shard.losses.add(session.clientID) }
            guard let oldest = output.backlog.popFirst() else { return }
            output.backlogBytes -= oldest.heldBytes
        }
        output.backlog.append(message)
        output.backlogBytes += bytes
    }

    /// Sends a QoS 1 or 2 message that is in the session's window.
    func send(_ message: Message, packetID: UInt16, dup: Bool) {
        append(message, packetID: packetID, dup: dup)
    }

    /// Sends a packet of two bytes of header and a packet identifier.
    func sendAck(_ type: PacketType, _ packetID: UInt16) {
        guard reserve(4) else { return }
        let first = type.rawValue << 4 | (type.reservedFlags ?? 0)
        output.segment.writeInteger(UInt32(first) << 24 | 2 << 16 | UInt32(packetID))
    }

    /// Sends a packet that is not on the hot path.
    func send(_ packet: Packet, size: Int) {
        guard reserve(size) else { return }
        packet.encode(into: &output.segment, version: .v3_1_1)
    }

    /// Has the backlog and the session's queue looked at when the tick ends.
    func wantsToSend() {
        guard !output.isDirty else { return }
        output.isDirty = true
        shard.markDirty(self)
    }

    // MARK: - Appending

    @inline(__always)
    private func append(_ message: Message, packetID: UInt16, dup: Bool) {
        let payloadLength = message.payload.readableBytes
        // A slice sent from where it is keeps all of its buffer: right for a message that has one of its own.
        let isShared = message.ownsBuffer && payloadLength >= Limits.sharedPayloadBytes
        let headerRoom = 9 + message.topic.readableBytes
        guard reserve(headerRoom + (isShared ? 0 : payloadLength)) else { return }
        Publish.encodeHeader(
            into: &output.segment, topic: message.topic, qos: message.qos, dup: dup, retain: message.retain,
            packetID: packetID, payloadLength: payloadLength, version: .v3_1_1)
        if isShared {
            handOver()
            handOver(message.payload, isSegment: false)
        } else {
            output.segment.writeImmutableBuffer(message.payload)
        }
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
        output.handed.append(Output.Handed(buffer: buffer, isSegment: isSegment))
        output.bytesThisTick += buffer.readableBytes
        channelContext.write(wrapOutboundOut(buffer), promise: nil)
        // A large tick must not look like a slow socket.
        if !channelContext.channel.isWritable { channelContext.flush() }
    }

    /// Writes and flushes what the tick has gathered.
    func finishTick() {
        guard let channelContext else { return }
        // Still dirty while this lasts: what is appended on the way is written here.
        sendWaiting()
        handOver()
        output.segment = Output.none
        channelContext.flush()
        output.isDirty = false
        if case .closed = phase { return closeSocket() }
        adaptSegment()
        settle()
        // The flush may have made room. Without room, `channelWritabilityChanged` will say when there is.
        if hasWaiting, channelContext.channel.isWritable { wantsToSend() }
    }

    /// Whether anything could be sent now if the socket took it.
    private var hasWaiting: Bool {
        guard case .connected = phase else { return false }
        guard output.backlog.isEmpty else { return true }
        guard let session, session.state.queuedCount > 0 else { return false }
        return session.state.inflightCount < limits.maxInflight
    }

    /// Moves the backlog, then the session's queue, to the socket as far as it takes them.
    private func sendWaiting() {
        guard case .connected = phase else { return }
        while channelContext.channel.isWritable, let message = output.backlog.popFirst() {
            output.backlogBytes -= message.heldBytes
            append(message, packetID: 0, dup: false)
        }
        guard let session, session.state.queuedCount > 0 else { return }
        while canSend, let (message, packetID) = session.state.next(limits: limits) {
            append(message, packetID: packetID, dup: false)
        }
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
        if unwritten == 0 {
            if output.handed.count > 8 { output.handed = [] } else { output.handed.removeAll(keepingCapacity: true) }
        } else if !output.isWatching {
            watchWrites()
        }
        pauseReading(unwritten >= Limits.pauseReadingBytes)
    }

    /// A client that does not take its acknowledgements is not read.
    private func pauseReading(_ pause: Bool) {
        guard pause != output.isReadingPaused else { return }
        output.isReadingPaused = pause
        setReading(!pause)
    }

    /// Learns of the completion of all writes so far by that of an empty write behind them.
    private func watchWrites() {
        let count = output.handed.count
        guard count > 0 else { return }
        output.isWatching = true
        let promise = channelContext.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { [self] _ in
            output.isWatching = false
            output.handed.removeFirst(min(count, output.handed.count))
            settle()
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
