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
/// NIO writes into the buffer, and would first copy one that anybody else refers to, all 64 KiB of it: so it is handed out
/// with the only reference to it (``next(fallback:)``), and taken back when it has been filled (``took(_:)``).
///
/// Used on its loop only.
final class ReadBufferSource: @unchecked Sendable {
    private let arena: Arena
    private let owner: OwnerID
    private let bytes: Int
    /// The buffer of the last read; nil while NIO has it.
    private var current: ByteBuffer?
    /// The capacity of the one that NIO has.
    private var handedOut = 0
    /// Whether `current` was given to another owner because somebody meant to keep a part of it.
    private var isTransferred = false
    private var wasUsed = false
    private var failure: ArenaError?
    /// Memory is short: reads are small. What is kept for large ones goes.
    var isSmall = false {
        didSet {
            guard isSmall != oldValue else { return }
            drop()
            handedOut = 0
        }
    }

    /// - Parameter bytes: how much one read brings at most.
    init(arena: Arena, owner: OwnerID, bytes: Int) {
        self.arena = arena
        self.owner = owner
        self.bytes = bytes
    }

    /// An empty buffer to read into, which nobody else refers to. At the limit a small one out of the reserve, and
    /// ``takeFailure()`` has the reason.
    func next(fallback: ByteBufferAllocator) -> ByteBuffer {
        wasUsed = true
        if let buffer = reusable() {
            handedOut = buffer.storageCapacity
            return buffer
        }
        isTransferred = false
        do {
            let buffer = try arena.buffer(
                capacity: isSmall ? Limits.smallReadBytes : bytes, owner: owner, "socket read")
            handedOut = buffer.storageCapacity
            return buffer
        } catch {
            handedOut = 0
            failure = error
            return fallback.buffer(capacity: Limits.minSegmentBytes)
        }
    }

    /// The buffer of the last read, if nobody has kept a part of it; this lets go of it in any case.
    private func reusable() -> ByteBuffer? {
        var last = current
        current = nil
        guard last?.modifyIfUniquelyOwned({ $0.clear() }) != nil, let last else { return nil }
        if isTransferred { arena.transfer(last, to: owner, "socket read") }
        isTransferred = false
        return last
    }

    /// Says that NIO has filled a buffer: to be called by the first handler that sees it, before anything is done with
    /// it. The first byte of a connection comes in another one, see ``ShardReadAllocator``.
    func took(_ buffer: ByteBuffer) {
        guard handedOut > 0, buffer.storageCapacity == handedOut else { return }
        handedOut = 0
        current = buffer
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
