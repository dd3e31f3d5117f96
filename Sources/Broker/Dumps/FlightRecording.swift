import Arena
import Dispatch
import Glibc
import Ledger
import Logging
import Synchronization

/// The broker's part of the flight recorder: a sign of life each second, a look at who wants its file, and a word when that is
/// changed, or the disk is full.
final class FlightRecording: Sendable {
    private let isEnabled: Bool
    private let hasWarned = Atomic<Bool>(false)
    private let hasToldUnguarded = Atomic<Bool>(false)
    /// For what may have to wait for a disk.
    private let queue = DispatchQueue(label: "flight recorder")
    private let isLooking = Atomic<Bool>(false)
    private let isOver = Atomic<Bool>(false)

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
        if !isLooking.exchange(true, ordering: .acquiring) {
            queue.async { [self, pool = context.pool, log = context.log] in
                if !isOver.load(ordering: .acquiring) { look(pool, log) }
                isLooking.store(false, ordering: .releasing)
            }
        }
        if context.pool.isFlightRecorderIncomplete, !hasWarned.exchange(true, ordering: .relaxed) {
            context.log.warning(
                """
                the file system of the flight recorder \(context.pool.flightRecorderPath ?? "") is full: buffers \
                beyond those it has room for are not recorded in it. Nothing else is affected; make room and restart
                """)
        }
    }

    /// Nobody looks after the file any more: its pool may go.
    func end() {
        isOver.store(true, ordering: .releasing)
        queue.sync {}
    }

    private func look(_ pool: ArenaPool, _ log: Logger) {
        let path = pool.flightRecorderPath ?? ""
        switch pool.guardFlightRecorder() {
        // Until a reader is done, that is.
        case nil, .guarded?, .renewed(toWrite: false)?, .unguarded(code: EAGAIN)?: break
        case .renewed(toWrite: true)?:
            log.warning(
                """
                another program opened the flight recorder's file \(path) to write to it: it has the file as it was, and recording \
                goes on in a new one. Keep it from log rotation and the like
                """)
        case .unguarded(let code)?:
            guard !hasToldUnguarded.exchange(true, ordering: .relaxed) else { return }
            log.notice(
                """
                the flight recorder's file \(path) cannot be kept from other programs (\(SystemError.text(code))): one that \
                cuts it short or writes to it ends the broker
                """)
        case .left?:
            log.error(
                """
                another program opened the flight recorder's file \(path) to write to it, and a new one cannot be made: nothing \
                is recorded any more, and nothing else is affected. Keep it from log rotation and the like, and restart
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
