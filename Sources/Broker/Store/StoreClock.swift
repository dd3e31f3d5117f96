import Glibc
import NIOCore

/// The time of a store, in milliseconds: begins with the wall clock when the store is made, and never goes back or jumps after
/// that. What is stored to happen at a time (messages expire, sessions end, wills are due) has it by this clock.
///
/// While the broker runs it goes with the clock of the loops, which nobody sets. Each transaction records it beside the machine's
/// clocks (``Moment``), so that the next start knows how long the broker was away: on the same boot of the machine by the time since that boot; otherwise
/// by the wall clock, if both times it can have been right, and if it did not go back; else nothing is known, and no time has passed. A
/// machine without a clock that goes on without power thus lets messages live longer than it might know, but never longer
/// than their publishers said, and ends sessions later, but ends them.
struct StoreClock: Sendable {
    /// One moment by all clocks.
    struct Moment: Equatable, Sendable {
        var time: Int64
        /// Which boot of the machine.
        var boot: String
        /// Milliseconds since then.
        var uptime: Int64
        /// Milliseconds since 1970.
        var wall: Int64
    }

    /// The clocks of the machine; ``Moment/time`` is not theirs to say.
    struct Machine: Sendable {
        var boot: String
        var uptime: @Sendable () -> Int64
        var wall: @Sendable () -> Int64

        static let real = Machine(
            boot: (SmallFile.read("/proc/sys/kernel/random/boot_id") ?? "").filter { !$0.isWhitespace },
            uptime: { milliseconds(CLOCK_BOOTTIME) }, wall: { milliseconds(CLOCK_REALTIME) })

        private static func milliseconds(_ clock: clockid_t) -> Int64 {
            var time = timespec()
            clock_gettime(clock, &time)
            return Int64(time.tv_sec) * 1_000 + Int64(time.tv_nsec) / 1_000_000
        }
    }

    /// A wall clock that says less has not been set: the start of 2020.
    static let earliestWall: Int64 = 1_577_836_800_000
    /// Hundreds of years, which are never. A damaged row may have any number.
    private static let longest: Int64 = 1 << 43
    private static let latest: Int64 = 1 << 53

    private let machine: Machine
    private let base = NIODeadline.now()
    private let start: Int64

    /// - Parameter last: what the last transaction recorded; nil for a new store.
    init(after last: Moment?, machine: Machine = .real) {
        self.machine = machine
        guard let last else {
            start = min(max(machine.wall(), 0), Self.latest)
            return
        }
        var away: Int64 = 0
        let (uptime, wall) = (machine.uptime(), machine.wall())
        if !last.boot.isEmpty, last.boot == machine.boot {
            away = uptime.subtractingReportingOverflow(last.uptime).partialValue
        } else if last.wall >= Self.earliestWall, wall >= Self.earliestWall {
            away = wall - last.wall
        }
        start = min(max(last.time, 0), Self.latest) + min(max(away, 0), Self.longest)
    }

    var now: Int64 { start + (NIODeadline.now() - base).nanoseconds / 1_000_000 }

    var moment: Moment {
        Moment(time: now, boot: machine.boot, uptime: machine.uptime(), wall: machine.wall())
    }

    /// Nil for the distant future.
    func time(of deadline: NIODeadline) -> Int64? {
        guard deadline != .distantFuture else { return nil }
        return now + (deadline - .now()).nanoseconds / 1_000_000
    }

    /// - Parameters:
    ///   - time: nil is the distant future. What is past is now.
    ///   - life: the longest that may be left, in milliseconds.
    func deadline(_ time: Int64?, life: Int64 = Self.longest) -> NIODeadline {
        guard let time else { return .distantFuture }
        let now = now
        guard time > now, life > 0 else { return .now() }
        return .now() + .milliseconds(min(time - now, min(life, Self.longest)))
    }
}
