/// The rows of a table in the order of a column.
enum RowOrder {
    /// Least-significant-digit radix sort: linear, and only over the digits in which the keys differ.
    static func sorted(by keys: [UInt64]) -> [UInt32] {
        guard let first = keys.first else { return [] }
        let digitBits: UInt64 = 11
        let mask: UInt64 = 1 << digitBits - 1
        let varying = keys.reduce(0) { $0 | ($1 ^ first) }
        var rows = keys.indices.map { UInt32($0) }
        var scratch = rows
        var shift: UInt64 = 0
        while shift < 64 {
            defer { shift += digitBits }
            guard varying >> shift & mask != 0 else { continue }
            var starts = [Int](repeating: 0, count: Int(mask) + 2)
            for key in keys { starts[Int(key >> shift & mask) + 1] += 1 }
            for digit in 1..<starts.count { starts[digit] += starts[digit - 1] }
            for row in rows {
                let digit = Int(keys[Int(row)] >> shift & mask)
                scratch[starts[digit]] = row
                starts[digit] += 1
            }
            swap(&rows, &scratch)
        }
        return rows
    }
}
