import Analysis
import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import HPROF
@testable import NettyHeap

/// Dumps on which an earlier analyzer drew wrong conclusions: copies of Netty, cleaners, unpooled memory, the leak detector.
@Suite("Netty in the field", .mayBlock) struct FieldTests {
    private func copy(_ name: String, _ snapshot: Snapshot) throws -> Snapshot.NettyCopy {
        try #require(snapshot.nettyCopies.first { $0.name == name })
    }

    @Test("every sum agrees, with Netty's own books too", arguments: Fixture.wronglyConcluded)
    func checks(dump: Fixture) throws {
        let result = try dump.read()
        #expect(result.checks.filter { !$0.passed } == [])
        #expect(result.snapshot.completeness.isComplete)
        let outcome = try Program.run("verify", dump.path)
        #expect(outcome.status == 0, "\(outcome.text)")
    }

    // MARK: Unpooled memory

    @Test("all memory lost without any arena: it is found by the counter, and accused")
    func unpooled() throws {
        let snapshot = try Fixture.unpooled.read().snapshot
        let totals = snapshot.totals
        #expect((totals.counterBytes, totals.limitBytes) == (500_000_000, 500_000_000))
        #expect((totals.chunkCount, totals.hugeCount) == (0, 0))
        #expect(totals.unpooledBytes == 500_000_000 && snapshot.unpooledInRows == 500_000_000)
        #expect(totals.unreachableBytes == 500_000_000)
        let netty = try copy("io.netty", snapshot)
        #expect(netty.version == "4.1.96.Final" && netty.counting == .counted && netty.fate == .kept)
        #expect((netty.arenas, netty.unpooledBytes, netty.unreachableBytes) == (0, 500_000_000, 500_000_000))
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
        #expect(answer.words.contains("Leak, proved: no ByteBuf refers to it: unpooled"))
        #expect(answer.words.contains("in use 476.8 MiB (100.0 %)"))
        for condition in ["suspects > 0", "proved > 0", "unreachable.bytes > 450MiB", "use > 99%"] {
            #expect(
                try Program.run("leaks", "--fail-on", condition, Fixture.unpooled.path).status == 3, "\(condition)")
        }
    }

    @Test(
        "lost unpooled buffers beside pooled ones, to the byte",
        arguments: [Fixture.huge41, .pooled4168, .pooled4196, .adaptive, .adaptive4213])
    func unpooledBesidePooled(fixture: Fixture) throws {
        let snapshot = try fixture.read().snapshot
        let lost: UInt64 = fixture == .huge41 ? 15_000 : 900
        #expect(snapshot.unpooledInRows == lost)
        #expect(try copy("io.netty", snapshot).counting == .counted)
        #expect(snapshot.notes.contains { $0.text.contains("No ByteBuf refers to the other \(lost) bytes") })
    }

    @Test(
        "nothing unpooled is lost where the counter is all there",
        arguments: [Fixture.kept41, .clean41, .leak41, .leak42])
    func nothingUnpooled(fixture: Fixture) throws {
        let snapshot = try fixture.read().snapshot
        #expect(snapshot.totals.unpooledBytes == 287 && snapshot.unpooledInRows == 0)
    }

    // MARK: Cleaners

    @Test("memory that no collection frees is lost though Netty does not count it")
    func uncollected() throws {
        let snapshot = try Fixture.uncollected.read().snapshot
        #expect(snapshot.totals.unreachableBytes == 200_000_000)
        #expect((snapshot.totals.hugeCount, snapshot.totals.hugeBytes) == (1, 200_000_000))
        #expect(snapshot.totals.counterBytes == 204_194_304)
        let netty = try copy("io.netty", snapshot)
        #expect(netty.cleaner == "CleanerJava24Linker" && netty.version == "4.2.7.Final")
        #expect(netty.counting == .none && netty.fate == .kept)
        #expect((netty.limitBytes, netty.unreachableBytes) == (0, 200_000_000))
        #expect(snapshot.nettyCopies.count == 1)
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved")
        #expect(snapshot.notes.contains { $0.text.contains("200000000 bytes of 10 huge allocations") })
        #expect(!answer.words.contains("changed meanwhile"))
    }

    @Test("what a copy with cleaners dropped was collected, and is not lost; the other copy counts for itself")
    func oneWithCleaners() throws {
        let snapshot = try Fixture.oneWithCleaners.read().snapshot
        #expect((snapshot.totals.unreachableBuffers, snapshot.totals.hugeBytes) == (0, 0))
        let counting = try copy("io.netty", snapshot)
        #expect(counting.counting == .counted && counting.version == "4.1.48.Final")
        #expect((counting.counterBytes, counting.limitBytes) == (16_777_216, 314_572_800))
        #expect(counting.books.contains("buddy trees"))
        let shaded = try copy("org.apache.flink.shaded.netty4.io.netty", snapshot)
        #expect(shaded.counting == .none && shaded.fate == .collected && shaded.cleaner == "CleanerJava9")
        #expect((shaded.chunkBytes, shaded.limitBytes, shaded.unreachableBytes) == (16_777_216, 0, 0))
        #expect(shaded.books.contains("runs"))
        let java = try copy("java.nio.Bits", snapshot)
        #expect((java.counterBytes, java.limitBytes) == (16_777_218, 314_572_800))
        let answer = Answer(snapshot)
        #expect(answer.leak == "none" && answer.evidence == "proved" && !answer.claimsProof)
        #expect(!answer.words.contains("changed meanwhile"))
        #expect(
            snapshot.notes.contains {
                $0.text.contains("counts 60000000 bytes of 3 huge allocations") && $0.text.contains("That is no loss")
            })
        #expect(try Program.run("leaks", "--fail-on", "suspects > 0", Fixture.oneWithCleaners.path).status == 0)
    }

    /// The same dump with a class renamed to one as long.
    private func renaming(_ name: String, to other: String, _ bytes: Data) -> Data {
        var bytes = bytes
        var place = bytes.startIndex
        while let found = bytes.range(of: Data(name.utf8), in: place..<bytes.endIndex) {
            bytes.replaceSubrange(found, with: Data(other.utf8))
            place = found.upperBound
        }
        return bytes
    }

    @Test("of a cleaner that nobody knows it is not said what became of its memory")
    func unknownCleaner() throws {
        let bytes = renaming("CleanerJava24Linker", to: "CleanerJava99Future", try Fixture.uncollected.bytes())
        let snapshot = try NettyHeap.read(bytes, referrers: false).snapshot
        #expect(snapshot.totals.unreachableBuffers == 0)
        let answer = Answer(snapshot)
        #expect(!answer.claimsProof)
        #expect(answer.evidence == "likely")
        #expect(answer.reason.contains("CleanerJava99Future"))
        #expect(answer.words.contains("What became of their memory cannot be said"))
    }

    @Test("a counter that cannot be read is no counter of 0: what is lost beside chunks cannot be said")
    func unreadableCounter() throws {
        for bytes in [
            renaming("DIRECT_MEMORY_COUNTER", to: "DIRECT_MEMORY_C0UNTER", try Fixture.unpooled.bytes()),
            try withoutCounterObject(),
        ] {
            let snapshot = try NettyHeap.read(bytes, referrers: false).snapshot
            #expect(try copy("io.netty", snapshot).counting == .unreadable)
            let answer = Answer(snapshot)
            #expect(!answer.claimsProof)
            #expect(answer.evidence == "likely")
            #expect(answer.reason.contains("the counter of io.netty cannot be read"))
            #expect(answer.words.contains("Not proved, because"))
            #expect(try Condition("use > 90%").outcome(.init(snapshot)) == .undecided(["use"]))
        }
    }

    /// The dump of all memory lost, with the reference to the counter's object leading to an array, which is no counter.
    private func withoutCounterObject() throws -> Data {
        var bytes = try Fixture.unpooled.bytes()
        var id = Data()
        withUnsafeBytes(of: UInt64(4_190_396_776).bigEndian) { id.append(contentsOf: $0) }
        let array = try #require(HeapDumpPlaces(bytes).parts.first { bytes[bytes.startIndex + $0] == 0x22 })
        let other = Data(bytes[(bytes.startIndex + array + 1)..<(bytes.startIndex + array + 9)])
        var place = bytes.startIndex
        while let found = bytes.range(of: id, in: place..<bytes.endIndex) {
            // Where it is the identifier of the object itself, behind the tag of an instance, it stays.
            if bytes[found.lowerBound - 1] != 0x21 { bytes.replaceSubrange(found, with: other) }
            place = found.upperBound
        }
        return bytes
    }

    // MARK: Several copies

    @Test("the fullest copy decides, and the verdict names it")
    func oneAtItsLimit() throws {
        let dump = try Fixture.oneAtItsLimit.path
        let snapshot = try Fixture.oneAtItsLimit.read().snapshot
        // No limit is that of both.
        #expect(snapshot.totals.limitBytes == 0)
        let full = try copy("io.netty", snapshot)
        #expect((full.counterBytes, full.limitBytes, full.chunkCount) == (117_440_512, 120_000_000, 7))
        #expect(full.unreachableBytes == 112 << 20)
        let other = try copy("org.apache.beam.vendor.grpc.v1p48p1.io.netty", snapshot)
        #expect((other.counterBytes, other.limitBytes, other.chunkCount) == (4_194_304, 314_572_800, 1))
        #expect(other.unreachableBytes == 0)
        #expect(full.books.contains("buddy trees") && other.books.contains("runs"))
        let answer = Answer(snapshot)
        #expect(answer.leak == "proved")
        #expect(answer.words.contains("no ByteBuf refers to it: runs of 524288 B, of io.netty"))
        #expect(answer.words.contains("the fullest is io.netty: 117,440,512 of 120,000,000, 97.9 %"))
        #expect(!answer.words.contains("434"))
        #expect(try Program.run("summary", "--fail-on", "use > 90%", dump).status == 3)
        #expect(try Program.run("summary", "--fail-on", "use > 98%", dump).status == 0)
        let json = try JSONSerialization.jsonObject(with: Program.run("summary", "--format", "json", dump).output)
        let object = try #require(json as? [String: Any])
        let rows = try #require(object["netty_copies"] as? [[String: Any]])
        #expect(rows.map { $0["name"] as? String }.contains("io.netty"))
        #expect(object["fullest_copy"] as? String == "io.netty")
        #expect(object["limit_bytes"] is NSNull)
        let page = try Program.run("report", "-o", "-", dump)
        #expect(page.text.contains("org.apache.beam.vendor.grpc.v1p48p1.io.netty") && page.text.contains("97.9 %"))
    }

    @Test(
        "copies that keep different books agree with themselves, in whichever order they come",
        arguments: [Fixture.oneAtItsLimit, .oneWithCleaners])
    func mixed(dump: Fixture) throws {
        let bytes = try dump.bytes()
        let records = HeapDumpPlaces(bytes).records + [bytes.count]
        var other = Data(bytes[..<(bytes.startIndex + records[0])])
        let pieces = zip(records, records.dropFirst()).map { bytes[(bytes.startIndex + $0)..<(bytes.startIndex + $1)] }
        let segments = pieces.filter { $0.first == 0x1C }
        for piece in pieces where piece.first != 0x1C && piece.first != 0x2C { other += piece }
        // Those with chunks of runs were last.
        for piece in segments.reversed() { other += piece }
        for piece in pieces where piece.first == 0x2C { other += piece }
        let result = try NettyHeap.read(other, referrers: false)
        #expect(result.checks.filter { !$0.passed } == [])
        #expect(result.checks.contains { $0.name == "allocations - deallocations = allocations found" })
        #expect(Set(result.snapshot.nettyCopies.map(\.books)) == Set(try dump.read().snapshot.nettyCopies.map(\.books)))
        #expect(result.snapshot.totals.unreachableBytes == (try dump.read().snapshot.totals.unreachableBytes))
    }

    @Test("the count of allocations is checked in the copy that records each of them, and in no other")
    func uncheckedCount() throws {
        let path = NSTemporaryDirectory() + "/netty-\(UUID().uuidString).hprof"
        defer { unlink(path) }
        var bytes = try Fixture.oneAtItsLimit.bytes()
        try bytes.write(to: URL(fileURLWithPath: path))
        // As if three lost runs beside each other looked like one, which they do.
        for (package, isChecked) in [("org/apache/beam/vendor/grpc/v1p48p1/io/netty", false), ("io/netty", true)] {
            let heap = try Heap(path: path)
            let place = try #require(
                heap.classes.firstIndex { $0.name == package + "/buffer/PoolArena$DirectArena" })
            let field = try #require(heap.layout(of: place).places["allocationsNormal"])
            var offsets: [Int] = []
            heap.instances(of: [[place]])[0].forEach { offsets.append($0.body + field.offset) }
            let last = try #require(offsets.first) + 7
            bytes[bytes.startIndex + last] += 2
            try bytes.write(to: URL(fileURLWithPath: path))
            let failed = try NettyHeap.read(path: path, referrers: false).checks.filter { !$0.passed }.map(\.name)
            #expect(failed == (isChecked ? ["allocations - deallocations = allocations found"] : []), "\(package)")
        }
    }

    @Test("a redacted copy keeps the copies of Netty")
    func redacted() throws {
        try withFolder { folder in
            for dump in [Fixture.oneAtItsLimit, .unpooled, .virtualThreads] {
                let copy = "\(folder)/\(dump.rawValue).zst"
                #expect(try Program.run("redact", "-o", copy, dump.path).status == 0)
                #expect(try Program.run("verify", copy).status == 0)
                let original = Answer(try dump.read().snapshot)
                let read = try DumpReader.read(path: copy, .everything)
                #expect(read.nettyCopies == (try dump.read().snapshot.nettyCopies))
                let answer = Answer(read)
                #expect((answer.leak, answer.evidence) == (original.leak, original.evidence))
                #expect(answer.reason == original.reason)
            }
        }
    }

    // MARK: Garbage

    @Test("garbage that only refers to itself is garbage: a ByteBuf and its recycler's handle")
    func cycles() throws {
        let result = try Fixture.cycleAll.read()
        let totals = result.snapshot.totals
        #expect(totals.unreachableBuffers == 80)
        #expect(totals.unreachableBytes == 80 * 8_192)
        #expect(totals.liveBuffers == 100)
        #expect(result.snapshot.owners.first { $0.name == "static Cycle.KEPT" }?.liveBuffers == 20)
        #expect(result.snapshot.notes.contains { $0.text.contains("no GC root leads to 80 of its ByteBufs") })
        #expect(result.checks.filter { !$0.passed } == [])
    }

    // MARK: Dumps of other kinds, with truth by construction

    private func made(_ fixture: Fixture) throws -> Snapshot {
        let result = try fixture.read()
        #expect(result.checks.filter { !$0.passed } == [])
        return result.snapshot
    }

    @Test("jhsdb jmap leaves kinds of roots out: what they could lead to is not called lost")
    func jhsdb() throws {
        let snapshot = try made(.cycleJhsdb)
        #expect((snapshot.totals.unreachableBuffers, snapshot.header.unjudgedBuffers) == (0, 80))
        #expect(snapshot.totals.liveBuffers == 100)
        let answer = Answer(snapshot)
        #expect(answer.leak == "unknown" && answer.evidence == "cannot-say" && !answer.claimsProof)
        #expect(answer.reason.contains("JNI_GLOBAL, JAVA_FRAME, STICKY_CLASS"))
    }

    @Test("JDK 25 has the stacks of virtual threads in its dumps: buffers that only they hold are live")
    func virtualThreads25() throws {
        let snapshot = try made(.virtualThreads25)
        #expect((snapshot.totals.unreachableBuffers, snapshot.header.unjudgedBuffers) == (0, 0))
        #expect(snapshot.totals.liveBuffers == 50)
        // Nothing is lost, and nothing of the dump is missing.
        let answer = Answer(snapshot)
        #expect(answer.leak == "none" && answer.evidence == "proved")
        let netty = try copy("io.netty", snapshot)
        #expect(netty.counting == .none && netty.fate == .collected)
        #expect(try copy("java.nio.Bits", snapshot).counterBytes == snapshot.totals.counterBytes)
    }

    // MARK: The leak detector, and words

    @Test("what was released is not called collected without release")
    func allReleased() throws {
        let snapshot = try Fixture.allReleased.read().snapshot
        #expect(!snapshot.notes.contains { $0.text.contains("without release") })
        #expect(snapshot.totals.unreachableBuffers == 0)
        #expect(!Answer(snapshot).claimsProof)
    }

    @Test("what the detector follows still is, in versions that leave no mark", arguments: [Fixture.leak41, .leak42])
    func followed(fixture: Fixture) throws {
        let notes = try fixture.read().snapshot.notes.map(\.text)
        #expect(notes.contains { $0.contains("sampled buffers that were collected without release") })
    }

    @Test("the garbage that is mentioned is the garbage that is counted", arguments: Fixture.wronglyConcluded)
    func garbageWords(dump: Fixture) throws {
        let snapshot = try dump.read().snapshot
        let counts = snapshot.notes.contains { $0.text.contains("counts as without a ByteBuf") }
        #expect(!counts || snapshot.totals.unreachableBuffers != 0)
    }

    @Test(
        "no live buffers are claimed of what is lost or cached",
        arguments: [Fixture.unpooled, .allReleased, .oneWithCleaners])
    func allocations(dump: Fixture) throws {
        for command in ["summary", "leaks", "sites", "buffers", "histogram"] {
            let words = try Program.run(command, dump.path).words
            #expect(!words.contains("live buffer"), "\(command)")
        }
    }

    @Test(
        "names of hidden classes do not differ from run to run",
        arguments: [
            ("com/example/App$$Lambda$14/0x0000000800066840", "com.example.App$$Lambda"),
            ("com/example/App$$Lambda/0x00007f1c3c000a00", "com.example.App$$Lambda"),
            ("com/example/App$$Lambda+0x00007f1c3c000a00", "com.example.App$$Lambda"),
            ("com/example/Hidden/0x0000000800066840", "com.example.Hidden"),
            ("com/example/Hidden+0x0000000800066840", "com.example.Hidden"), ("com/example/App", "com.example.App"),
        ])
    func hiddenClasses(name: String, shown: String) {
        #expect(NettyClasses.javaName(name) == shown)
        #expect(NettyClasses.shortName(name) == shown.split(separator: ".").last.map(String.init))
    }

    @Test(
        "the version is in the name of Netty's own jar",
        arguments: [
            ("/app/lib/netty-common-4.2.7.Final.jar", "4.2.7.Final"), ("/netty-all-4.1.118.Final.jar", "4.1.118.Final"),
            ("/usr/share/java/netty-common.jar", nil), ("/app/app-1.2.3.jar", nil), ("", nil),
        ])
    func versions(path: String, version: String?) {
        #expect(NettyCopies.version(inPath: path) == version)
    }
}
