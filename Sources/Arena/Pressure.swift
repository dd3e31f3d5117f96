import CArena
import Ledger

extension ArenaPool {
    /// What the pool reports, on the thread whose allocation caused it and perhaps under an arena's lock: the receiver may only
    /// hand it on.
    public enum Pressure: Sendable, Equatable {
        /// The counter passed the near level. Once per excursion.
        case nearLimit
        /// An allocation was refused. Once per excursion.
        case refused(ArenaError)
        /// The level changed: noticed when chunks and huge buffers come and go.
        case level(old: Level, new: Level)
    }

    /// Who hears of pressure from now on. Any thread.
    public func onPressure(_ handler: @escaping @Sendable (Pressure) -> Void) { pressure.tell(handler) }

    /// Counts a refusal that the program makes by itself, so that what is left stays for other things, as one of the arena. Any thread.
    ///
    /// - Parameter isFirst: of an excursion; it is among the events.
    public func countRefusal(of size: Int, isFirst: Bool) {
        _ = arena_add(budget.failedAllocations, 1)
        if isFirst { pressure.recordRefusal(of: size) }
    }

    /// Counts a refusal and makes the error for it. What was refused is a chunk, or a mapping larger than one.
    func refuse(_ size: Int) -> ArenaError {
        _ = arena_add(budget.failedAllocations, 1)
        let error = budget.limitError(needed: max(size, SizeClasses.chunkSize))
        pressure.noteRefusal(of: size, error)
        return error
    }
}

/// Says what has become of the counter: to the ring of events, and to the program. Each change once, whichever thread sees it
/// first (`LevelWatch`).
struct PressureReporter: Sendable {
    private let budget: Budget
    private let events: EventRing
    /// Not called under its lock, which is a leaf.
    private let handler = Guarded<(@Sendable (ArenaPool.Pressure) -> Void)?>(nil)

    init(budget: Budget, events: EventRing) { (self.budget, self.events) = (budget, events) }

    func tell(_ new: @escaping @Sendable (ArenaPool.Pressure) -> Void) { handler.withLock { $0 = new } }

    private func report(_ pressure: ArenaPool.Pressure) { handler.withLock { $0 }?(pressure) }

    /// To be called after chunks and huge mappings have come and gone, without the pool's lock.
    func look() {
        if let (old, new) = budget.moveLevel() {
            events.record(.level, "\(old) to \(new)", value: arena_load(budget.counter))
            report(.level(old: old, new: new))
        }
        if budget.entersNear() {
            events.record(.nearLimit, "the counter came near the limit", value: arena_load(budget.counter))
            report(.nearLimit)
        }
    }

    func noteRefusal(of size: Int, _ error: ArenaError) {
        guard budget.entersRefusal() else { return }
        recordRefusal(of: size)
        report(.refused(error))
    }

    func recordRefusal(of size: Int) {
        events.record(.refused, "\(size) bytes were asked for", value: arena_load(budget.counter))
    }
}
