import Foundation
import TestSupport
import Testing

@testable import HPROF

/// Lengths that are wrong, segments that end anywhere, several dumps in one file.
@Suite("Records of heap dumps", .mayBlock) struct RecordTests {
    private func open(_ bytes: [UInt8]) throws -> Heap { try TemporaryFile.open(bytes) }

    private static let ids: [UInt64] = [0x1000, 0x1010, 0x1020, 0x1030]

    /// What a dump like the example holds, read by every way there is.
    private func contents(_ heap: Heap) -> [String] {
        var seen: [String] = heap.classes.map { "\($0.name) \($0.statics)" }
        for id in Self.ids {
            guard let object = heap.object(id) else { continue }
            seen.append("\(id): \(object.integer("x") ?? 0) \(object.reference("next") ?? 0)")
            seen.append("\(object.references) \(object.integers)")
        }
        heap.forEachObject { seen.append("\($0.id)") }
        return seen
    }

    /// The example's dump, its records apart: those before the heap, and the sub-records of the heap.
    private func example(_ idSize: Int) throws -> (before: [UInt8], heap: [UInt8], whole: [UInt8]) {
        let whole = DumpWriter.example(idSize: idSize).bytes
        var heap: [UInt8] = []
        var position = 31
        var before = 0
        while position < whole.count {
            let length = whole[position + 5..<position + 9].reduce(0) { $0 << 8 | Int($1) }
            if whole[position] == 0x1C {
                if before == 0 { before = position }
                heap += whole[position + 9..<position + 9 + length]
            }
            position += 9 + length
        }
        return (Array(whole[..<before]), heap, whole)
    }

    private func segment(_ body: some Collection<UInt8>, length: Int? = nil) -> [UInt8] {
        let claimed = UInt32(length ?? body.count)
        return [0x1C, 0, 0, 0, 0] + withUnsafeBytes(of: claimed.bigEndian) { Array($0) } + body
    }

    private let end: [UInt8] = [0x2C] + [UInt8](repeating: 0, count: 8)

    @Test("whatever length a segment claims, all of it is read", arguments: [4, 8])
    func falseLengths(idSize: Int) throws {
        let (before, body, whole) = try example(idSize)
        let expected = contents(try open(whole))
        for length in 0..<body.count + 20 {
            let heap = try open(before + segment(body, length: length) + end)
            #expect(contents(heap) == expected, "length \(length) of \(body.count)")
            #expect(heap.problems == [], "length \(length) of \(body.count)")
        }
    }

    @Test("a JVM that was killed leaves a segment of length 0: all that was written is read, and it is not whole")
    func killed() throws {
        let (before, body, whole) = try example(8)
        let heap = try open(before + segment(body, length: 0))
        #expect(contents(heap) == contents(try open(whole)))
        #expect(heap.problems.map(\.message) == ["the file ends without the record that ends a heap dump"])
    }

    @Test("segments that end inside sub-records, which go on in the next: all are read", arguments: [4, 8])
    func cutThrough(idSize: Int) throws {
        let (before, body, whole) = try example(idSize)
        let expected = contents(try open(whole))
        for cut in 1..<body.count {
            let heap = try open(before + segment(body[..<cut]) + segment(body[cut...]) + end)
            #expect(contents(heap) == expected, "cut at \(cut) of \(body.count)")
            #expect(heap.problems == [], "cut at \(cut)")
        }
    }

    @Test("an array that goes through many segments is read")
    func throughMany() throws {
        let (before, body, _) = try example(8)
        let dump = DumpWriter(idSize: 8)
        let numbers = (0..<1_000).flatMap { dump.big(Int64($0)) }
        let array = [0x23] + dump.id(0x2000) + dump.big(UInt32(0)) + dump.big(UInt32(1_000)) + [11] + numbers
        let all = body + array + [0x23] + dump.id(0x5000) + dump.big(UInt32(0)) + dump.big(UInt32(1)) + [8, 42]
        for size in [150, 800, 4_000] {
            let pieces = stride(from: 0, to: all.count, by: size).flatMap {
                segment(all[$0..<min($0 + size, all.count)])
            }
            let heap = try open(before + pieces + end)
            #expect(heap.problems == [], "segments of \(size)")
            #expect(heap.object(0x2000)?.integers == Array(0..<1_000), "segments of \(size)")
            #expect(heap.object(0x5000)?.integers == [42], "segments of \(size)")
            #expect(heap.objectCount == 6)
        }
    }

    @Test("a segment that lost its end: the others are read, and it is said")
    func lostEnd() throws {
        let (before, body, _) = try example(8)
        let array = DumpWriter.example(idSize: 8).id(0x1030)
        let last = try #require((0..<body.count - 8).last { Array(body[$0..<$0 + 8]) == array }) - 1
        let (first, second) = (body[..<last], body[last...])
        for lost in 1..<20 {
            let heap = try open(before + segment(first.dropLast(lost)) + segment(second) + end)
            #expect(heap.object(0x1030)?.integers == [3, -4], "\(lost) bytes lost")
            #expect(heap.object(0x1020) == nil, "\(lost) bytes lost")
            #expect(heap.problems.count == 1, "\(lost) bytes lost: \(heap.problems)")
        }
    }

    @Test("of several dumps in one file the last is read, and that is said")
    func severalDumps() throws {
        let (before, body, whole) = try example(8)
        var other = DumpWriter(idSize: 8, timestamp: 7)
        other.primitiveArray(0x9000, type: 8, count: 2, [1, 2])
        other.endSegment()
        other.end()
        let expected = contents(try open(whole))
        let files: [(bytes: [UInt8], count: Int)] = [
            // Files put together, whole ones and torn ones.
            (whole + whole, 2), (other.bytes + whole, 2), (whole + other.bytes + whole, 3),
            (other.bytes.dropLast(9) + whole, 2), (other.bytes.dropLast(10) + whole, 2), (whole.prefix(200) + whole, 2),
            // As the JDK's agent writes them, names once.
            (before + segment(body) + end + segment(body) + end, 2),
            (before + [0x0C] + segment(body).dropFirst() + [0x0C] + segment(body).dropFirst(), 2),
        ]
        for (number, file) in files.enumerated() {
            let heap = try open(file.bytes)
            #expect(contents(heap) == expected, "file \(number)")
            #expect(heap.objectCount == 4, "file \(number)")
            #expect(heap.problems == [], "file \(number)")
            #expect(heap.remarks.count == 1, "file \(number)")
            #expect(heap.remarks.first?.hasPrefix("The file holds \(file.count) heap dumps; this is the last") == true)
        }
        let torn = try open(whole + whole.dropLast(30))
        #expect(torn.remarks.count == 1 && !torn.problems.isEmpty)
        #expect(try open(whole).remarks == [])
    }

    @Test("a text like a dump's beginning in the heap is no other dump")
    func magicInHeap() throws {
        var dump = DumpWriter(idSize: 8)
        let text = Array("JAVA PROFILE 1.0.2\0".utf8) + [0, 0, 0, 8] + [UInt8](repeating: 0, count: 8) + [0x55]
        dump.primitiveArray(0x60, type: 8, count: text.count, text)
        dump.primitiveArray(0x80, type: 8, count: 1, [42])
        dump.endSegment()
        let heap = try open(Array(dump.bytes.dropLast(1)))
        #expect(heap.remarks == [])
        #expect(heap.object(0x60)?.count == text.count)
        #expect(!heap.problems.isEmpty)
    }

    @Test("a record of more than 4 GiB, whose length wrapped, is read to its end", arguments: [0, 9_000])
    func wrappedLength(extra: Int) throws {
        // Arrays of 1 GiB, all holes. With 0, what the length says is the end of the first, a small one.
        let path = NSTemporaryDirectory() + "heap-\(UUID().uuidString).hprof"
        let file = try #require(fopen(path, "w"))
        defer {
            fclose(file)
            unlink(path)
        }
        func write(_ bytes: [UInt8]) { fwrite(bytes, 1, bytes.count, file) }
        let dump = DumpWriter()
        write(dump.bytes)
        let head = 18
        let (small, large) = (100, (1 << 30) - head)
        // Four large ones take 4 GiB to the byte.
        let total = head + small + 4 * (head + large) + extra
        try #require(total > Int(UInt32.max))
        write(segment([], length: total & Int(UInt32.max)))
        for number in 0..<5 {
            let count = number == 0 ? small : number == 4 ? large + extra : large
            write(
                [0x23] + dump.id(0x10000 + UInt64(number) << 32) + dump.big(UInt32(0)) + dump.big(UInt32(count)) + [8])
            fseek(file, count, SEEK_CUR)
        }
        write(end)
        fflush(file)
        let heap = try Heap(path: path)
        #expect(heap.problems == [])
        #expect(heap.objectCount == 5)
        #expect(heap.object(0x10000 + 4 << 32)?.count == large + extra)
    }
}
