/// Numbers below a bound, one bit each, with one bit above for each 64 that has any, and so on: the next one is found in a few
/// steps however far it is.
struct NumberSet {
    /// The bits, then what of them is not empty, and so on up to one word.
    private var levels: [[UInt64]] = []

    init(count: Int) {
        var words = (count + 63) / 64
        while true {
            levels.append([UInt64](repeating: 0, count: words))
            if words <= 1 { return }
            words = (words + 63) / 64
        }
    }

    @inline(__always) func contains(_ number: Int) -> Bool { levels[0][number >> 6] >> UInt64(number & 63) & 1 == 1 }

    /// False where it was in the set.
    @discardableResult @inline(__always) mutating func insert(_ number: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(number & 63)
        let word = levels[0][number >> 6]
        if word & bit != 0 { return false }
        levels[0][number >> 6] = word | bit
        if word == 0 { insertAbove(number >> 6) }
        return true
    }

    private mutating func insertAbove(_ word: Int) {
        var number = word
        for level in levels.indices.dropFirst() {
            let before = levels[level][number >> 6]
            levels[level][number >> 6] = before | 1 << UInt64(number & 63)
            if before != 0 { return }
            number >>= 6
        }
    }

    /// Takes the 16 numbers from `first` on, a multiple of 16, out of the set; as bits, the first the lowest.
    mutating func take16(_ first: Int) -> UInt64 {
        let shift = UInt64(first & 63)
        let word = levels[0][first >> 6]
        let taken = word >> shift & 0xFFFF
        levels[0][first >> 6] = word & ~(0xFFFF << shift)
        var number = first >> 6
        var level = 0
        while levels[level][number] == 0, level + 1 < levels.count {
            level += 1
            levels[level][number >> 6] &= ~(1 << UInt64(number & 63))
            number >>= 6
        }
        return taken
    }

    /// The first number from `start` on; nil where there is none.
    func next(from start: Int) -> Int? {
        var number = start
        var level = 0
        // Up, until something is not behind ...
        while true {
            guard number >> 6 < levels[level].count else { return nil }
            let rest = levels[level][number >> 6] & ~0 << UInt64(number & 63)
            if rest != 0 {
                number = number & ~63 + rest.trailingZeroBitCount
                break
            }
            guard level + 1 < levels.count else { return nil }
            number = number >> 6 + 1
            level += 1
        }
        // ... and down again to the first there.
        while level > 0 {
            level -= 1
            number = number << 6 + levels[level][number].trailingZeroBitCount
        }
        return number
    }
}
