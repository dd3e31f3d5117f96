import CArena
import Ledger

/// What one arena knows that is not in the ledger: pointers into it, the heads of its lists, its reserve.
///
/// Changed only by the thread the arena is bound to (or under `sharedLock` where it is shared), but for `remoteHead`
/// and `isShared`, which other threads reach through the pointers kept here. Figures are read by any thread while it works
/// (`ArenaPool.metrics`, `ArenaPool.liveBufferCount`): two of them need not agree, so no difference of two may trap. It lives
/// at a fixed address until the pool goes, so pointers to it need no reference counting.
struct ArenaState {
    typealias Pointer = UnsafeMutablePointer<ArenaState>

    let pool: Unmanaged<ArenaPool>
    let index: UInt8
    let base: UnsafeMutableRawPointer
    let rangeBytes: Int
    /// Where `Arena.free` may take its fast path: the whole range, or nothing while buffers are checked.
    let fastRangeBytes: UInt
    let classes: UnsafeMutablePointer<SizeClasses.Geometry>
    let slots: UnsafeMutablePointer<SlotRecord>
    let slabs: UnsafeMutablePointer<SlabRecord>
    let blocks: UnsafeMutablePointer<SlotBlockRecord>
    let chunks: UnsafeMutablePointer<ChunkRecord>
    let pageMap: UnsafeMutablePointer<PageEntry>
    let pageBits: UnsafeMutableRawPointer
    /// This arena's site counters, row 0.
    let sites: UnsafeMutableRawPointer
    let record: UnsafeMutablePointer<ArenaRecord>
    /// Head of the list of buffers other threads freed: slot index + 1. On a cache line of its own.
    let remoteHead: UnsafeMutablePointer<UInt64>
    /// Why allocations may not take the fast path; 0 where they may. On a cache line of its own.
    let flags: UnsafeMutablePointer<UInt64>
    /// All arenas of the pool, by index.
    let states: UnsafeMutablePointer<Pointer>
    let sharedLock: Unmanaged<Lock>

    /// The next serial: the arena's own count, times 256, plus its index.
    var nextSerial: UInt64
    /// Rows of `sites` that are charged.
    var siteRows: UInt32 = 0
    /// First slab with a free element, per class.
    let bins: UnsafeMutablePointer<UInt32>
    /// First chunk whose longest free run has 2^k ..< 2^(k+1) pages, per k.
    let chunkLists: UnsafeMutablePointer<UInt32>
    /// First slot block with a free span, per order.
    let spanLists: UnsafeMutablePointer<UInt32>
    /// Per class, and one for huge: buffers that were runs of their own, and allocations from slabs that are no more.
    let classCounts: UnsafeMutablePointer<ClassCount>
    /// The ring of recently freed slots, and how many have been entered.
    let freed: UnsafeMutablePointer<FreedRecord>
    var freedCount: UInt32 = 0
    /// What was freed and poisoned and not used again, by address; empty unless buffers are checked.
    var poisoned: [UInt64: SlotRecord] = [:]
    var siteCache = SiteCache()
    /// Chunks none of whose pages are used; one is kept.
    var emptyChunks = 0
    /// Free pages of all its chunks.
    var freePages = 0
    /// First page (chunk << 11 | page) of the reserve for allocations that cannot be refused; nil when it is spent.
    var reserve: Int?
    /// It has been spent, and not been set aside again.
    var isReserveSpent = false
    /// Called by another thread when it puts the first buffer onto the remote-free list.
    var wake: (@Sendable () -> Void)?

    /// Any thread may use the arena, under `sharedLock`: arena 0, and arenas whose thread has gone.
    static let sharedFlag: UInt64 = 1
    /// Buffers are guarded and poisoned (`Configuration.isChecked`).
    static let checkedFlag: UInt64 = 2
    var isShared: Bool { arena_load_relaxed(flags) & Self.sharedFlag != 0 }
    var isChecked: Bool { arena_load_relaxed(flags) & Self.checkedFlag != 0 }

    struct ClassCount {
        var allocations: UInt64 = 0
        var frees: UInt64 = 0
    }

    static let listCount = 12
    static let orderCount = 8

    static func create(pool: ArenaPool, index: Int) -> Pointer {
        func heads(_ count: Int) -> UnsafeMutablePointer<UInt32> {
            let heads = UnsafeMutablePointer<UInt32>.allocate(capacity: count)
            heads.initialize(repeating: .max, count: count)
            return heads
        }
        // Two cache lines: other threads hammer the one, read the other.
        let words = UnsafeMutableRawPointer.allocate(byteCount: 128, alignment: 64)
        words.initializeMemory(as: UInt64.self, repeating: 0, count: 16)
        let counts = UnsafeMutablePointer<ClassCount>.allocate(capacity: SizeClasses.count + 1)
        counts.initialize(repeating: ClassCount(), count: SizeClasses.count + 1)
        let ledger = pool.ledger
        let state = Pointer.allocate(capacity: 1)
        state.initialize(
            to: ArenaState(
                pool: .passUnretained(pool), index: UInt8(index), base: pool.range.base,
                rangeBytes: pool.range.byteCount,
                fastRangeBytes: pool.configuration.isChecked ? 0 : UInt(pool.range.byteCount), classes: pool.classes,
                slots: ledger.records(.slots, of: SlotRecord.self),
                slabs: ledger.records(.slabs, of: SlabRecord.self),
                blocks: ledger.records(.slotBlocks, of: SlotBlockRecord.self),
                chunks: ledger.records(.chunks, of: ChunkRecord.self),
                pageMap: ledger.records(.pageMap, of: PageEntry.self), pageBits: ledger.start(.pageBits),
                sites: ledger.record(.siteCounters, 0, group: index),
                record: ledger.record(.arenas, index).assumingMemoryBound(to: ArenaRecord.self),
                remoteHead: words.assumingMemoryBound(to: UInt64.self),
                flags: (words + 64).assumingMemoryBound(to: UInt64.self), states: pool.arenaList.states,
                sharedLock: .passRetained(Lock()), nextSerial: 256 | UInt64(index), bins: heads(SizeClasses.count),
                chunkLists: heads(listCount), spanLists: heads(orderCount), classCounts: counts,
                freed: ledger.record(.freed, 0, group: index).assumingMemoryBound(to: FreedRecord.self)))
        state.pointee.flags.pointee =
            (index == 0 ? sharedFlag : 0) | (pool.configuration.isChecked ? checkedFlag : 0)
        return state
    }

    static func destroy(_ state: Pointer) {
        state.pointee.siteCache.deallocate()
        state.pointee.bins.deallocate()
        state.pointee.chunkLists.deallocate()
        state.pointee.spanLists.deallocate()
        state.pointee.classCounts.deallocate()
        UnsafeMutableRawPointer(state.pointee.remoteHead).deallocate()
        state.pointee.sharedLock.release()
        state.deinitialize(count: 1)
        state.deallocate()
    }

    @inline(__always)
    func counters(_ site: UInt32) -> UnsafeMutablePointer<SiteCounters> {
        (sites + Int(site) &* SiteCounters.stride).assumingMemoryBound(to: SiteCounters.self)
    }

    /// Live buffers by the counters, which must agree with the slots. Whoever asks while the arena works may see frees without
    /// their allocations: then it may be negative.
    var liveBuffers: Int {
        var live = 0
        for site in 0..<siteRows {
            live += Int(truncatingIfNeeded: counters(site).pointee.allocations &- counters(site).pointee.frees)
        }
        return live
    }

    /// Makes `site` countable: charges the pages its row is on. Sites are interned one by one, so this is rare.
    @inline(never)
    mutating func ensureSiteRow(_ site: UInt32) {
        guard site >= siteRows else { return }
        let rowsPerPage = UInt32(4096 / SiteCounters.stride)
        let rows = (site / rowsPerPage + 1) * rowsPerPage
        let pool = pool.takeUnretainedValue()
        pool.chargeSiteRows(Int(rows - siteRows) * SiteCounters.stride)
        // Behind the last row there are the next arena's.
        siteRows = min(rows, UInt32(pool.configuration.maximumSites))
    }
}
