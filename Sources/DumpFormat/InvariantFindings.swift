// What the checks in SnapshotInvariants work with.

/// Collects the offenders of one check.
struct Findings {
    private let name: String
    private var first: [String] = []
    private var count = 0

    init(_ name: String) { self.name = name }

    mutating func add(_ offender: @autoclosure () -> String) {
        count += 1
        if first.count < 5 { first.append(offender()) }
    }

    mutating func expect<T: Equatable>(_ what: @autoclosure () -> String, _ actual: T, _ expected: T) {
        if actual != expected { add("\(what()) is \(actual), expected \(expected)") }
    }

    /// Adds what was found behind it.
    mutating func add(_ later: Findings) {
        count += later.count
        first += later.first.prefix(max(0, 5 - first.count))
    }

    /// `checked` says what was looked at, for the reader of a check that passed.
    func result(_ checked: String) -> VerifyCheck {
        let more = count > first.count ? "; and \(count - first.count) more" : ""
        return VerifyCheck(
            name: name, passed: count == 0, detail: count == 0 ? checked : first.joined(separator: "; ") + more)
    }
}

/// `1 chunk`, `103 chunks`
func counted(_ number: some BinaryInteger, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }

/// Buffers and bytes added up for one row of a table.
struct Sums: Equatable, CustomStringConvertible {
    var buffers: UInt64 = 0
    var bytes: UInt64 = 0
    var requested: UInt64 = 0

    mutating func add(_ slots: Snapshot.SlotColumns, _ row: Int) {
        buffers &+= 1
        bytes &+= slots.capacity[row]
        requested &+= slots.requested[row]
    }

    mutating func add(_ other: Sums) {
        buffers &+= other.buffers
        bytes &+= other.bytes
        requested &+= other.requested
    }

    var description: String { "\(counted(buffers, "buffer")), \(counted(bytes, "byte")), \(requested) requested" }
}

/// Where chunks and runs are, by address.
struct Layout {
    let shift: UInt64
    let pageSize: UInt64
    let pagesPerChunk: Int
    /// Row of each chunk by its index.
    var chunkRows: [UInt64: Int] = [:]
    /// The same as an array, -1 for none, where indices are as low as those of a real arena: slots ask for it one by one.
    private var denseRows: [Int32] = []
    private static let densest: UInt64 = 1 << 20
    /// For each chunk row, for each page, the run that covers it, plus one.
    var pages: [[UInt32]]

    init(_ snapshot: Snapshot) {
        let chunkSize = snapshot.totals.chunkSize
        shift = chunkSize.nonzeroBitCount == 1 ? UInt64(chunkSize.trailingZeroBitCount) : 24
        pageSize = max(1, snapshot.totals.pageSize)
        // A chunk has thousands of pages; more is nonsense that must not be allocated.
        pagesPerChunk = Int(min(chunkSize / pageSize, 1 << 16))
        pages = snapshot.chunks.map { [UInt32](repeating: 0, count: $0.isMapping ? 0 : 1) }
        for (row, chunk) in snapshot.chunks.enumerated() { chunkRows[UInt64(chunk.index)] = row }
        if let highest = chunkRows.keys.max(), highest < Self.densest {
            denseRows = [Int32](repeating: -1, count: Int(highest) + 1)
            for (index, row) in chunkRows { denseRows[Int(index)] = Int32(row) }
        }
        guard let runs = snapshot.runs else { return }
        for run in 0..<runs.count {
            guard let row = chunkRows[UInt64(runs.chunk[run])], !snapshot.chunks[row].isMapping else { continue }
            if pages[row].count < pagesPerChunk { pages[row] = [UInt32](repeating: 0, count: pagesPerChunk) }
            let first = Int(runs.firstPage[run])
            for page in first..<first + Int(runs.pages[run]) where page < pagesPerChunk {
                pages[row][page] = UInt32(run + 1)
            }
        }
    }

    func chunkRow(_ address: UInt64) -> Int? {
        let index = address >> shift
        if denseRows.isEmpty { return chunkRows[index] }
        guard index < UInt64(denseRows.count), denseRows[Int(index)] >= 0 else { return nil }
        return Int(denseRows[Int(index)])
    }

    func run(_ address: UInt64) -> Int? {
        guard let row = chunkRow(address) else { return nil }
        let page = Int((address & (1 << shift - 1)) / pageSize)
        guard page < pages[row].count, pages[row][page] > 0 else { return nil }
        return Int(pages[row][page] - 1)
    }
}
