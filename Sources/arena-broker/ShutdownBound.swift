import Broker
import Glibc
import Logging
import Synchronization

/// Ends the process at once if it has not ended in order by then, whatever it is that does not come to an end.
///
/// What was acknowledged is on disk, as after a crash. On a thread of its own, which the signal itself starts: nothing the
/// broker does, or waits for, can hold it up.
final class ShutdownBound: Sendable {
    /// Until the configuration says otherwise: a start may take long too.
    private let seconds = Atomic<Int>(Configuration().shutdownTimeoutSeconds)
    private let hasBegun = Atomic<Bool>(false)

    func set(seconds: Int) { self.seconds.store(seconds, ordering: .relaxed) }

    /// Once; the first signal counts.
    func begin() {
        guard !hasBegun.exchange(true, ordering: .relaxed) else { return }
        let seconds = seconds.load(ordering: .relaxed)
        let log = Logger(label: "arena-broker") { _ in LogLines(threshold: LogThreshold(.critical)) }
        do {
            try OwnThread.start {
                OwnThread.sleep(seconds: seconds)
                log.critical("not shut down within \(seconds) s (shutdownTimeoutSeconds): ending as it is")
                LogWriter.standardError.flush(seconds: 1)
                _exit(1)
            }
        } catch {
            log.critical("nothing bounds how long ending takes (shutdownTimeoutSeconds): \(error)")
        }
    }
}
