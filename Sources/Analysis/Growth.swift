import DumpFormat

/// How fast live memory grows over successive snapshots of one process, and what that leaves.
struct Growth {
    /// The slope of live bytes over wall time: a least-squares fit, which for two snapshots is the difference.
    let bytesPerSecond: Double
    /// What live memory can still grow by: what the limit leaves, and what is free in the chunks. An upper bound,
    /// because free pages need not fit what is asked for.
    let headroom: UInt64
    /// Nil if memory does not grow, or there is no limit.
    let nanosecondsToLimit: UInt64?

    /// Snapshots in the order they were taken.
    init(_ snapshots: [Snapshot]) {
        let points = snapshots.map { snapshot in
            (
                seconds: Double(snapshot.header.wallTime.less(snapshots[0].header.wallTime)) / 1e9,
                bytes: Double(snapshot.totals.liveBytes)
            )
        }
        let totals = snapshots[snapshots.count - 1].totals
        bytesPerSecond = Self.slope(points)
        headroom = totals.limitBytes.less(totals.counterBytes) &+ totals.freeBytes
        let nanoseconds = Double(headroom) / bytesPerSecond * 1e9
        nanosecondsToLimit =
            totals.limitBytes > 0 && bytesPerSecond > 0 && nanoseconds < 0x1p63 ? UInt64(nanoseconds) : nil
    }

    private static func slope(_ points: [(seconds: Double, bytes: Double)]) -> Double {
        let count = Double(points.count)
        let meanSeconds = points.reduce(0) { $0 + $1.seconds } / count
        let meanBytes = points.reduce(0) { $0 + $1.bytes } / count
        let spread = points.reduce(0) { $0 + ($1.seconds - meanSeconds) * ($1.seconds - meanSeconds) }
        let together = points.reduce(0) { $0 + ($1.seconds - meanSeconds) * ($1.bytes - meanBytes) }
        return spread > 0 ? together / spread : 0
    }
}
