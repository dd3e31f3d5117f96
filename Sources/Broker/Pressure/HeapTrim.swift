import CArena
import Dispatch
import NIOConcurrencyHelpers
import NIOCore

/// Gives back to the system what malloc keeps of memory that has been freed, when the process comes to its limit by it.
///
/// What thousands of connections leave behind on the heap when they end is nobody's, so others get room for it at once, in
/// the arena too; but malloc keeps it for the next that asks. On a thread of its own, since it takes a while, and at most a
/// tenth of the time.
final class HeapTrim: Sendable {
    private struct State {
        var isRunning = false
        var notBefore = NIODeadline.uptimeNanoseconds(0)
    }

    private let limitBytes: Int
    private let state = NIOLockedValueBox(State())
    private let underWay = DispatchGroup()

    init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// To be called a few times a second while memory is short. Any thread.
    func look() {
        guard ProcessFigures.ownResidentBytes > limitBytes - limitBytes / Limits.heapTrimShare else { return }
        let isDue = state.withLockedValue { state in
            guard !state.isRunning, .now() >= state.notBefore else { return false }
            state.isRunning = true
            return true
        }
        guard isDue else { return }
        underWay.enter()
        let start = NIODeadline.now()
        do {
            try OwnThread.start { [self] in
                let start = NIODeadline.now()
                arena_trim_heap()
                isDone(since: start)
            }
        } catch {
            // No thread: memory is as short as can be. The next look tries again.
            isDone(since: start)
        }
    }

    private func isDone(since start: NIODeadline) {
        state.withLockedValue { state in
            state.isRunning = false
            state.notBefore = max(state.notBefore, .now() + (.now() - start) * 10)
        }
        underWay.leave()
    }

    /// Returns when nothing is under way, after the loops have ended. Not on an event loop.
    func end() { underWay.wait() }
}
