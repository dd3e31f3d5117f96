import Broker
#if HTTP
import BrokerHTTP
#endif
import Logging
import NIOConcurrencyHelpers

/// Reads the configuration again when somebody asks for it, beside everything else: signals are answered meanwhile, however
/// long a file or an event loop takes.
///
///     SIGHUP ──▶ read, on a thread of its own ──▶ take it on, loop by loop ──▶ once more, if asked meanwhile
///
/// A configuration with a mistake changes nothing, and ends nothing.
final class Reloads: Sendable {
    private struct State {
        var isRunning = false
        /// Asked for since the one that runs began to read.
        var isWanted = false
        /// The broker is ending.
        var isOver = false
        /// What has been read is put in force.
        var taking: Task<Void, any Error>?
    }

    /// What was read, and found good.
    private struct Renewal: Sendable {
        let configuration: Configuration
        let broker: Broker.Renewal
        let http: HTTPFrontEnd.Renewal?
    }

    // No Mutex: ThreadSanitizer does not see that it orders anything.
    private let state = NIOLockedValueBox(State())
    private let broker: Broker
    private let http: HTTPFrontEnd?
    private let threshold: LogThreshold
    private let manager: ServiceManager
    private let log: Logger
    private let load: @Sendable () throws -> Configuration

    /// - Parameter load: reads the configuration.
    init(
        _ broker: Broker, _ http: HTTPFrontEnd?, threshold: LogThreshold, manager: ServiceManager, _ log: Logger,
        load: @escaping @Sendable () throws -> Configuration
    ) {
        self.broker = broker
        self.http = http
        self.threshold = threshold
        self.manager = manager
        self.log = log
        self.load = load
    }

    /// Begins one, or has one more follow the one that runs. Returns at once.
    func ask() {
        let begins = state.withLockedValue { state in
            defer { (state.isWanted, state.isRunning) = (state.isRunning, true) }
            return !state.isRunning
        }
        guard begins else { return }
        Task.detached { [self] in
            repeat {
                await reload()
            } while state.withLockedValue { state in
                defer { (state.isRunning, state.isWanted) = (state.isWanted, false) }
                return state.isWanted
            }
        }
    }

    /// Nothing is put in force from now on. What is being read is of no consequence any more.
    ///
    /// - Returns: what is just being put in force; the loops must run until it is.
    func end() -> Task<Void, any Error>? {
        state.withLockedValue { state in
            state.isOver = true
            return state.taking
        }
    }

    private func reload() async {
        guard tell(manager.reloading) else { return }
        defer { tell(manager.ready) }
        let patience = Task { [self] in
            try await Task.sleep(for: .seconds(Limits.longReloadSeconds))
            let waitsFor =
                state.withLockedValue { $0.taking == nil }
                ? "a file that it reads does not come to an end, or is long" : "an event loop does not answer"
            log.warning("reloading takes more than \(Limits.longReloadSeconds) s: \(waitsFor)")
        }
        defer { patience.cancel() }
        do {
            let renewal = try await OwnThread.run { [self] in
                let configuration = try load()
                return Renewal(
                    configuration: configuration, broker: try broker.renewal(configuration), http: try http?.renewal())
            }
            try await take(renewal)?.value
        } catch {
            log.error("configuration not reloaded, the old one stays in force: \(error)")
        }
    }

    /// - Returns: nil if the broker is ending.
    private func take(_ renewal: Renewal) -> Task<Void, any Error>? {
        state.withLockedValue { state in
            guard !state.isOver else { return nil }
            let task = Task.detached { [self] in
                defer { self.state.withLockedValue { $0.taking = nil } }
                if let tokens = renewal.http { http?.take(tokens) }
                try await broker.take(renewal.broker)
                threshold.level = renewal.configuration.logLevel.level
            }
            state.taking = task
            return task
        }
    }

    /// Tells the service manager how it goes, unless it has been told that the broker is ending.
    @discardableResult
    private func tell(_ message: () -> Void) -> Bool {
        state.withLockedValue { state in
            if !state.isOver { message() }
            return !state.isOver
        }
    }
}
