import Broker
import Foundation
import Glibc
import Logging

/// Ends the process at once if it has not ended in order by then, whatever it is that does not come to an end.
///
/// What was acknowledged is on disk, as after a crash. On a thread of its own, so that nothing the broker waits for can hold
/// it up.
enum ShutdownBound {
    static func begin(seconds: Int, _ log: Logger) {
        Thread.detachNewThread {
            Thread.sleep(forTimeInterval: Double(seconds))
            log.critical("not shut down within \(seconds) s (shutdownTimeoutSeconds): ending as it is")
            LogWriter.standardError.flush(seconds: 1)
            _exit(1)
        }
    }
}
