/// The outcome of one check of a dump.
public struct VerifyCheck: Sendable, Equatable {
    public let name: String
    public let passed: Bool
    /// What was counted, or the first few offenders with expected and actual numbers.
    public let detail: String

    public init(name: String, passed: Bool, detail: String) {
        self.name = name
        self.passed = passed
        self.detail = detail
    }
}

/// What must hold in every snapshot: tables that describe the same memory must agree about it.
///
/// Works on any snapshot that was read completely, wherever it came from. Each check stands alone, so that one wrong
/// number is reported once and not hidden by another.
public enum SnapshotInvariants {
    public static func check(_ snapshot: Snapshot) -> [VerifyCheck] {
        var checks = [counter(snapshot), chunkBytes(snapshot), liveAndFree(snapshot), chunkTable(snapshot)]
        guard let slots = snapshot.slots else {
            checks.append(VerifyCheck(name: "slots", passed: false, detail: "the dump has no slots to check against"))
            return checks
        }
        let layout = Layout(snapshot)
        checks += [
            totalSums(snapshot, slots), chunkSums(snapshot, slots, layout), siteSums(snapshot, slots),
            ownerSums(snapshot, slots), arenaSums(snapshot, slots), retainerSums(snapshot, slots),
            references(snapshot, slots), slotSizes(snapshot, slots), overlaps(slots), serials(slots),
            births(snapshot, slots), slotChunks(snapshot, slots, layout),
        ]
        if let runs = snapshot.runs {
            checks += [
                runOverlaps(snapshot, runs, layout), slotRuns(snapshot, slots, runs, layout),
                runCounts(slots, runs, layout), freePages(snapshot, runs, layout),
            ]
        }
        if let edges = snapshot.edges {
            checks += [edgeTargets(snapshot, slots, edges), unheld(snapshot, slots, edges)]
        }
        return checks
    }
}
