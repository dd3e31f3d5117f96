public import DumpFormat

/// Whether snapshots are of one process: only then is a buffer in one the buffer of the same serial in another.
///
/// Dumps of ours say it: process id, start and host. Heap dumps have no such words, but marks (`Snapshot.ProcessMark`). One that
/// differs decides against it; two that agree prove it, since each is a random number or a time of its own.
public struct ProcessSameness: Equatable {
    public enum Verdict: String, Equatable {
        case same, different, unknown
    }

    /// How sure it is, as programs see it.
    public enum Grade: String, Equatable {
        case proved, likely
        case cannotSay = "cannot-say"
    }

    public let verdict: Verdict
    public let grade: Grade
    /// Words that follow "by", or, where nothing can be said, "because".
    public let reason: String

    public var isSame: Bool { verdict == .same }

    private init(_ verdict: Verdict, _ grade: Grade, _ reason: String) {
        self.verdict = verdict
        self.grade = grade
        self.reason = reason
    }

    /// Of all of them; at least one.
    public init(_ snapshots: [Snapshot]) {
        let first = snapshots[0].header
        let all = snapshots.dropFirst().map { Self.compare(first, $0.header) }
        // The weakest link: one that differs, else one that is not known, else the least sure.
        let order: [(Verdict, Grade)] = [
            (.different, .proved), (.different, .likely), (.unknown, .cannotSay), (.same, .likely), (.same, .proved),
        ]
        self =
            order.lazy.compactMap { wanted in all.first { ($0.verdict, $0.grade) == wanted } }.first
            ?? Self(.same, .proved, "being one dump")
    }

    private static func compare(_ left: Snapshot.Header, _ right: Snapshot.Header) -> Self {
        guard left.format == right.format else { return Self(.different, .proved, "their kinds of dump") }
        guard left.format == .nettyHeapDump else {
            let isSame = left.pid == right.pid && left.startTime == right.startTime && left.host == right.host
            return Self(isSame ? .same : .different, .proved, "process id, start and host")
        }
        // 0 where the dump does not have it.
        if left.pid != right.pid, left.pid > 0, right.pid > 0 { return Self(.different, .proved, "their process ids") }
        var agreeing: [String] = []
        for mark in left.processMarks {
            guard let other = right.processMarks.first(where: { $0.name == mark.name }) else { continue }
            if mark.value != other.value { return Self(.different, .proved, mark.name) }
            if mark.kind == .own { agreeing.append(mark.name) }
        }
        if agreeing.isEmpty {
            return left.program == right.program
                ? Self(.unknown, .cannotSay, "these heap dumps have nothing in common that only one process has")
                : Self(.different, .likely, "their programs")
        }
        return Self(.same, agreeing.count > 1 ? .proved : .likely, Self.list(agreeing))
    }

    private static func list(_ names: [String]) -> String {
        names.count < 2
            ? names.joined() : names.dropLast().joined(separator: ", ") + " and " + names[names.count - 1]
    }
}
