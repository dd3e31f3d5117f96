import Arena
import CArena
import Ledger

/// NIO's `allocate`, once for each pool: which of them an allocator is of is in nothing but the function's address.
enum AllocateOfPool {
    typealias Function = @Sendable @convention(c) (Int) -> UnsafeMutableRawPointer?

    /// By the pool's number. A program has one pool, or a few; those that a process has beyond these share a function.
    private static let own: [Function] = [
        { serve(0, $0) }, { serve(1, $0) }, { serve(2, $0) }, { serve(3, $0) },
        { serve(4, $0) }, { serve(5, $0) }, { serve(6, $0) }, { serve(7, $0) },
        { serve(8, $0) }, { serve(9, $0) }, { serve(10, $0) }, { serve(11, $0) },
        { serve(12, $0) }, { serve(13, $0) }, { serve(14, $0) }, { serve(15, $0) },
    ]

    private static let shared: Function = { serveOneOfMany($0) }

    /// How many pools have a function of their own at once.
    static var ownCount: Int { own.count }

    static func function(_ pool: PoolNumber) -> Function {
        pool.rawValue < own.count ? own[pool.rawValue] : shared
    }

    @inline(__always)
    private static func serve(_ pool: Int, _ size: Int) -> UnsafeMutableRawPointer? {
        guard let arena = Arena.current, arena.poolNumber.rawValue == pool else { return serveStranger(pool, size) }
        return allocate(size, arena)
    }

    /// A thread that has no arena, or one of another pool.
    @inline(never)
    private static func serveStranger(_ pool: Int, _ size: Int) -> UnsafeMutableRawPointer? {
        guard let pool = PoolRegistry.pool(PoolNumber(rawValue: pool)) else { return LastResort.allocate(size) }
        // Sites and owners of another pool are numbers of something else here, or of nothing.
        let (site, owner) = pool.context
        return pool.sharedArena.allocate(size, site: site, owner: owner, mustSucceed: true)
            ?? LastResort.allocate(size)
    }

    /// For one of several pools, nobody knows which: the arena of one of them is used if the thread has it, though the allocator may
    /// be another one's, and no other is.
    private static func serveOneOfMany(_ size: Int) -> UnsafeMutableRawPointer? {
        guard let arena = Arena.current, arena.poolNumber.rawValue >= own.count else {
            return LastResort.allocate(size)
        }
        return allocate(size, arena)
    }

    @inline(__always)
    private static func allocate(_ size: Int, _ arena: Arena) -> UnsafeMutableRawPointer? {
        let context = arena_context().pointee
        return arena.allocate(
            size, site: SiteID(rawValue: context.site), owner: OwnerID(rawValue: context.owner), mustSucceed: true)
            ?? LastResort.allocate(size)
    }
}
