import Testing

@testable import DumpFormat

@Suite("serial numbers as a set") struct SerialSetTests {
    @Test("holds what several threads put into it, each serial once")
    func threads() {
        // 0 is there twice.
        let numbers = (0..<100_000 as Range<UInt64>).map { $0 % 2 == 0 ? $0 << 40 : $0 } + [0, .max, .max - 1]
        let set = SerialSet(count: numbers.count)
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

    private final class Counter: @unchecked Sendable {
        private let queue = WorkQueue(.max)
        func add() { _ = queue.take() }
        var count: Int { queue.take() ?? 0 }
    }
}
