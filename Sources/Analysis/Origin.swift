public import DumpFormat

/// Where an answer came from: the file, and what its header says about the process.
public struct Origin: Sendable {
    public var path: String
    /// Nil where nothing of the file could be read.
    public var header: Snapshot.Header?
    public var completeness: Snapshot.Completeness

    public init(path: String, _ snapshot: Snapshot) {
        self.path = path
        header = snapshot.header
        completeness = snapshot.completeness
    }

    /// A dump of which nothing could be read, and why.
    public init(path: String, unreadable error: DumpError) {
        self.path = path
        completeness = Snapshot.Completeness()
        completeness.problems = error.lines
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
        guard header != nil else { return "nothing of it could be read; \(problems.joined(separator: "; "))" }
        var notice = "read \(read) of \(read + missing.count) sections"
        if !missing.isEmpty { notice += "; missing: \(missing.joined(separator: ", "))" }
        if !completeness.problems.isEmpty { notice += "; \(completeness.problems.joined(separator: "; "))" }
        return notice
    }

    var json: JSONValue {
        func text(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }
        return .object([
            .init("path", .string(path)),
            .init("format", text(header?.format.rawValue)),
            .init("program", text(header?.program)),
            .init("program_version", text(header?.programVersion)),
            .init("pid", (header?.knownPid).map { .unsigned($0) } ?? .null),
            .init("host", text(header?.knownHost)),
            .init("time", text((header?.wallTime).map(Format.isoTime))),
            .init("reason", text(header?.knownReason)),
            .init("partial", .bool(isPartial)),
            .init("sections_read", .array(completeness.sectionsRead.map { .string($0) })),
            .init("sections_missing", .array(completeness.sectionsMissing.map { .string($0) })),
            .init("problems", .array(completeness.problems.map { .string($0) })),
        ])
    }
}
