import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

/// Every list can be narrowed and sorted.
@Suite("Filters and orders", .mayBlock)
struct FilteredAnswerTests {
    @Test("a summary under a filter counts its sites and judges them; the counters stay those of the whole")
    func summary() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 60)
        snapshot.references = Snapshot.ReferenceColumns()
        (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (6_050, snapshot.totals.liveBytes)
        let filter = try Filter("size < 4KiB")
        let narrowed = try #require(snapshot.narrowed(to: filter))
        let text = TextRenderer(width: 120).render(.summary(of: narrowed, where: filter))
        #expect(text.hasPrefix("matched  50 buffers, 100 KiB: 0.1 % of 6,050 live buffers' 93.8 MiB"))
        #expect(text.contains("live     6,050 buffers"))
        #expect(text.contains("channel read"))
        #expect(!text.contains("publish packet"))
        // 50 of 6,050 are few, and lost.
        #expect(text.contains("not accessed elsewhere since"))
        #expect(text.contains("this is a leak, minor so far."))
        // Nothing matches, and of nothing everything is known.
        let reachable = try Filter("size > 4KiB and not unreachable")
        let nothing = try #require(snapshot.narrowed(to: reachable))
        #expect(
            TextRenderer(width: 900).render(.summary(of: nothing, where: reachable))
                .contains("No suspects among the buffers that match size > 4KiB and not unreachable."))
        #expect(try Condition("suspects = 0").holds(LeakSearch([nothing], filter: reachable).figures))
        let large = try Filter("size > 4KiB")
        let suspicious = try #require(snapshot.narrowed(to: large))
        #expect(TextRenderer(width: 900).render(.summary(of: suspicious, where: large)).contains("this is a leak."))
    }

    @Test("a comparison under a filter is that of dumps that have only those buffers")
    func difference() throws {
        let dumps = [UInt64(60), 120].map { Fixture.growing(secondsAfterNoon: $0) }
        let filter = try Filter("size = 2048")
        let reduced = try dumps.map { try #require($0.reduced(to: filter)) }
        let json = JSONRenderer(toolVersion: "0").value(of: .difference(of: reduced, where: filter))
        #expect(json["filter"] == .string("size = 2048"))
        #expect(json["live_bytes"] == .unsigned(50 * 2_048))
        #expect(json["born_buffers"] == .unsigned(50))
        #expect(json["freed_buffers"] == .unsigned(50))
        #expect(json["time_to_limit_ns"] == .null)
        guard case .array(let sites)? = json["sites"] else { return #expect(Bool(false), "no sites") }
        #expect(sites.map { $0["label"] } == [.string("channel read")])
        let all = try dumps.map { try #require($0.reduced(to: try Filter("size > 0"))) }
        let same = Difference(all, where: try Filter("size > 0"))
        #expect(same.overall?.total == Difference(dumps).overall?.total)
    }

    @Test("siblings of the owner tree by retained size are in the order asked for")
    func dominators() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<20 {
            let snapshot = RandomArena.make(&random)
            for order in DominatorOrder.allCases {
                let report = try #require(Report.dominators(of: snapshot, siblings: nil, by: order))
                let table = try #require(report.mainTable)
                func column(_ name: String) -> Int { table.columns.firstIndex { $0.name == name }! }
                let key = ["retained": "retained_bytes", "shallow": "shallow_bytes", "buffers": "retained_buffers"]
                let roots = table.rows.filter { $0.depth == 1 }
                let cells = roots.map { $0.cells[column(key[order.rawValue] ?? "owner")] }
                guard order != .name else {
                    let titles = cells.map { $0.text() }
                    #expect(titles == titles.sorted(), "seed \(seed)")
                    continue
                }
                #expect(zip(cells, cells.dropFirst()).allSatisfy { !$1.precedes($0) }, "\(order), seed \(seed)")
            }
        }
    }

    @Test("the root of the owner tree is named once")
    func rootName() {
        var snapshot = Fixture.manyConnections()
        snapshot.owners[0].name = "process"
        #expect(TextRenderer().render(.owners(of: snapshot)).contains("\nprocess  "))
    }
}
