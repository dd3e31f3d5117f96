import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("Numbers for pairs", .mayBlock)
struct PairNumbersTests {
    @Test("a pair has one number, in the order the pairs came up")
    func numbers() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        var numbers = PairNumbers()
        var known: [UInt64: Int] = [:]
        for _ in 0..<20_000 {
            let pair = PairNumbers.pair(.random(in: 0..<900, using: &random), .random(in: 0..<9, using: &random))
            let expected = known[pair] ?? known.count
            known[pair] = expected
            #expect(numbers.number(of: pair) == expected, "seed \(seed)")
        }
        #expect(numbers.pairs.count == known.count)
        #expect(numbers.inOrder.map { numbers.pairs[$0] } == known.keys.sorted())
    }

    @Test("ids as they are, one after the other, are found with few looks", arguments: [true, false])
    func searches(ownersVary: Bool) {
        var numbers = PairNumbers()
        for id in 0..<100_000 as Range<UInt32> {
            for other in 0..<5 as Range<UInt32> {
                _ = numbers.number(of: ownersVary ? PairNumbers.pair(id, other) : PairNumbers.pair(other, id))
            }
        }
        #expect(numbers.pairs.count == 500_000)
        #expect(numbers.longestSearch < 64)
    }
}
