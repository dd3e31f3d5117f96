import Broker
import BrokerHTTP
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
        let broker = try await Broker.start(configuration, log: log)
        let http: HTTPFrontEnd?
        do { http = try await HTTPFrontEnd.start(broker, log: log) } catch {
            try await broker.shutdown()
            throw error
        }
        manager.ready()
        let watchdog = watch(broker)
        defer { watchdog?.cancel() }
        for await request in signals.requests {
            switch request {
            case .dump: broker.requestDump()
            case .reload:
                manager.reloading()
                await reload(broker, http, log, load)
                manager.ready()
            case .end(let name):
                manager.stopping()
                log.info("\(name): shutting down")
                ShutdownBound.begin(seconds: configuration.shutdownTimeoutSeconds, log)
                await http?.stop()
                try await broker.shutdown()
                LogWriter.standardError.flush()
                return
            }
        }
    }

    /// A configuration with a mistake changes nothing, and ends nothing.
    private func reload(
        _ broker: Broker, _ http: HTTPFrontEnd?, _ log: Logger, _ load: () throws -> Configuration
    ) async {
        do {
            let configuration = try load()
            try http?.reload()
            try await broker.reload(configuration)
            threshold.level = configuration.logLevel.level
        } catch {
            log.error("configuration not reloaded, the old one stays in force: \(error)")
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
