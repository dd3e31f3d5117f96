import Arena
import Ledger
import Logging
import NIOConcurrencyHelpers

/// Whom messages were lost for, in bounded memory (Misra and Gries 1982): a client with more than a `capacity`-th of
/// all losses is always in the table, and what it is charged is at most that much too little.
struct LossTally {
    private static let capacity = 32
    private var clients: [UTF8Key: Int] = [:]

    mutating func add(_ client: String, count: Int = 1) {
        let key = UTF8Key(client)
        if clients[key] != nil || clients.count < Self.capacity {
            clients[key, default: 0] += count
        } else {
            clients = clients.compactMapValues { $0 > count ? $0 - count : nil }
        }
    }

    /// Adds what another tally has, and empties it.
    mutating func take(_ other: inout LossTally) {
        guard !other.clients.isEmpty else { return }
        for (client, count) in other.clients { add(client.text, count: count) }
        other.clients = [:]
    }

    var worst: (client: String, count: Int)? {
        clients.max { $0.value < $1.value }.map { ($0.key.text, $0.value) }
    }
}

/// The tallies of all shards together. The lock is taken once a second by shards that lost something.
final class Losses: Sendable {
    private let tally = NIOLockedValueBox(LossTally())

    func take(_ shard: inout LossTally) { tally.withLockedValue { $0.take(&shard) } }

    /// The most affected client since the last call.
    func takeWorst() -> (client: String, count: Int)? {
        tally.withLockedValue { tally in
            defer { tally = LossTally() }
            return tally.worst
        }
    }
}

/// Says in the log that messages were lost, how many and for whom most: at once, then every ten seconds as long as
/// there are more. Belongs to the first shard, whose tick calls it once a second.
struct LossLog {
    private var secondsLeft = 0
    private var lastTotals: [Int] = []

    mutating func tick(_ counters: Counters, _ losses: Losses, _ pool: ArenaPool, _ log: Logger) {
        if secondsLeft > 0 { secondsLeft -= 1 }
        let totals = Self.totals(counters)
        guard secondsLeft == 0, totals.map(\.count) != lastTotals else { return }
        defer { lastTotals = totals.map(\.count) }
        guard totals.contains(where: { $0.count > 0 }) else { return }
        secondsLeft = Limits.lossLogIntervalSeconds
        var metadata = Logger.Metadata(uniqueKeysWithValues: totals.map { ($0.name, "\($0.count)") })
        var event = totals.filter { $0.count > 0 }.map { "\($0.name) \($0.count)" }.joined(separator: ", ")
        if let worst = losses.takeWorst() {
            event = "\(LogLines.cut(worst.client)): \(worst.count); " + event
            metadata["client"] = "\(LogLines.cut(worst.client))"
            metadata["client_lost"] = "\(worst.count)"
        }
        pool.recordEvent(.loss, event, value: UInt64(totals.reduce(0) { $0 + $1.count }))
        log.warning(
            "messages lost; totals since the start, and the client that lost most since the last such line",
            metadata: metadata)
    }

    private static func totals(_ counters: Counters) -> [(name: String, count: Int)] {
        [
            ("queue_drops", counters.queueDrops.value),
            ("backlog_drops", counters.backlogDrops.value),
            ("publishes_refused", counters.publishesRefused.value),
            ("consumers_disconnected", counters.consumersShed.value),
            ("retained_refused", counters.retainedRefused.value),
            ("messages_unsendable", counters.messagesUnsendable.value),
            ("messages_withheld", counters.messagesWithheld.value),
            ("commands_undeliverable", counters.commandsUndeliverable.value),
            ("commands_timed_out", counters.commandsTimedOut.value),
            ("responses_unmatched", counters.responsesUnmatched.value),
        ]
    }
}
