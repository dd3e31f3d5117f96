import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("Leaks", .mayBlock)
struct LeakTests {
    @Test("a healthy broker has no suspects, however full it is", arguments: VerdictTests.healthy.indices)
    func healthy(index: Int) {
        let (name, snapshot) = VerdictTests.healthy[index]
        let search = LeakSearch([snapshot])
        #expect(!search.hasSuspects, "\(name)")
        #expect(TextRenderer(width: 200).render(search.report).hasPrefix("No suspect"), "\(name)")
    }

    /// The same broker, three times, a minute apart, with more of what it holds each time.
    private static func filling(_ make: (Bool) -> Snapshot, hasReferences: Bool) -> [Snapshot] {
        (1...3 as ClosedRange<UInt64>).map { step in
            var snapshot = make(hasReferences)
            snapshot.header.wallTime += step * Fixture.minute
            for index in snapshot.allocationGroups.indices {
                snapshot.allocationGroups[index].liveBuffers = snapshot.allocationGroups[index].liveBuffers * step / 3
                snapshot.allocationGroups[index].liveBytes = snapshot.allocationGroups[index].liveBytes * step / 3
            }
            snapshot.totals.liveBytes = snapshot.totals.liveBytes * step / 3
            return snapshot
        }
    }

    @Test("what grows because somebody holds it is a slow consumer and no leak", arguments: [true, false])
    func growthIsNoLeak(hasReferences: Bool) {
        for (index, make) in [Fixture.manyConnections, Fixture.deepQueues, Fixture.bigRetained].enumerated() {
            let search = LeakSearch(Self.filling(make, hasReferences: hasReferences))
            #expect(!search.hasSuspects, "shape \(index)")
            #expect(TextRenderer(width: 200).render(search.report).contains("Growing, and reachable: no leak"))
        }
    }

    @Test("the incident is one paragraph that can be pasted")
    func incident() throws {
        let search = LeakSearch([Fixture.leak()])
        let suspects = try #require(search.report.mainTable)
        #expect(suspects.rows.count == 1)
        let story = suspects.rows[0].cells[suspects.columns.firstIndex { $0.name == "story" }!]
        #expect(
            story.text() == """
                15,233 buffers that nobody holds, 1903.9 MiB, 99.9 % of live bytes. First born 2026-11-23 11:48:00Z, last \
                2026-11-23 12:00:03Z (12 min 3 s and 0 ns before the dump). Allocated at "publish packet" \
                (Broker/Connection.swift:88), last accessed at "convertToRpcCommandResponse" (Broker/RPCBridge.swift:141). \
                Owners: mostly sessions. Evidence (proved): at a safepoint, where no handler is running, no referrer reaches \
                them, which proves it; 99.9 % of what that site freed lived under 8.4 ms. Next: read \
                Broker/RPCBridge.swift:141, convertToRpcCommandResponse(_:): some way out of it, perhaps an error or an \
                early return, neither passes the buffer on nor releases it. Fingerprint unreachable-f3e597c61deb.
                """)
    }

    @Test("the slot table adds whose they were, exact births, and how many outlived the others")
    func details() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 60)
        // Nobody holds what convert had; an outbound queue holds the rest.
        snapshot.references = Snapshot.ReferenceColumns()
        for row in 6_000..<6_050 as Range<UInt32> {
            snapshot.references!.slotRow.append(row)
            snapshot.references!.referrerOwner.append(2)
            snapshot.references!.referrerKind.append(ReferrerKind.outbound.rawValue)
        }
        snapshot = try #require(snapshot.narrowed(to: try Filter("serial >= 0")))
        (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (6_000, 6_000 * 16_384)
        snapshot.sites[Int(Fixture.publish)].lifetimes = Fixture.histogram([20: 1_000])
        for row in 0..<6_000 { snapshot.slots!.birth[row] -= row < 5_000 ? Fixture.minute : 1_000 }
        var search = LeakSearch([snapshot])
        search.addDetails(from: snapshot)
        let table = try #require(search.report.mainTable)
        func cell(_ name: String) -> Value { table.rows[0].cells[table.columns.firstIndex { $0.name == name }!] }
        #expect(cell("buffers") == .count(6_000))
        #expect(cell("outlived_buffers") == .count(5_000))
        #expect(cell("top_owners") == .text("session device-1"))
        #expect(cell("oldest_age_ns") == .duration(Fixture.minute))
        #expect(cell("newest_age_ns") == .duration(1_000))
        #expect(cell("confidence") == .text("proved"))
    }

    @Test("without referrers, growth in every dump is possible with two dumps and likely with more")
    func growth() throws {
        for (count, confidence) in [(2, "possible"), (4, "likely")] {
            let dumps = (1...UInt64(count)).map { Fixture.growing(secondsAfterNoon: 30 * $0) }
            let table = try #require(LeakSearch(dumps).report.mainTable)
            #expect(table.rows.count == 1)
            #expect(table.rows[0].cells[2] == .text("growth"))
            #expect(table.rows[0].cells[3] == .text(confidence))
        }
        // A restart in between: nothing to compare.
        var other = Fixture.growing(secondsAfterNoon: 60)
        other.header.pid += 1
        #expect(!LeakSearch([Fixture.growing(secondsAfterNoon: 30), other]).hasSuspects)
    }

    @Test("a fingerprint survives another build, and tells defects apart")
    func fingerprints() {
        func prints(_ snapshot: Snapshot) -> [String] { Findings([snapshot]).findings.map(\.fingerprint) }
        let original = prints(Fixture.leak())
        var rebuilt = Fixture.leak()
        for id in rebuilt.sites.indices { rebuilt.sites[id].line += 17 }
        #expect(prints(rebuilt) == original)
        var renamed = Fixture.leak()
        renamed.sites[Int(Fixture.convert)].function = "other(_:)"
        #expect(prints(renamed) != original)
        #expect(prints(Fixture.leak(hasReferences: false)) != original)
    }

    @Test("suppressions cover what they name, and say how often")
    func suppressions() throws {
        let fingerprint = Findings([Fixture.leak()]).findings[0].fingerprint
        let text = """
            # accepted until the bridge is rewritten

            unreachable-000000000000  gone
            \(fingerprint)  the bridge's own
            kind = growth and site ~ "test"
            """
        let search = LeakSearch([Fixture.leak()], suppressions: try Suppressions(text: text))
        #expect(!search.hasSuspects)
        #expect(try !Condition("suspects > 0").holds(search.figures))
        guard case .array(let rules)? = JSONRenderer(toolVersion: "0").value(of: search.report)["suppressions"] else {
            return #expect(Bool(false), "no suppressions")
        }
        #expect(rules.map { $0["matches"] } == [.unsigned(0), .unsigned(1), .unsigned(0)])
        let byName = try Suppressions(text: "access ~ RPCBridge and kind = unreachable")
        #expect(!LeakSearch([Fixture.leak()], suppressions: byName).hasSuspects)
        let error = #expect(throws: SuppressionError.self) { try Suppressions(text: "\n\nsize > 3\n") }
        #expect(error?.line == 3)
    }

    @Test("what the baseline has too is known, and no gate's business")
    func baseline() throws {
        let known = LeakSearch([Fixture.leak()], baseline: Fixture.leak())
        #expect(known.hasSuspects)
        #expect(try !Condition("suspects > 0").holds(known.figures))
        let new = LeakSearch([Fixture.leak()], baseline: Fixture.deepQueues())
        #expect(try Condition("suspects > 0").holds(new.figures))
    }

    @Test("narrowing counts as counting again over fewer buffers would")
    func narrowing() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<30 {
            let snapshot = RandomArena.make(&random)
            let all = try #require(snapshot.narrowed(to: try Filter("size > 0")))
            #expect(all.sites.map(\.liveBytes) == snapshot.sites.map(\.liveBytes), "seed \(seed)")
            #expect(all.owners.map(\.liveBytes) == snapshot.owners.map(\.liveBytes), "seed \(seed)")
            #expect(
                all.allocationGroups.reduce(0) { $0 + $1.unreachableBytes } == snapshot.totals.unreachableBytes,
                "seed \(seed)")
            let none = try #require(snapshot.narrowed(to: try Filter("size = 0")))
            #expect(none.allocationGroups.isEmpty && none.sites.allSatisfy { $0.liveBuffers == 0 })
        }
    }
}
