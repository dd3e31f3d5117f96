import NIOConcurrencyHelpers
import NIOPosix

/// Hashes passwords, which takes milliseconds, on a few threads of its own. What waits is bounded: a flood of logins is
/// refused, and stops no loop.
final class LoginThreads: Sendable {
    private let threads = NIOThreadPool(numberOfThreads: Limits.loginThreads)
    private let waiting = NIOLockedValueBox(0)

    init() { threads.start() }

    /// Runs `body` on one of the threads.
    ///
    /// - Returns: false if too much waits already; `body` is not run then.
    func run(_ body: @escaping @Sendable () -> Void) -> Bool {
        let isFull = waiting.withLockedValue { waiting in
            guard waiting < Limits.maxWaitingLogins else { return true }
            waiting += 1
            return false
        }
        guard !isFull else { return false }
        threads.submit { state in
            self.waiting.withLockedValue { $0 -= 1 }
            if case .active = state { body() }
        }
        return true
    }

    func stop() { threads.shutdownGracefully { _ in } }
}
