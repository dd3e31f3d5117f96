import CArena
import Ledger

/// What one arena knows that is not in the ledger: pointers into it, the heads of its lists, its reserve.
///
/// Touched only by the thread the arena is bound to (or under `sharedLock` where it is shared), but for `remoteHead`
/// and `isShared`, which other threads reach through the pointers kept here. It lives at a fixed address until the
/// pool goes, so pointers to it need no reference counting.
struct ArenaState {
    typealias Pointer = UnsafeMutablePointer<ArenaState>

    let pool: Unmanaged<ArenaPool>
    let index: UInt8
    let base: UnsafeMutableRawPointer
    let rangeBytes: Int
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
    /// 1 while any thread may use the arena under `sharedLock`: arena 0, and arenas whose thread has gone.
    let sharedFlag: UnsafeMutablePointer<UInt64>
    let sharedLock: Unmanaged<Lock>

    /// The next serial, without the arena's index.
    var nextSerial: UInt64 = 1
    /// Rows of `sites` that are charged.
    var siteRows: UInt32 = 0
    /// First slab with a free element, per class.
    let bins: UnsafeMutablePointer<UInt32>
    /// First chunk whose longest free run has 2^k ..< 2^(k+1) pages, per k.
    let chunkLists: UnsafeMutablePointer<UInt32>
    /// First slot block with a free span, per order.
    let spanLists: UnsafeMutablePointer<UInt32>
    var siteCache = SiteCache()
    /// Chunks none of whose pages are used; one is kept.
    var emptyChunks = 0
    /// First page (chunk << 11 | page) of the reserve for allocations that cannot be refused; nil when it is spent.
    var reserve: Int?
    /// Called by another thread when it puts the first buffer onto the remote-free list.
    var wake: (@Sendable () -> Void)?

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
        let ledger = pool.ledger
        let state = Pointer.allocate(capacity: 1)
        state.initialize(
            to: ArenaState(
                pool: .passUnretained(pool), index: UInt8(index), base: pool.base, rangeBytes: pool.rangeBytes,
                classes: pool.classes, slots: ledger.records(.slots, of: SlotRecord.self),
                slabs: ledger.records(.slabs, of: SlabRecord.self),
                blocks: ledger.records(.slotBlocks, of: SlotBlockRecord.self),
                chunks: ledger.records(.chunks, of: ChunkRecord.self),
                pageMap: ledger.records(.pageMap, of: PageEntry.self), pageBits: ledger.start(.pageBits),
                sites: ledger.record(.siteCounters, 0, group: index),
                record: ledger.record(.arenas, index).assumingMemoryBound(to: ArenaRecord.self),
                remoteHead: words.assumingMemoryBound(to: UInt64.self),
                sharedFlag: (words + 64).assumingMemoryBound(to: UInt64.self),
                sharedLock: .passRetained(Lock()), bins: heads(SizeClasses.count), chunkLists: heads(listCount),
                spanLists: heads(orderCount)))
        state.pointee.sharedFlag.pointee = index == 0 ? 1 : 0
        return state
    }

    static func destroy(_ state: Pointer) {
        state.pointee.siteCache.deallocate()
        state.pointee.bins.deallocate()
        state.pointee.chunkLists.deallocate()
        state.pointee.spanLists.deallocate()
        UnsafeMutableRawPointer(state.pointee.remoteHead).deallocate()
        state.pointee.sharedLock.release()
        state.deinitialize(count: 1)
        state.deallocate()
    }

    @inline(__always)
    func counters(_ site: UInt32) -> UnsafeMutablePointer<SiteCounters> {
        (sites + Int(site) &* SiteCounters.stride).assumingMemoryBound(to: SiteCounters.self)
    }

    /// Live buffers by the counters, which must agree with the slots.
    var liveBuffers: Int {
        var live = 0
        for site in 0..<siteRows {
            live += Int(counters(site).pointee.allocations &- counters(site).pointee.frees)
        }
        return live
    }

    /// Makes `site` countable: charges the pages its row is on. Sites are interned one by one, so this is rare.
    mutating func ensureSiteRow(_ site: UInt32) {
        guard site >= siteRows else { return }
        let rowsPerPage = UInt32(4096 / SiteCounters.stride)
        let rows = (site / rowsPerPage + 1) * rowsPerPage
        pool.takeUnretainedValue().chargeSiteRows(Int(rows - siteRows) * SiteCounters.stride)
        siteRows = rows
    }
}
