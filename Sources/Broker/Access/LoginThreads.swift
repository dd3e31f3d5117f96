import NIOConcurrencyHelpers
import NIOPosix

/// Hashes passwords, which takes milliseconds, on a few threads of its own. What waits is bounded, and has its turn by where
/// it comes from (see ``LoginQueue``): a flood of logins stops no loop, and shuts nobody out but its own source.
final class LoginThreads: Sendable {
    struct Login: Sendable {
        /// Called on one of the threads.
        let check: @Sendable () -> Void
        /// Called instead, if too much waits; on the thread of whoever came last.
        let refuse: @Sendable () -> Void
    }

    private let threads = NIOThreadPool(numberOfThreads: Limits.loginThreads)
    private let queue = NIOLockedValueBox(LoginQueue<Login>(capacity: Limits.maxWaitingLogins))

    init() { threads.start() }

    var waitingCount: Int { queue.withLockedValue { $0.count } }

    /// Has a login checked when its turn comes, or refused.
    func submit(_ login: Login, from source: SourceAddress) {
        if let refused = queue.withLockedValue({ $0.add(login, from: source) }) { return refused.refuse() }
        // One call for each that waits, whichever it is then.
        threads.submit { [queue] state in
            let next = queue.withLockedValue { $0.next() }
            if case .active = state { next?.check() }
        }
    }

    func stop() { threads.shutdownGracefully { _ in } }
}
