internal import Ledger

/// Reads the file of a flight recorder: the ledger of a process that may have ended in the middle of anything.
///
/// Nothing in the file is believed. Its first page and its descriptors are checked against the file's size, the known
/// record sizes, each other and what the file has on the disk; the rows in use are copied (not mapped: a file may shrink
/// while it is read), and what the records say about each other is checked wherever it is followed. `read` is the way in.
enum LedgerReader {
    static func recognises(_ input: DumpInput) throws(DumpError) -> Bool {
        let start = try input.bytes(at: 0, count: 8)
        return start.count == 8
            && start.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) } == LedgerHeader.magic
    }

    static func read(_ input: DumpInput, _ selection: DumpSelection) throws(DumpError) -> Snapshot {
        let isLocked = input.isLocked
        let copy = try LedgerFileContents(input)
        let ledger = LedgerSnapshot(copy.image, references: nil)
        var snapshot = ledger.tables
        snapshot.header.reason = "flight-recorder"
        fillHeader(&snapshot.header, copy)
        settleTime(&snapshot.header, copy.image, ledger.slots)
        snapshot.events.append(LedgerEnding(copy.image, isRunning: isLocked).event)

        snapshot.completeness.problems = copy.problems + ledger.contradictions()
        if isLocked {
            snapshot.completeness.problems.append(
                "process \(snapshot.header.pid) still records here, and its tables changed while they were read")
        }
        let lost = LedgerTable.allCases.compactMap { table -> String? in
            let from = copy.image.descriptor(table).pointee.lostFrom
            return from == 0 ? nil : "\(table) from row \(from - 1) on"
        }
        if !lost.isEmpty {
            let since = LedgerEnding.time(copy.image.flightRecord.pointee.lostWallTime)
            snapshot.completeness.problems.append(
                "the file system was full from \(since) on, and not recorded are: \(lost.joined(separator: ", "))")
        }
        snapshot.completeness.sectionsRead = Section.mandatory().map(\.name)
        if selection.runs {
            snapshot.runs = ledger.runs
            snapshot.completeness.sectionsRead.append(Section.runs.name)
        }
        if !selection.slots.isEmpty {
            snapshot.slots = ledger.slots.columns(selection.slots)
            snapshot.completeness.sectionsRead.append(Section.slots.name)
        }
        return withExtendedLifetime(copy) { snapshot }
    }

    private static func fillHeader(_ header: inout Snapshot.Header, _ copy: LedgerFileContents) {
        let record = copy.image.flightRecord.pointee
        func text(_ offset: Int, _ capacity: Int) -> String {
            LedgerText.read(copy.image.flightRecordText(offset), capacity: capacity)
        }
        header.program = text(FlightRecord.programOffset, FlightRecord.programCapacity)
        header.programVersion = text(FlightRecord.versionOffset, FlightRecord.versionCapacity)
        header.host = text(FlightRecord.hostOffset, FlightRecord.hostCapacity)
        header.configuration = copy.configuration
        header.residentBytes = record.residentBytes
        header.cgroupLimitBytes = record.cgroupLimitBytes
        header.cgroupCurrentBytes = record.cgroupCurrentBytes
        header.threadCount = record.threadCount
    }

    /// How far past the last sign of life a birth or touch may be and still be believed: a loop that is busy notes the
    /// time late.
    private static let believableNanoseconds: UInt64 = 60_000_000_000

    /// The moment the file stands for: the latest thing in it.
    private static func settleTime(
        _ header: inout Snapshot.Header, _ image: LedgerImage, _ slots: LedgerSnapshot.Slots
    ) {
        let record = image.flightRecord.pointee
        let words = image.header.pointee
        let signs = [
            (words.startTime, words.startWallTime), (words.monotonicTime, words.wallTime),
            (record.lastSeenTime, record.lastSeenWallTime), (record.endTime, record.endWallTime),
        ]
        let last = signs.max { $0.0 < $1.0 }!
        let latest = slots.latestTime(upTo: last.0.addingClamped(believableNanoseconds))
        header.monotonicTime = max(last.0, latest)
        header.wallTime = last.1.addingClamped(header.monotonicTime - last.0)
    }
}

/// The rows in use of a ledger's file, in memory, under descriptors that are true.
///
/// What they take is in proportion to what the file has on the disk: no two tables have a byte in common, and of holes, which
/// a file may claim to have any number of, tables have at most as much as of what is there, and `mostHoles`.
final class LedgerFileContents {
    /// Bytes of holes that are believed whatever else is there. Where nothing was stored to rows that came into use there is
    /// one: the page maps of huge buffers are 8 KiB for each 16 MiB.
    private static let mostHoles: UInt64 = 64 << 20

    let image: LedgerImage
    private let memory: ZeroedMemory
    private(set) var configuration = ""
    private(set) var problems: [String] = []

    /// A table in the file, as far as its descriptor and the file's size agree.
    private struct Extent {
        var offset: UInt64 = 0
        var groupBytes: UInt64 = 0
        var groups = 0
        var rows = 0
        var lostFrom: UInt64 = 0
        func bytes(_ stride: Int) -> Int { groups * rows * stride }

        /// Where the rows in use of a group are.
        func group(_ group: Int, _ stride: Int) -> Range<UInt64> {
            let start = offset + UInt64(group) * groupBytes
            return start..<start + UInt64(rows * stride)
        }

        /// From the first row in use to the last of all groups.
        func span(_ stride: Int) -> Range<UInt64> {
            groups == 0 ? offset..<offset : offset..<group(groups - 1, stride).upperBound
        }
    }

    init(_ input: DumpInput) throws(DumpError) {
        let page = try input.bytes(at: 0, count: LedgerHeader.size)
        guard page.count == LedgerHeader.size else {
            throw DumpError(
                .damaged, path: input.path,
                "the flight recorder's file has \(page.count) bytes and ends inside its header; no answer is possible")
        }
        let words = page.withUnsafeBytes { $0.loadUnaligned(as: LedgerHeader.self) }
        guard words.version == LedgerHeader.version else {
            throw DumpError(
                .unsupportedVersion, path: input.path,
                """
                the flight recorder's file has version \(words.version), and this program reads version \
                \(LedgerHeader.version); use the arena-analyze that came with the program that wrote it
                """)
        }
        var problems: [String] = []
        if input.size < words.byteCount {
            problems.append("the file has \(input.size) of \(words.byteCount) bytes: it was cut off")
        }
        let claimed = LedgerTable.allCases.map { table -> Extent in
            guard table.isCopied, table.rawValue < Int(words.tableCount) else { return Extent() }
            let place = LedgerHeader.tablesOffset + table.rawValue * MemoryLayout<LedgerTableDescriptor>.stride
            let descriptor = page.withUnsafeBytes {
                $0.loadUnaligned(fromByteOffset: place, as: LedgerTableDescriptor.self)
            }
            return Self.extent(table, descriptor, input.size, &problems)
        }
        let extents = Self.there(Self.apart(claimed, &problems), input, &problems)
        let total = zip(LedgerTable.allCases, extents).reduce(UInt64(LedgerHeader.size)) { total, next in
            total.addingClamped(UInt64(next.1.bytes(next.0.stride)))
        }
        try requireMemory(total, for: "reading the ledger", path: input.path)
        memory = try ZeroedMemory(Int(total), path: input.path)
        image = LedgerImage(base: memory.base, byteCount: Int(total))
        page.withUnsafeBytes { image.base.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
        self.problems = problems
        var target = LedgerHeader.size
        for (table, extent) in zip(LedgerTable.allCases, extents) {
            var descriptor = LedgerTableDescriptor(
                offset: UInt64(target), stride: UInt64(table.stride), groups: UInt64(extent.groups),
                rowsPerGroup: UInt64(extent.rows), rows: UInt64(extent.rows))
            descriptor.lostFrom = extent.lostFrom
            image.descriptor(table).pointee = descriptor
            for group in 0..<extent.groups where extent.rows > 0 {
                let range = extent.group(group, table.stride)
                if try !read(input, range, to: target) { self.problems.append("\(table): the file ends inside it") }
                target += range.count
            }
        }
        configuration = try readConfiguration(input)
    }

    /// Reads what is there of a range; what is not stays zero. False: the file ends inside it.
    private func read(_ input: DumpInput, _ range: Range<UInt64>, to target: Int) throws(DumpError) -> Bool {
        for part in input.data(in: range) {
            let start = image.base + target + Int(part.lowerBound - range.lowerBound)
            let buffer = UnsafeMutableRawBufferPointer(start: start, count: part.count)
            if try input.read(at: part.lowerBound, into: buffer) < buffer.count { return false }
        }
        return range.upperBound <= input.size
    }

    /// Without tables that have bytes of one before them: one row in several tables would be as many.
    private static func apart(_ extents: [Extent], _ problems: inout [String]) -> [Extent] {
        var taken: [(table: LedgerTable, span: Range<UInt64>)] = []
        return zip(LedgerTable.allCases, extents).map { table, extent in
            let span = extent.span(table.stride)
            guard !span.isEmpty else { return extent }
            if let other = taken.first(where: { $0.span.overlaps(span) }) {
                problems.append(
                    "\(table): left out, since it would have bytes \(span) of the file, and \(other.table) \(other.span)"
                )
                return Extent()
            }
            taken.append((table, span))
            return extent
        }
    }

    /// Without tables that are holes beyond what holes may come to.
    private static func there(_ extents: [Extent], _ input: DumpInput, _ problems: inout [String]) -> [Extent] {
        let tables = zip(LedgerTable.allCases, extents).map { table, extent in
            let data = (0..<extent.groups).reduce(UInt64(0)) { sum, group in
                input.data(in: extent.group(group, table.stride)).reduce(sum) { $0 + UInt64($1.count) }
            }
            return (table: table, extent: extent, data: data, holes: UInt64(extent.bytes(table.stride)) - data)
        }
        var left = tables.reduce(mostHoles) { $0.addingClamped($1.data) }
        // The smallest first, so that one that claims too much leaves the others theirs.
        var result = extents
        for table in tables.sorted(by: { $0.holes < $1.holes }) {
            if table.holes <= left {
                left -= table.holes
            } else {
                problems.append(
                    "\(table.table): left out, since of the \(table.extent.bytes(table.table.stride)) bytes that its rows would "
                        + "have the file has \(table.data)")
                result[table.table.rawValue] = Extent()
            }
        }
        return result
    }

    private static func extent(
        _ table: LedgerTable, _ descriptor: LedgerTableDescriptor, _ size: UInt64, _ problems: inout [String]
    ) -> Extent {
        let stride = UInt64(table.stride)
        guard descriptor.rows > 0, descriptor.groups > 0 else { return Extent() }
        let (groupBytes, overflow) = descriptor.rowsPerGroup.multipliedReportingOverflow(by: stride)
        guard descriptor.stride == stride, !overflow, descriptor.rows <= descriptor.rowsPerGroup else {
            problems.append(
                "\(table): its descriptor (\(descriptor.rows) of \(descriptor.rowsPerGroup) rows of "
                    + "\(descriptor.stride) bytes) cannot be true; records have \(stride) bytes")
            return Extent()
        }
        guard descriptor.offset >= UInt64(LedgerHeader.size), descriptor.offset < size else {
            problems.append("\(table): it would be at byte \(descriptor.offset) of \(size)")
            return Extent()
        }
        let available = size - descriptor.offset
        // Of the last group, the rows in use are enough.
        let groups = min(descriptor.groups, (available - 1) / groupBytes + 1)
        let rows = min(descriptor.rows, groups == 1 ? available / stride : descriptor.rows)
        if groups < descriptor.groups || rows < descriptor.rows {
            problems.append(
                "\(table): \(groups) x \(rows) of \(descriptor.groups) x \(descriptor.rows) rows are in the file")
        }
        // Arenas are told apart by eight bits; slots are named by 30 bits.
        return Extent(
            offset: descriptor.offset, groupBytes: groupBytes,
            groups: Int(min(groups, table.isPerArena ? 256 : 1)),
            rows: Int(min(rows, UInt64(PageEntry.maximumValue))), lostFrom: descriptor.lostFrom)
    }

    private func readConfiguration(_ input: DumpInput) throws(DumpError) -> String {
        let record = image.flightRecord.pointee
        let count = min(record.textBytes, UInt64(FlightRecord.textCapacity))
        let bytes = try input.bytes(at: record.textOffset, count: Int(count))
        return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
}
