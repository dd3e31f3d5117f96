import Arena
import ArenaNIO
import Ledger
import NIOCore

/// Where an event loop's reads get their buffer: one for all its connections, used again as long as nobody keeps it.
///
/// NIO keeps the buffers it reads into for each channel, for ever. With a buffer per shard instead, an idle connection
/// holds none, every read can be large, and a read of which nothing is kept allocates nothing. When a slice is kept,
/// the next read takes a fresh buffer and the old one is freed with its last slice. Whoever keeps one, knowingly or not,
/// pins the whole buffer: so as long as that happens, buffers are of the size of what each connection sends, times four.
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
    /// Of reads to come, whose buffers are no larger than they need be, since somebody has kept a slice lately.
    private var carefulReads = 0
    private var failure: ArenaError?
    /// There was no memory at all for the last read: it brings one byte, into a buffer outside the arena.
    private(set) var isExhausted = false
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

    /// An empty buffer to read into, which nobody else refers to. At the limit it has room for one byte, ``isExhausted``
    /// says so, and ``takeFailure()`` has the reason.
    ///
    /// - Parameter expected: how many bytes the connection's reads have brought lately.
    func next(expecting expected: Int) -> ByteBuffer {
        wasUsed = true
        isExhausted = false
        let last = reusable()
        let capacity = capacity(expecting: expected)
        if let last, capacity...(Limits.pinnedReadFactor * capacity) ~= last.storageCapacity { return handOut(last) }
        do throws(ArenaError) {
            return handOut(try arena.buffer(capacity: capacity, owner: owner, "socket read"))
        } catch {
            if let last { return handOut(last) }
            if capacity > Limits.leastReadBytes,
                let buffer = try? arena.buffer(capacity: Limits.leastReadBytes, owner: owner, "socket read")
            {
                return handOut(buffer)
            }
            (handedOut, isExhausted, failure) = (0, true, error)
            return ShardReadAllocator.oneByte
        }
    }

    private func capacity(expecting expected: Int) -> Int {
        let most = isSmall ? min(bytes, Limits.smallReadBytes) : bytes
        guard carefulReads > 0 else { return most }
        return min(most, max(Limits.leastReadBytes, Limits.pinnedReadFactor * expected))
    }

    private func handOut(_ buffer: ByteBuffer) -> ByteBuffer {
        handedOut = buffer.storageCapacity
        return buffer
    }

    /// The buffer of the last read, if nobody has kept a part of it; this lets go of it in any case.
    private func reusable() -> ByteBuffer? {
        guard var last = current else { return nil }
        current = nil
        defer { isTransferred = false }
        guard last.modifyIfUniquelyOwned({ $0.clear() }) != nil else {
            carefulReads = Limits.carefulReads
            return nil
        }
        if carefulReads > 0 { carefulReads -= 1 }
        if isTransferred { arena.transfer(last, to: owner, "socket read") }
        return last
    }

    /// Says that NIO has filled a buffer: to be called by the first handler that sees it, before anything is done with
    /// it. The first byte of a connection comes in another one, see ``ShardReadAllocator``.
    func took(_ buffer: ByteBuffer) {
        guard handedOut > 0, buffer.storageCapacity == handedOut else { return }
        handedOut = 0
        current = buffer
    }

    /// Says that a part of the buffer of the current read is about to be kept on behalf of `owner`. That is no access: another part may
    /// have been lost by who accessed it before.
    func noteKept(by owner: OwnerID) {
        guard !isTransferred, let current else { return }
        arena.assign(current, to: owner)
        isTransferred = true
    }

    func takeFailure() -> ArenaError? {
        guard failure != nil else { return nil }
        defer { failure = nil }
        return failure
    }

    /// Lets go of a buffer that others keep, which is then theirs alone to answer for.
    func releaseIfKept() {
        guard current != nil, current?.modifyIfUniquelyOwned({ _ in }) == nil else { return }
        current = nil
        carefulReads = Limits.carefulReads
    }

    /// Frees the buffer if nothing was read since the last call.
    func trim() {
        if !wasUsed { current = nil }
        wasUsed = false
    }

    func drop() { current = nil }

    func visit(_ visitor: inout ReachableBufferVisitor) {
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
    /// What a read of this connection brings: the most lately.
    private var expected = 0

    init(source: ReadBufferSource) { self.source = source }

    static var oneByte: ByteBuffer { outside.buffer(capacity: Limits.firstReadBytes) }

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        isFirst ? Self.oneByte : source.next(expecting: expected)
    }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        isFirst = false
        expected = max(actualReadBytes, expected / 2)
        return true
    }
}
