import DumpFormat
import Ledger
import TestSupport
import Testing

@testable import NettyHeap

/// The dumps of `Fixtures/source/Ledger.java`: what it kept, lost and freed is known, and Netty printed its own counts.
@Suite("Kept, lost and freed in known numbers", .mayBlock) struct LedgerTests {
    // MARK: 4.1.68 and 4.1.96, pooled

    @Test(
        "runs of the versions between: what Netty counted, to the byte", arguments: [Fixture.pooled4168, .pooled4196])
    func pooled(fixture: Fixture) throws {
        let snapshot = try fixture.read().snapshot
        let totals = snapshot.totals
        #expect(totals.counterBytes == 35_098_752)
        #expect(totals.limitBytes == 48_693_248)
        #expect((totals.chunkCount, totals.chunkSize) == (2, 1 << 20))
        #expect(totals.hugeBytes == 9_000_000 + 2 * 12_000_000)
        #expect(totals.unpooledBytes == 700 + 900)
        // arena_active_bytes has the thread caches and the free ends of slabs in it; pinned has neither the caches.
        // Neither has what is in no arena.
        #expect(totals.liveBytes - totals.cachedBytes - snapshot.unpooledInRows == 34_524_608)
        let counts = try Counts.bySize(snapshot)
        #expect(counts[112] == Counts(kept: 40, lost: 80))
        #expect(counts[1_024] == Counts(kept: 40, lost: 40))
        #expect(counts[320] == Counts(kept: 5, lost: 7))
        #expect(counts[20_480] == Counts(kept: 6, lost: 6))
        #expect(counts[106_496] == Counts(kept: 6, lost: 0) || counts[114_688] == Counts(kept: 6, lost: 0))
        #expect(counts[81_920] == Counts(kept: 0, lost: 6))
        #expect(counts[9_000_000] == Counts(kept: 1, lost: 0))
        #expect(counts[24_000_000] == Counts(kept: 0, lost: 1))
        #expect(snapshot.header.programVersion == "on Netty 4.1.52 or later, runs")
    }

    // MARK: 4.2.7, adaptive

    @Test("the adaptive allocator: chunks, segments and references, to the byte")
    func adaptive() throws {
        let snapshot = try Fixture.adaptive.read().snapshot
        let totals = snapshot.totals
        #expect(totals.counterBytes == 36_278_400)
        // usedDirectMemory(), which is the allocator's own count of its chunks.
        #expect(totals.chunkBytes + totals.hugeBytes == 36_276_800)
        #expect(totals.hugeBytes == 9_000_000 + 2 * 12_000_000)
        #expect(totals.unpooledBytes == 700 + 900)
        #expect(totals.counterBytes == totals.chunkBytes + totals.hugeBytes + totals.unpooledBytes)
        let counts = try Counts.bySize(snapshot)
        #expect(counts[128] == Counts(kept: 40, lost: 80))
        #expect(counts[1_024] == Counts(kept: 40, lost: 40))
        #expect(counts[512] == Counts(kept: 5, lost: 7))
        #expect(counts[9_000_000] == Counts(kept: 1, lost: 0))
        #expect(counts[24_000_000] == Counts(kept: 0, lost: 1))
        // 6 of 20,000 bytes, 6 of 100,000 kept, 12 lost: where in their chunks the lost ones are is not known.
        let slots = try #require(snapshot.slots)
        let large = (0..<slots.count).filter { slots.requested[$0] == 20_000 || slots.requested[$0] == 100_000 }
        #expect(large.count == 12)
        #expect(snapshot.notes.contains { $0.text.contains("bump chunks have 12 buffers that no ByteBuf refers to") })
        #expect(
            snapshot.notes.contains { $0.text.contains("counts 24000000 bytes of chunks that no object refers to") })
        #expect(snapshot.header.programVersion == "on Netty 4.1 or later, adaptive")
    }

    // MARK: 4.2.13, adaptive

    @Test("buddies of the adaptive allocator: every buffer by itself, kept or lost")
    func buddies() throws {
        let snapshot = try Fixture.adaptive4213.read().snapshot
        let totals = snapshot.totals
        #expect(totals.counterBytes == 36_016_256)
        #expect(totals.chunkBytes + totals.hugeBytes == 36_014_656)
        #expect(totals.hugeBytes == 9_000_000 + 2 * 12_000_000)
        let counts = try Counts.bySize(snapshot)
        #expect(counts[128] == Counts(kept: 40, lost: 80))
        #expect(counts[1_024] == Counts(kept: 40, lost: 40))
        #expect(counts[512] == Counts(kept: 5, lost: 7))
        // Of 20,000 bytes; of 100,000 kept and 70,000 lost.
        #expect(counts[32 << 10] == Counts(kept: 6, lost: 6))
        #expect(counts[128 << 10] == Counts(kept: 6, lost: 6))
        // Here nothing is a guess.
        #expect(!snapshot.notes.contains { $0.text.contains("bump chunks") })
    }

    // MARK: All

    @Test("a dump with garbage in it shows the same losses as one of live objects after it")
    func garbage() throws {
        for (all, live) in [(Fixture.pooled4196All, Fixture.pooled4196), (.adaptiveAll, .adaptive)] {
            let all = try all.read().snapshot
            let live = try live.read().snapshot
            #expect(try Counts.bySize(all) == Counts.bySize(live))
            #expect(all.totals == live.totals)
            #expect(
                all.notes.contains {
                    $0.text.contains("no GC root leads to 66 of its ByteBufs that have direct memory")
                })
            #expect(!live.notes.contains { $0.text.contains("GC root") })
        }
    }

    @Test(
        "referrers have names in every version",
        arguments: [Fixture.pooled4168, .pooled4196, .adaptive, .adaptiveAll, .adaptive4213])
    func referrers(fixture: Fixture) throws {
        let owners = Dictionary(
            try fixture.read().snapshot.owners.map { ($0.name, $0.liveBuffers) }, uniquingKeysWith: +)
        #expect(owners["static Ledger.KEPT"] == 57)
        #expect(owners["Ledger$Session.queue"] == 40)
        #expect(owners["static Ledger.huge"] == 1)
    }

    @Test(
        "two dumps of one process: the second round is what was born",
        arguments: [(Fixture.pooled4196Early, Fixture.pooled4196), (.adaptiveEarly, .adaptive)])
    func pairs(early: Fixture, late: Fixture) throws {
        let before = try Counts.bySize(early.read().snapshot)
        let after = try Counts.bySize(late.read().snapshot)
        let small: UInt64 = late == .adaptive ? 128 : 112
        #expect(before[small] == Counts(kept: 20, lost: 40))
        #expect(after[small] == Counts(kept: 40, lost: 80))
        let old = Set(try #require(early.read().snapshot.slots).serial)
        let new = Set(try #require(late.read().snapshot.slots).serial)
        // Thread caches change, and bump chunks' gaps; nothing else of the first round goes.
        #expect(old.subtracting(new).count < old.count / 5)
        #expect(new.count > old.count)
    }
}
