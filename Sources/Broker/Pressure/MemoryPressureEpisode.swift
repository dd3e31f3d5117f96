import NIOConcurrencyHelpers

/// Whether memory is short, by the loops or by the counter, so that one excursion brings one dump: however many loops it
/// reaches, however often each goes in and out, and whichever sign of it comes first. Any thread.
final class MemoryPressureEpisode: Sendable {
    private enum Dump {
        case due, doneByLoops, doneByCounter
    }

    private struct State {
        /// Loops that are not at the normal level.
        var loops = 0
        var dump = Dump.due
        /// Something has been refused for want of memory, by the arena or before it was asked.
        var isRefusing = false
        var refusalHandler: (@Sendable () -> Void)?
        var handler: (@Sendable () -> Void)?
    }

    private let state = NIOLockedValueBox(State())

    /// - Parameter body: called when a dump is due.
    func onEpisode(_ body: @escaping @Sendable () -> Void) { state.withLockedValue { $0.handler = body } }

    /// - Parameter body: called when a dump of the first refusal is due.
    func onRefusal(_ body: @escaping @Sendable () -> Void) { state.withLockedValue { $0.refusalHandler = body } }

    /// The arena has refused an allocation, once per excursion of the counter.
    func arenaRefuses() {
        let handler = state.withLockedValue { state in
            state.isRefusing = state.loops > 0
            return state.refusalHandler
        }
        handler?()
    }

    /// A loop refuses something so that the arena need not.
    ///
    /// - Parameter count: counts it, before a dump of it is asked for; with whether it is the first of the excursion.
    func loopRefuses(_ count: (_ isFirst: Bool) -> Void) {
        let (isFirst, handler) = state.withLockedValue { state in
            defer { state.isRefusing = true }
            return (!state.isRefusing, state.refusalHandler)
        }
        count(isFirst)
        if isFirst { handler?() }
    }

    /// A loop has left the normal level.
    ///
    /// - Parameter isNearLimit: the counter; if so, this excursion may have its dump already.
    func begin(isNearLimit: Bool) {
        state.withLockedValue { state in
            if state.loops == 0, !isNearLimit { state.dump = .due }
            state.loops += 1
        }
    }

    /// A loop is back at the normal level: with the last one the excursion is over.
    func end() {
        state.withLockedValue { state in
            state.loops -= 1
            if state.loops == 0 { (state.dump, state.isRefusing) = (.due, false) }
        }
    }

    /// A loop no longer reads publishers.
    func loopIsNear() {
        let handler = state.withLockedValue { state in
            guard case .due = state.dump else { return nil as (@Sendable () -> Void)? }
            state.dump = .doneByLoops
            return state.handler
        }
        handler?()
    }

    /// The counter has passed the near level, once per excursion of its own.
    func counterIsNear() {
        let handler = state.withLockedValue { state in
            defer { state.dump = .doneByCounter }
            if case .doneByLoops = state.dump { return nil as (@Sendable () -> Void)? }
            return state.handler
        }
        handler?()
    }
}
