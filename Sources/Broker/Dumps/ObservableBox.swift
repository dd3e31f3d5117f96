import CArena
import Glibc
import Synchronization

/// A value behind a lock, which an observer need not wait for: a loop that hangs while it has the lock must not make the
/// observer hang too.
final class ObservableBox<Value>: @unchecked Sendable {
    private var value: Value
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)

    /// How long an observer waits for somebody who is busy with the value, and does not hang.
    private static var patienceNanoseconds: Int64 { 50_000_000 }

    init(_ value: Value) {
        self.value = value
        mutex.initialize(to: pthread_mutex_t())
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
    }

    func withLockedValue<Result>(_ body: (inout Value) throws -> Result) rethrows -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body(&value)
    }

    /// Runs `body`, unless the lock is kept for longer than an observer waits and `mayWait` is false.
    func observe(mayWait: Bool, _ body: (Value) -> Void) {
        if mayWait {
            pthread_mutex_lock(mutex)
        } else {
            guard arena_lock_within(mutex, Self.patienceNanoseconds) == 0 else { return }
        }
        defer { pthread_mutex_unlock(mutex) }
        body(value)
    }

    /// A number of the value; what it was when somebody asked last, where the lock is kept for longer than an observer waits.
    func figure(_ last: borrowing Atomic<Int>, _ number: (Value) -> Int) -> Int {
        observe(mayWait: false) { last.store(number($0), ordering: .relaxed) }
        return last.load(ordering: .relaxed)
    }
}
