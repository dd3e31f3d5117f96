import NIOCore

/// The deadlines of a shard's sessions at the cost of one timer: each tick yields those that are due in it.
///
/// A session has one entry, or none if nothing of it will ever be due: where that is stands in the session
/// (``Place``), and a new deadline moves the entry. So none is forgotten, and none is there twice.
///
///     slots    0    1  [ 2 ]  3    4  ...      advance() takes what is at the position
///                    position
///
/// An entry further away than the wheel spans comes due early; whoever looks at it then sets it again.
struct SessionWheel {
    /// Where a session's entry is. Part of the session; only a wheel changes it.
    struct Place {
        /// What the entry is for; the distant future if there is none.
        fileprivate(set) var deadline = NIODeadline.distantFuture
        fileprivate var slot: Int32 = 0
        fileprivate var index: Int32 = 0

        fileprivate var isEmpty: Bool { deadline == .distantFuture }
    }

    private var slots: [[Session]]
    private var position = 0
    private(set) var count = 0

    init(slots: Int) { self.slots = Array(repeating: [], count: slots) }

    /// Has the session come due at the `ticks`-th call of ``advance()`` from now, at the latest, and not before it if the
    /// wheel spans that; never, if the deadline is the distant future.
    mutating func set(_ session: Session, _ deadline: NIODeadline, ticks: Int) {
        if !session.place.isEmpty { remove(session) }
        guard deadline != .distantFuture else { return }
        let slot = (position + min(max(ticks, 1), slots.count - 1)) % slots.count
        session.place.deadline = deadline
        session.place.slot = Int32(slot)
        session.place.index = Int32(slots[slot].count)
        slots[slot].append(session)
        count += 1
    }

    private mutating func remove(_ session: Session) {
        let (slot, index) = (Int(session.place.slot), Int(session.place.index))
        let last = slots[slot].removeLast()
        if last !== session {
            slots[slot][index] = last
            last.place.index = Int32(index)
        }
        if slots[slot].isEmpty { slots[slot] = [] }
        session.place = Place()
        count -= 1
    }

    /// Moves on by one tick.
    ///
    /// - Returns: the sessions that are due, none of which has an entry now.
    mutating func advance() -> [Session] {
        position = (position + 1) % slots.count
        let due = slots[position]
        slots[position] = []
        count -= due.count
        for session in due { session.place = Place() }
        return due
    }
}
