import Arena
import ArenaNIO
import DequeModule
import Ledger
import MQTT
import NIOCore

/// What is on its way to one socket, in the order it will be sent:
///
///     [ handed ]    given to NIO, not known to be written
///     [ segment ]   being appended to in this tick
///     [ backlog ]   QoS 0 messages that wait for the socket to take more; the oldest are dropped when it is full
///
/// QoS 1 and 2 messages wait in the session instead, where they survive the connection.
struct Output {
    /// No storage of its own: never written to.
    static let none = ByteBuffer()

    var segment = Output.none
    var handed: [Handed] = []
    /// Of those.
    var handedBytes = 0
    var backlog: Deque<Message> = []
    var backlogBytes = 0
    /// How large the first segment of a tick is: what the last ticks needed.
    var segmentBytes = Limits.minSegmentBytes
    var bytesThisTick = 0
    /// Messages that the client may not read any more, of those it would have been sent.
    var withheldThisTick = 0
    /// Written into the pipeline and not flushed; counted only where that is not plain TCP.
    var unflushedBytes = 0
    /// In the shard's list of connections to finish this tick.
    var isDirty = false
    /// A promise is out that tells when `handed` is written.
    var isWatching = false
    /// As of the end of the last tick.
    var unwrittenBytes = 0
    /// In the shard's list of connections with more to send in the next tick: retained messages above all.
    var isRetainedScheduled = false
    /// Handed over since the beginning, and what of that the socket had taken when it was last looked at.
    var totalBytes = 0
    var takenBefore = 0
    var isStallWatched = false
    /// The shard will look at it again when there may be memory.
    var isStarved = false

    struct Handed {
        var buffer: ByteBuffer
        /// One of this connection's segments, not a payload that others have too.
        var isSegment: Bool
    }

    /// Lets go of what the socket has taken: all but the last `unwritten` bytes, and the buffer that these begin in.
    mutating func forgetWritten(unwritten: Int) {
        var count = 0
        while count < handed.count, handedBytes - handed[count].buffer.readableBytes >= unwritten {
            handedBytes -= handed[count].buffer.readableBytes
            count += 1
        }
        if count == handed.count, count > 8 { handed = [] } else { handed.removeFirst(count) }
    }

    mutating func clearBacklog() {
        backlog = []
        backlogBytes = 0
    }

    func visit(owner: OwnerID, _ visitor: inout ReachableBufferVisitor) {
        if segment.storageCapacity > 0 { visitor.hold(segment, owner: owner, kind: .outbound) }
        for handed in handed { visitor.hold(handed.buffer, owner: owner, kind: .transportWrite) }
        for message in backlog { message.visit(owner: owner, kind: .outbound, &visitor) }
    }
}
