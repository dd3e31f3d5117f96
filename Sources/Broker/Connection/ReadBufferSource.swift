import Arena
import ArenaNIO
import Ledger
import NIOCore

/// Where an event loop's reads get their buffer: one for all its connections, used again as long as nobody keeps it.
///
/// NIO keeps the buffers it reads into for each channel, for ever. With a buffer per shard instead, an idle connection
/// holds none, every read can be large, and a read of which nothing is kept allocates nothing. When a slice is kept,
/// the next read takes a fresh buffer and the old one is freed with its last slice.
///
/// Used on its loop only.
final class ReadBufferSource: @unchecked Sendable {
    private let arena: Arena
    private let owner: OwnerID
    private let bytes: Int
    private var current: ByteBuffer?
    /// Whether `current` was given to another owner because somebody meant to keep a part of it.
    private var isTransferred = false
    private var wasUsed = false
    private var failure: ArenaError?
    /// Memory is short: reads are small. What is kept for large ones goes.
    var isSmall = false {
        didSet { if isSmall != oldValue { drop() } }
    }

    /// - Parameter bytes: how much one read brings at most.
    init(arena: Arena, owner: OwnerID, bytes: Int) {
        self.arena = arena
        self.owner = owner
        self.bytes = bytes
    }

    /// An empty buffer to read into. At the limit a small one out of the reserve, and ``takeFailure()`` has the reason.
    func next(fallback: ByteBufferAllocator) -> ByteBuffer {
        wasUsed = true
        // Not unique means that somebody kept a slice, or that NIO still holds it from this very read.
        let isFree: Void? = current?.modifyIfUniquelyOwned { $0.clear() }
        if isFree != nil, let current {
            if isTransferred { arena.transfer(current, to: owner, "socket read") }
            isTransferred = false
            return current
        }
        isTransferred = false
        do {
            let buffer = try arena.buffer(
                capacity: isSmall ? Limits.smallReadBytes : bytes, owner: owner, "socket read")
            current = buffer
            return buffer
        } catch {
            current = nil
            failure = error
            return fallback.buffer(capacity: Limits.minSegmentBytes)
        }
    }

    /// Says that a part of the buffer of the current read is about to be kept on behalf of `owner`.
    func noteKept(by owner: OwnerID) {
        guard !isTransferred, let current else { return }
        arena.transfer(current, to: owner, "socket read")
        isTransferred = true
    }

    func takeFailure() -> ArenaError? {
        guard failure != nil else { return nil }
        defer { failure = nil }
        return failure
    }

    /// Lets go of a buffer that others keep, which is then theirs alone to answer for.
    func releaseIfKept() {
        if current?.modifyIfUniquelyOwned({ _ in }) == nil { current = nil }
    }

    /// Frees the buffer if nothing was read since the last call.
    func trim() {
        if !wasUsed { current = nil }
        wasUsed = false
    }

    func drop() { current = nil }

    func visit(_ visitor: inout HeldBufferVisitor) {
        releaseIfKept()
        if let current { visitor.hold(current, owner: owner, kind: .readBuffer) }
    }
}

/// What makes NIO read into the shard's buffer.
///
/// NIO's pool stores the first buffer a channel gets, and later ones only for `maxMessagesPerRead` above 1; saying that
/// the next buffer may be larger keeps NIO from using its own again. What the pool stores lives as long as the channel,
/// which ends some time after its handlers, and is filled before any handler hears of it: nobody could name it at a
/// safepoint. So the first buffer has room for one byte, outside the arena. No packet fits it, so no slice of it is
/// kept; all other bytes go through the arena.
struct ShardReadAllocator: RecvByteBufferAllocator {
    private static let outside = ByteBufferAllocator()

    let source: ReadBufferSource
    private var isFirst = true

    init(source: ReadBufferSource) { self.source = source }

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        isFirst ? Self.outside.buffer(capacity: Limits.firstReadBytes) : source.next(fallback: allocator)
    }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        isFirst = false
        return true
    }
}
