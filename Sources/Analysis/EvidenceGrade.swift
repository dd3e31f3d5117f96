public import DumpFormat

/// How far a dump carries a conclusion from what is *not* in it: that a buffer which nothing holds is lost, or that no
/// buffer is.
///
/// Absence is proof only in a whole file in which everybody is heard who could hold a buffer. Which of these premises a
/// dump lacks is put together here and nowhere else; and nothing else can say "proved".
public struct EvidenceGrade: Sendable, Equatable {
    public enum Level: String, Sendable {
        /// All premises hold.
        case proved
        /// One does not, and what speaks for the conclusion is there all the same.
        case likely
        /// What is missing may be exactly what would refute it.
        case cannotSay = "cannot-say"
    }

    /// What is concluded.
    enum Claim {
        /// Nothing held these buffers at the moment of the dump.
        case unreachable
        /// The buffers that nothing held are lost: nothing can hold them any more.
        case lost
        /// No buffer is lost, beyond what the dump says is.
        case nothingElseLost
    }

    public let level: Level
    /// Premises that the claim needs and the dump lacks.
    public let missing: [Snapshot.MissingPremise]

    init(_ snapshot: Snapshot, for claim: Claim) {
        var missing = Self.missingPremises(snapshot)
        // What is known of counters says nothing about buffers that are in no counter's name.
        if claim != .nothingElseLost { missing.removeAll { $0.premise == .knownCounter } }
        if claim == .lost, Self.mayBeUnderWay(snapshot) {
            missing.append(
                .init(.nothingUnderWay, "so few may be what threads were allocating or releasing at that moment"))
        }
        self.missing = missing
        let lacksWholeFile = missing.contains { $0.premise == .wholeFile }
        if lacksWholeFile, snapshot.header.format == .nettyHeapDump || Self.lacksAllocationGroups(snapshot) {
            // Who holds a buffer is found by reading all of a heap dump; in our own dumps the writer has said it, in one table.
            level = .cannotSay
        } else if claim == .nothingElseLost, Self.leavesMuchUnjudged(snapshot) {
            level = .cannotSay
        } else {
            level = missing.isEmpty ? .proved : .likely
        }
    }

    private static func missingPremises(_ snapshot: Snapshot) -> [Snapshot.MissingPremise] {
        var missing: [Snapshot.MissingPremise] = []
        let completeness = snapshot.completeness
        if !completeness.isComplete {
            let sections = completeness.sectionsMissing
            let first = sections.isEmpty ? completeness.problems.first : "missing: \(sections.joined(separator: ", "))"
            missing.append(.init(.wholeFile, "the file is damaged (\(first ?? "no end"))"))
        } else if lacksAllocationGroups(snapshot) {
            missing.append(.init(.wholeFile, "the table that says who holds the buffers is empty"))
        }
        for loop in snapshot.missingLoops {
            missing.append(
                .init(
                    .allReferrers, "\(loop.words) did not come to the safepoint, and could not be asked what it holds"))
        }
        if snapshot.ending != nil {
            missing.append(.init(.allReferrers, "a flight recorder's file does not say who holds a buffer"))
        } else if snapshot.totals.unreachableBuffers == nil {
            missing.append(.init(.allReferrers, "this dump has no references, which say who holds a buffer"))
        }
        return missing + snapshot.missingPremises
    }

    /// Under a filter that lets nothing through the table is empty as well, and so are the sites then.
    private static func lacksAllocationGroups(_ snapshot: Snapshot) -> Bool {
        snapshot.allocationGroups.isEmpty && snapshot.totals.liveBuffers > 0
            && (!snapshot.completeness.isComplete || snapshot.sites.contains { $0.liveBuffers > 0 })
    }

    /// A JVM dumps its heap wherever its threads are: one that is in the middle of an allocation, or of a release, has memory
    /// that no `ByteBuf` refers to. Our own dumps are taken where no handler runs.
    private static func mayBeUnderWay(_ snapshot: Snapshot) -> Bool {
        let lost = Amount(
            buffers: snapshot.totals.unreachableBuffers ?? 0, bytes: snapshot.totals.unreachableBytes ?? 0)
        return snapshot.header.format == .nettyHeapDump && (1...max(1, snapshot.header.threadCount)) ~= lost.buffers
            && Importance(of: lost, beside: snapshot.totals) == .minor
    }

    /// Whether buffers that are neither reachable nor unreachable would matter if they were lost.
    private static func leavesMuchUnjudged(_ snapshot: Snapshot) -> Bool {
        let unjudged = Amount(buffers: snapshot.header.unjudgedBuffers, bytes: snapshot.header.unjudgedBytes)
        return Importance(of: unjudged, beside: snapshot.totals) == .major
    }

    /// Why it is not proved, in words that follow "because"; empty where it is.
    public var reason: String { missing.map(\.detail).joined(separator: "; ") }

    /// What a finding may be called that rests on `evidence`.
    func confidence(in evidence: Diagnosis.Evidence) -> Confidence {
        switch evidence {
        case .unreachable: level == .proved ? .proved : .likely
        case .survivors: .likely
        case .share: .possible
        }
    }

    /// For programs, beside a verdict.
    var fields: [Report.Field] {
        [
            .init("evidence", .text(level.rawValue)), .init("evidence_reason", .text(reason)),
            .init("missing_premises", .text(missing.map(\.premise.name).joined(separator: " "))),
        ]
    }
}

/// How sure a finding is, as people and programs read it. `proved` comes from an `EvidenceGrade` only.
struct Confidence: Sendable, Equatable {
    let word: String

    private init(_ word: String) { self.word = word }

    fileprivate static let proved = Confidence("proved")
    static let likely = Confidence("likely")
    static let possible = Confidence("possible")

    var isProved: Bool { self == .proved }
}
