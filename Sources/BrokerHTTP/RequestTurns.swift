import Broker
import NIOCore
import NIOPosix

/// Whose next request waits for the loop's next look at its sockets.
///
/// NIO runs all tasks that are due before it polls, also those that come meanwhile from the threads that answer. While
/// each answer brought on the next request, as many connections as there may be kept the loop from newcomers for as long
/// as they had requests; so one that has been answered has its next turn when the loop's tick has ended, which NIO reports
/// to whoever gathers metrics.
///
/// The threads have a queue too, in which a newcomer would stand behind all of those. So only a few have their turn at
/// once, and the next few when what was in that queue before has been done.
///
///     answered --> waits here --> the tick ends, and a task has come through the threads' queue --> a few have their turn
///
/// Used on the one event loop of HTTP.
final class RequestTurns: NIOEventLoopMetricsDelegate, @unchecked Sendable {
    private struct Waiting {
        /// A connection that is closed meanwhile is let go.
        weak var pacer: RequestPacer?
        let tick: UInt64
    }

    /// Those of the loop that have ended.
    private(set) var ticks: UInt64 = 0
    private var waiting: [Waiting] = []
    /// On its way through the threads' queue, and back to the loop.
    private var round: Task<Void, Never>?
    private var isOver = false

    func processedTick(info: NIOEventLoopTickInfo) { ticks &+= 1 }

    func wait(_ pacer: RequestPacer, on loop: any EventLoop) {
        loop.preconditionInEventLoop()
        waiting.append(Waiting(pacer: pacer, tick: ticks))
        begin(loop)
    }

    /// No more turns.
    ///
    /// - Returns: what must have ended before the loop does.
    func end() -> Task<Void, Never>? {
        isOver = true
        return round
    }

    private func begin(_ loop: any EventLoop) {
        guard round == nil, !waiting.isEmpty, !isOver else { return }
        round = Task { loop.execute { [self] in give(loop) } }
    }

    private func give(_ loop: any EventLoop) {
        round = nil
        // The tick in which they were answered may go on yet.
        let due = waiting.prefix(Limits.httpTurnsPerTick).prefix { $0.tick != ticks }
        waiting.removeFirst(due.count)
        for entry in due { entry.pacer?.takeTurn() }
        begin(loop)
    }
}
