import DumpFormat
import Ledger

// The tables whose rows are not simply an array of the snapshot: owners in use, lifetime buckets in use, the totals.

extension DumpTables {
    static func ownerRows(_ snapshot: Snapshot) -> [Int] {
        snapshot.owners.indices.filter { $0 == 0 || snapshot.owners[$0].kind != .free }
    }

    static var ownerColumns: [DumpTable.Column] {
        typealias OwnerCell = (DumpFacts, Int, Snapshot.Owner) -> Cell
        func column(
            _ name: String, _ type: CellType, _ about: String, _ cell: @escaping OwnerCell
        ) -> DumpTable.Column {
            DumpTable.Column(name: name, type: type, about: about) { facts in
                let ids = ownerRows(facts.snapshot)
                let owners = facts.snapshot.owners
                return { cell(facts, ids[$0], owners[ids[$0]]) }
            }
        }
        return [
            column("owner", .integer, "its id; buffers and referrers refer to it") { _, id, _ in Cell(id) },
            column("parent", .integer, "the owner above it; null for the root") { _, id, owner in
                id == 0 ? .null : Cell(owner.parent)
            },
            column("kind", .text, "process, listener, connection, session, …") { _, _, owner in
                .text(owner.kind.name)
            },
            column("name", .text, "client id, address, …") { _, _, owner in .text(owner.name) },
            column("client", .text, "the session (or else connection) it belongs to") { facts, id, _ in
                facts.clients[id].isEmpty ? .null : .text(facts.clients[id])
            },
            column("age_ns", .integer, "since it was made; null without a clock") { facts, _, owner in
                Cell(facts.snapshot.knownAge(owner.createdTime))
            },
            column("closed_age_ns", .integer, "since it was closed; null while open") { facts, _, owner in
                owner.closedTime == 0 ? .null : Cell(facts.snapshot.knownAge(owner.closedTime))
            },
            column("live_buffers", .integer, "its own, without what is below it") { _, _, owner in
                Cell(owner.liveBuffers)
            },
            column("live_bytes", .integer, "its own, as size classes") { _, _, owner in Cell(owner.liveBytes) },
        ]
    }

    static func lifetimeRows(_ snapshot: Snapshot) -> [(site: Int, bucket: Int, count: UInt64)] {
        snapshot.sites.enumerated().flatMap { site, record in
            record.lifetimes.prefix(62).enumerated().filter { $0.element > 0 }.map { (site, $0.offset, $0.element) }
        }
    }

    static var lifetimeColumns: [DumpTable.Column] {
        typealias Row = (site: Int, bucket: Int, count: UInt64)
        func column(_ name: String, _ about: String, _ cell: @escaping (Row) -> Cell) -> DumpTable.Column {
            DumpTable.Column(name: name, type: .integer, about: about) { facts in
                let rows = lifetimeRows(facts.snapshot)
                return { cell(rows[$0]) }
            }
        }
        return [
            column("site", "which") { Cell($0.site) },
            column("at_least_ns", "they lived at least this long") { Cell($0.bucket == 0 ? 0 : 1 << $0.bucket) },
            column("below_ns", "and less than this") { Cell(2 << $0.bucket) },
            column("freed_buffers", "how many") { Cell($0.count) },
        ]
    }

    static var totals: DumpTable {
        DumpTable(
            name: "totals", about: "One row: the exact counters, and what the header says about the process.",
            columns: totalColumns, rowCount: { _ in 1 })
    }

    private static var totalColumns: [DumpTable.Column] {
        typealias Numbers = Snapshot.Totals
        func text(_ name: String, _ about: String, _ text: @escaping (Snapshot.Header) -> String?)
            -> DumpTable.Column
        {
            .init(name: name, type: .text, about: about) { facts in
                let cell = text(facts.snapshot.header).map { Cell.text($0) } ?? .null
                return { _ in cell }
            }
        }
        func number(_ name: String, _ about: String, _ cell: @escaping (Snapshot) -> Cell)
            -> DumpTable.Column
        {
            .init(name: name, type: .integer, about: about) { facts in
                let cell = cell(facts.snapshot)
                return { _ in cell }
            }
        }
        return [
            text("program", "that was dumped") { $0.program },
            text("program_version", "its version") { $0.programVersion },
            number("pid", "of the process; null if the dump cannot tell") { Cell($0.header.knownPid) },
            text("host", "it ran on; null likewise") { $0.knownHost },
            .init(name: "time", type: .text, about: "of the dump, UTC") { facts in
                let time = Format.isoTime(facts.snapshot.header.wallTime)
                return { _ in .text(time) }
            },
            text("reason", "why it was dumped; null likewise") { $0.knownReason },
            number("uptime_ns", "since the arena was made; null likewise") { Cell($0.knownAge($0.header.startTime)) },
            number("pause_ns", "the event loops stood still; null likewise") {
                Cell($0.counted($0.header.pauseNanoseconds))
            },
            number("resident_bytes", "of the process; null likewise") { Cell($0.counted($0.header.residentBytes)) },
            number("cgroup_limit_bytes", "null without one") {
                $0.header.cgroupLimitBytes == 0 ? .null : Cell($0.header.cgroupLimitBytes)
            },
            number("limit_bytes", "of the arena; null without one") {
                $0.totals.limitBytes == 0 ? .null : Cell($0.totals.limitBytes)
            },
            number("counter_bytes", "chunk + huge + ledger + snapshot buffer bytes") { Cell($0.totals.counterBytes) },
            number("peak_counter_bytes", "its highest value; null likewise") {
                Cell($0.counted($0.totals.peakCounterBytes))
            },
            number("chunk_count", "chunks") { Cell($0.totals.chunkCount) },
            number("chunk_bytes", "in chunks") { Cell($0.totals.chunkBytes) },
            number("chunk_size_bytes", "of one chunk") { Cell($0.totals.chunkSize) },
            number("page_size_bytes", "of one page") { Cell($0.totals.pageSize) },
            number("huge_count", "buffers with a mapping of their own") { Cell($0.totals.hugeCount) },
            number("huge_bytes", "in these") { Cell($0.totals.hugeBytes) },
            number("ledger_bytes", "of the arena's own records") { Cell($0.totals.ledgerBytes) },
            number("snapshot_buffer_bytes", "of the copy a dump is written from") {
                Cell($0.totals.snapshotBufferBytes)
            },
            number("live_buffers", "in all") { Cell($0.totals.liveBuffers) },
            number("live_bytes", "handed out, as size classes") { Cell($0.totals.liveBytes) },
            number("requested_bytes", "asked for") { Cell($0.totals.requestedBytes) },
            number("free_bytes", "chunk + huge - live bytes") { Cell($0.totals.freeBytes) },
            number("unreachable_buffers", "reached by no referrer; null if the dump cannot tell") {
                Cell($0.totals.unreachableBuffers)
            },
            number("unreachable_bytes", "of these") { Cell($0.totals.unreachableBytes) },
            number("failed_allocations", "refused for the limit since the start; null likewise") {
                Cell($0.counted($0.totals.failedAllocations))
            },
        ]
    }
}
