import NIOConcurrencyHelpers

/// The commands that somebody waits for, so that all can be answered when the broker ends.
///
/// Weakly: a session that ends must be able to complete those it has.
final class WaitingCommands: Sendable {
    private struct Entry: Sendable {
        weak var waiter: CommandWaiter?
    }

    private struct Table: Sendable {
        var isEnding = false
        var entries: [UInt64: Entry] = [:]
    }

    private let table = NIOLockedValueBox(Table())

    /// - Returns: false if no command is sent any more.
    func add(_ waiter: CommandWaiter, _ number: UInt64) -> Bool {
        table.withLockedValue { table in
            guard !table.isEnding else { return false }
            table.entries[number] = Entry(waiter: waiter)
            return true
        }
    }

    func remove(_ number: UInt64) { table.withLockedValue { _ = $0.entries.removeValue(forKey: number) } }

    /// Answers all that wait, and all that come from now on.
    func end() {
        let waiters = table.withLockedValue { table in
            table.isEnding = true
            return table.entries.values.compactMap(\.waiter)
        }
        for waiter in waiters { waiter.complete(.ending) }
    }
}
