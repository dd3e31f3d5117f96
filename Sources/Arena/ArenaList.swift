import Synchronization

/// A pool's arenas, by index: as many as there may be, at a fixed place, so that any thread can look at them while one more is
/// added.
struct ArenaList: ~Copyable {
    let states: UnsafeMutablePointer<ArenaState.Pointer>
    private let count = Atomic(0)

    init(capacity: Int) { states = .allocate(capacity: capacity) }

    deinit {
        for state in all { ArenaState.destroy(state) }
        states.deallocate()
    }

    /// Any thread.
    var all: UnsafeBufferPointer<ArenaState.Pointer> {
        UnsafeBufferPointer(start: states, count: count.load(ordering: .acquiring))
    }

    /// Not from two threads at once.
    func append(_ state: ArenaState.Pointer) {
        let index = count.load(ordering: .relaxed)
        (states + index).initialize(to: state)
        count.store(index + 1, ordering: .releasing)
    }
}
