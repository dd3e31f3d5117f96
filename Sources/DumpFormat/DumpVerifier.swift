/// What `DumpVerifier` found.
public struct VerifyReport: Sendable, Equatable {
    public var checks: [VerifyCheck] = []
    public var passed: Bool { checks.allSatisfy(\.passed) }

    public init() {}
}

/// Checks a dump to its last byte: every checksum, everything the file says twice, and everything the model must obey.
public enum DumpVerifier {
    public static func verify(path: String, parallelism: Int = 2) -> VerifyReport {
        var report = VerifyReport()
        do throws(DumpError) {
            let input = try DumpInput(path: path)
            if try !LedgerReader.recognises(input) {
                var decoder = FrameDecoder()
                try FileHeader.check(input, &decoder)
                report.checks.append(VerifyCheck(name: "file header", passed: true, detail: "\(input.size) bytes"))
                report.checks += try structure(input, &decoder)
            }
            let snapshot = try DumpReader.read(input, .everything, parallelism)
            let gaps = snapshot.completeness.problems + snapshot.completeness.sectionsMissing.map { "no section \($0)" }
            report.checks.append(
                VerifyCheck(
                    name: "every section can be read", passed: gaps.isEmpty,
                    detail: gaps.isEmpty
                        ? "\(snapshot.completeness.sectionsRead.count) sections" : gaps.joined(separator: "; ")))
            report.checks += SnapshotInvariants.check(snapshot)
        } catch {
            report.checks.append(VerifyCheck(name: "file", passed: false, detail: error.message))
        }
        return report
    }

    /// What the seek table, the directory and the end marker say, against the frames themselves.
    private static func structure(
        _ input: DumpInput, _ decoder: inout FrameDecoder
    ) throws(DumpError) -> [VerifyCheck] {
        guard let table = try SeekTable.read(input) else {
            return [VerifyCheck(name: "seek table", passed: false, detail: "the file does not end with one")]
        }
        var frames: [String] = []
        var sizes: [String] = []
        var found: [DirectoryEntry] = []
        var directory: [DirectoryEntry] = []
        var end: [EndMarker.Section] = []
        var offset: UInt64 = 0
        for frame in table {
            do throws(FrameProblem) {
                let block = try decoder.load(input, offset: offset, size: UInt64(frame.compressedBytes))
                if decoder.contentBytes != Int(frame.contentBytes) {
                    sizes.append("frame at byte \(offset): \(decoder.contentBytes) bytes, not \(frame.contentBytes)")
                }
                switch Section(rawValue: block.section) {
                case .directory: directory = DirectoryEntry.decode(decoder.payload)
                case .end: end = EndMarker.decode(decoder.payload)
                default: break
                }
                if block.section != Section.directory.rawValue {
                    found.append(
                        DirectoryEntry(
                            section: block.section, column: block.column, rows: block.rows, firstRow: block.firstRow,
                            offset: offset, size: frame.compressedBytes, contentBytes: UInt32(decoder.contentBytes)))
                }
            } catch {
                frames.append("frame at byte \(offset): \(error)")
            }
            offset += UInt64(frame.compressedBytes)
        }
        let wrong = zip(found, directory).filter { $0 != $1 }.map { "\($0.name) is announced as \($1.name)" }
        let counts = found.count == directory.count ? [] : ["\(directory.count) entries for \(found.count) frames"]
        return [
            check("checksum of every frame", frames, "\(table.count) frames"),
            check("seek table agrees with the frames", sizes, "\(table.count) frames"),
            check("directory agrees with the frames", counts + wrong, "\(directory.count) entries"),
            check("end marker agrees with the frames", endProblems(end, found), "\(end.count) sections"),
        ]
    }

    private static func endProblems(_ end: [EndMarker.Section], _ frames: [DirectoryEntry]) -> [String] {
        var rows: [UInt16: UInt64] = [:]
        var columns: [UInt16: Set<UInt16>] = [:]
        for frame in frames where frame.section != Section.file.rawValue && frame.section != Section.end.rawValue {
            rows[frame.section] = max(rows[frame.section] ?? 0, frame.endRow)
            columns[frame.section, default: []].insert(frame.column)
        }
        var problems = end.isEmpty ? ["there is no end marker"] : []
        for section in end {
            let name = Section(rawValue: section.section)?.name ?? "section \(section.section)"
            if rows[section.section] != section.rows || columns[section.section]?.count != Int(section.columns) {
                problems.append(
                    "\(name): \(section.columns) columns of \(section.rows) rows announced, "
                        + "\(columns[section.section]?.count ?? 0) of \(rows[section.section] ?? 0) found")
            }
            rows[section.section] = nil
        }
        return problems + rows.keys.sorted().map { "section \($0) is not announced" }
    }

    private static func check(_ name: String, _ problems: [String], _ detail: String) -> VerifyCheck {
        let shown = problems.prefix(5).joined(separator: "; ")
        let more = problems.count > 5 ? "; and \(problems.count - 5) more" : ""
        return VerifyCheck(name: name, passed: problems.isEmpty, detail: problems.isEmpty ? detail : shown + more)
    }
}
