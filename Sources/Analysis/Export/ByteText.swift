/// Text as bytes, with numbers written in place: a string, or even an array of digits, for each of a hundred million cells
/// would take most of the time.
struct ByteText: ~Copyable {
    private var base = UnsafeMutablePointer<UInt8>.allocate(capacity: 1 << 16)
    private var capacity = 1 << 16
    private var count = 0
    /// "00" to "99", the first digit in the lower byte; and the powers of ten that 64 bits can say. Bare memory, as every
    /// look would check a static array for being there, and its bounds.
    private let pairs = UnsafeMutablePointer<UInt16>.allocate(capacity: 100)
    private let powers = UnsafeMutablePointer<UInt64>.allocate(capacity: 20)

    init() {
        for number in 0..<100 as Range<UInt16> { pairs[Int(number)] = 48 + number / 10 + (48 + number % 10) << 8 }
        powers[0] = 1
        for exponent in 1..<20 { powers[exponent] = powers[exponent - 1] * 10 }
    }

    deinit {
        base.deallocate()
        pairs.deallocate()
        powers.deallocate()
    }

    mutating func removeAll() { count = 0 }

    func withBytes(_ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
        try body(UnsafeRawBufferPointer(start: base, count: count))
    }

    /// Makes room for so many bytes more, which may then be appended without asking.
    @inline(__always) mutating func reserve(_ bytes: Int) { if count + bytes > capacity { grow(bytes) } }

    private mutating func grow(_ bytes: Int) {
        capacity = max(capacity * 2, count + bytes)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        larger.update(from: base, count: count)
        base.deallocate()
        base = larger
    }

    @inline(__always) mutating func append(_ more: [UInt8]) {
        reserve(more.count)
        appendReserved(more)
    }

    /// Bytes that a short text is copied with at once, and room must be for.
    static let padding = 32
    static let numberBytes = 20

    @inline(__always) mutating func appendReserved(_ more: [UInt8]) {
        more.withUnsafeBufferPointer { source in
            if let start = source.baseAddress { (base + count).update(from: start, count: source.count) }
        }
        count += more.count
    }

    @inline(__always) mutating func appendReserved(_ more: Lead) {
        UnsafeMutableRawPointer(base + count).storeBytes(of: more.bytes, as: SIMD32<UInt8>.self)
        count += more.count
    }

    /// At most `padding` bytes, to be copied without a loop.
    struct Lead {
        fileprivate var bytes = SIMD32<UInt8>()
        let count: Int

        /// Nil where it is longer.
        init?(_ text: [UInt8]) {
            guard text.count <= ByteText.padding else { return nil }
            for (place, byte) in text.enumerated() { bytes[place] = byte }
            count = text.count
        }
    }

    @inline(__always) mutating func appendReserved(_ number: Int64) {
        var left = number.magnitude
        var place = base + count
        if number < 0 {
            place.pointee = UInt8(ascii: "-")
            place += 1
        }
        let digits = digits(left)
        var last = UnsafeMutableRawPointer(place + digits)
        while left >= 100 {
            let (rest, pair) = left.quotientAndRemainder(dividingBy: 100)
            left = rest
            last -= 2
            last.storeBytes(of: pairs[Int(pair)].littleEndian, as: UInt16.self)
        }
        if left >= 10 {
            UnsafeMutableRawPointer(place).storeBytes(of: pairs[Int(left)].littleEndian, as: UInt16.self)
        } else {
            place.pointee = 48 + UInt8(truncatingIfNeeded: left)
        }
        count = place - base + digits
    }

    /// How many digits a number has: log10 from log2, off by one at most (Warren, "Hacker's Delight", section 11-4).
    @inline(__always) private func digits(_ number: UInt64) -> Int {
        if number < 10 { return 1 }
        let guess = ((64 - number.leadingZeroBitCount) * 1233) >> 12
        return guess + (number >= powers[guess] ? 1 : 0)
    }
}
