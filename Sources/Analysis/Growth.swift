import DumpFormat

/// How fast live memory grows over successive snapshots of one process, and what that leaves. Rates of growth are computed
/// here and nowhere else: what changed, over the time that it took.
struct Growth {
    /// What growth leads to, by the last step: what was before it may be over.
    enum Forecast: Equatable {
        case noLimit
        /// Nothing more is let in. Refused: how many allocations, in the last step.
        case atLimit(refused: UInt64)
        case notGrowing
        /// In centuries.
        case farAway
        case limit(inNanoseconds: UInt64)
    }

    /// Of live bytes, from the first snapshot to the last.
    let bytesPerSecond: Double
    /// The same of the last two.
    let lastStepBytesPerSecond: Double
    /// What live memory can still grow by: what the limit leaves, and what is free in the chunks. An upper bound,
    /// because free pages need not fit what is asked for.
    let headroom: UInt64
    let forecast: Forecast

    /// Snapshots in the order they were taken, at least two.
    init(_ snapshots: [Snapshot]) {
        let newest = snapshots[snapshots.count - 1]
        let before = snapshots[snapshots.count - 2]
        let totals = newest.totals
        bytesPerSecond = Self.bytesPerSecond(from: snapshots[0], to: newest)
        let rate = Self.bytesPerSecond(from: before, to: newest)
        lastStepBytesPerSecond = rate
        headroom = totals.limitBytes.less(totals.counterBytes) &+ totals.freeBytes
        let nanoseconds = Double(headroom) / rate * 1e9
        if totals.limitBytes == 0 {
            forecast = .noLimit
        } else if let refused = Self.refusedAtLimit(newest, since: before) {
            forecast = .atLimit(refused: refused)
        } else if rate <= 0 {
            forecast = .notGrowing
        } else {
            forecast = nanoseconds < 0x1p63 ? .limit(inNanoseconds: UInt64(nanoseconds)) : .farAway
        }
    }

    /// Nil unless the limit has been reached: the counter has passed it, or allocations were refused in the last step and another
    /// chunk would pass it, or the counter is still in its last quarter: each loop of a broker keeps a part of what is left for
    /// acknowledgements and for what drains its queues, so with several loops refusals begin there.
    private static func refusedAtLimit(_ newest: Snapshot, since before: Snapshot) -> UInt64? {
        let totals = newest.totals
        let refused = totals.failedAllocations.less(before.totals.failedAllocations)
        let room = totals.limitBytes.less(totals.counterBytes)
        if room == 0 { return refused }
        let wasRefused = refused > 0 || newest.header.reason == "allocation-failure"
        return room < max(totals.chunkSize, totals.limitBytes / 4) && wasRefused ? refused : nil
    }

    /// Zero where the limit is reached; nil where there is none, or nothing leads to it.
    var nanosecondsToLimit: UInt64? {
        switch forecast {
        case .atLimit: 0
        case .limit(let nanoseconds): nanoseconds
        case .noLimit, .notGrowing, .farAway: nil
        }
    }

    /// Of live memory.
    static func bytesPerSecond(from first: Snapshot, to last: Snapshot) -> Double {
        bytesPerSecond(last.totals.liveBytes.change(from: first.totals.liveBytes), from: first, to: last)
    }

    /// Of anything that changed by `bytes` between the two; 0 where there was no time.
    static func bytesPerSecond(_ bytes: Int64, from first: Snapshot, to last: Snapshot) -> Double {
        let nanoseconds = last.header.wallTime.less(first.header.wallTime)
        return nanoseconds > 0 ? Double(bytes) / (Double(nanoseconds) / 1e9) : 0
    }
}
