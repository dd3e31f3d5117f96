internal import Glibc
internal import Synchronization

/// Serial numbers of millions of buffers as a set that several threads fill and ask at once: eight bytes for each of its
/// places, of which at most two thirds are taken, and a bit more for marks.
///
/// Open addressing with linear probing; a place is taken by one exchange, and never given up.
package final class SerialSet: @unchecked Sendable {
    /// Serial plus one; 0 is free.
    private let places: UnsafeMutablePointer<Atomic<UInt64>>
    private let marks: UnsafeMutablePointer<Atomic<UInt8>>
    private let mask: Int
    private let shift: UInt64
    /// The serial that has no number above it.
    private let hasLast = Atomic<Bool>(false)
    private let isLastMarked = Atomic<Bool>(false)

    /// Of a place and its mark.
    private static let placeBytes = 9
    /// A set of so many places is more than any machine has memory for.
    private static let mostLog: UInt64 = 48

    /// For at most `count` different serials. Throws where that is more than the machine, or the system, has memory for: the
    /// count is a file's.
    package init(count: Int) throws(DumpError) {
        let wanted = UInt64(max(0, count)) + UInt64(max(0, count)) / 2
        var log: UInt64 = 10
        while log < Self.mostLog, 1 << log < wanted { log += 1 }
        let capacity = 1 << Int(log)
        let bytes = capacity * Self.placeBytes
        let work = "comparing \(count) serial numbers"
        try requireMemory(UInt64(bytes), for: work, path: "")
        // Zeros are free places. Every access is to another page, so pages should be large.
        guard let base = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
            base != MAP_FAILED
        else {
            let reason = String(cString: strerror(errno))
            throw DumpError(.tooLarge, path: "", "\(work) needs \(bytes) bytes: \(reason); use a larger machine")
        }
        madvise(base, bytes, MADV_HUGEPAGE)
        places = base.bindMemory(to: Atomic<UInt64>.self, capacity: capacity)
        marks = (base + capacity * 8).bindMemory(to: Atomic<UInt8>.self, capacity: capacity)
        mask = capacity - 1
        shift = 64 - log
    }

    deinit { munmap(places, (mask + 1) * Self.placeBytes) }

    /// Fibonacci hashing: Knuth, "The Art of Computer Programming", volume 3, section 6.4.
    @inline(__always) private func start(_ key: UInt64) -> Int {
        Int(truncatingIfNeeded: (key &* 0x9E37_79B9_7F4A_7C15) >> shift)
    }

    /// False where it was there already.
    package func insert(_ serial: UInt64) -> Bool {
        if serial == .max { return !hasLast.exchange(true, ordering: .relaxed) }
        let key = serial + 1
        var place = start(key)
        while true {
            let found = places[place].compareExchange(expected: 0, desired: key, ordering: .relaxed)
            if found.exchanged { return true }
            if found.original == key { return false }
            place = (place + 1) & mask
        }
    }

    private func find(_ serial: UInt64) -> Int? {
        let key = serial + 1
        var place = start(key)
        while true {
            let found = places[place].load(ordering: .relaxed)
            if found == key { return place }
            if found == 0 { return nil }
            place = (place + 1) & mask
        }
    }

    /// Marks it if it is there, and says whether it is.
    package func mark(_ serial: UInt64) -> Bool {
        if serial == .max {
            guard hasLast.load(ordering: .relaxed) else { return false }
            isLastMarked.store(true, ordering: .relaxed)
            return true
        }
        guard let place = find(serial) else { return false }
        marks[place].store(1, ordering: .relaxed)
        return true
    }

    package func isMarked(_ serial: UInt64) -> Bool {
        if serial == .max { return isLastMarked.load(ordering: .relaxed) }
        return find(serial).map { marks[$0].load(ordering: .relaxed) == 1 } ?? false
    }
}
