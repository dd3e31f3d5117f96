import Broker
import HTTPTypes
import Hummingbird
import HummingbirdCore

/// `POST /v1/dumps`: a dump that was begun after the request came.
///
/// Each dump stops the event loops for a moment, and takes the place of an old one on the disk. So they have a while between
/// them, and requests that come meanwhile are answered by the same one.
actor DumpRoute {
    private let broker: Broker
    private let interval: Duration
    /// One that has not begun.
    private var next: Task<Response, Never>?
    private var last: Task<Response, Never>?
    private var lastBegan: ContinuousClock.Instant?

    init(broker: Broker, interval: Duration = .seconds(Limits.httpDumpIntervalSeconds)) {
        self.broker = broker
        self.interval = interval
    }

    func write() async -> Response {
        if let next { return await next.value }
        let task = Task { [last] in
            _ = await last?.value
            // Fails for a task that is cancelled only, and nobody cancels this one.
            if let lastBegan { try? await Task.sleep(until: lastBegan + interval, clock: .continuous) }
            next = nil
            lastBegan = .now
            return await writeNow()
        }
        (next, last) = (task, task)
        return await task.value
    }

    private func writeNow() async -> Response {
        struct Written: Encodable {
            var path: String
            var pauseNanoseconds: UInt64
            var missingLoops: [String]
        }
        guard let dump = await broker.writeDump() else {
            return HTTPRoutes.failure(.internalServerError, "the dump failed; the log says why")
        }
        return HTTPRoutes.json(
            .created,
            Written(path: dump.path, pauseNanoseconds: dump.pauseNanoseconds, missingLoops: dump.missingLoops))
    }
}
