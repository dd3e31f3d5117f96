/// Decodes columns of one file and keeps account of what could not be decoded.
final class ColumnReader {
    let input: DumpInput
    let index: FrameIndex
    let parallelism: Int
    let progress: DumpProgress?
    var problems: Problems
    private var decoder: FrameDecoder
    private var strings: [String?] = []
    /// Bytes of memory that all that is read may take.
    private let memory: UInt64
    /// Of those, what has been read and is kept, or is about to be.
    private var keptBytes: UInt64 = 0

    /// - Parameter memory: that of the machine, but for tests.
    init(
        _ input: DumpInput, _ index: FrameIndex, _ decoder: consuming FrameDecoder, parallelism: Int,
        _ progress: DumpProgress? = nil, memory: UInt64 = physicalMemory()
    ) {
        self.input = input
        self.progress = progress
        self.memory = memory
        self.index = index
        self.decoder = decoder
        self.parallelism = parallelism
        problems = index.problems
    }

    struct Column<T> {
        var values: [T]
        /// Rows that could not be read; their values are 0.
        var missing: [Range<Int>] = []
    }

    /// All rows of a column.
    func column<T: FixedWidthInteger & UnsignedInteger>(
        _ section: Section, _ column: UInt16, rows: Int, as _: T.Type
    ) throws(DumpError) -> Column<T> {
        try requireMemory(
            UInt64(rows) * UInt64(MemoryLayout<T>.stride), for: "decoding section \(section.name)", path: input.path,
            of: memory)
        let entries = index.entries(section, column)
        if rows == 0 {
            if entries.isEmpty { note(section, column, 0..<0) }
            return Column(values: [])
        }
        var missing: [Range<Int>] = []
        let values = [T](unsafeUninitializedCapacity: rows) { buffer, count in
            let problems = decode(
                entries, width: MemoryLayout<T>.size, to: UnsafeMutableRawPointer(buffer.baseAddress!))
            var next = 0
            func leaveOut(upTo row: Int) {
                if row > next {
                    missing.append(next..<row)
                    (buffer.baseAddress! + next).update(repeating: 0, count: row - next)
                }
            }
            for (entry, problem) in zip(entries, problems) {
                if let problem {
                    self.problems.append("\(entry.name): \(problem)")
                } else {
                    if Int(entry.firstRow) > next { note(section, column, next..<Int(entry.firstRow)) }
                    leaveOut(upTo: Int(entry.firstRow))
                    next = Int(entry.endRow)
                }
            }
            if next < rows, entries.last.map({ Int($0.endRow) < rows }) ?? true { note(section, column, next..<rows) }
            leaveOut(upTo: rows)
            count = rows
        }
        return Column(values: values, missing: missing)
    }

    private func note(_ section: Section, _ column: UInt16, _ rows: Range<Int>) {
        let range = UInt64(rows.lowerBound)..<UInt64(rows.upperBound)
        problems.append("\(BlockHeader.name(section: section.rawValue, column: column, rows: range)): not in the file")
    }

    /// Nothing is allocated that the machine cannot hold, together with what has been read before. Whoever reads tables or columns
    /// that stay asks first, for all that he will read.
    func keep(bytes: UInt64, _ what: @autoclosure () -> String) throws(DumpError) {
        keptBytes = keptBytes.addingClamped(bytes)
        try requireMemory(keptBytes, for: "decoding \(what()) with what comes before", path: input.path, of: memory)
    }

    /// Decodes each entry to its place, on several threads when there are several; returns what went wrong with each.
    private func decode(
        _ entries: [DirectoryEntry], width: Int, to values: UnsafeMutableRawPointer
    ) -> [FrameProblem?] {
        let input = self.input
        let progress = self.progress
        let workers = min(parallelism, entries.count)
        if workers <= 1 {
            return entries.map {
                progress?.add(Int($0.size))
                return Self.decode(input, $0, width, values, &decoder)
            }
        }
        let results = UnsafeMutablePointer<FrameProblem?>.allocate(capacity: entries.count)
        results.initialize(repeating: nil, count: entries.count)
        defer { results.deinitialize(count: entries.count).deallocate() }
        let queue = WorkQueue(entries.count)
        let target = Target(values: values, results: results)
        Workers.run(workers) {
            var decoder = FrameDecoder()
            while let index = queue.take() {
                progress?.add(Int(entries[index].size))
                target.results[index] = Self.decode(input, entries[index], width, target.values, &decoder)
            }
        }
        return Array(UnsafeBufferPointer(start: results, count: entries.count))
    }

    /// Shared by the workers, each of which writes only the rows and the result of the entries it took.
    private struct Target: @unchecked Sendable {
        let values: UnsafeMutableRawPointer
        let results: UnsafeMutablePointer<FrameProblem?>
    }

    private static func decode(
        _ input: DumpInput, _ entry: DirectoryEntry, _ width: Int, _ values: UnsafeMutableRawPointer,
        _ decoder: inout FrameDecoder
    ) -> FrameProblem? {
        do throws(FrameProblem) {
            try decoder.load(input, entry, width: width, to: values + Int(entry.firstRow) * width)
            return nil
        } catch {
            return error
        }
    }
}

extension ColumnReader {
    /// The rows of a small table, whatever could not be read of them being 0 or empty, and which rows those are.
    func table<Row: TableRow>(_: Row.Type) throws(DumpError) -> (rows: [Row], missing: [Range<Int>]) {
        let count = index.rowCount(Row.section)
        guard index.contains(Row.section) else { return ([], []) }
        try keep(bytes: UInt64(count) * UInt64(MemoryLayout<Row>.stride), "section \(Row.section.name)")
        var rows = [Row](repeating: Row.blank, count: count)
        var missing: [Range<Int>] = []
        for column in Row.columns {
            if column.isBlank != nil, index.entries(Row.section, column.id).isEmpty { continue }
            missing += try column.decode(&rows, self, Row.section)
        }
        return (rows, missing)
    }

    /// Reads the texts, which the string columns of all other tables need.
    func loadStrings() throws(DumpError) {
        guard index.contains(.strings) else { return }
        // The bytes are there twice, in their column and in the texts.
        let perText = UInt64(MemoryLayout<UInt64>.stride + MemoryLayout<String?>.stride)
        try keep(
            bytes: UInt64(index.rowCount(.strings)) * perText + UInt64(index.rowCount(.stringBytes)) * 2, "the texts")
        let ends = try column(.strings, 1, rows: index.rowCount(.strings), as: UInt64.self)
        let bytes = try column(.stringBytes, 1, rows: index.rowCount(.stringBytes), as: UInt8.self)
        let (lostEnds, lostBytes) = (RowRanges(ends.missing), RowRanges(bytes.missing))
        var start: UInt64 = 0
        strings = ends.values.enumerated().map { row, end in
            // Texts lie one behind the other: none is part of another, or a few bytes would be as many as one likes.
            defer { start = max(start, end) }
            guard start <= end, end <= UInt64(bytes.values.count) else { return nil }
            let range = Int(start)..<Int(end)
            // The end of the text before must be there too, to know where this one starts.
            guard !lostEnds.overlap(max(0, row - 1)..<row + 1), !lostBytes.overlap(range) else { return nil }
            return String(decoding: bytes.values[range], as: UTF8.self)
        }
    }

    func string(_ id: UInt32) -> String? { Int(id) < strings.count ? strings[Int(id)] : nil }
}

/// Ranges of rows in order, without overlaps.
private struct RowRanges {
    private let ranges: [Range<Int>]

    init(_ ranges: [Range<Int>]) { self.ranges = ranges }

    func overlap(_ rows: Range<Int>) -> Bool {
        if ranges.isEmpty { return false }
        // The first that ends behind where `rows` begin.
        var (low, high) = (0, ranges.count)
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].upperBound <= rows.lowerBound { low = middle + 1 } else { high = middle }
        }
        return low < ranges.count && ranges[low].overlaps(rows)
    }
}
