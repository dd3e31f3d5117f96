import NIOConcurrencyHelpers
import NIOPosix

/// Hashes passwords, which takes milliseconds, on a few threads of its own. What waits is bounded, and has its turn by where
/// it comes from (see ``LoginQueue``): a flood of logins stops no loop, and shuts nobody out but its own source.
final class LoginThreads: Sendable {
    struct Login: Sendable {
        /// Called on one of the threads: whether it is right.
        let check: @Sendable () -> Bool
        /// Called with what came of it, on the same thread; posts it to the connection's loop.
        let answer: @Sendable (_ isRight: Bool) -> Void
        /// Called instead, if too much waits; on the thread of whoever came last.
        let refuse: @Sendable () -> Void
    }

    private let threads = NIOThreadPool(numberOfThreads: Limits.loginThreads)
    private let queue = NIOLockedValueBox(LoginQueue<Login>(capacity: Limits.maxWaitingLogins))

    /// What is found out from now on interests nobody. Held while an answer is posted.
    private let isOver = NIOLockedValueBox(false)

    init() { threads.start() }

    var waitingCount: Int { queue.withLockedValue { $0.count } }

    /// Has a login checked when its turn comes, or refused.
    func submit(_ login: Login, from source: SourceAddress) {
        if let refused = queue.withLockedValue({ $0.add(login, from: source) }) { return refused.refuse() }
        // One call for each that waits, whichever it is then.
        threads.submit { [queue, isOver] state in
            let next = queue.withLockedValue { $0.next() }
            guard case .active = state, let next, !isOver.withLockedValue({ $0 }) else { return }
            let isRight = next.check()
            isOver.withLockedValue { if !$0 { next.answer(isRight) } }
        }
    }

    /// Nothing is answered once this has returned: the loops may end, while a hash may take seconds more.
    ///
    /// - Parameter whenGone: called when the threads have ended.
    func stop(_ whenGone: @escaping @Sendable () -> Void = {}) {
        isOver.withLockedValue { $0 = true }
        threads.shutdownGracefully { _ in whenGone() }
    }
}
