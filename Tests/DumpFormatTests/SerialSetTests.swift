import Testing

@testable import DumpFormat

@Suite("serial numbers as a set") struct SerialSetTests {
    @Test("holds what several threads put into it, each serial once")
    func threads() throws {
        // 0 is there twice.
        let numbers = (0..<100_000 as Range<UInt64>).map { $0 % 2 == 0 ? $0 << 40 : $0 } + [0, .max, .max - 1]
        let set = try SerialSet(count: numbers.count)
        let isNew = Counter()
        Workers.run(4) {
            for number in numbers where set.insert(number) { isNew.add() }
        }
        #expect(isNew.count == Set(numbers).count)
        for number in Set(numbers.prefix(1000) + [.max, .max - 1]) {
            #expect(!set.isMarked(number))
            #expect(set.mark(number))
            #expect(set.isMarked(number))
        }
        #expect(!set.mark(2))
        #expect(!set.isMarked(4_000))
    }

    @Test("of more serials than there is memory for is an error that says so", arguments: [1 << 45, .max] as [Int])
    func tooMany(count: Int) {
        let error = #expect(throws: DumpError.self) { _ = try SerialSet(count: count) }
        #expect(error?.kind == .tooLarge)
        #expect(error?.message.hasPrefix("comparing \(count) serial numbers needs ") == true)
    }

    @Test("verify goes on without it, and what needs it has not passed")
    func verifyWithout() throws {
        let snapshot = VerifyTests.arena()
        let slots = try #require(snapshot.slots)
        var checks = SlotChecks(snapshot, Layout(snapshot), .failure(DumpError(.tooLarge, path: "", "no memory")))
        checks.add(slots)
        let failed = checks.results { (slots.address, slots.capacity) }.filter { !$0.passed }
        #expect(failed.map(\.name) == ["serial numbers are unique"])
        #expect(failed.first?.detail == "not checked: no memory")
    }

    @Test("serials that are there twice are counted, though only some are kept")
    func manyTwice() throws {
        var snapshot = VerifyTests.arena()
        let count = 1_200_000
        var slots = Snapshot.SlotColumns()
        slots.count = count
        slots.serial = [UInt64](repeating: 5, count: count)
        slots.birth = [UInt64](repeating: 0, count: count)
        slots.address = slots.birth
        slots.requested = slots.birth
        slots.capacity = slots.birth
        slots.accessTime = slots.birth
        slots.sizeClass = [UInt16](repeating: 0, count: count)
        slots.arena = slots.sizeClass
        slots.site = [UInt32](repeating: 0, count: count)
        slots.owner = slots.site
        slots.accessSite = slots.site
        slots.state = [UInt8](repeating: Snapshot.SlotColumns.live, count: count)
        snapshot.slots = slots
        snapshot.references = nil
        let check = try #require(
            SnapshotInvariants.check(snapshot).first { $0.name == "serial numbers are unique" })
        #expect(check.detail.hasSuffix("; and \(count - 1 - 5) more"), "\(check.detail)")
    }

    private final class Counter: @unchecked Sendable {
        private let queue = WorkQueue(.max)
        func add() { _ = queue.take() }
        var count: Int { queue.take() ?? 0 }
    }
}
