import Glibc
import SeededRandom

/// What is measured: the same loops for every allocator, so that what differs is the allocator.
///
/// Sizes are log-uniform, as many buffers from 64 to 128 bytes as from 32 to 64 KiB, drawn beforehand and the same in
/// every run and every program (`netty/NettyBenchmark.java` draws them the same way).
protocol Allocator: SendableMetatype {
    static func allocate(_ size: Int) -> UnsafeMutableRawPointer
    static func free(_ pointer: UnsafeMutableRawPointer)
    /// Prepares the calling thread.
    static func enter()
    /// The calling thread is done.
    static func leave()
    /// Takes back, on the allocating thread, what others freed, where the allocator does not do that by itself.
    static func drain()
}

/// A power of two of sizes, log-uniform between 2^6 and 2^`largest`.
func sizes(upTo largest: Int) -> [Int32] {
    var random = SeededGenerator(seed: 42)
    return (0..<8192).map { _ in
        let fraction = Double(random.next() >> 11) / Double(1 << 53)
        return Int32(exp2(6 + fraction * Double(largest - 6)))
    }
}

/// CPU nanoseconds of the calling thread: other programs on the machine do not count.
func threadNanoseconds() -> UInt64 { now(CLOCK_THREAD_CPUTIME_ID) }
func wallNanoseconds() -> UInt64 { now(CLOCK_MONOTONIC) }

private func now(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

enum Workload {
    /// Rounds of which the best counts: a disturbed round is slower, never faster.
    static let rounds = 7

    /// Replaces random ones of `live` buffers. CPU nanoseconds per allocate + free, the loop's own two included.
    static func replace<A: Allocator>(
        _: A.Type, live: Int, upTo largest: Int, pairs: Int, write: Bool = false, rounds: Int = rounds
    ) -> Double {
        let sizes = sizes(upTo: largest)
        let pointers = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: live)
        defer { pointers.deallocate() }
        for index in 0..<live { pointers[index] = A.allocate(Int(sizes[index & 8191])) }
        var best = Double.infinity
        var random: UInt32 = 1
        sizes.withUnsafeBufferPointer { sizes in
            // The first round only warms up.
            for round in 0...rounds {
                let start = threadNanoseconds()
                for pair in 0..<pairs {
                    random = random &* 1_664_525 &+ 1_013_904_223
                    let victim = Int((UInt64(random) &* UInt64(live)) >> 32)
                    A.free(pointers[victim])
                    let pointer = A.allocate(Int(sizes[pair & 8191]))
                    if write { pointer.storeBytes(of: UInt8(truncatingIfNeeded: pair), as: UInt8.self) }
                    pointers[victim] = pointer
                }
                let elapsed = Double(threadNanoseconds() - start) / Double(pairs)
                if round > 0 { best = min(best, elapsed) }
            }
        }
        for index in 0..<live { A.free(pointers[index]) }
        return best
    }

    /// One thread allocates batches of 4,096 buffers, another frees them. CPU nanoseconds per buffer: of the freeing
    /// thread, and of both together, so that what freeing leaves for the owner to do is counted too.
    static func remoteFree<A: Allocator>(_: A.Type) -> (freeing: Double, both: Double) {
        let count = 4096
        let sizes = sizes(upTo: 13)
        nonisolated(unsafe) let pointers = UnsafeMutablePointer<UnsafeMutableRawPointer>.allocate(capacity: count)
        defer { pointers.deallocate() }
        let full = Semaphore()
        let empty = Semaphore()
        nonisolated(unsafe) var freeing = Double.infinity
        let batches = 400
        let thread = Thread {
            A.enter()
            for _ in 0..<batches {
                full.wait()
                let start = threadNanoseconds()
                for index in 0..<count { A.free(pointers[index]) }
                freeing = min(freeing, Double(threadNanoseconds() - start) / Double(count))
                empty.signal()
            }
            A.leave()
        }
        var owning = Double.infinity
        for _ in 0..<batches {
            let start = threadNanoseconds()
            A.drain()
            for index in 0..<count { pointers[index] = A.allocate(Int(sizes[index & 8191])) }
            owning = min(owning, Double(threadNanoseconds() - start) / Double(count))
            full.signal()
            empty.wait()
        }
        thread.join()
        A.drain()
        return (freeing, freeing + owning)
    }

    /// Two threads, each in its own arena, against one: how many times as much gets done per CPU second of each. What
    /// the threads cost one another in the allocator (locks, shared cache lines) shows; what other programs on the
    /// machine cost does not.
    static func scaling<A: Allocator>(_: A.Type) -> Double {
        func nanoseconds(_ threads: Int) -> Double {
            let figures = UnsafeMutablePointer<Double>.allocate(capacity: threads)
            defer { figures.deallocate() }
            let running = (0..<threads).map { index in
                nonisolated(unsafe) let figure = figures + index
                return Thread {
                    A.enter()
                    figure.pointee = replace(A.self, live: 1024, upTo: 16, pairs: 500_000)
                    A.leave()
                }
            }
            for thread in running { thread.join() }
            return (0..<threads).reduce(0) { $0 + figures[$1] } / Double(threads)
        }
        return 2 * nanoseconds(1) / nanoseconds(2)
    }

    /// How many times the work of one thread two do in the same elapsed time. On a machine whose cores are all idle:
    /// otherwise it measures the others.
    static func elapsedScaling<A: Allocator>(_: A.Type) -> Double {
        let pairs = 1_000_000
        func nanoseconds(_ threads: Int) -> Double {
            var best = Double.infinity
            for _ in 0..<rounds {
                let (ready, go, done) = (Semaphore(), Semaphore(), Semaphore())
                let (start, end) = (Semaphore(), Semaphore())
                let running = (0..<threads).map { _ in
                    Thread {
                        A.enter()
                        let sizes = sizes(upTo: 16)
                        var pointers = (0..<1024).map { A.allocate(Int(sizes[$0])) }
                        ready.signal()
                        go.wait()
                        var random: UInt32 = 1
                        for pair in 0..<pairs {
                            random = random &* 1_664_525 &+ 1_013_904_223
                            let victim = Int((UInt64(random) &* 1024) >> 32)
                            A.free(pointers[victim])
                            pointers[victim] = A.allocate(Int(sizes[pair & 8191]))
                        }
                        done.signal()
                        start.wait()
                        for pointer in pointers { A.free(pointer) }
                        A.leave()
                        end.signal()
                    }
                }
                for _ in running { ready.wait() }
                let begin = wallNanoseconds()
                for _ in running { go.signal() }
                for _ in running { done.wait() }
                best = min(best, Double(wallNanoseconds() - begin))
                for _ in running { start.signal() }
                for _ in running { end.wait() }
                for thread in running { thread.join() }
            }
            return best
        }
        return 2 * nanoseconds(1) / nanoseconds(2)
    }
}
