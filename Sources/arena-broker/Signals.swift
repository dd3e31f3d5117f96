import Dispatch
import Glibc

/// The signals the broker answers to, as something to wait for. Created first of all, since the default action of each
/// ends the process; one that comes before the broker is ready waits here.
struct Signals {
    enum Request: Sendable {
        /// SIGUSR1: write a dump.
        case dump
        /// SIGTERM or SIGINT: end in order.
        case end(String)
        /// SIGHUP: read the configuration again.
        case reload
    }

    private static let answers: [(Int32, Request)] = [
        (SIGUSR1, .dump), (SIGHUP, .reload), (SIGTERM, .end("SIGTERM")), (SIGINT, .end("SIGINT")),
    ]

    /// Keeps SIGUSR1 and SIGHUP from ending the process until `init` answers them. (SIGTERM and SIGINT may end it until
    /// then.)
    static func hold() {
        signal(SIGUSR1, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
    }

    let requests: AsyncStream<Request>
    /// Begins with the first signal that ends the broker, at that moment, whatever else is going on.
    let bound = ShutdownBound()
    private let sources: [any DispatchSourceSignal]

    init() {
        let bound = bound
        // Of their own: nothing else can make them wait.
        let queue = DispatchQueue(label: "signals")
        let (stream, continuation) = AsyncStream.makeStream(of: Request.self)
        requests = stream
        sources = Self.answers.map { number, request in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            source.setEventHandler {
                if case .end = request { bound.begin() }
                continuation.yield(request)
            }
            source.resume()
            return source
        }
    }
}
