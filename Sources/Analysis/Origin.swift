public import DumpFormat

/// Where an answer came from: the file, and what its header says about the process.
public struct Origin: Sendable {
    public var path: String
    public var header: Snapshot.Header
    public var completeness: Snapshot.Completeness

    public init(path: String, _ snapshot: Snapshot) {
        self.path = path
        header = snapshot.header
        completeness = snapshot.completeness
    }

    /// What people read: `-` is standard input.
    public var name: String { Self.name(of: path) }

    public static func name(of path: String) -> String { path == "-" ? "standard input" : path }

    public var isPartial: Bool { !completeness.isComplete }

    public var problems: [String] { completeness.problems }

    /// `read 7 of 9 sections; missing: slots, references`, or nil for a whole file.
    public var partialNotice: String? {
        guard isPartial else { return nil }
        let read = completeness.sectionsRead.count
        let missing = completeness.sectionsMissing
        var notice = "read \(read) of \(read + missing.count) sections"
        if !missing.isEmpty { notice += "; missing: \(missing.joined(separator: ", "))" }
        if !completeness.problems.isEmpty { notice += "; \(completeness.problems.joined(separator: "; "))" }
        return notice
    }

    var json: JSONValue {
        .object([
            .init("path", .string(path)),
            .init("format", .string(header.format.rawValue)),
            .init("program", .string(header.program)),
            .init("program_version", .string(header.programVersion)),
            .init("pid", .unsigned(header.pid)),
            .init("host", .string(header.host)),
            .init("time", .string(Format.isoTime(header.wallTime))),
            .init("reason", .string(header.reason)),
            .init("partial", .bool(isPartial)),
            .init("sections_read", .array(completeness.sectionsRead.map { .string($0) })),
            .init("sections_missing", .array(completeness.sectionsMissing.map { .string($0) })),
            .init("problems", .array(completeness.problems.map { .string($0) })),
        ])
    }
}
