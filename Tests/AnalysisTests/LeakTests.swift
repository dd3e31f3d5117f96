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
                15,233 buffers that nobody holds, 1903.9 MiB, 99.9 % of live bytes. First born 2026-11-23 11:48:00Z, 12 min \
                3 s before the dump; last 2026-11-23 12:00:03Z, 0 ns before it. Allocated at "publish packet" \
                (Broker/Connection.swift:88), last accessed at "convertToRpcCommandResponse" (Broker/RPCBridge.swift:141). \
                Owners: mostly sessions. Evidence (proved): at a safepoint, where no handler is running, no referrer reaches \
                them, which proves it; 99.9 % of what that site freed lived under 8.4 ms. Next: read \
                Broker/RPCBridge.swift:141, convertToRpcCommandResponse(_:): some way out of it, perhaps an error or an \
                early return, neither passes the buffer on nor releases it. Fingerprint unreachable-a61bb56ad43a.
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

    /// What changes from build to build, and from load to load, while the defect is the same.
    enum Change: String, CaseIterable {
        case lines, files, payload, owners

        func apply(to snapshot: inout Snapshot) {
            switch self {
            case .lines: for id in snapshot.sites.indices { snapshot.sites[id].line += 17 }
            case .files:
                for id in snapshot.sites.indices {
                    snapshot.sites[id].file = "Other" + snapshot.sites[id].file.replacing("RPCBridge", with: "Commands")
                }
            case .payload:
                // A small packet is a slice of what was read, and a large one is put together elsewhere.
                snapshot.allocationGroups[0].site = Fixture.read
                snapshot.allocationGroups[0].liveBytes /= 8
                snapshot.allocationGroups[0].unreachableBytes /= 8
            case .owners: snapshot.allocationGroups[0].ownerKind = .connection
            }
        }
    }

    private static func fingerprints(_ snapshot: Snapshot) -> [String] {
        Findings([snapshot]).findings.map(\.fingerprint)
    }

    @Test("a fingerprint is that of the defect, whatever changes around it", arguments: Change.allCases)
    func fingerprints(change: Change) {
        let original = Self.fingerprints(Fixture.leak())
        #expect(original.count == 1)
        var changed = Fixture.leak()
        change.apply(to: &changed)
        #expect(Self.fingerprints(changed) == original)
    }

    @Test("fingerprints tell functions and kinds of evidence apart")
    func otherFingerprints() throws {
        let original = Self.fingerprints(Fixture.leak())
        var renamed = Fixture.leak()
        renamed.sites[Int(Fixture.convert)].function = "other(_:)"
        #expect(Self.fingerprints(renamed) != original)
        #expect(Self.fingerprints(Fixture.leak(hasReferences: false)) != original)
        // Where nobody else had them, the allocation site is all there is.
        var untouched = Fixture.leak()
        untouched.allocationGroups[0].accessSite = 0
        let atSite = Self.fingerprints(untouched)
        #expect(atSite != original)
        untouched.allocationGroups[0].accessSite = Fixture.publish
        #expect(Self.fingerprints(untouched) == atSite)
        untouched.sites[Int(Fixture.publish)].function = "other()"
        #expect(Self.fingerprints(untouched) != atSite)
    }

    // MARK: Proof and importance

    /// A full and healthy broker in which three buffers of 4 KiB were forgotten.
    static func fewLost() -> Snapshot {
        var snapshot = Fixture.deepQueues()
        let start = snapshot.header.startTime
        Fixture.add(&snapshot, Fixture.publish, Fixture.convert, .session, 3, 12_288, oldest: start, isReachable: false)
        snapshot.chunks = []
        Fixture.fill(&snapshot, chunks: 90, hasReferences: true)
        return snapshot
    }

    @Test("that three buffers are lost is proved as it is of thousands; that they are few is said apart")
    func fewAreProved() throws {
        let search = LeakSearch([Self.fewLost()])
        let table = try #require(search.report.mainTable)
        func cell(_ name: String) -> Value { table.rows[0].cells[table.columns.firstIndex { $0.name == name }!] }
        #expect(table.rows.count == 1)
        #expect(cell("confidence") == .text("proved") && cell("importance") == .text("minor"))
        #expect(cell("buffers") == .count(3))
        let text = TextRenderer(width: 900).render(search.report)
        #expect(text.contains("1. Leak, proved, minor: convertToRpcCommandResponse loses buffers"))
        #expect(text.contains("3 buffers that nobody holds, 12 KiB, < 0.1 % of live bytes, minor so far."))
        let large = try #require(LeakSearch([Fixture.leak()]).report.mainTable)
        #expect(large.rows[0].cells[large.columns.firstIndex { $0.name == "importance" }!] == .text("major"))
    }

    @Test("--fail-on's terms agree about few buffers, about many and about none")
    func conditionsAgree() throws {
        func holds(_ condition: String, _ snapshot: Snapshot) throws -> Bool {
            try Condition(condition).holds(LeakSearch([snapshot]).figures)
        }
        for (snapshot, isLost, isMajor) in [
            (Self.fewLost(), true, false), (Fixture.leak(), true, true), (Fixture.deepQueues(), false, false),
            (Fixture.nearlyEmpty(), false, false),
        ] {
            for term in ["unreachable", "unreachable.bytes", "suspects", "suspect.bytes", "proved"] {
                #expect(try holds("\(term) > 0", snapshot) == isLost, "\(term)")
            }
            #expect(try holds("major > 0", snapshot) == isMajor)
        }
    }

    @Test("SQL, JSON and text call the same leaks minor", arguments: [false, true])
    func importanceInSQL(isLarge: Bool) throws {
        let snapshot = isLarge ? Fixture.leak() : Self.fewLost()
        let word = isLarge ? "major" : "minor"
        let report = try Query(sql: "SELECT importance, unreachable_buffers FROM leaks").report(on: snapshot)
        #expect(report.mainTable?.rows.map { $0.cells[0].json } == [.string(word)])
        #expect(JSONRenderer(toolVersion: "0").value(of: .summary(of: snapshot))["importance"] == .string(word))
        #expect(TextRenderer(width: 900).render(.summary(of: snapshot)).contains("minor so far") != isLarge)
    }

    // MARK: Growth

    /// Dumps a minute apart in which the handler loses ever more, and a queue has 2 MiB more each time.
    private static func leakAndQueue() -> [Snapshot] {
        (1...3 as ClosedRange<UInt64>).map { step in
            var snapshot = Fixture.empty()
            snapshot.header.wallTime += step * Fixture.minute
            let start = snapshot.header.startTime
            Fixture.add(
                &snapshot, Fixture.publish, Fixture.convert, .session, 1_000 * step, (step * 100) << 20, oldest: start,
                isReachable: false)
            Fixture.add(
                &snapshot, Fixture.publish, Fixture.enqueue, .offlineQueue, 20 * step, (step * 2) << 20, oldest: start)
            // The handler also passes some on.
            Fixture.add(
                &snapshot, Fixture.publish, Fixture.convert, .offlineQueue, 30 * step, (step * 3) << 20, oldest: start)
            Fixture.fill(&snapshot, chunks: 100, hasReferences: true)
            return snapshot
        }
    }

    @Test("what is held and grows is listed beside a leak, however much that grows, and of its place too")
    func heldBesideLeak() throws {
        let report = LeakSearch(Self.leakAndQueue()).report
        let suspects = try #require(report.mainTable)
        #expect(suspects.rows.count == 1)
        guard case .array(let reachable)? = JSONRenderer(toolVersion: "0").value(of: report)["growing_reachable"] else {
            return #expect(Bool(false), "nothing is listed")
        }
        #expect(reachable.map { $0["growth_bytes"] } == [.signed(6 << 20), .signed(4 << 20)])
        #expect(reachable.map { $0["growth_buffers"] } == [.signed(60), .signed(40)])
    }

    @Test("a finding's growth is that of its own buffers, from and to")
    func growthOfFinding() throws {
        let finding = try #require(Findings(Self.leakAndQueue()).findings.first)
        let growth = try #require(finding.growth)
        #expect(finding.amount == growth.last)
        #expect((growth.first.buffers, growth.last.buffers) == (1_000, 3_000))
        #expect(growth.bytesPerSecond == Double(200 << 20) / 120)
        let text = TextRenderer(width: 900).render(LeakSearch(Self.leakAndQueue()).report)
        #expect(text.contains("in every one of 3 dumps, from 1,000 to 3,000 buffers (+200 MiB, 1.7 MiB/s)"))
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
