import Foundation
import Glibc
import Ledger
import Testing

@testable import DumpFormat

@Suite("files that are not dumps, or not quite")
struct ForeignFileTests {
    private func refusal(_ bytes: [UInt8]) -> DumpError? {
        #expect(throws: DumpError.self) { try DumpFormatTests.read(bytes) }
    }

    @Test("what is not a dump is named for what it is")
    func notADump() throws {
        var zstd = try DumpParts(try encode(DamageTests.small))
        zstd.contents = [Array("JAVA PROFILE 1.0.2".utf8) + [UInt8](repeating: 0, count: 100)]
        let cases: [(bytes: [UInt8], words: String)] = [
            ([], "empty"),
            (Array("hello, world\n".utf8), "text"),
            (Array("JAVA PROFILE 1.0.2\0".utf8), "Java heap dump"),
            ([0x1F, 0x8B, 8, 0], "gzip"),
            ([1, 2, 3, 4, 0xFF], "01 02 03 04 ff"),
            (try zstd.assemble(), "a zstd file that holds a Java heap dump"),
        ]
        for (bytes, words) in cases {
            let error = try #require(refusal(bytes))
            #expect(error.kind == .notADump)
            #expect(error.message.contains(words), "\(error)")
        }
    }

    @Test("missing files, directories, pipes and forbidden files are told apart")
    func paths() throws {
        let missing = #expect(throws: DumpError.self) { try DumpReader.read(path: "/tmp/no-such-dump") }
        #expect(missing?.kind == .notFound)
        let directory = #expect(throws: DumpError.self) { try DumpReader.read(path: "/tmp") }
        #expect(directory?.message.contains("directory") == true)
        let device = #expect(throws: DumpError.self) { try DumpReader.read(path: "/dev/null") }
        #expect(device?.message.contains("regular file") == true)
        let file = TemporaryFile([1])
        chmod(file.path, 0)
        if geteuid() != 0 {
            let forbidden = #expect(throws: DumpError.self) { try DumpReader.read(path: file.path) }
            #expect(forbidden?.kind == .permissionDenied)
        }
    }

    @Test("an unknown section is skipped")
    func unknownSection() throws {
        var parts = try DumpParts(try encode(DamageTests.small))
        parts.contents.insert(DumpParts.block(section: 200, column: 1, payload: [1, 2, 3]), at: 10)
        let read = try DumpFormatTests.read(parts.assemble())
        #expect(read.completeness.isComplete, "\(read.completeness)")
        expectSame(read, DamageTests.small)
    }

    @Test("a newer minor version is read, a newer major version is refused")
    func versions() throws {
        var parts = try DumpParts(try encode(DamageTests.small))
        parts.contents[0][32 + 10] = 9
        _ = try DumpFormatTests.read(parts.assemble())
        parts.contents[0][32 + 8] = 3
        let error = try #require(try refusal(parts.assemble()))
        #expect(error.kind == .unsupportedVersion)
        #expect(error.message.contains("3.9"))
    }

    @Test("a dump of version 1, whose references name their owners outright, is read as before")
    func versionOne() throws {
        let path = try #require(Bundle.module.path(forResource: "Fixtures/version-1.dump", ofType: "zst"))
        #expect(DumpVerifier.verify(path: path).passed)
        let snapshot = try DumpReader.read(path: path, .everything)
        #expect(snapshot.completeness.isComplete, "\(snapshot.completeness)")
        #expect(snapshot.totals.counterBytes == 33_923_072)
        #expect(snapshot.totals.liveBuffers == 102)
        #expect(snapshot.totals.unreachableBuffers == 100)
        #expect(snapshot.freed.isEmpty && snapshot.payloads == nil)
        let (references, slots) = (try #require(snapshot.references), try #require(snapshot.slots))
        #expect(references.count == 2)
        #expect(references.referredBytes.isEmpty)
        for reference in 0..<references.count {
            #expect(slots.owner[Int(references.slotRow[reference])] == references.referrerOwner[reference])
            #expect(snapshot.owners[Int(references.referrerOwner[reference])].kind == .eventLoop)
        }
    }

    @Test("row counts that the bytes do not support are not believed")
    func hostileCounts() throws {
        let parts = try DumpParts(try encode(DamageTests.small))
        for column in UInt16(1)...12 {
            var changed = parts
            let block = try #require(changed.block(33, column))
            changed.changeHeader(block) { $0.rows = .max }
            let read = try DumpFormatTests.read(changed.assemble())
            #expect(!read.completeness.isComplete)
            #expect((read.slots?.count ?? 0) <= 12)
            changed.changeHeader(block) {
                $0.rows = 12
                $0.firstRow = .max - 5
            }
            #expect(try !DumpFormatTests.read(changed.assemble()).completeness.isComplete)
        }
        var changed = parts
        changed.changeHeader(try #require(changed.block(2, 1))) { $0.rows = .max }
        #expect(try refusal(changed.assemble())?.kind == .damaged)
    }

    @Test("a directory that announces other blocks than are there is caught")
    func lyingDirectory() throws {
        let parts = try DumpParts(try encode(DamageTests.small))
        let birth = try #require(parts.block(33, 2))
        let bytes = try parts.assemble { $0[birth].column = 3 }
        let read = try DumpFormatTests.read(bytes)
        #expect(!read.completeness.isComplete)
        #expect(read.slots?.count == 0)
    }
}
