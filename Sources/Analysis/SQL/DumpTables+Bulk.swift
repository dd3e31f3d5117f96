import DumpFormat
import Ledger

// The tables that can have millions of rows: each column names what it must read.

extension DumpTables {
    private typealias Slots = Snapshot.SlotColumns

    static var buffers: DumpTable {
        DumpTable(
            name: "buffers", about: "Live buffers, one row each.",
            columns: [
                .rowNumber("buffer", "its row in this dump; referrers refers to it"),
                slot("serial", "its identity across dumps of one process; never reused", .serial, \.serial),
                slot("bytes", "of its size class, or of its mapping", .capacity, \.capacity),
                slot("requested_bytes", "asked for", .requested, \.requested),
                slots("internal_fragmentation_bytes", "bytes - requested_bytes", [.capacity, .requested]) { facts in
                    let (capacity, requested) = (facts.slots.capacity, facts.slots.requested)
                    return { rows, places in
                        places.fill(rows) { Int64(clamping: capacity[$0].less(requested[$0])) }
                    }
                },
                age("age_ns", "since its birth; null without a clock", .birth, \.birth),
                slot("site", "where it was allocated", .site, \.site),
                slot("access_site", "where it was last accessed", .accessSite, \.accessSite),
                age("access_age_ns", "since then; null likewise", .accessTime, \.accessTime),
                slot("owner", "who answers for it", .owner, \.owner),
                DumpTable.Column(
                    numbers: "unreachable", "1 if no referrer reaches it; null if the dump cannot tell",
                    needs: DumpSelection(slots: [.state], reaches: true)
                ) { facts in
                    guard facts.snapshot.totals.unreachableBuffers != nil, let kinds = facts.referrerKinds else {
                        return Self.nulls
                    }
                    let (state, first) = (facts.slots.state, facts.firstRow)
                    return { rows, places in
                        places.fill(rows) { state[$0] == Slots.live && kinds[first + $0] == 0 ? 1 : 0 }
                    }
                },
                slot("arena", "that it is of", .arena, \.arena),
                slots("chunk", "that it is in", [.address]) { facts in
                    let (address, size) = (facts.slots.address, max(1, facts.snapshot.totals.chunkSize))
                    return { rows, places in places.fill(rows) { Int64(clamping: address[$0] / size) } }
                },
                slots("offset", "in the chunk, in bytes", [.address]) { facts in
                    let (address, size) = (facts.slots.address, max(1, facts.snapshot.totals.chunkSize))
                    return { rows, places in places.fill(rows) { Int64(clamping: address[$0] % size) } }
                },
                slots("size_class", "its index; null for a huge buffer", [.sizeClass]) { facts in
                    let sizeClass = facts.slots.sizeClass
                    return { rows, places in
                        places.fill(rows) {
                            sizeClass[$0] == Slots.hugeClass ? Cell.nullNumber : Int64(sizeClass[$0])
                        }
                    }
                },
                DumpTable.Column(
                    numbers: "referrer_mask",
                    "kinds of referrer that reach it, a bit each as in referrers; null if the dump cannot tell",
                    needs: DumpSelection(reaches: true)
                ) { facts in
                    guard let kinds = facts.referrerKinds else { return Self.nulls }
                    let first = facts.firstRow
                    return { rows, places in places.fill(rows) { Int64(kinds[first + $0]) } }
                },
                slot(
                    "state", "1 live; 2 freed, not taken back; 3 in a thread's cache",
                    .state, \.state),
            ],
            rowCount: { $0.slots.count },
            // Some column must be read to learn the number of rows; this is the smallest.
            needs: DumpSelection(slots: [.state]))
    }

    static var references: DumpTable {
        DumpTable(
            name: "referrers", about: "Which referrer reaches which buffer, one row a reach.",
            columns: [
                reference("buffer", "its row in buffers") { references in
                    let rows = references.slotRow
                    return { numbers, places in places.fill(numbers) { Int64(rows[$0]) } }
                },
                reference("owner", "whose structure it is") { references in
                    let owners = references.referrerOwner
                    return { rows, places in places.fill(rows) { Int64(owners[$0]) } }
                },
                DumpTable.Column(
                    numbers: "kind", "of structure: read buffer, offline queue, …",
                    words: (0...UInt8.max).map { ReferrerKind(rawValue: $0)?.name ?? "unknown" }
                ) { facts in
                    let kinds = facts.references.referrerKind
                    return { rows, places in places.fill(rows) { Int64(kinds[$0]) } }
                },
                reference("referred_bytes", "of the buffer that it refers to; null if the dump cannot tell") {
                    references in
                    let bytes = references.referredBytes
                    return { rows, places in
                        places.fill(rows) { bytes.isEmpty ? Cell.nullNumber : Int64(bytes[$0]) }
                    }
                },
            ], rowCount: { $0.references.count }, needs: DumpSelection(references: true))
    }

    static var runs: DumpTable {
        DumpTable(
            name: "runs", about: "Used pages: a run is one buffer, or a slab of equal small ones.",
            columns: [
                run("chunk", \.chunk, "that it is in"), run("first_page", \.firstPage, "in the chunk"),
                run("pages", \.pages, "that it covers"),
                DumpTable.Column(
                    numbers: "kind", "buffer, slab, reserve, or bump (of foreign allocators)",
                    words: (0...UInt8.max).map { kind in
                        Snapshot.RunColumns.Kind(rawValue: kind).map { "\($0)" } ?? "unknown"
                    }
                ) { facts in
                    let kinds = facts.runs.kind
                    return { rows, places in places.fill(rows) { Int64(kinds[$0]) } }
                },
                run("size_class", \.sizeClass, "of its elements"), run("elements", \.elements, "it has room for"),
                run("live_elements", \.liveElements, "of these"),
            ], rowCount: { $0.runs.count }, needs: DumpSelection(runs: true))
    }

    private static let nulls: @Sendable (Range<Int>, UnsafeMutableBufferPointer<Int64>) -> Void = { rows, places in
        places.fill(rows) { _ in Cell.nullNumber }
    }

    private static func slots(
        _ name: String, _ about: String, _ columns: Set<Slots.Column>,
        _ numbers: @escaping (DumpFacts) -> DumpTable.Numbers
    ) -> DumpTable.Column {
        DumpTable.Column(numbers: name, about, needs: DumpSelection(slots: columns), numbers)
    }

    private static func slot(
        _ name: String, _ about: String, _ column: Slots.Column,
        _ path: KeyPath<Slots, [some FixedWidthInteger]>
    ) -> DumpTable.Column {
        slots(name, about, [column]) { facts in
            let values = facts.slots[keyPath: path]
            return { rows, places in places.fill(rows) { Int64(clamping: values[$0]) } }
        }
    }

    private static func age(
        _ name: String, _ about: String, _ column: Slots.Column, _ path: KeyPath<Slots, [UInt64]>
    ) -> DumpTable.Column {
        slots(name, about, [column]) { facts in
            guard facts.snapshot.hasClock else { return Self.nulls }
            let (times, now) = (facts.slots[keyPath: path], facts.snapshot.header.monotonicTime)
            return { rows, places in places.fill(rows) { Int64(clamping: now.less(times[$0])) } }
        }
    }

    private static func reference(
        _ name: String, _ about: String, _ numbers: @escaping (Snapshot.ReferenceColumns) -> DumpTable.Numbers
    ) -> DumpTable.Column {
        DumpTable.Column(numbers: name, about) { numbers($0.references) }
    }

    private static func run(
        _ name: String, _ path: KeyPath<Snapshot.RunColumns, [some FixedWidthInteger]>, _ about: String
    ) -> DumpTable.Column {
        DumpTable.Column(numbers: name, about) { facts in
            let values = facts.runs[keyPath: path]
            return { rows, places in places.fill(rows) { Int64(clamping: values[$0]) } }
        }
    }
}
