import Analysis
import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import NettyHeap

/// The dumps of `Field.java`, `Pair.java` and `Columns.java` in `Fixtures/source`: what was kept and lost is known, by other
/// JVMs, collectors and Nettys than those of the other suites.
@Suite("Other JVMs, collectors and Nettys", .mayBlock) struct JVMTests {
    private func copy(_ name: String, _ snapshot: Snapshot) throws -> Snapshot.NettyCopy {
        try #require(snapshot.nettyCopies.first { $0.name == name })
    }

    private func read(_ fixture: Fixture) throws -> Snapshot {
        let result = try fixture.read()
        #expect(result.checks.filter { !$0.passed } == [])
        #expect(result.snapshot.completeness.isComplete)
        return result.snapshot
    }

    private func kept(_ counts: [UInt64: Counts]) -> Int { counts.values.map(\.kept).reduce(0, +) }
    private func lost(_ counts: [UInt64: Counts]) -> Int { counts.values.map(\.lost).reduce(0, +) }

    /// What a `Field` kept in chunks, and what it lost there, by what Netty made of the sizes.
    private enum Books {
        case buddyTrees, runs

        var counts: [UInt64: Counts] {
            switch self {
            case .buddyTrees:
                [
                    112: Counts(kept: 20), 208: Counts(lost: 40), 2_048: Counts(lost: 1),
                    4_096: Counts(kept: 6, lost: 2),
                    8_192: Counts(kept: 7, lost: 12), 16_384: Counts(kept: 2), 65_536: Counts(kept: 3, lost: 5),
                ]
            case .runs:
                // The five of 50,000 were allocated one behind the other: runs without a ByteBuf that are neighbours are one.
                [
                    112: Counts(kept: 20), 224: Counts(lost: 40), 1_280: Counts(lost: 1), 2_560: Counts(kept: 4),
                    3_072: Counts(kept: 2), 3_584: Counts(lost: 2), 5_120: Counts(kept: 7), 6_144: Counts(lost: 12),
                    10_240: Counts(kept: 2), 40_960: Counts(kept: 3), 5 * 57_344: Counts(lost: 1),
                ]
            }
        }
    }

    private static let keptHuge: [UInt64: Counts] = [20_000_000: Counts(kept: 1)]
    private static let lostHuge: [UInt64: Counts] = [34_000_000: Counts(lost: 1)]
    private static let lostUnpooled: [UInt64: Counts] = [2_700: Counts(lost: 1)]

    private func expect(
        _ snapshot: Snapshot, _ books: Books, and others: [UInt64: Counts]..., counter: UInt64 = 55_052_676
    ) throws {
        var expected = books.counts
        for counts in others { expected.merge(counts) { $1 } }
        #expect(try Counts.bySize(snapshot) == expected)
        #expect(snapshot.totals.counterBytes == counter)
        #expect(snapshot.totals.limitBytes == 209_715_200)
        #expect((snapshot.totals.chunkCount, snapshot.totals.chunkSize) == (1, 1 << 20))
        #expect(snapshot.header.unjudgedBuffers == 0)
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved" && answer.reason.isEmpty)
    }

    @Test(
        "JDK 8 by jmap -dump:live, and a JVM of 32 bits: identifiers of 4 bytes",
        arguments: [Fixture.jdk8Parallel, .jdk17Of32Bits])
    func buddyTrees(fixture: Fixture) throws {
        let snapshot = try read(fixture)
        try expect(snapshot, .buddyTrees, and: Self.keptHuge, Self.lostHuge, Self.lostUnpooled)
        // On a stack, in a thread-local, in a large array, and softly.
        let owners = Dictionary(uniqueKeysWithValues: snapshot.owners.map { ($0.name, $0.liveBuffers) })
        #expect(owners["static Field.ARRAY"] == 7)
        #expect(owners["static Field.KEPT"] == 25)
    }

    @Test("JDK 8 by its own management bean, all objects: those that were dropped are garbage")
    func ownDump() throws {
        let snapshot = try read(.jdk8Self)
        try expect(snapshot, .runs, and: Self.keptHuge, Self.lostHuge, Self.lostUnpooled)
        #expect(snapshot.notes.contains { $0.text.contains("no GC root leads to 65 of its ByteBufs") })
    }

    @Test("at an OutOfMemoryError, for which the JVM has let go of what was softly referred to")
    func outOfMemory() throws {
        try expect(
            read(.jdk11OutOfMemory), .buddyTrees, and: Self.keptHuge, Self.lostHuge, Self.lostUnpooled,
            [16_384: Counts(lost: 2)])
    }

    @Test("Shenandoah's order of objects, and 4.1.65 in Flink's package")
    func shenandoah() throws {
        let snapshot = try read(.jdk17Shenandoah)
        try expect(snapshot, .runs, and: Self.keptHuge, Self.lostHuge, Self.lostUnpooled)
        #expect(snapshot.nettyCopies.map(\.name) == ["org.apache.flink.shaded.netty4.io.netty"])
        #expect(snapshot.notes.contains { $0.text.contains("By the arenas' own counts of allocations they are 60") })
    }

    @Test("JDK 25 with compact headers: CleanerJava25 frees nothing by itself, and makes no small buffers")
    func cleaner25() throws {
        let snapshot = try read(.jdk25Cleaner25)
        // The JVM's own count of native memory had these 34,000,000 bytes after three collections.
        try expect(snapshot, .runs, and: Self.keptHuge, Self.lostHuge, counter: 55_048_576)
        #expect(try copy("io.netty", snapshot).cleaner == "CleanerJava25")
    }

    @Test("JDK 28 with buffers on the stacks of parked virtual threads, and CleanerJava24Linker")
    func virtualThreads28() throws {
        let snapshot = try read(.jdk28Virtual)
        #expect(snapshot.totals.counterBytes == 56_101_252)
        let counts = try Counts.bySize(snapshot)
        #expect(counts[32_768] == Counts(kept: 5))
        #expect(kept(counts) == 39 + 5)
        let pooled: UInt64 = 40 * 224 + 1_280 + 2 * 3_584 + 12 * 6_144 + 5 * 57_344
        #expect(snapshot.totals.unreachableBytes == 34_002_700 + pooled)
        #expect(try copy("io.netty", snapshot).cleaner == "CleanerJava24Linker")
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
    }

    @Test("the adaptive allocator of 4.2.13, dumped by generational ZGC; virtual threads that have ended hide nothing")
    func generationalZGC() throws {
        let snapshot = try read(.jdk21ZGC)
        #expect(snapshot.totals.counterBytes == 55_684_820)
        var counts = try Counts.bySize(snapshot)
        #expect(kept(counts) == 39)
        // Those of 50,000 have chunks of their own here, which are gone.
        #expect(counts.removeValue(forKey: 34_250_000) == Counts(lost: 1))
        #expect(counts[2_700] == Counts(lost: 1))
        #expect(counts[256]?.lost == 40)
        #expect(counts[8_192]?.lost == 12)
        #expect(counts[4_096]?.lost == 2)
        #expect(lost(counts) == 40 + 12 + 1 + 2 + 1)
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
    }

    @Test("the adaptive allocator of 4.1.118; Epsilon collects nothing, whatever dump is asked for")
    func epsilon() throws {
        let snapshot = try read(.jdk17Epsilon)
        #expect(snapshot.totals.counterBytes == 55_183_748)
        let counts = try Counts.bySize(snapshot)
        #expect(kept(counts) == 39)
        #expect(counts[20_000_000] == Counts(kept: 1) && counts[17_000_000] == Counts(lost: 2))
        #expect(counts[2_700] == Counts(lost: 1))
        #expect(snapshot.notes.contains { $0.text.contains("2 bump chunks have 60 buffers that no ByteBuf refers to") })
        #expect(snapshot.notes.contains { $0.text.contains("no GC root leads to 65 of its ByteBufs") })
        #expect(snapshot.header.programVersion == "on Netty 4.1 or later, adaptive")
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
    }

    @Test("without a counter: what is dropped of huge and unpooled buffers is the collector's business, and no loss")
    func noCounter() throws {
        let snapshot = try read(.jdk17NoCounter)
        var expected = Books.buddyTrees.counts
        expected.merge(Self.keptHuge) { $1 }
        #expect(try Counts.bySize(snapshot) == expected)
        #expect(try copy("io.netty", snapshot).counting == .none)
        // Garbage that the JVM will free with its next collection has not been freed.
        #expect(try copy("java.nio.Bits", snapshot).counterBytes == 55_048_576 + 2 * 700 + 3 * 900 + 1_000_000 + 1)
        let note = try #require(snapshot.notes.first { $0.text.contains("34000000 bytes of 2 huge allocations") })
        #expect(note.text.contains("That is no loss") && note.text.contains("frees it with them"))
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
    }

    @Test(
        "unpooled buffers of which a dump by jhsdb cannot say who has them: nothing is accused, and nobody is cleared")
    func unpooledByJhsdb() throws {
        let snapshot = try read(.jdk11Unpooled)
        #expect(snapshot.totals.counterBytes == 54_533_300)
        #expect(snapshot.totals.unreachableBytes == 0)
        // All that was lost is still there as garbage.
        let pooled: UInt64 = 40 * 200 + 12 * 6_000 + 5 * 50_000 + 1_200 + 2 * 3_500
        let lost = 34_002_700 + pooled
        #expect(snapshot.header.unjudgedBytes >= lost)
        #expect(snapshot.header.unjudgedBuffers >= 65)
        let answer = Answer(snapshot)
        #expect(answer.leak == "unknown" && answer.evidence == "cannot-say" && !answer.claimsProof)
        #expect(try Program.run("leaks", "--fail-on", "unreachable > 0", Fixture.jdk11Unpooled.path).status == 1)
    }

    // MARK: Several copies

    @Test("4.1.65 beside 4.1.48, and that twice by two class loaders: each by its own books, limit and name")
    func pair() throws {
        let snapshot = try read(.jdk17Pair)
        let shaded = try copy("org.apache.flink.shaded.netty4.io.netty", snapshot)
        #expect((shaded.limitBytes, shaded.unreachableBytes) == (100_000_000, 9 * 57_344))
        #expect(shaded.books.contains("runs"))
        let twice = snapshot.nettyCopies.filter { $0.name.hasPrefix("io.netty of URLClassLoader@") }
        #expect(twice.count == 2 && Set(twice.map(\.name)).count == 2)
        #expect(twice.allSatisfy { $0.limitBytes == 209_715_200 && $0.books.contains("buddy trees") })
        #expect(twice.map(\.unreachableBytes).sorted() == [0, 30 * 8_192])
        #expect(snapshot.nettyCopies.count == 3)
        #expect(snapshot.nettyCopies.allSatisfy { $0.counterBytes == 1 << 20 && $0.chunkCount == 1 })
        // Nothing of them is added up that has a limit.
        #expect(snapshot.totals.limitBytes == 0)
        #expect(try Counts.bySize(snapshot)[2_048] == Counts(kept: 12))
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved")
        #expect(answer.words.contains("the fullest is org.apache.flink.shaded.netty4.io.netty"))
    }

    // MARK: Frameworks

    @Test("Arrow's own books of what is allocated, to the byte")
    func arrow() throws {
        let snapshot = try read(.jdk21Arrow)
        let counts = try Counts.bySize(snapshot)
        // Arrow rounds to powers of two, and its child allocators say 888,832 kept and 1,982,464 lost.
        let kept = counts.map { size, count in size * UInt64(count.kept) }.reduce(0, +)
        let lost = counts.map { size, count in size * UInt64(count.lost) }.reduce(0, +)
        #expect(kept == 888_832)
        #expect(lost == 1_982_464)
        #expect(counts[4_096] == Counts(kept: 25) && counts[8_192] == Counts(lost: 50))
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
    }
}
