import NIOConcurrencyHelpers
import NIOCore

/// How often each address has failed to log in lately, and how long its next refusal therefore takes.
///
/// Refusals of an address come after 1, 2, 4 ... times the configured delay, up to `Limits.maxLoginDelaySeconds`. An
/// address is forgotten when it has been quiet, or when the table is full: it holds a constant number of addresses, and
/// gives up the one that has been quiet longest.
final class FailedLogins: Sendable {
    private struct Entry {
        var count: Int
        var last: NIODeadline
    }

    private let entries = NIOLockedValueBox<[SourceAddress: Entry]>([:])
    private let capacity: Int

    init(capacity: Int = Limits.maxFailedLoginAddresses) { self.capacity = capacity }

    var addressCount: Int { entries.withLockedValue { $0.count } }

    /// Counts a failure.
    ///
    /// - Returns: how long to wait with the answer.
    func note(_ address: SourceAddress, delayMilliseconds: Int, now: NIODeadline = .now()) -> (
        count: Int, wait: TimeAmount
    ) {
        let count = entries.withLockedValue { entries in
            if entries[address] == nil, entries.count >= capacity { Self.makeRoom(&entries, now) }
            var entry = entries[address] ?? Entry(count: 0, last: now)
            if now - entry.last > .seconds(Int64(Limits.failedLoginMemorySeconds)) { entry.count = 0 }
            entry = Entry(count: entry.count + 1, last: now)
            entries[address] = entry
            return entry.count
        }
        let longest = Int64(Limits.maxLoginDelaySeconds) * 1_000
        let wait = min(Int64(delayMilliseconds) << Int64(min(count - 1, 20)), longest)
        return (count, .milliseconds(wait))
    }

    /// A login that succeeded ends the count.
    func forget(_ address: SourceAddress) { entries.withLockedValue { _ = $0.removeValue(forKey: address) } }

    /// Rare, so a pass over all is good enough: it makes room for an eighth of the table at once.
    private static func makeRoom(_ entries: inout [SourceAddress: Entry], _ now: NIODeadline) {
        let limit = TimeAmount.seconds(Int64(Limits.failedLoginMemorySeconds))
        entries = entries.filter { now - $0.value.last <= limit }
        let oldest = entries.sorted { $0.value.last < $1.value.last }.prefix(max(1, entries.count / 8))
        for (address, _) in oldest { entries[address] = nil }
    }
}
