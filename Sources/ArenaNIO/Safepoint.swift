public import NIOCore

import CArena
import Glibc

/// The moment when every event loop stands between two ticks: no handler is on any stack, so every buffer that is
/// legitimately alive is reachable from some holder.
///
///     loops    ...tick | arrive | wait | work | wait | work | wait | tick...
///     caller            ask            | onEachLoop... | onEachLoop...  release
///
/// Work starts only when all have arrived, so that what one loop looks at, no other changes.
public struct Safepoint {
    /// A loop did not come within the time given; nothing was run, and all loops go on.
    public struct LoopMissing: Error, CustomStringConvertible {
        public let arrived: Int
        public let expected: Int
        public var description: String {
            "no safepoint: only \(arrived) of \(expected) event loops came to a stop in time"
        }
    }

    private let gate: Gate

    /// Stops all `loops`, runs `body` here, then lets them go on.
    ///
    /// To be called from a thread that is none of the loops.
    ///
    /// - Parameter timeoutSeconds: how long to wait for a busy loop before giving up.
    /// - Returns: what `body` returns, and the nanoseconds from the first loop's arrival to the release of all: the time
    ///   in which no message was handled.
    public static func hold<Result>(
        _ loops: [any EventLoop], timeoutSeconds: Int = 5, _ body: (Safepoint) throws -> Result
    ) throws -> (result: Result, pauseNanoseconds: UInt64) {
        let gate = Gate(expected: loops.count)
        for (index, loop) in loops.enumerated() { loop.execute { gate.pass(index) } }
        guard gate.waitForAll(seconds: timeoutSeconds) else {
            throw LoopMissing(arrived: gate.release(), expected: loops.count)
        }
        defer { gate.release() }
        let result = try body(Safepoint(gate: gate))
        return (result, arena_clock_now() - gate.firstArrival)
    }

    /// Inside `body` only: runs `work` on every loop at once, with the loop's index, and returns when all have done it.
    public func onEachLoop(_ work: @escaping @Sendable (Int) -> Void) { gate.run(work) }
}

/// The meeting point of one safepoint. A condition variable, since loops must really stop.
private final class Gate: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let expected: Int
    private var arrived = 0
    private var isReleased = false
    /// What to do, and how many loops have done it.
    private var work: (number: Int, body: (@Sendable (Int) -> Void)?) = (0, nil)
    private var done = 0
    private var firstArrivalTime: UInt64 = 0

    init(expected: Int) {
        self.expected = expected
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(changed, nil)
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(mutex)
        changed.deallocate()
        mutex.deallocate()
    }

    private func locked<Result>(_ body: () -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }

    private func change(_ body: () -> Void) {
        locked(body)
        pthread_cond_broadcast(changed)
    }

    var firstArrival: UInt64 { locked { arrived == 0 ? arena_clock_now() : firstArrivalTime } }

    /// On a loop: arrives, does what it is told to, returns on release.
    func pass(_ index: Int) {
        change {
            if arrived == 0 { firstArrivalTime = arena_clock_now() }
            arrived += 1
        }
        var finished = 0
        while true {
            pthread_mutex_lock(mutex)
            while !isReleased, work.number == finished { pthread_cond_wait(changed, mutex) }
            let (number, body) = work
            pthread_mutex_unlock(mutex)
            guard number != finished, let body else { return }
            body(index)
            finished = number
            change { done += 1 }
        }
    }

    /// False when not all arrived in time.
    func waitForAll(seconds: Int) -> Bool {
        var deadline = timespec()
        clock_gettime(CLOCK_REALTIME, &deadline)
        deadline.tv_sec += seconds
        return locked {
            while arrived < expected {
                if pthread_cond_timedwait(changed, mutex, &deadline) == ETIMEDOUT { return arrived == expected }
            }
            return true
        }
    }

    func run(_ body: @escaping @Sendable (Int) -> Void) {
        change {
            done = 0
            work = (work.number + 1, body)
        }
        locked { while done < expected { pthread_cond_wait(changed, mutex) } }
    }

    /// Lets all go on, also those that come later. Returns how many had arrived.
    @discardableResult
    func release() -> Int {
        change { isReleased = true }
        return locked { arrived }
    }
}
