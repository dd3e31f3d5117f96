import DumpFormat
import Ledger

/// The small tables, each always read whole.
enum DumpTables {
    static var all: [DumpTable] {
        [buffers, references, runs, chunks, sites, lifetimes, owners, allocationGroups, arenas, events, freed, totals]
    }

    /// Those that can have millions of rows.
    static var large: [DumpTable] { [buffers, references, runs] }

    static func named(_ name: String) -> DumpTable? { all.first { $0.name == name } }

    static var chunks: DumpTable {
        DumpTable(
            name: "chunks", about: "Memory mapped from the system: chunks, huge buffers, and chunks kept for later.",
            columns: rows(\.chunks) {
                [
                    .init("chunk", .integer, "its index; buffers and runs refer to it") { _, chunk in Cell(chunk.index)
                    },
                    .init("kind", .text, "chunk, huge, cached, or unpooled") { _, chunk in .text("\(chunk.kind)") },
                    .init("arena", .integer, "null for a cached chunk") { _, chunk in
                        chunk.kind == .cached ? .null : Cell(chunk.arena)
                    },
                    .init("bytes", .integer, "mapped") { _, chunk in Cell(chunk.bytes) },
                    .init("live_buffers", .integer, "buffers in it") { _, chunk in Cell(chunk.liveBuffers) },
                    .init("live_bytes", .integer, "bytes handed out, as size classes") { _, chunk in
                        Cell(chunk.liveBytes)
                    },
                    .init("free_bytes", .integer, "bytes - live_bytes") { _, chunk in
                        Cell(chunk.bytes.less(chunk.liveBytes))
                    },
                    .init("free_pages", .integer, "pages no run covers") { _, chunk in Cell(chunk.freePages) },
                    .init("largest_free_run_pages", .integer, "the most such pages in a row") { _, chunk in
                        Cell(chunk.largestFreeRunPages)
                    },
                    .init("age_ns", .integer, "since it was mapped; null without a clock") { snapshot, chunk in
                        Cell(snapshot.knownAge(chunk.birth))
                    },
                ]
            }, rowCount: { $0.snapshot.chunks.count })
    }

    static var sites: DumpTable {
        DumpTable(
            name: "sites", about: "Places in the code that allocate. Site 0 is unknown.",
            columns: [.rowNumber("site", "its id; buffers refer to it as site and access_site")]
                + rows(\.sites) {
                    [
                        .init("label", .text, "what people call it") { _, site in .text(site.label) },
                        .init("file", .text, "module and file") { _, site in .text(site.file) },
                        .init("line", .integer, "in the file") { _, site in Cell(site.line) },
                        .init("function", .text, "around it") { _, site in .text(site.function) },
                        .init("allocations", .integer, "since the start; null if the dump cannot tell") { dump, site in
                            Cell(dump.counted(site.allocations))
                        },
                        .init("frees", .integer, "likewise") { dump, site in Cell(dump.counted(site.frees)) },
                        .init("allocated_bytes", .integer, "requested since the start; null likewise") { dump, site in
                            Cell(dump.counted(site.allocatedBytes))
                        },
                        .init("live_buffers", .integer, "now") { _, site in Cell(site.liveBuffers) },
                        .init("live_bytes", .integer, "now, as size classes") { _, site in Cell(site.liveBytes) },
                        .init("requested_bytes", .integer, "now, as asked for") { _, site in Cell(site.requestedBytes)
                        },
                    ]
                }, rowCount: { $0.snapshot.sites.count })
    }

    static var lifetimes: DumpTable {
        DumpTable(
            name: "lifetimes", about: "How long the buffers lived that each site has freed: one row a bucket in use.",
            columns: lifetimeColumns, rowCount: { lifetimeRows($0.snapshot).count })
    }

    static var owners: DumpTable {
        DumpTable(
            name: "owners",
            about: "The owner tree: who answers for buffers. Owner 0 is the root; free records are left out.",
            columns: ownerColumns, rowCount: { ownerRows($0.snapshot).count })
    }

    static var allocationGroups: DumpTable {
        DumpTable(
            name: "allocation_groups", about: "Live buffers summed up by site, last access and kind of owner.",
            columns: rows(\.allocationGroups) {
                [
                    .init("site", .integer, "where they were allocated") { _, group in Cell(group.site) },
                    .init("access_site", .integer, "where they were last accessed") { _, group in Cell(group.accessSite)
                    },
                    .init("owner_kind", .text, "as in owners.kind") { _, group in .text(group.ownerKind.name) },
                    .init("live_buffers", .integer, "how many") { _, group in Cell(group.liveBuffers) },
                    .init("live_bytes", .integer, "as size classes") { _, group in Cell(group.liveBytes) },
                    .init("requested_bytes", .integer, "as asked for") { _, group in Cell(group.requestedBytes) },
                    .init("unreachable_buffers", .integer, "reached by no referrer; null if the dump cannot tell") {
                        dump, group in
                        dump.totals.unreachableBuffers == nil ? .null : Cell(group.unreachableBuffers)
                    },
                    .init("unreachable_bytes", .integer, "of these") { dump, group in
                        dump.totals.unreachableBuffers == nil ? .null : Cell(group.unreachableBytes)
                    },
                    .init("oldest_age_ns", .integer, "of the first born; null without a clock") { dump, group in
                        Cell(dump.knownAge(group.oldestBirth))
                    },
                    .init("newest_age_ns", .integer, "of the last born; null likewise") { dump, group in
                        Cell(dump.knownAge(group.newestBirth))
                    },
                ]
            }, rowCount: { $0.snapshot.allocationGroups.count })
    }

    static var arenas: DumpTable {
        DumpTable(
            name: "arenas", about: "One arena an event loop.",
            columns: [.rowNumber("arena", "its id; buffers and chunks refer to it")]
                + rows(\.arenas) {
                    [
                        .init("name", .text, "of the loop") { _, arena in .text(arena.name) },
                        .init("chunks", .integer, "that it has") { _, arena in Cell(arena.chunkCount) },
                        .init("live_buffers", .integer, "now") { _, arena in Cell(arena.liveBuffers) },
                        .init("live_bytes", .integer, "now, as size classes") { _, arena in Cell(arena.liveBytes) },
                        .init("requested_bytes", .integer, "now, as asked for") { _, arena in Cell(arena.requestedBytes)
                        },
                        .init("allocations", .integer, "since the start") { _, arena in Cell(arena.allocations) },
                        .init("frees", .integer, "since the start") { _, arena in Cell(arena.frees) },
                        .init("remote_frees", .integer, "of these, from other threads; null if the dump cannot tell") {
                            dump, arena in
                            Cell(dump.counted(arena.remoteFrees))
                        },
                    ]
                }, rowCount: { $0.snapshot.arenas.count })
    }

    static var events: DumpTable {
        DumpTable(
            name: "events", about: "What happened shortly before: levels, dumps, refused allocations.",
            columns: rows(\.events) {
                [
                    .init("age_ns", .integer, "before the dump; null without a clock") { dump, event in
                        Cell(dump.knownAge(event.time))
                    },
                    .init("kind", .text, "what") { _, event in .text(event.kind) },
                    .init("detail", .text, "in words") { _, event in .text(event.detail) },
                    .init("value", .integer, "what it is about, such as the bytes refused") { _, event in
                        Cell(event.value)
                    },
                ]
            }, rowCount: { $0.snapshot.events.count })
    }

    static var freed: DumpTable {
        DumpTable(
            name: "freed", about: "Buffers freed shortly before, the last few hundred of each arena, latest first.",
            columns: rows(\.freed) {
                [
                    .init("serial", .integer, "its number, never reused") { _, freed in Cell(freed.serial) },
                    .init("freed_age_ns", .integer, "before the dump, when it was freed") { dump, freed in
                        Cell(dump.knownAge(freed.freedTime))
                    },
                    .init("lifetime_ns", .integer, "from its birth to its end") { _, freed in
                        Cell(freed.freedTime.less(freed.birth))
                    },
                    .init("address", .integer, "where it was; perhaps another's by now") { _, freed in
                        Cell(freed.address)
                    },
                    .init("requested_bytes", .integer, "as asked for") { _, freed in Cell(freed.requested) },
                    .init("site", .integer, "where it was allocated") { _, freed in Cell(freed.site) },
                    .init("access_site", .integer, "where it was last accessed") { _, freed in Cell(freed.accessSite) },
                    .init("release_site", .integer, "what the thread that freed it was doing") { _, freed in
                        Cell(freed.releaseSite)
                    },
                    .init("owner", .integer, "who answered for it last") { _, freed in Cell(freed.owner) },
                    .init("arena", .integer, "that it was of") { _, freed in Cell(freed.arena) },
                ]
            }, rowCount: { $0.snapshot.freed.count })
    }

    // MARK: Rows of an array in the snapshot

    struct RowColumn<Row> {
        let name: String
        let type: CellType
        let about: String
        let cell: (Snapshot, Row) -> Cell

        init(_ name: String, _ type: CellType, _ about: String, cell: @escaping (Snapshot, Row) -> Cell) {
            self.name = name
            self.type = type
            self.about = about
            self.cell = cell
        }
    }

    static func rows<Row>(
        _ list: KeyPath<Snapshot, [Row]>, _ columns: () -> [RowColumn<Row>]
    ) -> [DumpTable.Column] {
        columns().map { column in
            DumpTable.Column(name: column.name, type: column.type, about: column.about) { facts in
                let snapshot = facts.snapshot
                let rows = snapshot[keyPath: list]
                return { column.cell(snapshot, rows[$0]) }
            }
        }
    }
}

extension DumpTable.Column {
    static func rowNumber(_ name: String, _ about: String) -> Self {
        Self(numbers: name, about) { facts in
            let first = facts.firstRow
            return { rows, places in places.fill(rows) { Int64(first + $0) } }
        }
    }
}
