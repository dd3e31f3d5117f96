import CArena
import Glibc

/// What the operating system is asked for: address space, memory in it, and locks. Nothing else here calls it.
enum OS {
    /// Reserves `byteCount` bytes of address space without memory behind them. Nil: errno says why.
    static func reserve(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        let memory = mmap(nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        return memory == MAP_FAILED ? nil : memory
    }

    /// Makes reserved pages usable; the kernel backs them as they are touched. False: errno says why.
    static func commit(_ start: UnsafeMutableRawPointer, _ byteCount: Int) -> Bool {
        mprotect(start, byteCount, PROT_READ | PROT_WRITE) == 0
    }

    static let hugePage = 2 << 20

    /// The address of the first huge page's end at or behind `start + byteCount`.
    static func hugePageEnd(of start: UnsafeMutableRawPointer, _ byteCount: Int) -> UInt {
        (UInt(bitPattern: start) + UInt(byteCount) + UInt(hugePage - 1)) & ~UInt(hugePage - 1)
    }

    /// Asks the kernel to back the huge pages that lie wholly in this range by one page each. It may decline.
    static func preferHugePages(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        let mask = UInt(hugePage - 1)
        let first = (UInt(bitPattern: start) + mask) & ~mask
        let end = (UInt(bitPattern: start) + UInt(byteCount)) & ~mask
        guard first < end, let memory = UnsafeMutableRawPointer(bitPattern: first) else { return }
        madvise(memory, Int(end - first), MADV_HUGEPAGE)
    }

    /// Gives the memory back and keeps the address space.
    static func decommit(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        let memory = mmap(
            start, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
        precondition(memory == start, "the kernel refused to take back memory: errno \(errno)")
    }

    /// Gives the memory behind usable pages back; they read as zeros when they are touched again.
    static func discard(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        let result = madvise(start, byteCount, MADV_DONTNEED)
        precondition(result == 0, "the kernel refused to take back memory: errno \(errno)")
    }

    static func release(_ start: UnsafeMutableRawPointer, _ byteCount: Int) {
        munmap(start, byteCount)
    }

    /// Memory that is there at once, no page of it still to be faulted in; or nil.
    static func map(_ byteCount: Int) -> UnsafeMutableRawPointer? {
        let memory = mmap(
            nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)
        return memory == MAP_FAILED ? nil : memory
    }

    /// Memory that is backed as it is touched: a file's, or with nil the process's own. Nil: errno says why.
    static func map(_ byteCount: Int, of file: Int32?) -> UnsafeMutableRawPointer? {
        let kind = file == nil ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED
        let memory = mmap(nil, byteCount, PROT_READ | PROT_WRITE, kind | MAP_NORESERVE, file ?? -1, 0)
        return memory == MAP_FAILED ? nil : memory
    }

    /// Nanoseconds since 1970-01-01 UTC.
    static func wallTime() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(clamping: now.tv_sec) &* 1_000_000_000 &+ UInt64(now.tv_nsec)
    }
}

/// A plain mutex. (`Synchronization.Mutex` hides from ThreadSanitizer what it protects.)
final class Lock: @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>

    init() {
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    func withLock<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    /// What who must not wait for a thread that hangs gives one that does not.
    private static let momentNanoseconds: Int64 = 50_000_000

    /// - Returns: false if it does not become free in a moment.
    func lockInAMoment() -> Bool { arena_lock_within(mutex, Self.momentNanoseconds) == 0 }

    func lock() { pthread_mutex_lock(mutex) }
    func unlock() { pthread_mutex_unlock(mutex) }
}
