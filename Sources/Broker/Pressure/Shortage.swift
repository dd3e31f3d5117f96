import Synchronization

/// Whether memory is short, by the loops or by the counter, so that one excursion brings one dump: however many loops it
/// reaches, however often each goes in and out, and whichever sign of it comes first. Any thread.
final class Shortage: Sendable {
    private enum Dump {
        case due, doneByLoops, doneByCounter
    }

    private struct State {
        /// Loops that are not at the normal level.
        var loops = 0
        var dump = Dump.due
        var handler: (@Sendable () -> Void)?
    }

    private let state = Mutex(State())

    /// - Parameter body: called when a dump is due.
    func onShortage(_ body: @escaping @Sendable () -> Void) { state.withLock { $0.handler = body } }

    /// A loop has left the normal level.
    ///
    /// - Parameter isNearLimit: the counter; if so, this excursion may have its dump already.
    func begin(isNearLimit: Bool) {
        state.withLock { state in
            if state.loops == 0, !isNearLimit { state.dump = .due }
            state.loops += 1
        }
    }

    /// A loop is back at the normal level: with the last one the excursion is over.
    func end() {
        state.withLock { state in
            state.loops -= 1
            if state.loops == 0 { state.dump = .due }
        }
    }

    /// A loop no longer reads publishers.
    func loopIsNear() {
        let handler = state.withLock { state in
            guard case .due = state.dump else { return nil as (@Sendable () -> Void)? }
            state.dump = .doneByLoops
            return state.handler
        }
        handler?()
    }

    /// The counter has passed the near level, once per excursion of its own.
    func counterIsNear() {
        let handler = state.withLock { state in
            defer { state.dump = .doneByCounter }
            if case .doneByLoops = state.dump { return nil as (@Sendable () -> Void)? }
            return state.handler
        }
        handler?()
    }
}
