public import Ledger

import CArena

/// One event loop's allocator. A handle: copying it copies nothing.
///
/// `allocate` and `free` are the way in; both are O(1), and touch, for sizes up to 64 KiB, one slab record, one slot
/// and one row of counters. Only the thread the arena is bound to may allocate from it; any thread may free, touch and
/// transfer its buffers.
public struct Arena: @unchecked Sendable, Equatable {
    let state: ArenaState.Pointer

    public static func == (left: Arena, right: Arena) -> Bool { left.state == right.state }

    /// The arena the current thread is bound to.
    public static var current: Arena? {
        arena_context().pointee.arena.map { Arena(state: $0.assumingMemoryBound(to: ArenaState.self)) }
    }

    public var pool: ArenaPool { state.pointee.pool.takeUnretainedValue() }
    public var index: Int { Int(state.pointee.index) }
    /// Its pool's, without a reference to it being counted.
    package var poolNumber: PoolNumber { state.pointee.pool._withUnsafeGuaranteedRef { $0.number } }

    // MARK: Binding

    /// Makes this the current thread's arena. `wake` is called, on another thread, when that thread has freed one of
    /// this arena's buffers and the list of such buffers was empty: it should cause `drainRemoteFrees()` soon.
    public func bind(wake: (@Sendable () -> Void)? = nil) {
        precondition(index != 0, "arena 0 belongs to the threads that have none")
        // Where the arena was shared, somebody may be about to drain it: he looks again under the lock.
        state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
            lock.withLock {
                state.pointee.wake = wake
                _ = arena_exchange(state.pointee.flags, state.pointee.flags.pointee & ~ArenaState.sharedFlag)
            }
        }
        let context = arena_context()
        context.pointee.arena = UnsafeMutableRawPointer(state)
        context.pointee.site = 0
        context.pointee.owner = 0
        context.pointee.source = UnsafeMutableRawPointer(state)
    }

    /// The current thread lets go of its arena. What still lives in it stays valid, and frees go through a lock.
    public func unbind() {
        precondition(Arena.current == self, "an arena is let go by the thread that has it")
        arena_context().pointee = arena_thread_context()
        _ = arena_exchange(state.pointee.flags, state.pointee.flags.pointee | ArenaState.sharedFlag)
        state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
            lock.withLock { _ = state.pointee.drainRemoteFrees() }
        }
    }

    // MARK: Allocating

    /// A buffer of at least `size` bytes, or an error when the limit does not allow it.
    ///
    /// - Parameters:
    ///   - size: bytes; 0 is served as 1.
    ///   - owner: who answers for it from now on.
    ///   - location: where in the code this is.
    public func allocate(
        _ size: Int, owner: OwnerID, at location: CodeLocation
    ) throws(ArenaError) -> UnsafeMutableRawPointer {
        let site = intern(location)
        guard let pointer = allocate(size, site: site, owner: owner, mustSucceed: false) else { throw refuse(size) }
        return pointer
    }

    @inline(never)
    private func refuse(_ size: Int) -> ArenaError { pool.refuse(size) }

    /// The site number of a code location.
    @inline(__always)
    public func intern(_ location: CodeLocation) -> SiteID {
        // The cache belongs to the arena's thread.
        if state.pointee.isShared { return pool.intern(location) }
        return state.pointee.siteCache.id(of: location, in: state.pointee.pool)
    }

    /// As `allocate`, by site number. With `mustSucceed`, for callers that cannot be told no, the arena's reserve is
    /// spent when the limit is reached, and then the limit is passed, which is counted as over-limit allocation. Nil without it.
    @inline(__always)
    public func allocate(_ size: Int, site: SiteID, owner: OwnerID, mustSucceed: Bool) -> UnsafeMutableRawPointer? {
        if arena_load_relaxed(state.pointee.flags) != 0 {
            return allocateSlowly(size, site: site, owner: owner, mustSucceed: mustSucceed)
        }
        return state.pointee.allocate(size, site: site.rawValue, owner: owner.rawValue, mustSucceed: mustSucceed)
    }

    /// Under the lock where the arena is shared, and with guards where buffers are checked.
    @inline(never)
    private func allocateSlowly(
        _ size: Int, site: SiteID, owner: OwnerID, mustSucceed: Bool
    ) -> UnsafeMutableRawPointer? {
        func allocate() -> UnsafeMutableRawPointer? {
            state.pointee.isChecked
                ? state.pointee.allocateChecked(
                    size, site: site.rawValue, owner: owner.rawValue, mustSucceed: mustSucceed)
                : state.pointee.allocate(size, site: site.rawValue, owner: owner.rawValue, mustSucceed: mustSucceed)
        }
        guard state.pointee.isShared else { return allocate() }
        return state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in lock.withLock(allocate) }
    }

    // MARK: Freeing

    /// Frees a buffer of any arena of any pool, from any thread.
    ///
    /// A pointer that is not the start of a live buffer ends the process with a message that names it: to go on would
    /// corrupt somebody's data.
    public static func free(_ pointer: UnsafeMutableRawPointer) {
        let context = arena_context()
        if let raw = context.pointee.arena {
            let state = raw.assumingMemoryBound(to: ArenaState.self)
            let offset = UInt(bitPattern: pointer) &- UInt(bitPattern: state.pointee.base)
            if offset < state.pointee.fastRangeBytes {
                state.pointee.free(offset, releaseSite: context.pointee.site)
                return
            }
        }
        freeSlowly(pointer, releaseSite: context.pointee.site)
    }

    /// On a thread without an arena, in another pool, or with checks.
    @inline(never)
    private static func freeSlowly(_ pointer: UnsafeMutableRawPointer, releaseSite: UInt32) {
        guard let pool = PoolRegistry.current(of: pointer), let offset = pool.range.offset(of: pointer) else {
            misuse("free of a pointer that is in no arena", UInt64(UInt(bitPattern: pointer)))
        }
        let current = Arena.current.flatMap {
            $0.state.pointee.pool.toOpaque() == Unmanaged.passUnretained(pool).toOpaque() ? $0 : nil
        }
        // The site of a thread that has an arena is a number of that arena's pool.
        let releaseSite = current == nil ? pool.context.site.rawValue : releaseSite
        // A thread without an arena frees as a stranger to all of them.
        let state = current?.state ?? pool.shared
        let slot = state.pointee.slotOfStart(UInt(offset))
        if pool.configuration.isChecked {
            guard slot.pointee.state == SlotRecord.State.live.rawValue else { state.pointee.misusedFree(UInt(offset)) }
            state.pointee.checkAndPoison(slot)
        }
        if let current, current.state.pointee.index == slot.pointee.arena {
            guard slot.pointee.state == SlotRecord.State.live.rawValue else { state.pointee.misusedFree(UInt(offset)) }
            current.state.pointee.takeBack(slot, releaseSite: releaseSite)
        } else {
            state.pointee.freeRemote(slot, releaseSite)
        }
    }

    /// Takes back what other threads freed. Returns the number of buffers.
    @discardableResult
    public func drainRemoteFrees() -> Int {
        if state.pointee.isShared {
            return state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
                lock.withLock { state.pointee.drainRemoteFrees() }
            }
        }
        return state.pointee.drainRemoteFrees()
    }

    /// Gives a buffer a new size, in place where its class has room; else it moves. Site and owner stay.
    public static func reallocate(
        _ pointer: UnsafeMutableRawPointer, to size: Int, mustSucceed: Bool
    ) -> UnsafeMutableRawPointer? {
        guard let pool = PoolRegistry.current(of: pointer), let slot = pool.slot(at: pointer) else {
            misuse("reallocation of a pointer that is in no arena", UInt64(UInt(bitPattern: pointer)))
        }
        let old = pool.slots[slot]
        let target = Arena.current.flatMap { $0.pool === pool ? $0 : nil } ?? Arena(state: pool.shared)
        // Arenas that are shared are left alone here: it would take their lock.
        if target.state.pointee.index == old.arena, arena_load_relaxed(target.state.pointee.flags) == 0,
            target.state.pointee.resizeInPlace(slot, to: size)
        {
            return pointer
        }
        guard
            let new = target.allocate(
                size, site: SiteID(rawValue: old.site), owner: OwnerID(rawValue: old.owner), mustSucceed: mustSucceed)
        else { return nil }
        new.copyMemory(from: pointer, byteCount: min(size, Int(old.requested)))
        free(pointer)
        return new
    }

    // MARK: Who has it

    /// Notes that the code at `location` has the buffer that `pointer` is in (its start or any byte of it), and, where
    /// one is given, who answers for it from now on. Any thread. Pointers outside all arenas are let pass.
    public static func recordAccess(_ pointer: UnsafeRawPointer, owner: OwnerID? = nil, at location: CodeLocation) {
        if let raw = arena_context().pointee.arena {
            let arena = Arena(state: raw.assumingMemoryBound(to: ArenaState.self))
            let offset = UInt(bitPattern: pointer) &- UInt(bitPattern: arena.state.pointee.base)
            if offset < UInt(arena.state.pointee.rangeBytes) {
                guard let slot = arena.state.pointee.slot(at: offset) else { return }
                return note(arena.state.pointee.slots + slot, owner, arena.intern(location))
            }
        }
        guard let pool = PoolRegistry.pool(of: pointer), let slot = pool.slot(at: pointer) else { return }
        note(pool.slots + slot, owner, pool.intern(location))
    }

    /// `owner` answers for the buffer that `pointer` is in from now on; who accessed it last still did. Any thread that holds it;
    /// pointers outside all arenas are let pass.
    public static func assign(_ pointer: UnsafeRawPointer, to owner: OwnerID) {
        #if !ARENA_RECORDING_OFF
        guard let pool = PoolRegistry.current(of: pointer), let slot = pool.slot(at: pointer) else { return }
        let record = UnsafeMutableRawPointer(pool.slots + slot)
        let place = record + MemoryLayout<SlotRecord>.offset(of: \.owner).unsafelyUnwrapped
        arena_store32_relaxed(place.assumingMemoryBound(to: UInt32.self), owner.rawValue)
        #endif
    }

    /// Notes that other threads than its arena's may hold the buffer that `pointer` is in from now on: to be called before it
    /// is handed to them, so that a snapshot that one of them cannot be asked for does not call it unreachable. Any thread that
    /// holds it; pointers outside all arenas are let pass.
    public static func share(_ pointer: UnsafeRawPointer) {
        guard let pool = PoolRegistry.current(of: pointer), let slot = pool.slot(at: pointer) else { return }
        share(pool.slots + slot)
    }

    /// The same by the buffer's slot.
    public func share(_ slot: SlotIndex) {
        guard slot != .none else { return }
        Self.share(state.pointee.slots + Int(slot.rawValue))
    }

    private static func share(_ slot: UnsafeMutablePointer<SlotRecord>) {
        let next = UnsafeMutableRawPointer(slot) + MemoryLayout<SlotRecord>.offset(of: \.next).unsafelyUnwrapped
        arena_store_relaxed(next.assumingMemoryBound(to: UInt64.self), SlotRecord.shared)
    }

    private static func note(_ slot: UnsafeMutablePointer<SlotRecord>, _ owner: OwnerID?, _ site: SiteID) {
        #if !ARENA_RECORDING_OFF
        let record = UnsafeMutableRawPointer(slot)
        func word32(_ path: PartialKeyPath<SlotRecord>) -> UnsafeMutablePointer<UInt32> {
            (record + MemoryLayout<SlotRecord>.offset(of: path).unsafelyUnwrapped).assumingMemoryBound(
                to: UInt32.self)
        }
        arena_store32_relaxed(word32(\.accessSite), site.rawValue)
        arena_store_relaxed(
            (record + MemoryLayout<SlotRecord>.offset(of: \.accessTime).unsafelyUnwrapped)
                .assumingMemoryBound(to: UInt64.self), arena_clock_now())
        if let owner { arena_store32_relaxed(word32(\.owner), owner.rawValue) }
        #endif
    }

    /// Runs `body` with `owner` and `location` as what allocations that name none (NIO's own) are recorded under, in this pool.
    /// On a thread with an arena of another pool that one's context stays: what it allocates by itself is there.
    @inline(__always)
    public func withContext<Result, Failure: Error>(
        owner: OwnerID, at location: CodeLocation, _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let context = arena_context()
        if isForeign(to: context.pointee.arena) { return try body() }
        let saved = (context.pointee.site, context.pointee.owner, context.pointee.source)
        context.pointee.site = intern(location).rawValue
        context.pointee.owner = owner.rawValue
        context.pointee.source = UnsafeMutableRawPointer(state)
        defer { (context.pointee.site, context.pointee.owner, context.pointee.source) = saved }
        return try body()
    }

    /// Sets what allocations that name no site and owner are recorded under, on the current thread: one without an arena of
    /// another pool.
    public func setContext(owner: OwnerID, at location: CodeLocation) {
        let context = arena_context()
        if isForeign(to: context.pointee.arena) { return }
        context.pointee.site = intern(location).rawValue
        context.pointee.owner = owner.rawValue
        context.pointee.source = UnsafeMutableRawPointer(state)
    }

    /// Whether a thread that has this arena has one of another pool.
    @inline(__always)
    private func isForeign(to own: UnsafeMutableRawPointer?) -> Bool {
        guard let own, own != UnsafeMutableRawPointer(state) else { return false }
        return own.assumingMemoryBound(to: ArenaState.self).pointee.pool.toOpaque() != state.pointee.pool.toOpaque()
    }
}

extension ArenaPool {
    /// What allocations of the current thread that name no site and owner are recorded under in this pool: nobody, where its context
    /// is another pool's.
    package var context: (site: SiteID, owner: OwnerID) {
        let context = arena_context().pointee
        guard let source = context.source, arenas.contains(where: { UnsafeMutableRawPointer($0) == source }) else {
            return (.unknown, .process)
        }
        return (SiteID(rawValue: context.site), OwnerID(rawValue: context.owner))
    }
}

extension ArenaPool {
    var slots: UnsafeMutablePointer<SlotRecord> { ledger.records(.slots, of: SlotRecord.self) }

    /// The slot of the live buffer that a pointer is in: chunk, then page map, then slab. Nil in free memory.
    public func slot(at pointer: UnsafeRawPointer) -> Int? {
        guard let offset = range.offset(of: pointer) else { return nil }
        return shared.pointee.slot(at: UInt(offset))
    }
}
