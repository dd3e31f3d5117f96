import Glibc
import Ledger
import Synchronization
import Testing

@testable import Arena

/// What a snapshot without a loop that hangs rests on. ThreadSanitizer has its say here (`make tsan`).
@Suite("A ledger that grows")
struct GrowingLedgerTests {
    @Test("is copied meanwhile, without a lock: every table has at least the rows of the copy before")
    func copies() throws {
        let pool = try makePool(64)
        let isDone = Atomic(false)
        let growing = onThread(try pool.makeArena(name: "growing")) {
            for number in 0..<20_000 { _ = pool.openOwner(.session, name: "s\(number)") }
            isDone.store(true, ordering: .releasing)
        }
        var rows = LedgerTable.allCases.map { _ in 0 }
        var copies = 0
        repeat {
            let snapshotBuffer = try #require(pool.makeSnapshotBuffer(forced: true))
            guard snapshotBuffer.fillWhileRunning() else { continue }
            let now = LedgerTable.allCases.map { snapshotBuffer.image.rows($0) }
            #expect(zip(rows, now).allSatisfy { $0 <= $1 })
            rows = now
            copies += 1
        } while !isDone.load(ordering: .acquiring) || copies == 0
        pthread_join(growing, nil)
        #expect(rows[LedgerTable.owners.rawValue] <= pool.ledger.rows(.owners))
    }

    @Test("is copied in parts, all by one layout, though owners are added between them")
    func parts() throws {
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        let live = try (0..<100).map { try arena.allocate(64 + $0, owner: .process, at: here) }
        defer { for pointer in live { Arena.free(pointer) } }
        let snapshotBuffer = try #require(pool.makeSnapshotBuffer())
        let layout = try #require(snapshotBuffer.layOut())
        let rows = LedgerTable.allCases.map { $0.isCopied ? pool.ledger.rows($0) : 0 }
        for part in [1, 0, 2] {
            // What threads without an arena do meanwhile.
            for number in 0..<50 { _ = pool.openOwner(.session, name: "\(part).\(number)") }
            _ = pool.intern(CodeLocation("late", file: #fileID, line: UInt32(part), function: #function))
            snapshotBuffer.fill(layout, part: part, of: 3)
        }
        let image = snapshotBuffer.image
        #expect(LedgerTable.allCases.map { image.rows($0) } == rows)
        for table in LedgerTable.allCases where table.isCopied {
            let bytes = image.rows(table) * table.stride
            for group in 0..<image.groups(table) where bytes > 0 {
                let isSame =
                    memcmp(image.record(table, 0, group: group), pool.ledger.record(table, 0, group: group), bytes) == 0
                #expect(isSame, "\(table), group \(group)")
            }
        }
    }

    @Test("is looked at while a thread hangs that has it locked: figures, room for a copy, an event")
    func locked() throws {
        let pool = try makePool(64)
        let isLocked = Atomic(false)
        let isSeen = Atomic(false)
        let hanging = onThread(try pool.makeArena(name: "hanging")) {
            pool.state.withLock { _ in
                pool.events.entered.withLock { _ in
                    isLocked.store(true, ordering: .releasing)
                    while !isSeen.load(ordering: .acquiring) { sched_yield() }
                }
            }
        }
        while !isLocked.load(ordering: .acquiring) { sched_yield() }
        #expect(pool.metrics().arenas.map(\.name) == ["shared", "hanging"])
        #expect(pool.liveBufferCount == 0)
        #expect(!pool.isLockFree)
        withExtendedLifetime(pool.chargeDumpWork()) {}
        #expect(try #require(pool.makeSnapshotBuffer()).fillWhileRunning())
        pool.recordEvent(.dump, "nobody waits for it")
        isSeen.store(true, ordering: .releasing)
        pthread_join(hanging, nil)
        #expect(pool.isLockFree)
        #expect(pool.events.entered.withLock { $0 } == 0)
    }
}
