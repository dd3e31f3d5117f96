internal import Glibc
internal import Synchronization

/// Threads for the parts of a read that are independent of each other. Plain POSIX threads: the analyzer starts too
/// often and runs too shortly for a pool to pay.
package enum Workers {
    /// Runs `body` on `count` threads at once, the calling one among them, and returns when all have.
    package static func run(_ count: Int, _ body: @escaping @Sendable () -> Void) {
        // Short of threads, the calling one does the work alone.
        let threads = (1..<max(1, count)).compactMap { _ in start(body) }
        body()
        for thread in threads { pthread_join(thread, nil) }
    }

    /// Runs `body` on the calling thread and `other` beside it, and returns when both have ended.
    package static func run<T>(beside other: @escaping @Sendable () -> Void, _ body: () throws -> T) rethrows -> T {
        let thread = start(other)
        defer { if let thread { pthread_join(thread, nil) } else { other() } }
        return try body()
    }

    /// Nil where there is no thread to be had.
    private static func start(_ body: @escaping @Sendable () -> Void) -> pthread_t? {
        var thread = pthread_t()
        let task = Unmanaged.passRetained(Task(body))
        let failed = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Task>.fromOpaque(argument!).takeRetainedValue().body()
                return nil
            }, task.toOpaque())
        if failed != 0 { task.release() }
        return failed == 0 ? thread : nil
    }

    private final class Task: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
}

/// Hands each of `0..<count` to exactly one of the threads that ask.
package final class WorkQueue: Sendable {
    private let next = Atomic<Int>(0)
    private let count: Int

    package init(_ count: Int) { self.count = count }

    package func take() -> Int? {
        let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
        return index < count ? index : nil
    }
}

/// Something that one thread found and all should know.
final class Flag: Sendable {
    private let value = Atomic<Bool>(false)

    var isSet: Bool { value.load(ordering: .relaxed) }
    func set() { value.store(true, ordering: .relaxed) }
}

/// Bytes of memory the machine has: no file may make a reader allocate more.
package func physicalMemory() -> UInt64 {
    UInt64(max(0, sysconf(Int32(_SC_PHYS_PAGES)))) * UInt64(max(0, sysconf(Int32(_SC_PAGESIZE))))
}

/// Throws where something would take more memory than the machine has; `work` is what that is.
func requireMemory(
    _ bytes: UInt64, for work: @autoclosure () -> String, path: String, of limit: UInt64 = physicalMemory()
) throws(DumpError) {
    if bytes > limit {
        throw DumpError(
            .tooLarge, path: path,
            "\(work()) needs \(bytes) bytes and this machine has \(limit); use a larger one")
    }
}
