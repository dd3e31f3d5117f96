import DumpFormat
import Ledger
import Testing

@testable import Analysis

@Suite("Held for a part of them")
struct PinnedForLittleTests {
    /// What the first site has is held by slices of `bytes`, what the others have as a whole.
    private static func snapshot(bytes: UInt32) -> Snapshot {
        var snapshot = Fixture.growing(secondsAfterNoon: 60)
        var references = Snapshot.ReferenceColumns()
        let slots = snapshot.slots!
        for row in 0..<slots.count {
            references.slotRow.append(UInt32(row))
            references.referrerOwner.append(2)
            references.referrerKind.append(ReferrerKind.outbound.rawValue)
            references.referredBytes.append(slots.site[row] == Fixture.publish ? bytes : UInt32(slots.capacity[row]))
        }
        snapshot.references = references
        return snapshot
    }

    @Test("slices that pin at least four times what they refer to are told of, by site")
    func bySite() throws {
        let snapshot = Self.snapshot(bytes: 64)
        let rows = PinnedForLittle(snapshot).rows
        #expect(rows.count == 1)
        let row = try #require(rows.first)
        #expect(row.site == Fixture.publish && row.buffers == 6_000)
        #expect(row.pinned == 6_000 * 16_384 && row.referred == 6_000 * 64)
        #expect(PinnedForLittle(Self.snapshot(bytes: 4_096)).rows.count == 1)
        #expect(PinnedForLittle(Self.snapshot(bytes: 4_097)).rows.isEmpty)
        var unknown = snapshot
        unknown.references?.referredBytes = []
        #expect(PinnedForLittle(unknown).rows.isEmpty)
    }

    @Test("leaks and chunks show it")
    func shown() throws {
        let snapshot = Self.snapshot(bytes: 64)
        var search = LeakSearch([snapshot])
        search.addDetails(from: snapshot)
        var reports = [search.report]
        if let chunks = Report.chunks(of: snapshot) { reports.append(chunks) }
        for report in reports {
            let text = TextRenderer(width: 200).render(report)
            #expect(text.contains("Held for a part of them"), "\(report.command)")
            #expect(text.contains("375.0 KiB"))
        }
    }
}
