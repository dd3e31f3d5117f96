import Dispatch
import Glibc

/// SIGTERM and SIGINT as something to wait for. Created first of all, since their default action ends the process.
struct TerminationSignals {
    private let names: AsyncStream<String>
    private let sources: [any DispatchSourceSignal]

    init() {
        let (stream, continuation) = AsyncStream.makeStream(of: String.self)
        names = stream
        sources = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT")].map { number, name in
            signal(number, SIG_IGN)
            let source = DispatchSource.makeSignalSource(signal: number)
            source.setEventHandler { continuation.yield(name) }
            source.resume()
            return source
        }
    }

    /// The name of the next of them.
    func next() async -> String {
        for await name in names { return name }
        return "end of signals"
    }
}
