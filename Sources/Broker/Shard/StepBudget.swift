/// How much a loop does between two looks at its sockets, in steps: about what a packet, a delivery to one session or a
/// look at a node of a tree costs, a fraction of a microsecond. Whoever does something that a peer can order a lot of counts it
/// here, and leaves what is too much for the next tick (`DeferredWork`).
///
/// Counting is exact, so that tests need not measure time.
struct StepBudget {
    /// Left until the budget is spent; below 0 by what the last piece took beyond it.
    private(set) var left = Limits.stepsPerTick
    /// A piece of deferred work must leave this to the others.
    private var floor = 0
    private var given = Limits.stepsPerTick
    /// Of this tick, without those since the last renewal; of ended ticks, the most and all together.
    private var renewedSteps = 0
    private var mostOfEnded = 0
    private var totalOfEnded = 0

    private var tickSteps: Int { renewedSteps + given - left }
    /// The most steps between two looks at the sockets.
    var mostPerTick: Int { max(mostOfEnded, tickSteps) }
    /// Since the beginning.
    var total: Int { totalOfEnded + tickSteps }

    /// Whether what can wait must do so.
    @inline(__always)
    var isSpent: Bool { left <= floor }
    /// What may be taken yet.
    var room: Int { max(0, left - floor) }

    @inline(__always)
    mutating func take(_ steps: Int = 1) { left &-= steps }

    /// Sockets were served: what comes in now may take its steps, whatever has been deferred.
    mutating func tickEnded() {
        mostOfEnded = mostPerTick
        totalOfEnded = total
        renew(Limits.stepsPerTick)
        renewedSteps = 0
    }

    /// What was deferred has steps of its own, however many were taken by what came in.
    mutating func beginDeferred() { renew(Limits.deferredStepsPerTick) }

    private mutating func renew(_ steps: Int) {
        renewedSteps = tickSteps
        (given, left, floor) = (steps, steps, 0)
    }

    /// A piece of work begins that gets its share of what is left.
    mutating func beginSlice() { floor = max(0, left - Limits.stepsPerSlice) }

    mutating func endSlice() { floor = 0 }
}
