import Dispatch
import Glibc
import Logging
import Synchronization

/// Writes log lines to a descriptor on a thread of its own, so that a reader that has stopped reading (a full pipe, a
/// suspended terminal) never stops an event loop.
///
/// Lines wait in a bounded queue. What does not fit is dropped, and the next line that is written says how many were.
public final class LogWriter: Sendable {
    /// Of the process.
    public static let standardError = LogWriter(descriptor: STDERR_FILENO)

    private let descriptor: CInt
    private let capacity: Int
    private let queue = DispatchQueue(label: "log")
    private let waiting = Atomic<Int>(0)
    private let dropped = Atomic<Int>(0)

    init(descriptor: CInt, capacity: Int = Limits.maxWaitingLogLines) {
        self.descriptor = descriptor
        self.capacity = capacity
    }

    /// Writes a line some time later, or drops it. Never waits.
    func write(_ line: String) {
        guard waiting.add(1, ordering: .relaxed).newValue <= capacity else {
            waiting.subtract(1, ordering: .relaxed)
            dropped.add(1, ordering: .relaxed)
            return
        }
        queue.async { [self] in
            let lost = dropped.exchange(0, ordering: .relaxed)
            if lost > 0 {
                writeNow(LogLines.line(.warning, "log lines dropped: nobody reads them", ["count": "\(lost)"]))
            }
            writeNow(line)
            waiting.subtract(1, ordering: .relaxed)
        }
    }

    /// Returns when what was logged until now is written, or when `seconds` have passed: at the end of the program, and
    /// not on an event loop.
    ///
    /// - Returns: whether all was written.
    @discardableResult
    public func flush(seconds: Double = 2) -> Bool {
        let done = DispatchSemaphore(value: 0)
        queue.async { done.signal() }
        return done.wait(timeout: .now() + seconds) == .success
    }

    /// All of it in one call where the descriptor takes it, so that lines of several processes do not mix.
    private func writeNow(_ line: String) {
        var rest = Array(line.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                rest = rest.dropFirst(count)
            } else if errno == EAGAIN {
                // Somebody has made the descriptor non-blocking.
                var wanted = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&wanted, 1, -1)
            } else if errno != EINTR {
                return
            }
        }
    }
}
