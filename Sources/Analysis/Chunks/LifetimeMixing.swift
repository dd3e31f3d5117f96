import DumpFormat

/// Long-lived buffers that sit among short-lived ones: when the others go, they keep the chunk. Such sites would be
/// better served by an arena of their own.
struct LifetimeMixing {
    struct SiteMix: Equatable {
        var site: UInt32
        /// Of its old buffers, those in chunks where most bytes are young.
        var old = Amount()
        var chunks: UInt64 = 0
        var chunkBytes: UInt64 = 0
    }

    let oldAge: UInt64
    private let hasClock: Bool
    /// Most chunks first.
    private(set) var sites: [SiteMix] = []
    private(set) var mixedChunks: UInt64 = 0
    private let chunkSize: UInt64

    init(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ rows: ChunkRows, oldAge: UInt64) {
        self.oldAge = oldAge
        hasClock = snapshot.hasClock
        chunkSize = max(1, snapshot.totals.chunkSize)
        let now = snapshot.header.monotonicTime
        let count = max(1, snapshot.sites.count)
        var mixes = (0..<count).map { SiteMix(site: UInt32($0)) }
        var seen = [Int](repeating: -1, count: count)
        for (index, chunk) in snapshot.chunks.enumerated() where chunk.kind == .chunk {
            var old: UInt64 = 0
            var young: UInt64 = 0
            rows.forEachRow(of: index) { row in
                if now.less(slots.birth[row]) >= oldAge {
                    old &+= slots.capacity[row]
                } else {
                    young &+= slots.capacity[row]
                }
            }
            guard old > 0, old < young else { continue }
            mixedChunks += 1
            rows.forEachRow(of: index) { row in
                guard now.less(slots.birth[row]) >= oldAge else { return }
                let site = Int(slots.site[row]) < count ? Int(slots.site[row]) : 0
                mixes[site].old.add(slots.capacity[row])
                if seen[site] != index {
                    seen[site] = index
                    mixes[site].chunks += 1
                    mixes[site].chunkBytes &+= chunk.bytes
                }
            }
        }
        sites = mixes.filter { $0.chunks > 0 }
            .sorted { ($1.chunks, $1.old.bytes, $0.site) < ($0.chunks, $0.old.bytes, $1.site) }
    }

    var words: Phrase {
        if !hasClock { return "A heap dump has no clock: whether lifetimes are mixed in chunks cannot be told." }
        guard mixedChunks > 0 else {
            return """
                Lifetimes are not mixed: no chunk of mostly young buffers has one older than \
                \(.duration(oldAge), as: "old_age_ns").
                """
        }
        return """
            Lifetimes are mixed in \(mixedChunks, of: "chunk", as: "mixed_chunks"): mostly young buffers, and some older \
            than \(.duration(oldAge), as: "old_age_ns") that keep the chunk when the others go. Sites whose old buffers \
            do so would want an arena of their own:
            """
    }

    func table(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "mixing",
            columns: [
                .init("site", "Site"), .init("old_buffers", "old buffers"), .init("old_bytes", "bytes"),
                .init("chunks", "in chunks"), .init("chunk_bytes", "of"),
                .init("chunks_of_their_own", "own chunks needed"),
            ])
        table.rows = sites.map { mix in
            Table.Row([
                .site(snapshot.siteName(mix.site)), .count(mix.old.buffers), .bytes(mix.old.bytes),
                .count(mix.chunks), .bytes(mix.chunkBytes),
                .count(mix.old.bytes / chunkSize + (mix.old.bytes % chunkSize == 0 ? 0 : 1)),
            ])
        }
        return table
    }
}
