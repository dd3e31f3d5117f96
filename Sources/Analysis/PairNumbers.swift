/// Numbers for pairs of ids in the order they come up, so that what is counted for a pair can lie in an array. Millions of
/// rows ask, and there are far fewer pairs: a table of its own, with linear probing, costs a third of a dictionary.
struct PairNumbers {
    /// By number: the pair, `first << 32 | second`.
    private(set) var pairs: [UInt64] = []
    /// Number plus one by place; 0 is free.
    private var places: [UInt32]
    private var mask: Int
    /// What leaves as many high bits of a hash as places have numbers.
    private var shift: UInt64
    /// Neighbouring rows are often alike.
    private var last: (pair: UInt64, number: Int)?

    init() {
        places = [UInt32](repeating: 0, count: 1 << 10)
        mask = places.count - 1
        shift = 54
    }

    static func pair(_ first: UInt32, _ second: UInt32) -> UInt64 { UInt64(first) << 32 | UInt64(second) }

    mutating func number(of pair: UInt64) -> Int {
        if let last, last.pair == pair { return last.number }
        var place = start(pair)
        while places[place] != 0 {
            let number = Int(places[place]) - 1
            if pairs[number] == pair {
                last = (pair, number)
                return number
            }
            place = (place + 1) & mask
        }
        pairs.append(pair)
        places[place] = UInt32(pairs.count)
        if pairs.count * 2 > places.count { grow() }
        last = (pair, pairs.count - 1)
        return pairs.count - 1
    }

    /// Numbers in the order of their pairs.
    var inOrder: [Int] { pairs.indices.sorted { pairs[$0] < pairs[$1] } }

    /// Fibonacci hashing: Knuth, "The Art of Computer Programming", volume 3, section 6.4. The high bits, because the low
    /// ones know nothing of the first of the pair.
    private func start(_ pair: UInt64) -> Int { Int((pair &* 0x9E37_79B9_7F4A_7C15) >> shift) }

    /// The farthest that any pair is from where it was looked for first.
    var longestSearch: Int {
        places.indices.filter { places[$0] != 0 }.map { ($0 - start(pairs[Int(places[$0]) - 1])) & mask }.max() ?? 0
    }

    private mutating func grow() {
        places = [UInt32](repeating: 0, count: places.count * 2)
        mask = places.count - 1
        shift -= 1
        for (number, pair) in pairs.enumerated() {
            var place = start(pair)
            while places[place] != 0 { place = (place + 1) & mask }
            places[place] = UInt32(number + 1)
        }
    }
}
