import CArena
import Ledger

// Chunks and huge mappings, as arenas take and return them. What `ChunkAllocator` decides under the lock is carried out here:
// records are filled in and memory goes back to the system without it, and pressure is looked at afterwards.

extension ArenaPool {
    /// A chunk for an arena: a cached one, or a new mapping. Nil at the limit.
    func takeChunk(for arena: UInt8, forced: Bool) -> UInt32? {
        let taken = state.withLock { $0.chunks.takeChunk(forced: forced, &$0.growth) }
        guard let index = taken else { return nil }
        let record = ledger.records(.chunks, of: ChunkRecord.self) + Int(index)
        record.pointee.arena = arena
        record.pointee.birth = arena_clock_now()
        record.pointee.freePages = UInt32(SizeClasses.pagesPerChunk)
        record.pointee.largestFreeRun = UInt32(SizeClasses.pagesPerChunk)
        // Last: whoever copies the table meanwhile must not take it for a chunk of the arena before.
        record.setState(.chunk)
        pressure.look()
        return index
    }

    /// Takes an empty chunk back from an arena, to be used again or given to the system after its decay.
    func returnChunk(_ index: UInt32) { state.withLock { $0.chunks.cache(index) } }

    /// A mapping of its own for a buffer larger than a chunk. Nil at the limit.
    func takeHuge(bytes: Int, slot: UInt32, arena: UInt8, forced: Bool) -> UInt32? {
        let taken = state.withLock { $0.chunks.takeHuge(bytes: bytes, forced: forced, &$0.growth) }
        guard let index = taken else { return nil }
        let records = ledger.records(.chunks, of: ChunkRecord.self) + Int(index)
        for place in 0..<Mapping.huge(bytes: bytes).places {
            records[place].mappedBytes = place == 0 ? UInt64(bytes) : 0
            records[place].birth = arena_clock_now()
            records[place].arena = arena
            records[place].hugeSlot = slot
            (records + place).setState(place == 0 ? .hugeHead : .hugeBody)
        }
        pressure.look()
        return index
    }

    func returnHuge(_ index: UInt32) {
        let bytes = Int(ledger.records(.chunks, of: ChunkRecord.self)[Int(index)].mappedBytes)
        unmap(index, .huge(bytes: bytes))
        pressure.look()
    }

    /// Chunks that no arena uses and that wait for their decay.
    public var cachedChunkCount: Int { state.withLock { $0.chunks.cachedCount } }

    /// Gives memory back to the system: empty chunks of arenas whose thread has gone, and chunks that have been cached
    /// for longer than the decay, or all cached ones. Returns the bytes given back.
    ///
    /// For one thread to call about once a second; the arenas' own threads call `Arena.giveBackUnused` as often.
    @discardableResult
    public func trim(all: Bool = false) -> Int {
        for state in arenas where state.pointee.isShared { giveBackUnused(of: state, waits: all) }
        let now = arena_clock_now()
        var given = 0
        // The kernel takes its time with each: nobody has to wait for it at the lock, and whoever needs a chunk
        // meanwhile still finds the others.
        while let chunk = state.withLock({ $0.chunks.takeDue(at: now, all: all) }) {
            unmap(chunk, .chunk)
            given += SizeClasses.chunkSize
        }
        pressure.look()
        return given
    }

    private func giveBackUnused(of state: ArenaState.Pointer, waits: Bool) {
        state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
            // Once a second it is not waited for who hangs with it: the loop that calls this would hang too.
            if waits { lock.lock() } else if !lock.lockInAMoment() { return }
            defer { lock.unlock() }
            if state.pointee.isShared { Arena(state: state).giveBackUnusedHere() }
        }
    }

    /// Gives a mapping that nobody uses or finds any more back to the system. Its places are not free before its memory has gone.
    private func unmap(_ index: UInt32, _ mapping: Mapping) {
        range.decommit(Int(index), mapping.bytes)
        state.withLock { $0.chunks.forget(index, mapping) }
    }
}

extension UnsafeMutablePointer<ChunkRecord> {
    /// After all that was stored to the record before.
    fileprivate func setState(_ state: ChunkRecord.State) {
        let byte = UnsafeMutableRawPointer(self) + MemoryLayout<ChunkRecord>.offset(of: \.state).unsafelyUnwrapped
        _ = arena_exchange8(byte.assumingMemoryBound(to: UInt8.self), state.rawValue)
    }
}
