import CArena
import Ledger
import Testing

@testable import Arena

@Suite("Owners and sites", .serialized)
struct OwnerAndSiteTests {
    private func site(_ pool: ArenaPool, _ id: UInt32) -> (label: String, file: String, line: UInt32, function: String)
    {
        let record = pool.ledger.record(.sites, Int(id))
        return (
            LedgerText.read(record + SiteRecord.labelOffset, capacity: SiteRecord.labelCapacity),
            LedgerText.read(record + SiteRecord.fileOffset, capacity: SiteRecord.fileCapacity),
            record.assumingMemoryBound(to: SiteRecord.self).pointee.line,
            LedgerText.read(record + SiteRecord.functionOffset, capacity: SiteRecord.functionCapacity)
        )
    }

    @Test("a site is where in the code the buffer was allocated")
    func siteOfAllocation() throws {
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        let line = UInt32(#line + 1)
        let location = CodeLocation("a label", file: #fileID, line: #line, function: #function)
        let pointer = try arena.allocate(10, owner: .process, at: location)
        let record = pool.slots[try #require(pool.slot(at: pointer))]
        let site = site(pool, record.site)
        #expect(site.label == "a label")
        #expect(site.file == "ArenaTests/OwnerAndSiteTests.swift")
        #expect(site.line == line)
        #expect(site.function == "siteOfAllocation()")
        Arena.free(pointer)
    }

    @Test(
        "a place that the limit has refused a row has one as soon as there is room; one for which the table is full has none"
    )
    func siteAtLimit() throws {
        var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
        configuration.maximumSites = 100
        let pool = try ArenaPool(configuration)
        let arena = try pool.makeArena(name: "test")
        arena.bind()
        defer { arena.unbind() }
        func intern(_ line: UInt32) -> SiteID {
            arena.intern(CodeLocation("place", file: #fileID, line: line, function: #function))
        }
        let rest = pool.unclaimedBytes
        #expect(pool.budget.charge(rest, to: pool.budget.snapshotBufferBytes))
        // The page of the first rows is there.
        let refused = try #require((1...50 as ClosedRange<UInt32>).first { intern($0) == .unknown })
        #expect(intern(refused) == .unknown)
        pool.budget.refund(rest, from: pool.budget.snapshotBufferBytes)
        let id = intern(refused)
        #expect(id != .unknown && intern(refused) == id)
        #expect(site(pool, id.rawValue).line == refused)
        for line: UInt32 in 51...200 { _ = intern(line) }
        #expect(pool.ledger.rows(.sites) == 100 && intern(200) == .unknown)
    }

    @Test("an access from any byte of the buffer, on any thread, names the place and the new owner")
    func access() throws {
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        let pointer = try arena.allocate(5000, owner: .process, at: here)
        let slot = try #require(pool.slot(at: pointer))
        let birth = pool.slots[slot].birth
        let session = pool.openOwner(.session, name: "device-1")
        Arena.recordAccess(
            pointer + 4999, owner: session, at: CodeLocation("handler", file: "a", line: 1, function: "f"))
        #expect(site(pool, pool.slots[slot].accessSite).label == "handler")
        #expect(pool.slots[slot].owner == session.rawValue)
        #expect(pool.slots[slot].accessTime >= birth)
        #expect(pool.slots[slot].birth == birth)
        // Who answers for it may change without an access.
        let (time, queue) = (pool.slots[slot].accessTime, pool.openOwner(.offlineQueue, name: "queue"))
        Arena.assign(pointer + 4999, to: queue)
        #expect(pool.slots[slot].owner == queue.rawValue && pool.slots[slot].accessTime == time)
        #expect(site(pool, pool.slots[slot].accessSite).label == "handler")
        Arena.free(pointer)
    }

    @Test("a closed owner's record is used again only after many further closings, under another generation")
    func ownerReuse() throws {
        var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
        configuration.closedOwnerMemory = 10
        let pool = try ArenaPool(configuration)
        let first = pool.openOwner(.session, name: "first")
        pool.closeOwner(first)
        pool.closeOwner(first)
        var later: [OwnerID] = []
        for index in 0..<10 {
            let owner = pool.openOwner(.session, name: "s\(index)")
            later.append(owner)
            pool.closeOwner(owner)
        }
        #expect(!later.contains { $0.index == first.index })
        let reused = pool.openOwner(.session, name: "again")
        #expect(reused.index == first.index)
        #expect(reused != first)
        pool.closeOwner(first)
        let record = pool.ledger.record(.owners, reused.index).assumingMemoryBound(to: OwnerRecord.self)
        #expect(record.pointee.closed == 0, "a stale handle closes nobody")
    }

    @Test("names longer than a record are cut at a character boundary")
    func longNames() throws {
        let pool = try makePool(64)
        let owner = pool.openOwner(.session, name: String(repeating: "ä", count: 100))
        let record = pool.ledger.record(.owners, owner.index)
        let name = LedgerText.read(record + OwnerRecord.nameOffset, capacity: OwnerRecord.nameCapacity)
        #expect(name == String(repeating: "ä", count: OwnerRecord.nameCapacity / 2))
    }

    @Test("the clock moves forward and counts nanoseconds")
    func clock() {
        arena_clock_start()
        let start = arena_clock_now()
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let reference = UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
        var elapsed: UInt64 = 0
        while elapsed < 20_000_000 {
            clock_gettime(CLOCK_MONOTONIC, &now)
            elapsed = UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec) - reference
        }
        let measured = arena_clock_now() - start
        #expect(measured > elapsed / 100 * 97 && measured < elapsed / 100 * 110)
    }
}
