/// What `DumpVerifier` found.
public struct VerifyReport: Sendable {
    public var checks: [VerifyCheck] = []
    /// The small tables, the runs, and what of the file can be read; nil where that is nothing, or it is no dump.
    public var tables: Snapshot?
    /// Why there are none.
    public var error: DumpError?
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
                report.checks += try structure(input, parallelism)
            }
            let isWhole = report.passed
            if isWhole, let blocks = try DumpBlocks(path: path) {
                try check(blocks, &report)
            } else {
                try check(try DumpReader.read(input, .everything, parallelism), &report)
            }
        } catch {
            let detail = error.lines.joined(separator: "; ")
            report.checks.append(VerifyCheck(name: "file", passed: false, detail: detail))
            report.error = error
        }
        return report
    }

    private static func check(_ snapshot: Snapshot, _ report: inout VerifyReport) throws(DumpError) {
        let gaps = snapshot.completeness.problems + snapshot.completeness.sectionsMissing.map { "no section \($0)" }
        report.checks.append(
            VerifyCheck(
                name: readable, passed: gaps.isEmpty,
                detail: gaps.isEmpty
                    ? counted(snapshot.completeness.sectionsRead.count, "section") : gaps.joined(separator: "; ")))
        report.checks += SnapshotInvariants.check(snapshot)
        report.tables = snapshot
    }

    /// A file whose frames are all as they were written, block by block.
    private static func check(_ blocks: DumpBlocks, _ report: inout VerifyReport) throws(DumpError) {
        var tables = try DumpReader.read(blocks.input, DumpSelection(runs: true), 2)
        tables.completeness.sectionsRead +=
            [Section.slots.name] + (blocks.hasReferences ? [Section.references.name] : [])
        let sections = counted(tables.completeness.sectionsRead.count, "section")
        report.checks.append(VerifyCheck(name: readable, passed: true, detail: sections))
        let references = try referenceChecks(blocks, owners: tables.owners.count)
        let layout = Layout(tables)
        let serials = Result { () throws(DumpError) in try SerialSet(count: blocks.slotCount) }
        let columns = Set(Snapshot.SlotColumns.Column.allCases)
        let halves = try inHalves(blocks.slotBlocks) { [tables] half, range throws(DumpError) in
            var checks = SlotChecks(
                tables, layout, serials, references: half == 0 ? references : references?.continued,
                firstRow: range.lowerBound * DumpBlocks.rowsPerBlock)
            let reader = DumpBlockReader(blocks)
            for block in range { checks.add(try reader.slots(columns, block: block)) }
            return checks
        }
        var checks = halves[0]
        for later in halves.dropFirst() { checks.add(later) }
        let results = try checks.results { () throws(DumpError) in
            try requireMemory(
                UInt64(blocks.slotCount) * unorderedBytes, for: "comparing the addresses of slots that are in no order",
                path: blocks.input.path)
            let reader = DumpBlockReader(blocks)
            var all: (addresses: [UInt64], capacities: [UInt64]) = ([], [])
            for block in 0..<blocks.slotBlocks {
                let slots = try reader.slots([.address, .capacity], block: block)
                all.addresses += slots.address
                all.capacities += slots.capacity
            }
            return all
        }
        report.checks += SnapshotInvariants.tables(tables) + results
        report.tables = tables
    }

    /// For a slot where rows are not in the order of their addresses: an address, a capacity, and a place in the order.
    private static let unorderedBytes: UInt64 = 8 + 8 + 4

    private static func referenceChecks(_ blocks: DumpBlocks, owners: Int) throws(DumpError) -> ReferenceChecks? {
        guard blocks.hasReferences else { return nil }
        // A byte for each slot, of each thread.
        try requireMemory(
            UInt64(blocks.slotCount) * 2, for: "checking the references of \(counted(blocks.slotCount, "slot"))",
            path: blocks.input.path)
        let halves = try inHalves(blocks.referenceBlocks) { _, range throws(DumpError) in
            var checks = ReferenceChecks(
                slotCount: blocks.slotCount, firstReference: range.lowerBound * DumpBlocks.rowsPerBlock)
            let reader = DumpBlockReader(blocks)
            for block in range { checks.add(try reader.references(block: block), owners: owners) }
            return checks
        }
        var checks = halves[0]
        for later in halves.dropFirst() { checks.add(referencesOf: later) }
        return checks
    }

    /// Runs `body` for the first half of `count` blocks and for the second, on a thread each; findings stay in the order of
    /// the file.
    private static func inHalves<Value>(
        _ count: Int, _ body: @escaping (Int, Range<Int>) throws(DumpError) -> Value
    ) throws(DumpError) -> [Value] {
        let ranges = count < 2 ? [0..<count] : [0..<count / 2, count / 2..<count]
        let halves = Halves(body, ranges)
        let queue = WorkQueue(ranges.count)
        Workers.run(ranges.count) {
            while let half = queue.take() { halves.run(half) }
        }
        var values: [Value] = []
        for result in halves.results { if let result { values.append(try result.get()) } }
        return values
    }

    /// What the threads came to, each writing only what it took.
    private final class Halves<Value>: @unchecked Sendable {
        private let body: (Int, Range<Int>) throws(DumpError) -> Value
        private let ranges: [Range<Int>]
        let results: UnsafeMutableBufferPointer<Result<Value, DumpError>?>

        init(_ body: @escaping (Int, Range<Int>) throws(DumpError) -> Value, _ ranges: [Range<Int>]) {
            self.body = body
            self.ranges = ranges
            results = .allocate(capacity: ranges.count)
            results.initialize(repeating: nil)
        }

        deinit { results.deinitialize().deallocate() }

        func run(_ half: Int) {
            do throws(DumpError) {
                results[half] = .success(try body(half, ranges[half]))
            } catch {
                results[half] = .failure(error)
            }
        }
    }

    private static let readable = "every section can be read"

    /// What the seek table, the directory and the end marker say, against the frames themselves.
    private static func structure(
        _ input: DumpInput, _ parallelism: Int
    ) throws(DumpError) -> [VerifyCheck] {
        guard let table = try SeekTable.read(input) else {
            return [
                VerifyCheck(
                    name: "seek table", passed: false, detail: "the file does not end with one")
            ]
        }
        var frames: [String] = []
        var sizes: [String] = []
        var found: [DirectoryEntry] = []
        var directory: [DirectoryEntry] = []
        var end: [EndMarker.Section] = []
        for (frame, looked) in zip(table, looks(at: table, input, parallelism)) {
            switch looked {
            case .failure(let problem): frames.append("frame at byte \(problem.offset): \(problem.problem)")
            case .success(let look):
                if look.entry.contentBytes != frame.contentBytes {
                    sizes.append(
                        "frame at byte \(look.entry.offset): \(look.entry.contentBytes) bytes, not \(frame.contentBytes)"
                    )
                }
                if look.entry.section != Section.directory.rawValue { found.append(look.entry) }
                if !look.directory.isEmpty { directory = look.directory }
                if !look.end.isEmpty { end = look.end }
            case nil: continue
            }
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

    /// What one frame says of itself.
    private struct Look {
        var entry: DirectoryEntry
        var directory: [DirectoryEntry] = []
        var end: [EndMarker.Section] = []
    }

    private struct Unreadable: Error {
        let offset: UInt64
        let problem: FrameProblem
    }

    /// Shared by the workers, each of which writes only what it took.
    private struct Looks: @unchecked Sendable {
        let values: UnsafeMutablePointer<Result<Look, Unreadable>?>
    }

    private static func looks(
        at table: [SeekTable.Frame], _ input: DumpInput, _ parallelism: Int
    ) -> [Result<Look, Unreadable>?] {
        var offsets: [UInt64] = []
        var offset: UInt64 = 0
        for frame in table {
            offsets.append(offset)
            offset += UInt64(frame.compressedBytes)
        }
        let places = offsets
        let looks = Looks(values: .allocate(capacity: table.count))
        looks.values.initialize(repeating: nil, count: table.count)
        defer { looks.values.deinitialize(count: table.count).deallocate() }
        let queue = WorkQueue(table.count)
        Workers.run(parallelism) {
            var decoder = FrameDecoder()
            while let index = queue.take() {
                looks.values[index] = look(at: places[index], table[index], input, &decoder)
            }
        }
        return Array(UnsafeBufferPointer(start: looks.values, count: table.count))
    }

    private static func look(
        at offset: UInt64, _ frame: SeekTable.Frame, _ input: DumpInput, _ decoder: inout FrameDecoder
    ) -> Result<Look, Unreadable> {
        do throws(FrameProblem) {
            let block = try decoder.load(input, offset: offset, size: UInt64(frame.compressedBytes))
            var look = Look(
                entry: DirectoryEntry(
                    section: block.section, column: block.column, rows: block.rows, firstRow: block.firstRow,
                    offset: offset, size: frame.compressedBytes, contentBytes: UInt32(decoder.contentBytes)))
            switch Section(rawValue: block.section) {
            case .directory: look.directory = DirectoryEntry.decode(decoder.payload)
            case .end: look.end = EndMarker.decode(decoder.payload)
            default: break
            }
            return .success(look)
        } catch {
            return .failure(Unreadable(offset: offset, problem: error))
        }
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
