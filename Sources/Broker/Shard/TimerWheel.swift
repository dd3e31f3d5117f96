/// Deadlines of many connections at the cost of one timer: each tick yields the entries due in it.
///
/// Entries are not moved when a deadline is: whoever owns one looks at the real deadline when it comes due, and
/// inserts it again if there is time left. An entry further away than the wheel spans comes due early.
struct TimerWheel<Entry> {
    private var slots: [[Entry]]
    private var position = 0

    init(slots: Int) { self.slots = Array(repeating: [], count: slots) }

    /// Comes due at the `ticks`-th call of ``advance(_:)`` from now, at the latest.
    mutating func insert(_ entry: Entry, ticks: Int) {
        let distance = min(max(ticks, 1), slots.count - 1)
        slots[(position + distance) % slots.count].append(entry)
    }

    /// All that is in it; for tests.
    var entries: [Entry] { slots.flatMap { $0 } }

    /// Moves on by one tick.
    ///
    /// - Returns: what is due.
    mutating func advance() -> [Entry] {
        position = (position + 1) % slots.count
        defer { slots[position] = [] }
        return slots[position]
    }
}
