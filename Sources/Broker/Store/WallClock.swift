import Glibc
import NIOCore

/// Deadlines as the store has them: the clock of the loops begins anew with the machine.
enum WallClock {
    /// Milliseconds since 1970 now.
    static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000
    }

    /// A deadline as milliseconds since 1970; nil for the distant future.
    static func milliseconds(_ deadline: NIODeadline) -> Int64? {
        guard deadline != .distantFuture else { return nil }
        return now() + (deadline - .now()).nanoseconds / 1_000_000
    }

    /// - Parameter milliseconds: nil is the distant future. What is past is now.
    static func deadline(_ milliseconds: Int64?) -> NIODeadline {
        guard let milliseconds else { return .distantFuture }
        // Hundreds of years are never; more would not fit. A damaged row may have any number.
        let now = now()
        return .now() + .milliseconds(milliseconds > now ? min(milliseconds - now, 1 << 43) : 0)
    }
}
