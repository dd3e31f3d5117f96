import Arena
import Logging
import NIOCore

/// Logs the arena's counter and limit: every second at debug level, every ten seconds at info if the counter moved.
///
/// Belongs to the first shard, whose tick calls it once a second.
struct CounterLog {
    private static let infoSeconds = 10
    private var seconds = 0
    private var lastLogged: Int?

    mutating func tick(_ pool: ArenaPool, _ log: Logger) {
        seconds += 1
        let counter = pool.counterBytes
        let isInfoDue = seconds >= Self.infoSeconds
        if isInfoDue { seconds = 0 }
        guard log.logLevel <= .debug || (isInfoDue && counter != lastLogged) else { return }
        let isInfo = isInfoDue && counter != lastLogged
        if isInfo { lastLogged = counter }
        let percent = pool.limitBytes == 0 ? 0 : counter * 1_000 / pool.limitBytes
        log.log(
            level: isInfo ? .info : .debug,
            "arena counter=\(counter) limit=\(pool.limitBytes) percent=\(percent / 10).\(percent % 10)")
    }
}
