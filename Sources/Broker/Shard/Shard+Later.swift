import Arena
import DequeModule
import MQTT
import NIOCore

/// Work of which there may be more at once than a tick should do: it goes on in the next one, with sockets served in
/// between. Each kind has a bound for a tick, in `Limits`.
struct Later {
    /// Sessions whose connections are gone, and that are yet to end or to have their wills published.
    var leaving: Deque<Session> = []
    /// Connections with retained messages to come.
    var retained: Deque<ConnectionReference> = []
    /// What is left for this tick.
    fileprivate(set) var endings = Limits.endingsPerTick
    var retainedMessages = Limits.retainedPerTick
    fileprivate var isScheduled = false
    /// The most endings of any tick; for tests.
    fileprivate(set) var mostEndings = 0
}

extension EventLoopShard {
    /// Has the budgets renewed in the next tick, and what waits gone on with. (A task for "now" would run in this tick: a
    /// loop runs all tasks before it looks at its sockets.)
    func scheduleLater() {
        guard !later.isScheduled, !isStopping else { return }
        later.isScheduled = true
        loop.scheduleTask(in: .milliseconds(Int64(Limits.nextTickMilliseconds))) { [self] in runLater() }
    }

    private func runLater() {
        later.isScheduled = false
        guard !isStopping else { return }
        later.mostEndings = max(later.mostEndings, Limits.endingsPerTick - later.endings)
        later.endings = Limits.endingsPerTick
        later.retainedMessages = Limits.retainedPerTick
        updatePressure()
        resumePublishers()
        while later.endings > 0, let session = later.leaving.first {
            guard continueLeaving(session) else { break }
            later.leaving.removeFirst()
        }
        for _ in 0..<min(later.retained.count, Limits.retainedPerTick / Limits.retainedPerFetch) {
            guard let connection = connections[later.retained.removeFirst()] else { continue }
            connection.output.isRetainedScheduled = false
            connection.wantsToSend()
        }
        if !later.leaving.isEmpty || !later.retained.isEmpty { scheduleLater() }
    }

    // MARK: - Sessions that end

    /// The connection of a session is gone: what follows from it happens now, or in its turn if there is much of that.
    func leaveSoon(_ session: Session) {
        session.isLeaving = true
        if later.leaving.isEmpty, later.endings > 0, continueLeaving(session) { return }
        later.leaving.append(session)
        scheduleLater()
    }

    /// Does as much of a session's leaving as there is budget for.
    ///
    /// - Returns: whether that was all.
    private func continueLeaving(_ session: Session) -> Bool {
        scheduleLater()
        // Somebody has claimed it, and did not wait. It may be another loop's by now.
        guard session.home == index, session.isLeaving else { return true }
        if !session.isPersistent {
            later.endings -= unsubscribe(session, atMost: later.endings)
            guard later.endings > 0 else { return false }
        }
        later.endings -= 1
        finishLeaving(session)
        return true
    }
}
