import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

/// Everything here is checked against trying it out on small arenas.
@Suite("Chunks", .mayBlock)
struct ChunkTests {
    /// A snapshot, and for each chunk row the rows of the buffers in it, found the slow way.
    private struct Trial {
        let snapshot: Snapshot
        let slots: Snapshot.SlotColumns
        let inChunk: [[Int]]
        let rows: ChunkRows
        let free: FreeRuns

        init(_ random: inout SeededGenerator, shuffled: Bool = false) {
            var snapshot = RandomArena.make(&random)
            if shuffled {
                let order = Array(0..<snapshot.slots!.count).shuffled(using: &random)
                for (path) in [\Snapshot.SlotColumns.address, \.capacity, \.requested, \.birth] {
                    snapshot.slots![keyPath: path] = order.map { snapshot.slots![keyPath: path][$0] }
                }
                for path in [\Snapshot.SlotColumns.site, \.owner] {
                    snapshot.slots![keyPath: path] = order.map { snapshot.slots![keyPath: path][$0] }
                }
            }
            self.snapshot = snapshot
            slots = snapshot.slots!
            let slots = snapshot.slots!
            inChunk = snapshot.chunks.map { chunk in
                slots.address.indices.filter { slots.address[$0] / RandomArena.chunkSize == UInt64(chunk.index) }
            }
            rows = ChunkRows(snapshot, slots)
            free = FreeRuns(snapshot)
        }

        /// Bytes of chunks and mappings that go back when these are freed.
        func returned(freeing isFreed: (Int) -> Bool) -> UInt64 {
            snapshot.chunks.indices.reduce(0) { sum, chunk in
                let goes = !inChunk[chunk].isEmpty && inChunk[chunk].allSatisfy(isFreed) && !free.holdsReserve[chunk]
                return sum + (goes ? snapshot.chunks[chunk].bytes : 0)
            }
        }
    }

    private func forEachTrial(_ body: (Trial, inout SeededGenerator, UInt64) throws -> Void) rethrows {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for turn in 0..<80 {
            let trial = Trial(&random, shuffled: turn % 2 == 1)
            try body(trial, &random, seed)
        }
    }

    @Test("rows are found by chunk, in order of addresses or not")
    func rows() {
        forEachTrial { trial, _, seed in
            for chunk in trial.snapshot.chunks.indices {
                var found: [Int] = []
                trial.rows.forEachRow(of: chunk) { found.append($0) }
                #expect(found.sorted() == trial.inChunk[chunk], "seed \(seed)")
            }
            #expect(trial.rows.strays == 0)
        }
    }

    @Test("what if: what goes back is what trying it returns")
    func whatIf() throws {
        try forEachTrial { trial, random, seed in
            let owner = UInt32.random(in: 0..<UInt32(trial.snapshot.owners.count), using: &random)
            let name = trial.snapshot.owners[Int(owner)].name
            for text in ["owner = '\(name)'", "age > 1h", "size > 0", "unreachable or freed", "size = 0"] {
                let mask = try #require(try Filter(text).rows(in: trial.snapshot))
                let answer = WhatIf(
                    trial.snapshot, trial.slots, trial.rows, freeing: mask, stays: trial.free.holdsReserve)
                #expect(answer.bytes == trial.returned { mask[$0] }, "\(text), seed \(seed)")
                let freed = trial.slots.capacity.indices.filter { mask[$0] }
                #expect(answer.freed.bytes == freed.reduce(0) { $0 + trial.slots.capacity[$1] })
                let accessed = trial.inChunk.count { $0.contains { mask[$0] } }
                #expect(UInt64(accessed) == answer.chunks + answer.huge + answer.partly + answer.kept, "seed \(seed)")
            }
        }
    }

    @Test("chunks pinned alone and with others are what looking into each chunk says")
    func pins() throws {
        try forEachTrial { trial, _, seed in
            for grouping in [Grouping.owner, .site, .ownerKind] {
                let groups = try #require(SlotGroups(grouping, trial.snapshot))
                let pins = ChunkPins(
                    trial.snapshot, trial.slots, trial.rows, groups, stays: trial.free.holdsReserve)
                for group in pins.pinned.indices where grouping != .ownerKind || group < 20 {
                    var expected = ChunkPins.Pinned()
                    for (chunk, rows) in trial.inChunk.enumerated() {
                        let mine = rows.filter { groups.group[$0] == UInt32(group) }
                        let bytes = trial.snapshot.chunks[chunk].bytes
                        for row in mine { expected.live.add(trial.slots.capacity[row]) }
                        if mine.isEmpty { continue }
                        if mine.count == rows.count {
                            expected.exclusiveChunks += 1
                            expected.exclusiveBytes += bytes
                        } else {
                            expected.sharedChunks += 1
                            expected.sharedBytes += bytes
                        }
                    }
                    #expect(pins.pinned[group] == expected, "\(grouping) \(group), seed \(seed)")
                }
            }
        }
    }

    @Test("the greedy choice returns what it says, one is the best one, and none beats the best of all sets")
    func best() throws {
        try forEachTrial { trial, _, seed in
            let groups = try #require(SlotGroups(.owner, trial.snapshot))
            let pins = ChunkPins(trial.snapshot, trial.slots, trial.rows, groups, stays: trial.free.holdsReserve)
            let owners = trial.snapshot.owners.count
            func returned(_ set: [UInt32]) -> UInt64 {
                trial.returned { set.contains(trial.slots.owner[$0]) }
            }
            for k in 1...3 {
                let choices = pins.best(k)
                for step in choices.indices {
                    let set = choices[...step].map(\.group)
                    #expect(choices[step].bytes == returned(set), "seed \(seed)")
                }
                let greedy = choices.last?.bytes ?? 0
                var optimum: UInt64 = 0
                for mask in 0..<(1 << owners) where mask.nonzeroBitCount <= k {
                    optimum = max(optimum, returned((0..<UInt32(owners)).filter { mask >> $0 & 1 == 1 }))
                }
                #expect(greedy <= optimum, "seed \(seed)")
                if k == 1 { #expect(greedy == optimum, "seed \(seed)") }
            }
        }
    }

    @Test("free runs and the compaction bound are what counting pages says")
    func freeRuns() {
        forEachTrial { trial, _, seed in
            let runs = trial.snapshot.runs!
            var pages: UInt64 = 0
            for chunk in trial.snapshot.chunks where chunk.kind == .chunk {
                pages += UInt64(chunk.freePages)
            }
            let counted = trial.free.counts.enumerated().reduce(0) { $0 + UInt64($1.offset) * $1.element }
            #expect(counted == pages, "seed \(seed)")
            #expect(trial.free.byLength.reduce(0) { $0 + $1.pages } == pages)
            let largest = trial.snapshot.chunks.filter { $0.kind == .chunk }.map(\.largestFreeRunPages).max() ?? 0
            #expect(trial.free.largest == Int(largest), "seed \(seed)")
            let spare = (0..<runs.count).reduce(0) {
                $0
                    + (runs.kind[$1] == 2 && runs.sizeClass[$1] == 0
                        ? UInt64(runs.elements[$1] - runs.liveElements[$1]) : 0)
            }
            #expect(trial.free.freeElements[0] == spare)
            let bound = Report.compactionBound(trial.snapshot)
            #expect(bound.chunks * RandomArena.chunkSize >= bound.live)
            #expect(bound.chunks == 0 || (bound.chunks - 1) * RandomArena.chunkSize < bound.live)
        }
    }

    @Test("lifetimes are mixed where old buffers are the smaller part of a chunk")
    func mixing() {
        forEachTrial { trial, _, seed in
            let old = 30 * Fixture.minute
            let mixing = LifetimeMixing(trial.snapshot, trial.slots, trial.rows, oldAge: old)
            func isOld(_ row: Int) -> Bool { trial.snapshot.header.monotonicTime - trial.slots.birth[row] >= old }
            func bytes(_ rows: [Int]) -> UInt64 { rows.reduce(0) { $0 + trial.slots.capacity[$1] } }
            let mixed = trial.inChunk.enumerated().filter { chunk, rows in
                let share = bytes(rows.filter(isOld))
                return trial.snapshot.chunks[chunk].kind == .chunk && share > 0 && share < bytes(rows) - share
            }
            #expect(mixing.mixedChunks == UInt64(mixed.count), "seed \(seed)")
            for site in mixing.sites {
                let rows = mixed.flatMap(\.element).filter { isOld($0) && trial.slots.site[$0] == site.site }
                #expect(site.old.bytes == bytes(rows), "seed \(seed)")
            }
        }
    }

    @Test("every byte is accounted for, in all and in each chunk")
    func byteLedger() throws {
        try forEachTrial { trial, random, seed in
            let ledger = try #require(ByteLedger(trial.snapshot))
            #expect(ledger.residue == 0, "seed \(seed)")
            #expect(ledger.chunkResidues.allSatisfy { $0 == 0 }, "seed \(seed)")
            #expect(ByteLedger.checks(trial.snapshot).allSatisfy { $0.passed })
            // A byte that goes missing is named.
            var damaged = trial.snapshot
            damaged.totals.counterBytes += 7
            #expect(ByteLedger(damaged)?.residue == 7)
            if let chunk = damaged.chunks.firstIndex(where: { $0.kind == .chunk }) {
                damaged.chunks[chunk].freePages += 1
                #expect(ByteLedger.checks(damaged)[1].passed == false)
            }
        }
    }

    @Test("a request fits where a run is long enough, or a slab has room, or a chunk can be had")
    func requests() {
        var snapshot = Fixture.empty()
        snapshot.totals.chunkSize = RandomArena.chunkSize
        snapshot.sizeClasses = [1_024, 16_384].map { bytes in
            Snapshot.SizeClass(
                bytes: bytes, runPages: bytes == 1_024 ? 1 : 2, elements: bytes == 1_024 ? 8 : 1)
        }
        var chunk = Snapshot.Chunk()
        chunk.bytes = RandomArena.chunkSize
        snapshot.chunks = [chunk]
        var runs = Snapshot.RunColumns()
        for page in stride(from: 0, to: 8, by: 2) {
            runs.chunk.append(0)
            runs.firstPage.append(UInt16(page))
            runs.pages.append(1)
            runs.kind.append(2)
            runs.sizeClass.append(0)
            runs.elements.append(8)
            runs.liveElements.append(page == 0 ? 7 : 8)
        }
        snapshot.runs = runs
        snapshot.totals.limitBytes = 1
        func words(_ bytes: UInt64) -> String { RequestFit(bytes, snapshot, FreeRuns(snapshot)).words.text }
        #expect(words(1_000).contains("1 free element in part-used slabs"))
        #expect(words(10_000).contains("needs a free run of 16 KiB, and the largest is 8 KiB"))
        #expect(words(10_000).contains("the limit leaves no room"))
        #expect(!RequestFit(10_000, snapshot, FreeRuns(snapshot)).fits)
        snapshot.totals.limitBytes = 0
        #expect(words(10_000).contains("a new chunk would be mapped"))
    }

    @Test("empty chunks are said to be empty, and who keeps them")
    func emptyChunks() throws {
        let report = try #require(Report.chunks(of: Fixture.consistent()))
        let text = TextRenderer(width: 120).render(report)
        #expect(text.contains("1 chunk is empty, but the policy keeps it"))
        #expect(text.contains("empty, kept"))
    }

    @Test("a filter shows the chunks that have such buffers and who has them, with all that they pin")
    func filtered() throws {
        try forEachTrial { trial, _, seed in
            var question = ChunkQuestion()
            question.filter = try Filter("age > 1h")
            let mask = try #require(try Filter("age > 1h").rows(in: trial.snapshot))
            let report = try #require(Report.chunks(of: trial.snapshot, question))
            func numbers(_ table: String, _ column: String) -> Set<UInt64> {
                guard case .array(let rows)? = JSONRenderer(toolVersion: "0").value(of: report)[table] else {
                    return []
                }
                return Set(rows.compactMap { if case .unsigned(let number)? = $0[column] { number } else { nil } })
            }
            let chunks = trial.snapshot.chunks.indices.filter { trial.inChunk[$0].contains { mask[$0] } }
            let expected = Set(chunks.map { UInt64(trial.snapshot.chunks[$0].index) })
            #expect(numbers("chunks", "chunk") == expected, "seed \(seed)")
            let owners = Set(trial.slots.owner.indices.filter { mask[$0] }.map { UInt64(trial.slots.owner[$0]) })
            #expect(numbers("pinners", "id") == owners, "seed \(seed)")
        }
    }
}
