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

/// Where chunks and runs are, by address.
struct Layout {
    let shift: UInt64
    let pageSize: UInt64
    let pagesPerChunk: Int
    private let chunks: ChunkNumbers
    /// For each chunk row, for each page, the run that covers it, plus one.
    var pages: [[UInt32]]

    init(_ snapshot: Snapshot) {
        let chunkSize = snapshot.totals.chunkSize
        shift = snapshot.chunkShift
        chunks = ChunkNumbers(snapshot)
        pageSize = max(1, snapshot.totals.pageSize)
        // A chunk has thousands of pages; more is nonsense that must not be allocated.
        pagesPerChunk = Int(min(chunkSize / pageSize, 1 << 16))
        pages = snapshot.chunks.map { [UInt32](repeating: 0, count: $0.isMapping ? 0 : 1) }
        guard let runs = snapshot.runs else { return }
        for run in 0..<runs.count {
            guard let row = chunks.row(of: UInt64(runs.chunk[run])), !snapshot.chunks[row].isMapping else { continue }
            if pages[row].count < pagesPerChunk { pages[row] = [UInt32](repeating: 0, count: pagesPerChunk) }
            let first = Int(runs.firstPage[run])
            for page in first..<first + Int(runs.pages[run]) where page < pagesPerChunk {
                pages[row][page] = UInt32(run + 1)
            }
        }
    }

    func chunkRow(number: UInt32) -> Int? { chunks.row(of: UInt64(number)) }
    func chunkRow(_ address: UInt64) -> Int? { chunks.row(of: address >> shift) }

    func run(_ address: UInt64) -> Int? {
        guard let row = chunkRow(address) else { return nil }
        let page = Int((address & (1 << shift - 1)) / pageSize)
        guard page < pages[row].count, pages[row][page] > 0 else { return nil }
        return Int(pages[row][page] - 1)
    }
}
