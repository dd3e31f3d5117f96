import Broker
#if HTTP
import BrokerHTTP
#endif
import CArena
import Glibc
import Logging

/// A broker as a service: runs until a signal ends it, and tells the service manager how it is.
struct RunningService {
    let threshold: LogThreshold
    let manager: ServiceManager

    /// - Parameter load: reads the configuration again.
    func run(
        _ configuration: Configuration, _ signals: Signals, load: @escaping @Sendable () throws -> Configuration
    ) async throws {
        let threshold = threshold
        let log = Logger(label: "arena-broker") { _ in LogLines(threshold: threshold) }
        // Before anybody is served.
        try HTTPFrontEnd.check(configuration)
        let broker = try await Broker.start(configuration, log: log)
        let http: HTTPFrontEnd?
        do { http = try await HTTPFrontEnd.start(broker, log: log) } catch {
            try await broker.shutdown()
            throw error
        }
        // What libraries leave open to programs that this one runs: event loops' own descriptors, the HTTP listener.
        arena_close_on_exec()
        manager.ready()
        let watchdog = watch(broker)
        defer { watchdog?.cancel() }
        let reloads = Reloads(broker, http, threshold: threshold, manager: manager, log, load: load)
        // Whatever a request takes, the next must not wait for it.
        for await request in signals.requests {
            switch request {
            case .dump: broker.requestDump()
            case .reload: reloads.ask()
            case .end(let name):
                let taking = reloads.end()
                manager.stopping()
                log.info("\(name): shutting down")
                await http?.stop()
                // Both ask the loops, which must still be there.
                _ = await taking?.result
                watchdog?.cancel()
                await watchdog?.value
                try await broker.shutdown()
                LogWriter.standardError.flush()
                return
            }
        }
    }

    /// Says that the broker is alive, twice in the time that the manager gives it, as long as all loops come round.
    private func watch(_ broker: Broker) -> Task<Void, Never>? {
        guard let microseconds = manager.watchdogMicroseconds else { return nil }
        let manager = manager
        return Task.detached {
            while !Task.isCancelled, (try? await broker.passAllLoops()) != nil {
                manager.alive()
                try? await Task.sleep(for: .microseconds(microseconds / 2))
            }
        }
    }
}

extension Configuration.LogLevel {
    var level: Logger.Level { Logger.Level(rawValue: rawValue)! }
}
