import CArena
import Glibc
import NIOConcurrencyHelpers
import Synchronization

/// When an event loop was seen last, and where it can be found: for who asks it and gets no answer.
final class LoopPresence: Sendable {
    private let lastSeenTime = Synchronization::Atomic<UInt64>(0)
    private let thread = NIOLockedValueBox(arena_thread())

    private static let frameCapacity = 64

    /// On the loop, before anybody asks.
    func start() {
        thread.withLockedValue { $0 = arena_thread_current() }
        note()
    }

    /// On the loop, a few times a second.
    func note() { lastSeenTime.store(arena_clock_now(), ordering: .relaxed) }

    /// On the ledger clock.
    var lastSeen: UInt64 { lastSeenTime.load(ordering: .relaxed) }

    /// The kernel's number of the loop's thread.
    var threadID: UInt64 { thread.withLockedValue { UInt64(max(0, $0.id)) } }

    /// Where the thread is now, innermost first; empty if it does not say in time. Not on the loop.
    func frames(_ code: CodeMap, within milliseconds: Int) -> [UInt] {
        var thread = thread.withLockedValue { $0 }
        var frames = [UInt](repeating: 0, count: Self.frameCapacity)
        let ranges = code.pieces.map {
            arena_code_range(start: $0.start, end: $0.end, keeps_frames: $0.keepsFrames ? 1 : 0)
        }
        let count = arena_thread_stack(
            &thread, ranges, Int32(clamping: ranges.count), &frames, Int32(frames.count),
            Int32(clamping: milliseconds))
        return Array(frames.prefix(Int(count)))
    }
}
