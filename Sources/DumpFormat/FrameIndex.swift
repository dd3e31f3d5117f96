/// Which frames of a file hold which rows of which columns.
///
/// A whole file says so itself: the seek table leads to the directory. Of a torn or damaged one the frames are found
/// by scanning, and those that are intact are used.
struct FrameIndex {
    private var columns: [UInt32: [DirectoryEntry]] = [:]
    private var rows: [UInt16: UInt64] = [:]
    /// What the end marker says; nil where there is none, that is, where the file was cut off.
    private(set) var end: [EndMarker.Section]?
    private(set) var problems = Problems()
    /// What the search for frames cost; nil where there was none.
    private(set) var recovery: RecoveryBudget?

    /// Opens the index of a file whose first block has been checked.
    init(_ input: DumpInput, _ decoder: inout FrameDecoder) throws(DumpError) {
        switch try Self.readDirectory(input, &decoder) {
        case .success(let entries):
            insert(entries)
            if let entry = entries.last(where: { $0.section == Section.end.rawValue }) {
                do throws(FrameProblem) {
                    end = try Self.readEnd(input, entry, &decoder)
                } catch {
                    problems.append("the end marker: \(error)")
                }
            } else {
                problems.append("the directory names no end marker")
            }
        case .failure(let reason):
            problems.append("\(reason.text); its frames were looked for one by one")
            try scan(input, &decoder)
        }
        checkEnd()
    }

    /// Of the first sections of a file only, up to `last`: looks at nothing behind them, and not beyond damage.
    init(_ input: DumpInput, _ decoder: inout FrameDecoder, upTo last: Section) throws(DumpError) {
        var scanner = FrameScanner(input)
        var entries: [DirectoryEntry] = []
        var offset: UInt64 = 0
        while offset < input.size, entries.count < FrameLimits.frames {
            let found = try scanner.frame(at: offset)
            do throws(FrameProblem) {
                let frame = try found.get()
                let block = try decoder.load(input, offset: offset, size: frame.bytes)
                if block.section > last.rawValue { break }
                entries.append(DirectoryEntry(block, frame, offset: offset, decoder.contentBytes))
                offset += frame.bytes
            } catch {
                problems.append("the frame at byte \(offset): \(error)")
                break
            }
        }
        insert(entries)
    }

    private struct Reason: Error { let text: String }

    private static func readDirectory(
        _ input: DumpInput, _ decoder: inout FrameDecoder
    ) throws(DumpError) -> Result<[DirectoryEntry], Reason> {
        guard let frames = try SeekTable.read(input), let last = frames.last else {
            return .failure(Reason(text: "the file does not end with a seek table: it was cut off, or damaged there"))
        }
        let start = frames.dropLast().reduce(UInt64(0)) { $0 + UInt64($1.compressedBytes) }
        do throws(FrameProblem) {
            let block = try decoder.load(input, offset: start, size: UInt64(last.compressedBytes))
            guard block.section == Section.directory.rawValue, Int(block.width) == DirectoryEntry.recordBytes else {
                return .failure(Reason(text: "the last frame is not the directory"))
            }
        } catch {
            return .failure(Reason(text: "the directory: \(error)"))
        }
        let entries = DirectoryEntry.decode(decoder.payload)
        var offset: UInt64 = 0
        guard entries.count == frames.count - 1 else {
            return .failure(Reason(text: "the directory and the seek table name different numbers of frames"))
        }
        for (entry, frame) in zip(entries, frames) {
            guard entry.offset == offset, entry.size == frame.compressedBytes else {
                return .failure(Reason(text: "the directory and the seek table differ at byte \(offset)"))
            }
            offset += UInt64(entry.size)
        }
        return .success(entries)
    }

    private static func readEnd(
        _ input: DumpInput, _ entry: DirectoryEntry, _ decoder: inout FrameDecoder
    ) throws(FrameProblem) -> [EndMarker.Section] {
        let block = try decoder.load(input, offset: entry.offset, size: UInt64(entry.size))
        guard block.section == Section.end.rawValue else { throw .unexpected("the frame there holds \(block.name)") }
        return EndMarker.decode(decoder.payload)
    }

    /// Goes from frame to frame. Where one is damaged it goes on behind it, if a frame begins there: what is inside is its
    /// content, whatever that looks like, and may be a client's. Else it goes on wherever zstd's magic number stands next.
    private mutating func scan(_ input: DumpInput, _ decoder: inout FrameDecoder) throws(DumpError) {
        var scanner = FrameScanner(input)
        var entries: [DirectoryEntry] = []
        var offset: UInt64 = 0
        var damaged = 0
        while offset < input.size, !scanner.budget.isSpent, entries.count < FrameLimits.frames {
            if let size = try scanner.skippableSize(at: offset) {
                offset = offset.addingClamped(size)
                continue
            }
            let found = try scanner.frame(at: offset)
            var next: UInt64?
            do throws(FrameProblem) {
                let frame = try found.get()
                next = offset + frame.bytes
                scanner.budget.spend(decoding: frame)
                let block = try decoder.load(input, offset: offset, size: frame.bytes)
                if block.section == Section.end.rawValue {
                    end = EndMarker.decode(decoder.payload)
                } else if block.section != Section.directory.rawValue {
                    entries.append(DirectoryEntry(block, frame, offset: offset, decoder.contentBytes))
                }
            } catch {
                damaged += 1
                if damaged <= 20 { problems.append("the frame at byte \(offset): \(error)") }
                if let behind = next, try !scanner.isBoundary(behind) { next = nil }
            }
            offset = if let next { next } else { try scanner.nextMagic(from: offset + 1) }
        }
        if damaged > 20 { problems.append("\(damaged - 20) more damaged frames") }
        if offset < input.size {
            let reason =
                entries.count < FrameLimits.frames
                ? "\(scanner.budget.limit) bytes had been gone through" : "\(entries.count) frames had been found"
            problems.append(
                "the search for frames ended at byte \(offset) of \(input.size), when \(reason), the most for a file of this "
                    + "size: what comes after is not in the answer")
        }
        if end == nil {
            problems.append("the file has \(input.size) bytes and no end marker: it was cut off while it was written")
        }
        recovery = scanner.budget
        insert(entries)
    }

    /// Sorts entries by column and keeps those that can be true.
    private mutating func insert(_ entries: [DirectoryEntry]) {
        var frames: [UInt16: UInt64] = [:]
        for entry in entries { frames[entry.section, default: 0] += 1 }
        for entry in entries.sorted(by: { $0.firstRow < $1.firstRow }) {
            // A table cannot have more rows than the frames of all its columns could hold, had each been its last.
            let possible = frames[entry.section]! * UInt64(BlockHeader.rowsPerBlock)
            guard entry.rows <= UInt32(BlockHeader.rowsPerBlock), entry.endRow <= possible else {
                problems.append("\(entry.name): more rows than the file has room for")
                continue
            }
            let key = UInt32(entry.section) << 16 | UInt32(entry.column)
            if let last = columns[key]?.last, last.endRow > entry.firstRow || entry.rows == 0 {
                problems.append("\(entry.name): the same rows are there twice")
                continue
            }
            columns[key, default: []].append(entry)
            rows[entry.section] = max(rows[entry.section] ?? 0, entry.endRow)
        }
    }

    private mutating func checkEnd() {
        for section in end ?? [] where rows[section.section] ?? 0 != section.rows {
            let name = Section(rawValue: section.section)?.name ?? "section \(section.section)"
            problems.append("\(name): \(rows[section.section] ?? 0) of \(section.rows) rows are in the file")
        }
    }

    func contains(_ section: Section) -> Bool { rows[section.rawValue] != nil }

    /// Whether the file was written with this section, as far as it is known.
    func wasWritten(_ section: Section) -> Bool? {
        end.map { $0.contains { $0.section == section.rawValue } }
    }

    /// Compressed bytes of what a reading with this selection decodes, nearly.
    func bytes(of selection: DumpSelection) -> Int {
        let slots = Set(selection.slots.map(\.rawValue))
        return columns.reduce(0) { sum, column in
            let isRead =
                switch Section(rawValue: UInt16(column.key >> 16)) {
                case .slots: slots.contains(UInt16(truncatingIfNeeded: column.key))
                case .runs: selection.runs
                case .references where selection.reaches && !selection.references:
                    DumpBlocks.reachColumns.contains(UInt16(truncatingIfNeeded: column.key))
                case .references: selection.references
                default: true
                }
            return sum + (isRead ? column.value.reduce(0) { $0 + Int($1.size) } : 0)
        }
    }

    func rowCount(_ section: Section) -> Int { Int(rows[section.rawValue] ?? 0) }

    /// In the order of rows, without overlaps.
    func entries(_ section: Section, _ column: UInt16) -> [DirectoryEntry] {
        columns[UInt32(section.rawValue) << 16 | UInt32(column)] ?? []
    }
}

extension DirectoryEntry {
    fileprivate init(_ block: BlockHeader, _ frame: FrameScanner.Frame, offset: UInt64, _ contentBytes: Int) {
        self.init(
            section: block.section, column: block.column, rows: block.rows, firstRow: block.firstRow, offset: offset,
            size: UInt32(frame.bytes), contentBytes: UInt32(contentBytes))
    }
}
