import Arena
import Ledger
import Logging
import Synchronization

/// The broker's part of the flight recorder: a sign of life each second, and a word when the disk is full.
final class FlightRecording: Sendable {
    private let isEnabled: Bool
    private let hasWarned = Atomic<Bool>(false)

    init(_ configuration: Configuration) { isEnabled = configuration.flightRecorder != nil }

    /// Once a second, on one loop.
    func tick(_ context: BrokerContext) {
        guard isEnabled else { return }
        let figures = ProcessFigures.current()
        var state = ArenaPool.ProcessState()
        state.residentBytes = figures.residentBytes
        state.cgroupLimitBytes = figures.cgroupLimitBytes
        state.cgroupCurrentBytes = figures.cgroupCurrentBytes
        state.threadCount = figures.threadCount
        context.pool.noteAlive(state)
        if context.pool.isFlightRecorderIncomplete, !hasWarned.exchange(true, ordering: .relaxed) {
            context.log.warning(
                """
                the file system of the flight recorder \(context.pool.flightRecorderPath ?? "") is full: buffers \
                beyond those it has room for are not recorded in it. Nothing else is affected; make room and restart
                """)
        }
    }
}

extension FlightRecorder {
    init?(_ configuration: Configuration) {
        guard let path = configuration.flightRecorder else { return nil }
        self.init(
            path: path, program: "arena-broker", programVersion: Broker.version, configuration: configuration.toml)
    }
}
