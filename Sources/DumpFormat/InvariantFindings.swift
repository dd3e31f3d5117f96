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

    /// Adds some that are only counted.
    mutating func add(more: Int) { count += more }

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

    /// Of a check that could not be made: what was not looked at has not passed.
    func unchecked(_ reason: String) -> VerifyCheck {
        VerifyCheck(name: name, passed: false, detail: "not checked: \(reason)")
    }
}

/// `1 chunk`, `103 chunks`
func counted(_ number: some BinaryInteger, _ noun: String) -> String { "\(number) \(noun)\(number == 1 ? "" : "s")" }

/// Where chunks and runs are, by address.
///
/// The map of pages is four bytes for each page of the chunks that runs name, whatever their number and the size of a page are
/// in the file: where that would be too much there is no map, and `refusal` says why.
struct Layout {
    let shift: UInt64
    let pageSize: UInt64
    let pagesPerChunk: Int
    private let chunks: ChunkNumbers
    /// For each chunk row, for each page, the run that covers it, plus one. One page stands for a chunk that no run names.
    let pages: [[UInt32]]
    /// Why `pages` has no runs though there are some; nil where it has them.
    let refusal: String?

    /// Pages of 8 KiB, as ours are, of 2 TiB.
    private static let mostPages = 1 << 28
    /// A run names its pages by 16 bits.
    private static let mostPagesPerChunk: UInt64 = 1 << 16

    init(_ snapshot: Snapshot) {
        let chunkSize = snapshot.totals.chunkSize
        shift = snapshot.chunkShift
        let chunks = ChunkNumbers(snapshot)
        self.chunks = chunks
        pageSize = max(1, snapshot.totals.pageSize)
        let pagesPerChunk = Int(min(chunkSize / pageSize, Self.mostPagesPerChunk))
        self.pagesPerChunk = pagesPerChunk
        var pages = snapshot.chunks.map { [UInt32](repeating: 0, count: $0.isMapping ? 0 : 1) }
        let refusal = Self.refusal(snapshot, chunks, pagesPerChunk)
        self.refusal = refusal
        if let runs = snapshot.runs, refusal == nil {
            for run in 0..<runs.count {
                guard let row = Self.chunkRow(of: run, runs, chunks, snapshot) else { continue }
                if pages[row].count < pagesPerChunk { pages[row] = [UInt32](repeating: 0, count: pagesPerChunk) }
                let first = Int(runs.firstPage[run])
                for page in first..<first + Int(runs.pages[run]) where page < pagesPerChunk {
                    pages[row][page] = UInt32(run + 1)
                }
            }
        }
        self.pages = pages
    }

    /// The chunk that a run is in, if there is such a chunk.
    private static func chunkRow(
        of run: Int, _ runs: Snapshot.RunColumns, _ chunks: ChunkNumbers, _ snapshot: Snapshot
    ) -> Int? {
        guard let row = chunks.row(of: UInt64(runs.chunk[run])), !snapshot.chunks[row].isMapping else { return nil }
        return row
    }

    /// Counts before anything is allocated: pages to keep, and pages to go through, which are more where runs overlap. A run
    /// without pages counts as one, so that there are no more runs than a page of the map can name.
    private static func refusal(_ snapshot: Snapshot, _ chunks: ChunkNumbers, _ pagesPerChunk: Int) -> String? {
        guard let runs = snapshot.runs else { return nil }
        var isNamed = [Bool](repeating: false, count: snapshot.chunks.count)
        var (named, covered) = (0, 0)
        for run in 0..<runs.count {
            covered += max(1, Int(runs.pages[run]))
            guard let row = chunkRow(of: run, runs, chunks, snapshot), !isNamed[row] else { continue }
            isNamed[row] = true
            named += 1
        }
        let most = min(mostPages, Int(clamping: physicalMemory() / 16))
        if named * pagesPerChunk <= most, covered <= most { return nil }
        let places = "\(counted(named, "chunk")) of \(counted(pagesPerChunk, "page"))"
        return "runs have \(counted(covered, "page")) in \(places), and at most \(most) are looked at on this machine"
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
