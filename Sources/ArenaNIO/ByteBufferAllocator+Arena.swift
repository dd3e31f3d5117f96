@_spi(CustomByteBufferAllocator) public import NIOCore

public import Arena
public import Ledger

/// NIO's allocator on an arena: the one place that uses NIO's interface for custom allocators.
///
/// NIO passes its four C functions no context. Whose arena it is the current thread says (`Arena.bind(to:)`), and also the site
/// and owner of what NIO allocates by itself. Which pool it is only the function can say: so there is an `allocate` for each
/// pool, and nobody gets an allocator who has not named one. A thread that has no arena, or one of another pool, is served from
/// the pool's shared arena, whichever thread it is: tasks and thread pools change theirs from one moment to the next, and
/// could not be bound.
///
/// The functions may not fail: at the limit they draw on the arena's reserve, then pass the limit, and where even that cannot be
/// they come from the system. Buffers the program asks for come by way of `buffer(capacity:owner:_:)`, which can fail, takes
/// exactly the size asked for, and names its site.
extension ArenaPool {
    /// An allocator whose buffers live in the arena of the thread that allocates them, if it is one of this pool's, else in the
    /// pool's shared arena. For `.childChannelOption(.allocator, value:)`. Until the pool is retired.
    ///
    /// Of pools that are made while 16 others live, all have the same allocator: what a thread with an arena of one of them
    /// allocates by it, or copies with it, is in that arena and counts against that pool's limit, whichever of them the buffer was of;
    /// what any other thread allocates is the system's.
    public var byteBufferAllocator: ByteBufferAllocator { .arena(of: number) }
}

extension ByteBufferAllocator {
    /// The allocator of the pool with this number.
    static func arena(of pool: PoolNumber) -> ByteBufferAllocator {
        ByteBufferAllocator(
            allocate: AllocateOfPool.function(pool),
            reallocate: { pointer, oldSize, size in
                guard let pointer else { return LastResort.allocate(size) }
                if LastResort.owns(pointer) { return LastResort.reallocate(pointer, to: size) }
                if let moved = Arena.reallocate(pointer, to: size, mustSucceed: true) { return moved }
                guard let moved = LastResort.allocate(size) else { return nil }
                moved.copyMemory(from: pointer, byteCount: min(oldSize, size))
                Arena.free(pointer)
                return moved
            },
            deallocate: { pointer in LastResort.owns(pointer) ? LastResort.release(pointer) : Arena.free(pointer) },
            copy: { target, source, count in target.copyMemory(from: source, byteCount: count) })
    }
}

/// `ByteBuffer`s of an arena: asked for by size, with an owner and the place in the code, so that they can be refused.
extension Arena {
    /// A buffer with room for `capacity` bytes, all of them writable.
    ///
    /// - Throws: `ArenaError.limit` where the limit does not allow it.
    public func buffer(
        capacity: Int, owner: OwnerID, _ label: StaticString, file: StaticString = #fileID, line: UInt32 = #line,
        function: StaticString = #function
    ) throws(ArenaError) -> ByteBuffer {
        let capacity = max(capacity, 1)
        let pointer = try allocate(
            capacity, owner: owner, at: CodeLocation(label, file: file, line: line, function: function))
        return ByteBuffer(
            takingOwnershipOf: UnsafeMutableRawBufferPointer(start: pointer, count: capacity),
            allocator: .arena(of: poolNumber), writerIndex: 0)
    }

    /// A copy of the readable bytes, in a buffer of exactly that size.
    public func copy(
        of buffer: ByteBuffer, owner: OwnerID, _ label: StaticString, file: StaticString = #fileID,
        line: UInt32 = #line, function: StaticString = #function
    ) throws(ArenaError) -> ByteBuffer {
        var copy = try self.buffer(
            capacity: buffer.readableBytes, owner: owner, label, file: file, line: line, function: function)
        copy.writeImmutableBuffer(buffer)
        return copy
    }
}

extension ByteBuffer {
    /// An address inside the buffer's memory. Nil for an empty slice: it may lie at the very end of its memory, where
    /// the next buffer begins.
    var address: UnsafeRawPointer? {
        withVeryUnsafeBytes { bytes in bytes.isEmpty ? nil : bytes.baseAddress }
    }
}

/// Who has a buffer, in O(1) from the `ByteBuffer`, slices included. Buffers outside the arena, and empty slices, are
/// let pass.
extension Arena {
    /// The code here has the buffer now.
    public func recordAccess(
        _ buffer: ByteBuffer, _ label: StaticString = "", file: StaticString = #fileID, line: UInt32 = #line,
        function: StaticString = #function
    ) {
        guard let address = buffer.address else { return }
        Arena.recordAccess(address, at: CodeLocation(label, file: file, line: line, function: function))
    }

    /// The code here has the buffer now, and `owner` answers for it.
    public func transfer(
        _ buffer: ByteBuffer, to owner: OwnerID, _ label: StaticString = "", file: StaticString = #fileID,
        line: UInt32 = #line, function: StaticString = #function
    ) {
        guard let address = buffer.address else { return }
        Arena.recordAccess(address, owner: owner, at: CodeLocation(label, file: file, line: line, function: function))
    }

    /// `owner` answers for the buffer now, whoever had it last: that another part of the same memory is kept is no access.
    public func assign(_ buffer: ByteBuffer, to owner: OwnerID) {
        guard let address = buffer.address else { return }
        Arena.assign(address, to: owner)
    }

    /// Whether the buffer's memory is in this arena's pool.
    public func contains(_ buffer: ByteBuffer) -> Bool {
        buffer.address.map(pool.contains) ?? false
    }

    /// Runs `body` with `owner` and this place as what NIO's own allocations inside are recorded under.
    @inline(__always)
    public func withContext<Result, Failure: Error>(
        owner: OwnerID, _ label: StaticString, file: StaticString = #fileID, line: UInt32 = #line,
        function: StaticString = #function, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withContext(
            owner: owner, at: CodeLocation(label, file: file, line: line, function: function), body)
    }
}
