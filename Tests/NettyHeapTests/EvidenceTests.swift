import Analysis
import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import NettyHeap

/// Absence is proof only in a whole file with whole roots.
@Suite("Evidence of heap dumps", .mayBlock) struct EvidenceTests {
    private func read(_ bytes: Data) throws -> Snapshot { try NettyHeap.read(bytes, referrers: false).snapshot }

    @Test(
        "what is lost is proved in whole dumps of a JVM's own",
        arguments: [Fixture.leak41, .leak42, .pooled4196, .adaptiveAll])
    func proved(fixture: Fixture) throws {
        let answer = Answer(try fixture.read().snapshot)
        #expect(answer.leak == "proved" && answer.evidence == "proved" && answer.reason.isEmpty)
    }

    // MARK: Torn files

    /// The first 6,985,517 bytes: the allocator is whole, and the buffers that the program keeps are behind it.
    private func torn() throws -> Data { try Fixture.kept41.bytes().prefix(6_985_517) }

    @Test("a torn dump of a program that loses nothing: no accusation, no proof, exit code 4")
    func tornKept() throws {
        let snapshot = try read(try torn())
        let answer = Answer(snapshot)
        #expect(answer.leak == "unknown" && answer.evidence == "cannot-say")
        #expect(!answer.claimsProof)
        #expect(answer.words.contains("Cannot say: no ByteBuf was found for"))
        #expect(answer.words.contains("take another dump"))
        try withHeapDump(try torn()) { path in
            for condition in ["suspects > 0", "suspects = 0", "unreachable > 0", "use > 0%"] {
                let outcome = try Program.run("leaks", "--fail-on", condition, path)
                #expect(outcome.status == 4, "\(condition): \(outcome.errors)")
            }
            for command in ["summary", "leaks", "sites", "owners", "buffers", "chunks", "verify", "histogram"] {
                let outcome = try Program.run(command, path)
                #expect(outcome.status == 4, "\(command)")
                #expect(!outcome.text.contains("proved"), "\(command)")
            }
            let page = try Program.run("report", "-o", "-", path)
            #expect(page.status == 4)
            #expect(!page.text.contains("proved") && page.text.contains("Cannot say: "))
        }
    }

    @Test(
        "cut off between any two records, or sub-records, a dump with leaks proves none",
        arguments: [Fixture.pooled4196, .adaptive])
    func tornAnywhere(fixture: Fixture) throws {
        let bytes = try fixture.bytes()
        let places = HeapDumpPlaces(bytes)
        let segments = places.records.filter { bytes[$0] == 0x1C }
        let first = try #require(segments.first)
        // Before the first segment there is no object; behind, cuts are between records, or between the parts of one.
        var cuts = places.records.filter { $0 > first }
        cuts += stride(from: 0, to: places.parts.count, by: places.parts.count / 60).map { places.parts[$0] }
        cuts += [bytes.count - 1, bytes.count - 8]
        for cut in cuts {
            do {
                let snapshot = try read(bytes.prefix(cut))
                #expect(!snapshot.completeness.isComplete, "cut at \(cut)")
                #expect(!Answer(snapshot).claimsProof, "cut at \(cut)")
            } catch let error as NettyHeap.Failure {
                #expect("\(error)".contains("damaged"), "cut at \(cut): \(error)")
            }
        }
    }

    @Test(
        "without a segment from its middle a file that has its end proves nothing",
        arguments: [Fixture.pooled4196, .adaptive, .leak41, .jdk17Of32Bits, .jdk28Virtual])
    func missingSegment(fixture: Fixture) throws {
        let bytes = try fixture.bytes()
        let records = HeapDumpPlaces(bytes).records + [bytes.count]
        let segments = zip(records, records.dropFirst()).filter { bytes[bytes.startIndex + $0.0] == 0x1C }
        #expect(segments.count > 2)
        for (start, end) in segments {
            var rest = bytes
            rest.removeSubrange(bytes.startIndex + start..<bytes.startIndex + end)
            do {
                let snapshot = try read(rest)
                #expect(!snapshot.completeness.isComplete, "without \(start)..<\(end)")
                let answer = Answer(snapshot)
                #expect(!answer.claimsProof && answer.evidence == "cannot-say", "without \(start)..<\(end)")
            } catch let error as NettyHeap.Failure {
                #expect(error.isDamage, "without \(start)..<\(end): \(error)")
            }
        }
    }

    // MARK: Roots

    /// The same dump with roots of one kind named as another, as long and as good for what they lead to.
    private func renaming(_ kind: UInt8, to other: UInt8, _ fixture: Fixture) throws -> Data {
        var bytes = try fixture.bytes()
        for place in HeapDumpPlaces(bytes).roots[kind] ?? [] { bytes[bytes.startIndex + place] = other }
        return bytes
    }

    @Test(
        "a dump without a kind of roots that every JVM's own has proves nothing, and says which",
        arguments: [(UInt8(0x01), UInt8(0x02), "JNI_GLOBAL"), (0x03, 0x02, "JAVA_FRAME"), (0x05, 0x07, "STICKY_CLASS")])
    func rootKinds(kind: UInt8, other: UInt8, name: String) throws {
        let answer = Answer(try read(try renaming(kind, to: other, .pooled4196)))
        #expect(answer.leak == "likely" && answer.evidence == "likely")
        #expect(answer.reason.contains("no roots of the kind \(name)"))
        #expect(!answer.claimsProof)
        #expect(answer.words.contains("a leak is likely, and not proved, because"))
    }

    @Test("a ByteBuf that no root leads to is garbage where all roots are there, and else nobody knows")
    func unrooted() throws {
        let whole = try Fixture.pooled4196All.read().snapshot
        let blind = try read(try renaming(0x03, to: 0x02, .pooled4196All))
        #expect(whole.header.unjudgedBuffers == 0)
        // 66 of them are garbage; some of these have a huge chunk, or one that is gone.
        #expect(blind.header.unjudgedBuffers > 50)
        #expect(
            blind.header.unjudgedBuffers + (blind.totals.unreachableBuffers ?? 0)
                >= (whole.totals.unreachableBuffers ?? 0) - 2)
        let references = try #require(blind.references)
        #expect(references.referrerKind.count { $0 == 13 } == Int(blind.header.unjudgedBuffers))
    }

    @Test("buffers on the stacks of virtual threads, which JDK 21 does not dump, are not called lost")
    func virtualThreads() throws {
        let snapshot = try Fixture.virtualThreads.read().snapshot
        #expect(snapshot.totals.unreachableBuffers == 0)
        #expect(snapshot.header.unjudgedBuffers == 50)
        let answer = Answer(snapshot)
        #expect(answer.leak == "unknown" && answer.evidence == "cannot-say")
        #expect(answer.reason.contains("lacks the stacks of 50 of 50 virtual threads"))
        #expect(!answer.claimsProof)
        let dump = try Fixture.virtualThreads.path
        #expect(try Program.run("leaks", "--fail-on", "suspects > 0", dump).status == 1)
        #expect(try Program.run("summary", "--fail-on", "unreachable > 0", dump).status == 1)
        #expect(try Program.run("summary", "--fail-on", "unreachable > 50", dump).status == 0)
        #expect(try Program.run("verify", dump).status == 0)
    }
}
