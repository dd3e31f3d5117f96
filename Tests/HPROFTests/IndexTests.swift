import Glibc
import SeededRandom
import TestSupport
import Testing

@testable import HPROF

@Suite("The index of a heap dump's objects", .mayBlock) struct IndexTests {
    private func record(_ id: UInt64, at start: Int, bytes: Int = 33) -> SubRecord {
        var record = SubRecord()
        record.kind = .instance
        (record.id, record.start, record.end) = (id, start, start + bytes)
        return record
    }

    /// Identifiers of objects that lie one behind the other, in regions that are far apart.
    private func addresses(_ count: Int, _ unit: UInt64, _ random: inout SeededGenerator) -> [UInt64] {
        var ids: [UInt64] = []
        var next: UInt64 = (1 << 20) + unit
        for number in 0..<count {
            if number % 700 == 699 { next += random.next() % 1_000_000 * unit }
            ids.append(next)
            // Now and then a large one.
            next += (random.next() % 40 == 0 ? 1_000 : 1 + random.next() % 12) * unit
        }
        return ids
    }

    private func expect(_ index: ObjectIndex, finds records: [SubRecord], unit: UInt64, _ comment: String) {
        #expect(index.objectCount == records.count)
        let ids = Set(records.map(\.id))
        for record in records {
            let number = index.number(of: record.id)
            let block = number.map { index.starts[$0 / 16] }
            // Records of one size, one behind the other from the first of the block on.
            #expect(block.map { Int($0) + number! % 16 * 33 } == record.start, "\(comment): \(record.id)")
            for other in [record.id - 1, record.id + 1, record.id + unit] where !ids.contains(other) {
                #expect(index.number(of: other) == nil, "\(comment): \(other)")
            }
        }
        #expect(index.number(of: 0) == nil && index.number(of: .max) == nil)
    }

    @Test("objects in the order of addresses take about two bytes each", arguments: [1, 4, 8] as [UInt64])
    func ordered(unit: UInt64) throws {
        var random = SeededGenerator(seed: 7)
        let records = addresses(20_000, unit, &random).enumerated().map { record($1, at: 100 + $0 * 33) }
        // Regions need not be in order.
        let regions = [Array(records[7_000...]), Array(records[..<7_000])].map { region in
            region.enumerated().map { record($1.id, at: region[0].start + 1_000_000 + $0 * 33) }
        }
        for list in [records, regions[0] + regions[1]] {
            var ordered = OrderedIndex()
            for record in list { ordered.add(record) }
            let finished = ordered.finish()
            let index = try #require(finished)
            expect(index, finds: list, unit: unit, "unit \(unit)")
            #expect(Double(index.bytes) / 20_000 < 3.2)
        }
    }

    @Test("objects in no order take about six bytes each, sorted in many runs or in one", arguments: [100, 1 << 20])
    func scattered(runLength: Int) throws {
        var random = SeededGenerator(seed: 11)
        var ids = addresses(20_000, 8, &random)
        for place in ids.indices.reversed() { ids.swapAt(place, Int(random.next() % UInt64(place + 1))) }
        let records = ids.enumerated().map { record($1, at: 100 + $0 * 33) }
        var ordered = OrderedIndex()
        for record in records { ordered.add(record) }
        let none = ordered.finish()
        #expect(none == nil)
        var scattered = ScatteredIndex(ordered, path: "test", runLength: runLength)
        for record in records { scattered.add(record) }
        let index = try scattered.finish()
        expect(index, finds: records, unit: 8, "runs of \(runLength)")
        #expect(Double(index.bytes) / 20_000 < 7.5)
    }

    /// So many objects in no order, and the index of the first pass, which is none.
    private func scatteredRecords(_ count: Int) -> (records: [SubRecord], ordered: OrderedIndex) {
        var random = SeededGenerator(seed: 17)
        var ids = addresses(count, 8, &random)
        for place in ids.indices.reversed() { ids.swapAt(place, Int(random.next() % UInt64(place + 1))) }
        let records = ids.enumerated().map { record($1, at: 100 + $0 * 33) }
        var ordered = OrderedIndex()
        for record in records { ordered.add(record) }
        _ = ordered.finish()
        return (records, ordered)
    }

    @Test("without a temporary file it is sorted in memory, which is said, and ends where that would grow too much")
    func withoutTemporaryFile() throws {
        let (records, ordered) = scatteredRecords(5_000)
        func make(mostInMemory: Int) -> ScatteredIndex {
            ScatteredIndex(ordered, path: "test", runLength: 100, mostInMemory: mostInMemory) {
                path throws(HPROFError) in
                throw HPROFError(.io, path: path, "no room here")
            }
        }
        var scattered = make(mostInMemory: 5_000)
        for record in records { scattered.add(record) }
        let index = try scattered.finish()
        expect(index, finds: records, unit: 8, "in memory")
        #expect(scattered.shortage == "no room here")
        var bounded = make(mostInMemory: 4_999)
        for record in records { bounded.add(record) }
        let error = #expect(throws: HPROFError.self) { _ = try bounded.finish() }
        #expect(error?.message.contains("(no room here); set TMPDIR to a larger place") == true)
    }

    @Test("a temporary file that lost what was written to it is an error, and no index without these objects")
    func shortTemporaryFile() throws {
        let (records, ordered) = scatteredRecords(5_000)
        var file: UnnamedFile?
        var scattered = ScatteredIndex(ordered, path: "test", runLength: 100) { path throws(HPROFError) in
            let made = try UnnamedFile(for: path)
            file = made
            return made
        }
        for record in records { scattered.add(record) }
        let descriptor = try #require(file).descriptor
        #expect(scattered.shortage == nil)
        #expect(ftruncate(descriptor, 16 * 2_450) == 0)
        let error = #expect(throws: HPROFError.self) { _ = try scattered.finish() }
        #expect(error?.message.contains("cannot be read again: of 100 entries at 2400 there are 50") == true)
    }

    @Test("an identifier that is there twice is found once; one object and none are an index too")
    func odd() throws {
        let ids: [UInt64] = [16, 8, 16, 24]
        var ordered = OrderedIndex()
        for (number, id) in ids.enumerated() { ordered.add(record(id, at: number * 33)) }
        let none = ordered.finish()
        #expect(none == nil)
        var scattered = ScatteredIndex(ordered, path: "test")
        for (number, id) in ids.enumerated() { scattered.add(record(id, at: number * 33)) }
        let index = try scattered.finish()
        #expect([8, 16, 24].map { index.number(of: $0) } == [1, 0, 3])
        var one = OrderedIndex()
        one.add(record(.max, at: 5))
        let single = one.finish()
        #expect(single?.number(of: .max) == 0)
        var empty = OrderedIndex()
        let nothing = empty.finish()
        #expect(nothing?.number(of: 8) == nil && nothing?.numberCount == 0)
    }

    @Test("a set of numbers finds the next one, however far it is")
    func numberSet() {
        var random = SeededGenerator(seed: 3)
        for count in [1, 16, 64, 4_096, 300_000] {
            var set = NumberSet(count: count)
            var expected: Set<Int> = []
            for _ in 0..<200 {
                let number = Int(random.next() % UInt64(count))
                let isNew = set.insert(number)
                #expect(isNew == expected.insert(number).inserted)
            }
            for _ in 0..<200 {
                let place = Int(random.next() % UInt64(count))
                #expect(set.next(from: place) == expected.filter { $0 >= place }.min())
                #expect(set.contains(place) == expected.contains(place))
            }
            while let next = set.next(from: 0) {
                let first = next & ~15
                let taken = set.take16(first)
                let wanted = (0..<16).filter { expected.contains(first + $0) }
                #expect((0..<16).filter { taken >> UInt64($0) & 1 == 1 } == wanted)
                expected.subtract(wanted.map { first + $0 })
            }
            #expect(expected == [])
            #expect(set.next(from: count) == nil)
        }
    }
}
