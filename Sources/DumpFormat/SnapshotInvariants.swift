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
        guard let slots = snapshot.slots else {
            return tables(snapshot) + [
                VerifyCheck(name: "slots", passed: false, detail: "the dump has no slots to check against")
            ]
        }
        var references: ReferenceChecks?
        if let all = snapshot.references {
            var found = ReferenceChecks(slotCount: slots.count)
            found.add(all, owners: snapshot.owners.count)
            references = found
        }
        let serials = Result { () throws(DumpError) in try SerialSet(count: slots.count) }
        var checks = SlotChecks(snapshot, Layout(snapshot), serials, references: references)
        checks.add(slots)
        return tables(snapshot) + checks.results { (slots.address, slots.capacity) }
    }

    /// What the small tables alone must obey.
    static func tables(_ snapshot: Snapshot) -> [VerifyCheck] {
        [counter(snapshot), chunkBytes(snapshot), liveAndFree(snapshot), chunkTable(snapshot)]
            + (snapshot.unpooledInRows > 0 ? [unpooledRows(snapshot)] : [])
    }
}
