public import NIOCore

import CArena
import Glibc

/// The moment when every event loop stands between two ticks: no handler is on any stack, so every buffer that is
/// legitimately alive is reachable from some holder.
///
///     loops    ...tick | arrive | visit own holders | wait ................ | tick...
///     caller            ask     | wait for all      | body (copy the ledger) release
///
/// Loops visit only when all have arrived, so that what one sees, no other changes.
public enum Safepoint {
    /// What a safepoint cost.
    public struct Pause: Sendable, Equatable {
        /// From the first loop's arrival to the release of all: the time in which no message was handled.
        public var nanoseconds: UInt64
    }

    /// A loop did not come within the time given; nothing was run, and all loops go on.
    public struct LoopMissing: Error, CustomStringConvertible {
        public let arrived: Int
        public let expected: Int
        public var description: String {
            "no safepoint: only \(arrived) of \(expected) event loops came to a stop in time"
        }
    }

    /// Stops all `loops`, runs `visit` on each of them with its index, then `body` here, then lets them go on.
    ///
    /// To be called from a thread that is none of the loops.
    ///
    /// - Parameters:
    ///   - timeoutSeconds: how long to wait for a busy loop before giving up.
    ///   - visit: runs on the loop, all loops standing still.
    ///   - body: runs when all visits are done.
    public static func hold<Result>(
        _ loops: [any EventLoop], timeoutSeconds: Int = 5, visit: @escaping @Sendable (Int) -> Void,
        body: () -> Result
    ) throws(LoopMissing) -> (Result, Pause) {
        let gate = Gate(expected: loops.count)
        for (index, loop) in loops.enumerated() {
            loop.execute { gate.pass { visit(index) } }
        }
        guard gate.waitForVisits(seconds: timeoutSeconds) else {
            throw LoopMissing(arrived: gate.release(), expected: loops.count)
        }
        let result = body()
        let started = gate.firstArrival
        gate.release()
        return (result, Pause(nanoseconds: arena_clock_now() - started))
    }
}

/// The meeting point of one safepoint. A condition variable, since loops must really stop.
private final class Gate: @unchecked Sendable {
    private enum Phase { case gathering, visiting, released }

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private let expected: Int
    private var arrived = 0
    private var visited = 0
    private var phase = Phase.gathering
    private var firstArrivalTime: UInt64 = 0

    init(expected: Int) {
        self.expected = expected
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(changed, nil)
        if expected == 0 { phase = .visiting }
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(mutex)
        changed.deallocate()
        mutex.deallocate()
    }

    var firstArrival: UInt64 {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return expected == 0 ? arena_clock_now() : firstArrivalTime
    }

    /// On a loop: arrives, visits when all are there, waits for the release.
    func pass(_ visit: () -> Void) {
        pthread_mutex_lock(mutex)
        if arrived == 0 { firstArrivalTime = arena_clock_now() }
        arrived += 1
        if arrived == expected, phase == .gathering {
            phase = .visiting
            pthread_cond_broadcast(changed)
        }
        while phase == .gathering { pthread_cond_wait(changed, mutex) }
        let goes = phase == .visiting
        pthread_mutex_unlock(mutex)
        guard goes else { return }

        visit()

        pthread_mutex_lock(mutex)
        visited += 1
        pthread_cond_broadcast(changed)
        while phase != .released { pthread_cond_wait(changed, mutex) }
        pthread_mutex_unlock(mutex)
    }

    /// Waits until all loops have visited. False when not all arrived in time; visits under way are waited for.
    func waitForVisits(seconds: Int) -> Bool {
        var deadline = timespec()
        clock_gettime(CLOCK_REALTIME, &deadline)
        deadline.tv_sec += seconds
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while phase == .gathering {
            if pthread_cond_timedwait(changed, mutex, &deadline) == ETIMEDOUT, phase == .gathering { return false }
        }
        while visited < expected { pthread_cond_wait(changed, mutex) }
        return true
    }

    /// Lets all go on, also those that come later. Returns how many had arrived.
    @discardableResult
    func release() -> Int {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        phase = .released
        pthread_cond_broadcast(changed)
        return arrived
    }
}
