import Ledger

/// The pages of one chunk as 2048 bits, set where a page is used. Neighbouring free runs coalesce by being
/// neighbouring zeros.
struct PageBits {
    private static let words = SizeClasses.pagesPerChunk / 64
    private let bits: UnsafeMutablePointer<UInt64>

    init(_ memory: UnsafeMutableRawPointer) { bits = memory.assumingMemoryBound(to: UInt64.self) }

    func clear() { bits.update(repeating: 0, count: Self.words) }

    func isUsed(_ page: Int) -> Bool { bits[page >> 6] >> UInt64(page & 63) & 1 == 1 }

    func set(_ first: Int, _ count: Int) { apply(first, count) { $0 |= $1 } }

    func reset(_ first: Int, _ count: Int) { apply(first, count) { $0 &= ~$1 } }

    private func apply(_ first: Int, _ count: Int, _ change: (inout UInt64, UInt64) -> Void) {
        var page = first
        let end = first + count
        while page < end {
            let low = page & 63
            let length = min(64 - low, end - page)
            let ones: UInt64 = length == 64 ? ~0 : (1 << UInt64(length)) - 1
            let mask = ones << UInt64(low)
            change(&bits[page >> 6], mask)
            page += length
        }
    }

    func isFree(_ first: Int, _ count: Int) -> Bool { next(from: first, used: true) >= first + count }

    /// First page of the lowest free run of at least `count` pages.
    func firstFit(_ count: Int) -> Int? {
        var found: Int?
        forEachFreeRun { first, length in
            guard length >= count else { return true }
            found = first
            return false
        }
        return found
    }

    /// Length of the longest free run.
    func longestFreeRun() -> Int {
        var longest = 0
        forEachFreeRun { _, length in
            longest = max(longest, length)
            return true
        }
        return longest
    }

    /// Calls `body` with (first page, length) of each free run, in order, until it returns false.
    @inline(__always)
    func forEachFreeRun(_ body: (Int, Int) -> Bool) {
        var page = next(from: 0, used: false)
        while page < SizeClasses.pagesPerChunk {
            let end = next(from: page, used: true)
            if !body(page, end - page) { return }
            page = next(from: end, used: false)
        }
    }

    /// The first page at or after `page` that is used (or free), or the number of pages.
    @inline(__always)
    private func next(from page: Int, used: Bool) -> Int {
        var word = page >> 6
        guard word < Self.words else { return SizeClasses.pagesPerChunk }
        let flip: UInt64 = used ? 0 : ~0
        var value = (bits[word] ^ flip) & (~0 << UInt64(page & 63))
        while value == 0 {
            word += 1
            if word == Self.words { return SizeClasses.pagesPerChunk }
            value = bits[word] ^ flip
        }
        return (word << 6) + value.trailingZeroBitCount
    }
}
