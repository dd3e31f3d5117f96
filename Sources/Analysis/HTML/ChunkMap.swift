import DumpFormat
import Ledger

/// What each page of each chunk is used for: one letter a page, run-length encoded, so that the map of a million buffers
/// is as large as that of a thousand.
struct ChunkMap {
    static let selection = DumpSelection(slots: [.address, .capacity, .site, .state], runs: true, reaches: true)

    /// Sites with a colour of their own; the others share one.
    static let namedSites = 10

    /// What a page is used for. The letters are known to report.js.
    private enum Use: UInt8 {
        case free = 0x66  // f
        case buffer = 0x62  // b
        case unreachable = 0x75  // u
        case reserve = 0x76  // v
        /// Slabs, by how full the page is: p, q, r, s for each quarter.
        case slabFirstQuarter = 0x70
        case slabUnreachable = 0x78  // x
    }

    let pageSize: Int
    let pagesPerChunk: Int
    /// Of the named sites, most live bytes first.
    let siteIDs: [UInt32]
    private(set) var chunks: [Row] = []

    struct Row {
        let chunk: Snapshot.Chunk
        var uses = ""
        var sites = ""
        var unreachableBytes: UInt64 = 0
    }

    private struct Page {
        var live: UInt64 = 0
        var unreachable: UInt64 = 0
        /// The site of most of the bytes, if one has most of them (Boyer and Moore's majority vote).
        var site: UInt32 = 0
        var votes: UInt64 = 0

        mutating func add(_ bytes: UInt64, _ other: UInt32, isUnreachable: Bool) {
            live += bytes
            if isUnreachable { unreachable += bytes }
            if other == site {
                votes += bytes
            } else if bytes > votes {
                (site, votes) = (other, bytes - votes)
            } else {
                votes -= bytes
            }
        }
    }

    init(_ snapshot: Snapshot) {
        let totals = snapshot.totals
        // Sizes of a damaged dump are not to be believed.
        pageSize = totals.pageSize > 0 ? Int(clamping: totals.pageSize) : 8192
        let chunkSize = max(1, Int(clamping: totals.chunkSize))
        pagesPerChunk = min(max(1, chunkSize / pageSize), 1 << 16)
        siteIDs = Array(
            snapshot.sites.indices.filter { snapshot.sites[$0].liveBytes > 0 }
                .sorted { snapshot.sites[$0].liveBytes > snapshot.sites[$1].liveBytes }
                .prefix(Self.namedSites).map { UInt32($0) })

        let shown = snapshot.chunks.filter { !$0.isMapping }
        let position = Dictionary(shown.enumerated().map { ($1.index, $0) }, uniquingKeysWith: { first, _ in first })
        var pages = [Page](repeating: Page(), count: shown.count * pagesPerChunk)
        var unreachable = [UInt64](repeating: 0, count: shown.count)
        let runs = Self.runs(snapshot.runs, position, pagesPerChunk, chunks: shown.count)
        add(snapshot, position, chunkSize, to: &pages, &unreachable)

        var siteLetters = [UInt8](repeating: 0x7A, count: snapshot.sites.count)
        for (rank, site) in siteIDs.enumerated() { siteLetters[Int(site)] = 0x41 + UInt8(rank) }
        for (index, chunk) in shown.enumerated() {
            // Chunks of foreign allocators may be shorter than the largest.
            let length = min(pagesPerChunk, max(1, Int(clamping: chunk.bytes / UInt64(pageSize))))
            let range = index * pagesPerChunk..<index * pagesPerChunk + length
            var row = Row(chunk: chunk, unreachableBytes: unreachable[index])
            row.uses = Self.encoded(range.map { Self.use(pages[$0], runs[$0], UInt64(pageSize)) })
            row.sites = Self.encoded(
                range.map { page -> UInt8 in
                    let site = Int(pages[page].site)
                    return pages[page].live == 0 ? 0x2E : site < siteLetters.count ? siteLetters[site] : 0x7A
                })
            chunks.append(row)
        }
    }

    /// The kind of the run that covers each page; 0 for none.
    private static func runs(
        _ runs: Snapshot.RunColumns?, _ position: [UInt32: Int], _ pagesPerChunk: Int, chunks: Int
    ) -> [UInt8] {
        var kinds = [UInt8](repeating: 0, count: chunks * pagesPerChunk)
        guard let runs else { return kinds }
        for row in 0..<runs.count {
            guard let chunk = position[runs.chunk[row]] else { continue }
            let first = min(Int(runs.firstPage[row]), pagesPerChunk)
            let end = min(first + Int(runs.pages[row]), pagesPerChunk)
            for page in first..<end { kinds[chunk * pagesPerChunk + page] = runs.kind[row] }
        }
        return kinds
    }

    private func add(
        _ snapshot: Snapshot, _ position: [UInt32: Int], _ chunkSize: Int, to pages: inout [Page],
        _ unreachable: inout [UInt64]
    ) {
        guard let slots = snapshot.slots else { return }
        let isUnreachable = snapshot.unreachableSlots()
        for row in 0..<slots.count {
            let index = UInt32(truncatingIfNeeded: slots.address[row] / UInt64(chunkSize))
            guard let chunk = position[index] else { continue }
            let lost = isUnreachable?[row] ?? false
            if lost { unreachable[chunk] &+= slots.capacity[row] }
            var offset = Int(slots.address[row] % UInt64(chunkSize))
            let end = min(offset + Int(clamping: min(slots.capacity[row], UInt64(chunkSize))), pagesPerChunk * pageSize)
            while offset < end {
                let page = offset / pageSize
                let next = min(end, (page + 1) * pageSize)
                pages[chunk * pagesPerChunk + page].add(UInt64(next - offset), slots.site[row], isUnreachable: lost)
                offset = next
            }
        }
    }

    private static func use(_ page: Page, _ run: UInt8, _ pageSize: UInt64) -> UInt8 {
        let isLost = page.unreachable * 2 > page.live
        switch Snapshot.RunColumns.Kind(rawValue: run) {
        case .reserve: return Use.reserve.rawValue
        case .slab, .bump:
            if isLost { return Use.slabUnreachable.rawValue }
            return Use.slabFirstQuarter.rawValue + UInt8(min(3, page.live * 4 / pageSize))
        case .buffer: return isLost ? Use.unreachable.rawValue : Use.buffer.rawValue
        case nil:
            return page.live == 0 ? Use.free.rawValue : isLost ? Use.unreachable.rawValue : Use.buffer.rawValue
        }
    }

    /// `f12bu3`: a letter, and how often if more than once.
    private static func encoded(_ letters: [UInt8]) -> String {
        var text: [UInt8] = []
        var last: UInt8 = 0
        var count = 0
        func flush() {
            guard count > 0 else { return }
            text.append(last)
            if count > 1 { text += Array(String(count).utf8) }
        }
        for letter in letters {
            if letter == last {
                count += 1
            } else {
                flush()
                (last, count) = (letter, 1)
            }
        }
        flush()
        return String(decoding: text, as: UTF8.self)
    }

    /// What report.js draws.
    func json(_ snapshot: Snapshot) -> JSONValue {
        .object([
            .init("pageSize", .unsigned(UInt64(pageSize))),
            .init("pagesPerChunk", .unsigned(UInt64(pagesPerChunk))),
            .init("knowsUnreachable", .bool(snapshot.totals.unreachableBuffers != nil)),
            .init("sites", .array(siteIDs.map { .string(snapshot.siteName($0).label) })),
            .init(
                "chunks",
                .array(
                    chunks.map { row in
                        .object([
                            .init("index", .unsigned(UInt64(row.chunk.index))),
                            .init("kind", .string("\(row.chunk.kind)")),
                            .init("arena", .string(arena(row.chunk, snapshot))),
                            .init("bytes", .unsigned(row.chunk.bytes)),
                            .init("live", .unsigned(row.chunk.liveBytes)),
                            .init("buffers", .unsigned(row.chunk.liveBuffers)),
                            .init("unreachable", .unsigned(row.unreachableBytes)),
                            .init("freePages", .unsigned(UInt64(row.chunk.freePages))),
                            .init("largestFree", .unsigned(UInt64(row.chunk.largestFreeRunPages))),
                            .init(
                                "age",
                                .string(snapshot.hasClock ? Format.duration(snapshot.age(row.chunk.birth)) : "unknown")),
                            .init("use", .string(row.uses)), .init("site", .string(row.sites)),
                        ])
                    })),
        ])
    }

    private func arena(_ chunk: Snapshot.Chunk, _ snapshot: Snapshot) -> String {
        if chunk.kind == .cached { return "none (kept for later)" }
        let arena = Int(chunk.arena)
        return arena < snapshot.arenas.count ? snapshot.arenas[arena].name : "arena \(arena)"
    }
}
