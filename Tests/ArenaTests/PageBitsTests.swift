import Ledger
import SeededRandom
import Testing

@testable import Arena

@Suite("The pages of a chunk")
struct PageBitsTests {
    @Test("first fit and longest run agree with a plain array of booleans")
    func againstModel() {
        let memory = UnsafeMutableRawPointer.allocate(byteCount: SizeClasses.pagesPerChunk / 8, alignment: 8)
        defer { memory.deallocate() }
        let bits = PageBits(memory)
        bits.clear()
        var model = [Bool](repeating: false, count: SizeClasses.pagesPerChunk)
        var random = SeededGenerator(seed: testSeed)
        for _ in 0..<5000 {
            let count = Int.random(in: 1...(Bool.random(using: &random) ? 8 : 200), using: &random)
            let first = Int.random(in: 0...SizeClasses.pagesPerChunk - count, using: &random)
            let used = Bool.random(using: &random)
            if used { bits.set(first, count) } else { bits.reset(first, count) }
            for page in first..<first + count { model[page] = used }

            let wanted = Int.random(in: 1...64, using: &random)
            var longest = 0
            var fit: Int?
            var length = 0
            for page in 0..<model.count {
                length = model[page] ? 0 : length + 1
                longest = max(longest, length)
                if fit == nil, length == wanted { fit = page - wanted + 1 }
            }
            #expect(bits.longestFreeRun() == longest, "seed \(testSeed)")
            #expect(bits.firstFit(wanted) == fit, "seed \(testSeed)")
        }
    }
}
