import DumpFormat
import Ledger

// The tables that can have millions of rows: each column names what it must read.

extension DumpTables {
    private typealias Slots = Snapshot.SlotColumns

    static var buffers: DumpTable {
        DumpTable(
            name: "buffers", about: "Live buffers, one row each.",
            columns: [
                .rowNumber("buffer", "its row in this dump; edges refer to it"),
                slot("serial", "its identity across dumps of one process; never reused", .serial, \.serial),
                slot("bytes", "of its size class, or of its mapping", .capacity, \.capacity),
                slot("requested_bytes", "asked for", .requested, \.requested),
                slots("slack_bytes", "bytes - requested_bytes", [.capacity, .requested]) { facts in
                    let (capacity, requested) = (facts.slots.capacity, facts.slots.requested)
                    return { Cell(capacity[$0].less(requested[$0])) }
                },
                age("age_ns", "since its birth", .birth, \.birth),
                slot("site", "where it was allocated", .site, \.site),
                slot("touch_site", "where it was last touched", .touchSite, \.touchSite),
                age("touch_age_ns", "since then", .touchTime, \.touchTime),
                slot("owner", "who answers for it", .owner, \.owner),
                DumpTable.Column(
                    name: "unheld", type: .integer, about: "1 if no holder reaches it; null if the dump cannot tell",
                    needs: DumpSelection(slots: [.state], edges: true)
                ) { facts in
                    guard facts.snapshot.totals.unheldBuffers != nil, let kinds = facts.holderKinds else {
                        return { _ in .null }
                    }
                    let (state, first) = (facts.slots.state, facts.firstRow)
                    return { Cell(state[$0] == Slots.live && kinds[first + $0] == 0) }
                },
                slot("arena", "that it is of", .arena, \.arena),
                slots("chunk", "that it is in", [.address]) { facts in
                    let (address, size) = (facts.slots.address, max(1, facts.snapshot.totals.chunkSize))
                    return { Cell(address[$0] / size) }
                },
                slots("offset", "in the chunk, in bytes", [.address]) { facts in
                    let (address, size) = (facts.slots.address, max(1, facts.snapshot.totals.chunkSize))
                    return { Cell(address[$0] % size) }
                },
                slots("size_class", "its index; null for a huge buffer", [.sizeClass]) { facts in
                    let sizeClass = facts.slots.sizeClass
                    return { sizeClass[$0] == Slots.hugeClass ? .null : Cell(sizeClass[$0]) }
                },
                DumpTable.Column(
                    name: "holder_mask", type: .integer,
                    about: "kinds of holder that reach it, a bit each as in edges; null if the dump cannot tell",
                    needs: DumpSelection(edges: true)
                ) { facts in
                    guard let kinds = facts.holderKinds else { return { _ in .null } }
                    let first = facts.firstRow
                    return { Cell(kinds[first + $0]) }
                },
                slot(
                    "state", "1 live; 2 freed by another thread, not yet taken back; 3 freed, kept by a thread cache",
                    .state, \.state),
            ],
            rowCount: { $0.slots.count },
            // Some column must be read to learn the number of rows; this is the smallest.
            needs: DumpSelection(slots: [.state]))
    }

    static var edges: DumpTable {
        DumpTable(
            name: "edges", about: "Which holder reaches which buffer, one row a reach.",
            columns: [
                edge("buffer", .integer, "its row in buffers") { edges in
                    let rows = edges.slotRow
                    return { Cell(rows[$0]) }
                },
                edge("owner", .integer, "whose structure it is") { edges in
                    let owners = edges.holderOwner
                    return { Cell(owners[$0]) }
                },
                edge("kind", .text, "of structure: read buffer, offline queue, …") { edges in
                    let kinds = edges.holderKind
                    return { .text(HolderKind(rawValue: kinds[$0])?.name ?? "unknown") }
                },
                edge("referred_bytes", .integer, "of the buffer that it refers to; null if the dump cannot tell") {
                    edges in
                    let bytes = edges.referredBytes
                    return { bytes.isEmpty ? .null : Cell(bytes[$0]) }
                },
            ], rowCount: { $0.edges.count }, needs: DumpSelection(edges: true))
    }

    static var runs: DumpTable {
        DumpTable(
            name: "runs", about: "Used pages: a run is one buffer, or a slab of equal small ones.",
            columns: [
                run("chunk", \.chunk, "that it is in"), run("first_page", \.firstPage, "in the chunk"),
                run("pages", \.pages, "that it covers"),
                DumpTable.Column(
                    name: "kind", type: .text, about: "buffer, slab, reserve, or bump (of foreign allocators)"
                ) { facts in
                    let kinds = facts.runs.kind
                    return { .text(Snapshot.RunColumns.Kind(rawValue: kinds[$0]).map { "\($0)" } ?? "unknown") }
                },
                run("size_class", \.sizeClass, "of its elements"), run("elements", \.elements, "it has room for"),
                run("live_elements", \.liveElements, "of these"),
            ], rowCount: { $0.runs.count }, needs: DumpSelection(runs: true))
    }

    private static func slots(
        _ name: String, _ about: String, _ columns: Set<Slots.Column>,
        _ cells: @escaping (DumpFacts) -> (Int) -> Cell
    ) -> DumpTable.Column {
        DumpTable.Column(name: name, type: .integer, about: about, needs: DumpSelection(slots: columns), cells: cells)
    }

    private static func slot(
        _ name: String, _ about: String, _ column: Slots.Column,
        _ path: KeyPath<Slots, [some FixedWidthInteger]>
    ) -> DumpTable.Column {
        slots(name, about, [column]) { facts in
            let values = facts.slots[keyPath: path]
            return { Cell(values[$0]) }
        }
    }

    private static func age(
        _ name: String, _ about: String, _ column: Slots.Column, _ path: KeyPath<Slots, [UInt64]>
    ) -> DumpTable.Column {
        slots(name, about, [column]) { facts in
            let (times, now) = (facts.slots[keyPath: path], facts.snapshot.header.monotonicTime)
            return { Cell(now.less(times[$0])) }
        }
    }

    private static func edge(
        _ name: String, _ type: CellType, _ about: String,
        _ cells: @escaping (Snapshot.EdgeColumns) -> (Int) -> Cell
    ) -> DumpTable.Column {
        DumpTable.Column(name: name, type: type, about: about) { cells($0.edges) }
    }

    private static func run(
        _ name: String, _ path: KeyPath<Snapshot.RunColumns, [some FixedWidthInteger]>, _ about: String
    ) -> DumpTable.Column {
        DumpTable.Column(name: name, type: .integer, about: about) { facts in
            let values = facts.runs[keyPath: path]
            return { Cell(values[$0]) }
        }
    }
}
