import Synchronization

/// Whether memory is short on any loop, so that one excursion asks for one dump, however many loops it reaches and
/// however often each goes in and out. Any thread.
final class Shortage: Sendable {
    private let loops = Atomic<Int>(0)
    private let hasDump = Atomic<Bool>(false)
    private let handler = Mutex<(@Sendable () -> Void)?>(nil)

    /// - Parameter body: called when a dump is due, on the loop that found memory short.
    func onShortage(_ body: @escaping @Sendable () -> Void) { handler.withLock { $0 = body } }

    /// A loop has left the normal level.
    func begin() { loops.add(1, ordering: .relaxed) }

    /// A loop is back at the normal level: with the last one the excursion is over.
    func end() {
        if loops.subtract(1, ordering: .relaxed).newValue == 0 { hasDump.store(false, ordering: .relaxed) }
    }

    /// A loop no longer reads publishers.
    func reachNear() {
        guard takesDump() else { return }
        handler.withLock { $0 }?()
    }

    /// Whether the dump of this excursion is still due. It is not from here on.
    func takesDump() -> Bool {
        loops.load(ordering: .relaxed) == 0 || !hasDump.exchange(true, ordering: .relaxed)
    }
}
