import HPROF
import TestSupport
import Testing

@Suite("Java heap dumps", .mayBlock) struct HeapTests {
    private func open(_ bytes: [UInt8]) throws -> Heap { try TemporaryFile.open(bytes) }

    @Test("identifiers of 4 and of 8 bytes read the same", arguments: [4, 8])
    func identifiers(size: Int) throws {
        let heap = try open(DumpWriter.example(idSize: size).bytes)
        #expect(heap.idSize == size)
        #expect(heap.timestampMilliseconds == 1_795_429_276_609)
        #expect(heap.problems == [])
        #expect(heap.classes.map(\.name) == ["a/Base", "a/Derived"])
        #expect(heap.classes[0].statics["LIMIT"] == .integer(-5))
        #expect(heap.classes[1].superclass == 0)
        #expect(heap.objectCount == 4)
        let base = try #require(heap.object(0x1000))
        #expect(base.className == "a/Base")
        #expect(base.integer("x") == -7)
        #expect(base.reference("next") == 0x1010)
        #expect(base.value("nothing") == nil)
        #expect(heap.object(0x1020)?.references == [0x1000, 0, 0x1010])
        #expect(heap.object(0x1030)?.integers == [3, -4])
        #expect(heap.object(0x1031) == nil)
        #expect(heap.object(0) == nil)
    }

    @Test("a field of a subclass comes first and hides its namesake; null is no object")
    func inheritance() throws {
        let heap = try open(DumpWriter.example(idSize: 8).bytes)
        let derived = try #require(heap.object(0x1000)?.object("next"))
        #expect(derived.integer("y") == 1 << 40)
        #expect(derived.integer("x") == -2)
        #expect(derived.object("next") == nil)
        var seen: [UInt64] = []
        heap.instances(of: [[1]])[0].forEach { seen.append($0.id) }
        #expect(seen == [0x1010])
        var referrers: [UInt64] = []
        heap.forEachReferrer(of: [0x1010]) { referrer, _ in referrers.append(referrer.id) }
        #expect(referrers == [0x1000, 0x1020])
        #expect(heap.object(0x1000)?.fieldName(referringTo: 0x1010) == "next")
    }

    @Test("every kind of root and of Android's records is passed over")
    func oddRecords() throws {
        for size in [4, 8] {
            var dump = DumpWriter(idSize: size, version: "1.0.3")
            let id = dump.id(0x77)
            let number = dump.big(UInt32(1))
            dump.record(0x03, [1, 2, 3])
            dump.record(0x0E, [])
            for (tag, rest) in [
                (0x01, id), (0x02, number + number), (0x03, number + number), (0x04, number), (0x05, []),
                (0x06, number), (0x07, []), (0x08, number + number), (0xFF, []), (0x89, []), (0x8A, []), (0x8B, []),
                (0x8C, []), (0x8D, []), (0x8E, number + number), (0x90, []),
            ] as [(UInt8, [UInt8])] { dump.sub(tag, id + rest) }
            dump.sub(0xFE, number + id)
            dump.sub(0xC3, dump.id(0x50) + number + dump.big(UInt32(1 << 30)) + [8])
            dump.primitiveArray(0x60, type: 8, count: 1, [42])
            dump.endSegment(tag: 0x0C)
            dump.end()
            let heap = try open(dump.bytes)
            #expect(heap.problems == [])
            #expect(heap.threads.map(\.id) == [0x77])
            #expect(heap.roots.count == 14)
            #expect(heap.object(0x60)?.integers == [42])
        }
    }

    @Test("a heap dump record without a length ends with the file")
    func pipedDump() throws {
        var dump = DumpWriter()
        dump.primitiveArray(0x60, type: 8, count: 1, [42])
        dump.endSegment(tag: 0x0C, length: 0)
        let heap = try open(dump.bytes)
        #expect(heap.problems == [])
        #expect(heap.object(0x60)?.integers == [42])
    }

    @Test("objects are found in whatever order they were written", arguments: [1, 7, 1_000_003])
    func order(step: UInt64) throws {
        var dump = DumpWriter()
        let count: UInt64 = 1000
        for index in 0..<count {
            let number = 0x10000 + (index &* step % count) * 16
            dump.primitiveArray(number, type: 11, count: 1, dump.big(number))
            if index % 300 == 299 { dump.endSegment() }
        }
        dump.endSegment()
        dump.end()
        let heap = try open(dump.bytes)
        #expect(heap.objectCount == 1000)
        for index in 0..<count {
            let number = 0x10000 + index * 16
            #expect(heap.object(number)?.integers == [Int64(number)])
            #expect(heap.object(number + 8) == nil)
        }
    }

    @Test("gzip, with several members, and zstd, with several frames, read like the plain file")
    func compressed() throws {
        let bytes = DumpWriter.example(idSize: 8).bytes
        let middle = bytes.count / 2
        let parts = [Array(bytes[..<middle]), Array(bytes[middle...])]
        let gzip = try parts.flatMap(Packed.gzip)
        for packed in [gzip, parts.flatMap(Packed.zstd)] {
            let file = try TemporaryFile(packed)
            #expect(withExtendedLifetime(file) { Heap.recognizes(path: file.path) })
            let heap = try open(packed)
            #expect(heap.problems == [])
            #expect(heap.byteCount == bytes.count)
            #expect(heap.object(0x1000)?.integer("x") == -7)
        }
    }

    @Test("a compressed dump that is cut off is read as far as it goes")
    func cutOffCompressed() throws {
        let bytes = DumpWriter.example(idSize: 8).bytes
        let cut = Packed.zstd(bytes) + Packed.zstd(bytes).dropLast(8)
        let heap = try open(cut)
        #expect(heap.problems.contains { $0.message.contains("cut off") })
        #expect(heap.object(0x1000) != nil)
        #expect(throws: HPROFError.self) { try open(Array(Packed.gzip(bytes).prefix(12))) }
    }

    @Test("what is no heap dump is refused, and said why")
    func foreign() throws {
        let foreign: [(bytes: [UInt8], kind: HPROFError.Kind)] = [
            ([], .notAHeapDump), (Array("hello".utf8), .notAHeapDump),
            (Array("JAVA PROFILE 1.0.2".utf8), .damaged), (Array("JAVA PROFILE 1.0.2\0".utf8), .damaged),
            (Array("JAVA PROFILE 1.0.1, created Fri Nov 27 10:00:00 2026\n".utf8), .unsupported),
            (DumpWriter(idSize: 8).bytes.prefix(19) + [0, 0, 0, 2] + [UInt8](repeating: 0, count: 8), .unsupported),
            (Packed.zstd(Array("hello".utf8)), .notAHeapDump), ([0x1F, 0x8B, 8, 0], .damaged),
        ]
        for (bytes, kind) in foreign {
            #expect("\(bytes.prefix(24))") {
                _ = try open(bytes)
            } throws: { ($0 as? HPROFError)?.kind == kind }
        }
        #expect(throws: HPROFError.self) { try Heap(path: "/nonexistent") }
    }

    @Test("cut off anywhere, a dump says where, and gives what was before")
    func truncation() throws {
        let bytes = DumpWriter.example(idSize: 8).bytes
        for length in 31..<bytes.count {
            let heap = try open(Array(bytes[..<length]))
            #expect(!heap.problems.isEmpty, "cut at \(length)")
            for place in [0x1000, 0x1010, 0x1020, 0x1030] as [UInt64] { _ = heap.object(place)?.references }
        }
    }

    @Test("no flipped bit makes it trap")
    func bitFlips() throws {
        for size in [4, 8] {
            let bytes = DumpWriter.example(idSize: size).bytes
            for bit in stride(from: 0, to: bytes.count * 8, by: 5) {
                var damaged = bytes
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                guard let heap = try? TemporaryFile.open(damaged) else { continue }
                heap.instances(of: [Set(heap.classes.indices)])[0].forEach { object in
                    for field in ["x", "y", "next"] { _ = object.object(field)?.integers }
                }
                heap.forEachReferrer(of: [0x1010]) { _, _ in }
            }
        }
    }
}
