public import NIOCore

import CArena
import Glibc

/// The moment when every event loop stands between two ticks: no handler is on any stack, so every buffer that is
/// legitimately alive is reachable from some referrer.
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
    /// The loops that stand still, by their places in the list.
    public let arrived: [Int]
    /// Those that did not come: they go on, and whatever is theirs may change at any moment.
    public let missing: [Int]

    /// Stops all `loops`, runs `body` here, then lets them go on.
    ///
    /// To be called from a thread that is none of the loops.
    ///
    /// - Parameter timeoutSeconds: how long to wait for a busy loop before giving up.
    /// - Returns: what `body` returns, and the nanoseconds from the first loop's arrival to the release of all: the time
    ///   in which no message was handled.
    /// - Throws: `LoopMissing`, and what `body` throws.
    public static func hold<Result>(
        _ loops: [any EventLoop], timeoutSeconds: Int64 = 5, _ body: (Safepoint) throws -> Result
    ) throws -> (result: Result, pauseNanoseconds: UInt64) {
        try hold(loops, wait: .seconds(timeoutSeconds)) { stopped in
            guard stopped.missing.isEmpty else {
                throw LoopMissing(arrived: stopped.arrived.count, expected: loops.count)
            }
            return try body(stopped)
        }
    }

    /// The same without those loops that do not come within `wait`. All are asked first whether they come, and go on
    /// meanwhile: nobody stands still for one that hangs. (One that begins to hang in the moment between is waited for once
    /// more.)
    ///
    /// - Parameters:
    ///   - hanging: so many are known to hang, and are not waited for.
    ///   - whenMissing: called here with each that does not come, as soon as that is known.
    public static func hold<Result>(
        _ loops: [any EventLoop], wait: TimeAmount, hanging: Int = 0, whenMissing: (Int) -> Void = { _ in },
        _ body: (Safepoint) throws -> Result
    ) rethrows -> (result: Result, pauseNanoseconds: UInt64) {
        let call = Gate(loops: loops.count, isReleased: true)
        for (index, loop) in loops.enumerated() { loop.execute { call.pass(index) } }
        let present = call.close(expecting: loops.count - hanging, within: wait)
        for index in loops.indices where !present[index] { whenMissing(index) }

        let gate = Gate(loops: loops.count)
        defer { gate.release() }
        for index in loops.indices where present[index] { loops[index].execute { gate.pass(index) } }
        let arrived = gate.close(expecting: present.count { $0 }, within: wait)
        for index in loops.indices where present[index] && !arrived[index] { whenMissing(index) }
        let result = try body(
            Safepoint(
                gate: gate, arrived: loops.indices.filter { arrived[$0] },
                missing: loops.indices.filter { !arrived[$0] }))
        return (result, gate.firstArrival.map { arena_clock_now() - $0 } ?? 0)
    }

    /// Inside `body` only: runs `work` on every loop that came at once, with the loop's index, and returns when all have
    /// done it.
    public func onEachLoop(_ work: @escaping @Sendable (Int) -> Void) { gate.run(work) }
}

/// The meeting point of one safepoint. A condition variable, since loops must really stop.
private final class Gate: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let changed = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// By loop, whether it has arrived, and how many have.
    private var arrived: [Bool]
    private var count = 0
    /// Whoever comes now is not waited for, and passes.
    private var isClosed = false
    private var isReleased: Bool
    /// What to do, and how many loops have done it.
    private var work: (number: Int, body: (@Sendable (Int) -> Void)?) = (0, nil)
    private var done = 0
    private var firstArrivalTime: UInt64 = 0

    /// - Parameter isReleased: whether loops go on as soon as they have arrived.
    init(loops: Int, isReleased: Bool = false) {
        arrived = Array(repeating: false, count: loops)
        self.isReleased = isReleased
        pthread_mutex_init(mutex, nil)
        // Deadlines are by a clock that nobody sets.
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(changed, &attributes)
        pthread_condattr_destroy(&attributes)
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

    /// On the ledger clock; nil if no loop has come.
    var firstArrival: UInt64? { locked { count == 0 ? nil : firstArrivalTime } }

    /// On a loop: arrives, does what it is told to, returns on release.
    func pass(_ index: Int) {
        let isLate = locked {
            if isClosed { return true }
            if count == 0 { firstArrivalTime = arena_clock_now() }
            arrived[index] = true
            count += 1
            return false
        }
        if isLate { return }
        pthread_cond_broadcast(changed)
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

    /// Waits until so many have come, or for so long, and lets nobody in any more.
    ///
    /// - Returns: by loop, whether it has come.
    func close(expecting expected: Int, within wait: TimeAmount) -> [Bool] {
        var deadline = timespec()
        clock_gettime(CLOCK_MONOTONIC, &deadline)
        let nanoseconds = Int64(deadline.tv_nsec) + wait.nanoseconds
        deadline.tv_sec += Int(nanoseconds / 1_000_000_000)
        deadline.tv_nsec = Int(nanoseconds % 1_000_000_000)
        return locked {
            while count < expected, pthread_cond_timedwait(changed, mutex, &deadline) != ETIMEDOUT {}
            isClosed = true
            return arrived
        }
    }

    func run(_ body: @escaping @Sendable (Int) -> Void) {
        change {
            done = 0
            work = (work.number + 1, body)
        }
        locked { while done < count { pthread_cond_wait(changed, mutex) } }
    }

    /// Lets all go on, also those that come later.
    func release() { change { isReleased = true } }
}
