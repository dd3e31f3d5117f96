import Arena
import Ledger
import NIOCore
import NIOPosix
import Testing

@testable import ArenaNIO

/// In processes of their own: what pools there are is a matter of the whole process.
@Suite("Several pools in one process")
struct SeveralPoolsTests {
    static func makePool() throws -> ArenaPool { try ArenaPool(ArenaPool.Configuration(limitBytes: 64 << 20)) }

    /// A thread that has no arena, and gets none.
    static func onStranger<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
        let threads = NIOThreadPool(numberOfThreads: 1)
        threads.start()
        let result = try await threads.runIfActive(body)
        try await threads.shutdownGracefully()
        return result
    }

    static func isInside(_ buffer: ByteBuffer, _ pool: ArenaPool) -> Bool { pool.sharedArena.contains(buffer) }

    @Test("a thread without an arena allocates from the pool whose allocator it uses, whichever was made last")
    func strangers() async {
        await #expect(processExitsWith: .success) {
            let pools = try (0..<3).map { _ in try SeveralPoolsTests.makePool() }
            for (number, pool) in pools.enumerated() {
                try await SeveralPoolsTests.onStranger {
                    var buffer = pool.byteBufferAllocator.buffer(capacity: 100)
                    buffer.writeRepeatingByte(1, count: 100)
                    #expect(SeveralPoolsTests.isInside(buffer, pool))
                    // What NIO does by itself: copies before it writes, a larger place, a new one for what is shared.
                    var copy = buffer
                    copy.writeRepeatingByte(2, count: 10_000)
                    #expect(SeveralPoolsTests.isInside(copy, pool))
                    var cleared = buffer
                    cleared.clear(minimumCapacity: 5_000)
                    cleared.writeInteger(7)
                    #expect(SeveralPoolsTests.isInside(cleared, pool))
                    #expect(buffer.readableBytes == 100 && copy.readableBytes == 10_100)
                    #expect(pool.liveBufferCount == 3)
                    for other in pools where other !== pool {
                        #expect(other.liveBufferCount == 0, "pool \(number) took of another")
                    }
                    withExtendedLifetime((buffer, copy, cleared)) {}
                }
                #expect(pool.liveBufferCount == 0)
            }
            for pool in pools { pool.retire() }
        }
    }

    @Test("a loop uses its arena for its own pool's allocator only, and names no site of it in another pool")
    func otherPool() async {
        await #expect(processExitsWith: .success) {
            let loops = try await AllocatorTests.Loops(1)
            let (own, other) = (loops.pool, try SeveralPoolsTests.makePool())
            try await loops.loops[0].submit { [arena = loops.arenas[0]] in
                try arena.withContext(owner: own.openOwner(.session, name: "s"), "of the own pool") {
                    let buffers = [own, other].map { $0.byteBufferAllocator.buffer(capacity: 1_000) }
                    #expect(arena.contains(buffers[0]) && SeveralPoolsTests.isInside(buffers[1], other))
                    #expect(own.liveBufferCount == 1 && other.liveBufferCount == 1)
                    let mine = try #require(own.metrics().sites.first { $0.liveBuffers == 1 })
                    #expect(mine.label == "of the own pool")
                    #expect(other.metrics().sites.map(\.liveBuffers) == [1], "only the unknown site, and one buffer")
                    withExtendedLifetime(buffers) {}
                }
                // Freed where its thread has an arena of another pool.
                #expect(own.liveBufferCount == 0 && other.liveBufferCount == 0)
                let freed = other.withLedger { ledger in
                    ledger.record(.freed, 0).assumingMemoryBound(to: FreedRecord.self).pointee
                }
                #expect(freed.serial != 0 && freed.releaseSite == SiteID.unknown.rawValue)
            }.get()
            try await loops.shutdown()
            own.retire()
            other.retire()
        }
    }

    @Test("a pool that is retired takes its number along, and the next one has it for itself")
    func retired() async {
        await #expect(processExitsWith: .success) {
            let first = try SeveralPoolsTests.makePool()
            var allocator: ByteBufferAllocator?
            weak var gone: ArenaPool?
            do {
                let second = try SeveralPoolsTests.makePool()
                gone = second
                allocator = second.byteBufferAllocator
                second.retire()
            }
            #expect(gone == nil)
            // Whoever uses it all the same gets memory, of no pool.
            try await SeveralPoolsTests.onStranger { [allocator] in
                let buffer = try #require(allocator).buffer(capacity: 100)
                #expect(!SeveralPoolsTests.isInside(buffer, first) && buffer.capacity >= 100)
            }
            let third = try SeveralPoolsTests.makePool()
            #expect(third.number.rawValue == 1 && first.number.rawValue == 0)
            try await SeveralPoolsTests.onStranger {
                let buffer = third.byteBufferAllocator.buffer(capacity: 100)
                #expect(SeveralPoolsTests.isInside(buffer, third))
            }
            for pool in [first, third] { pool.retire() }
        }
    }

    @Test(
        "more pools than there are functions for: their own loops have all they had, strangers get no other pool's memory"
    )
    func many() async {
        await #expect(processExitsWith: .success) {
            let pools = try (0..<AllocateOfPool.ownCount + 3).map { _ in try SeveralPoolsTests.makePool() }
            #expect(pools.map(\.number.rawValue) == Array(pools.indices))
            for pool in pools {
                let isOwn = pool.number.rawValue < AllocateOfPool.ownCount
                let arena = try pool.makeArena(name: "own")
                try await SeveralPoolsTests.onStranger {
                    var buffer = pool.byteBufferAllocator.buffer(capacity: 100)
                    buffer.writeRepeatingByte(1, count: 1_000)
                    #expect(SeveralPoolsTests.isInside(buffer, pool) == isOwn)
                    #expect(pools.filter { $0.liveBufferCount > 0 }.count == (isOwn ? 1 : 0))
                    withExtendedLifetime(buffer) {}
                }
                try await SeveralPoolsTests.onStranger {
                    arena.bind()
                    defer { arena.unbind() }
                    let buffer = pool.byteBufferAllocator.buffer(capacity: 100)
                    #expect(arena.contains(buffer) && arena.liveBufferCount == 1)
                    withExtendedLifetime(buffer) {}
                }
            }
            // As the documentation says of them: a loop of one copies into its own pool, what grows stays.
            let (one, other) = (pools[pools.count - 2], pools[pools.count - 1])
            let (from, to) = (try one.makeArena(name: "from"), try other.makeArena(name: "to"))
            let buffer = try await SeveralPoolsTests.onStranger {
                from.bind()
                defer { from.unbind() }
                return try from.buffer(capacity: 100, owner: .process, "kept")
            }
            try await SeveralPoolsTests.onStranger {
                to.bind()
                defer { to.unbind() }
                var copy = buffer
                copy.writeRepeatingByte(1, count: 10)
                #expect(SeveralPoolsTests.isInside(copy, other) && SeveralPoolsTests.isInside(buffer, one))
            }
            #expect(one.liveBufferCount == 1 && other.liveBufferCount == 0)
            withExtendedLifetime(buffer) {}
        }
    }

    @Test("a thread without an arena, in the context of one pool, names neither its site nor its owner in another")
    func strangersContext() async {
        await #expect(processExitsWith: .success) {
            // So few sites that the number of one of `own`'s would lead out of the table of `other`.
            var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
            configuration.maximumSites = 8
            let (own, other) = (try SeveralPoolsTests.makePool(), try ArenaPool(configuration))
            let neighbour = try other.makeArena(name: "neighbour")
            try await SeveralPoolsTests.onStranger {
                let owner = own.openOwner(.session, name: "s")
                for line in 1...20 {
                    let location = CodeLocation(
                        "of the own pool", file: #fileID, line: UInt32(line), function: #function)
                    own.sharedArena.withContext(owner: owner, at: location) {
                        let buffers = [own, other].map { $0.byteBufferAllocator.buffer(capacity: 1_000) }
                        let mine = own.metrics().sites.filter { $0.liveBuffers == 1 }
                        #expect(mine.map(\.label) == ["of the own pool"])
                        #expect(
                            other.metrics().sites.map(\.liveBuffers) == [1], "only the unknown site, and one buffer")
                        #expect(SeveralPoolsTests.owners(other) == [OwnerID.process.rawValue])
                        #expect(SeveralPoolsTests.owners(own) == [owner.rawValue])
                        withExtendedLifetime(buffers) {}
                    }
                    #expect(own.liveBufferCount == 0 && other.liveBufferCount == 0)
                }
                // Its release is of no site of `other`'s either.
                let freed = other.withLedger { ledger in
                    ledger.record(.freed, 0).assumingMemoryBound(to: FreedRecord.self).pointee
                }
                #expect(freed.serial != 0 && freed.releaseSite == SiteID.unknown.rawValue)
            }
            #expect(other.metrics().arenas[neighbour.index].allocations == 0)
            for pool in [own, other] { pool.retire() }
        }
    }

    /// Of the live buffers.
    static func owners(_ pool: ArenaPool) -> [UInt32] {
        pool.withLedger { ledger in
            let slots = ledger.records(.slots, of: SlotRecord.self)
            return (0..<ledger.rows(.slots)).filter { slots[$0].state == SlotRecord.State.live.rawValue }
                .map { slots[$0].owner }
        }
    }

    @Test("a loop in the context of another pool's arena names no site of that in its own")
    func loopInOtherContext() async {
        await #expect(processExitsWith: .success) {
            let loops = try await AllocatorTests.Loops(1)
            let (own, other) = (loops.pool, try SeveralPoolsTests.makePool())
            try await loops.loops[0].submit {
                let owner = other.openOwner(.session, name: "s")
                other.sharedArena.withContext(owner: owner, "of the other pool") {
                    let buffer = own.byteBufferAllocator.buffer(capacity: 1_000)
                    let site = own.metrics().sites.first { $0.liveBuffers == 1 }
                    #expect(site?.label == "socket read")
                    #expect(SeveralPoolsTests.owners(own) == [OwnerID.process.rawValue])
                    withExtendedLifetime(buffer) {}
                }
            }.get()
            try await loops.shutdown()
            own.retire()
            other.retire()
        }
    }
}
