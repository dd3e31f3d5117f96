import Analysis
import DumpFormat
import Ledger
import TestSupport
import Testing

@testable import NettyHeap

@Suite("Heap dumps of Netty programs", .mayBlock) struct FixtureTests {
    /// Buffers and bytes of the slots in a state, without those nobody holds.
    private func reachable(_ snapshot: Snapshot, state: UInt8) throws -> (buffers: Int, bytes: UInt64) {
        let slots = try #require(snapshot.slots)
        let references = try #require(snapshot.references)
        let rows = Set(references.slotRow.map { Int($0) }).filter { slots.state[$0] == state }
        return (rows.count, rows.reduce(0) { $0 + slots.capacity[$1] })
    }

    @Test("the incident: 119 chunks, and 15,453 allocations that no ByteBuf refers to")
    func incident() throws {
        let snapshot = try Fixture.leak41.read().snapshot
        let totals = snapshot.totals
        #expect(totals.counterBytes == 1_996_488_991)
        #expect(totals.limitBytes == 2_000_000_000)
        #expect(totals.chunkCount == 119)
        #expect(totals.chunkSize == 16 << 20)
        #expect(totals.hugeBytes == 0)
        #expect(totals.unpooledBytes == 287)
        #expect(totals.unreachableBuffers == 15_453)
        #expect(totals.unreachableBytes == 1_993_277_440)
        #expect(try reachable(snapshot, state: 1) == (4, 458_752))
        #expect(try reachable(snapshot, state: 3) == (4, 34_816))
        #expect((totals.cachedBuffers, totals.cachedBytes) == (4, 34_816))
        #expect(snapshot.arenas.map(\.chunkCount).filter { $0 > 0 }.count == 2)
        #expect(snapshot.header.program == "IncidentBroker")
    }

    @Test("kept on purpose: 6,250 small buffers, every one held")
    func kept() throws {
        let snapshot = try Fixture.kept41.read().snapshot
        #expect(snapshot.totals.counterBytes == 33_554_719)
        #expect(snapshot.totals.chunkCount == 2)
        #expect(try reachable(snapshot, state: 1) == (6_250, 600_000))
        #expect(snapshot.totals.unreachableBuffers == 0)
    }

    @Test("clean: nothing live, nothing lost")
    func clean() throws {
        let snapshot = try Fixture.clean41.read().snapshot
        #expect(snapshot.totals.counterBytes == 33_554_719)
        #expect(snapshot.totals.chunkCount == 2)
        #expect(try reachable(snapshot, state: 1) == (0, 0))
        #expect(snapshot.totals.unreachableBuffers == 0)
    }

    @Test("Netty 4.2: bytes are exact, adjacent lost runs are one, and that is said")
    func runs() throws {
        let snapshot = try Fixture.leak42.read().snapshot
        let totals = snapshot.totals
        #expect(totals.counterBytes == 884_998_431)
        #expect(totals.limitBytes == 900_000_000)
        #expect(totals.chunkCount == 211)
        #expect(totals.chunkSize == 4 << 20)
        #expect(totals.unpooledBytes == 287)
        #expect(totals.unreachableBytes == 871_170_048)
        #expect(try reachable(snapshot, state: 1) == (4, 458_752))
        #expect(try reachable(snapshot, state: 3) == (4, 69_632))
        #expect(snapshot.notes.contains { $0.text.contains("look like one") })
    }

    @Test("huge and unpooled buffers, kept and lost")
    func huge() throws {
        let snapshot = try Fixture.huge41.read().snapshot
        let totals = snapshot.totals
        #expect(totals.hugeBytes == (33 + 3 * 20) << 20)
        #expect(totals.unpooledBytes == 10 * 1_000 + 5 * 3_000)
        #expect(totals.counterBytes == totals.chunkBytes + totals.hugeBytes + totals.unpooledBytes)
        // Of 500 pooled ones, all huge ones and all unpooled ones as one each.
        #expect(totals.unreachableBuffers == 502)
        #expect(totals.unreachableBytes == 500 * 65_536 + (60 << 20) + 5 * 3_000)
        #expect(snapshot.notes.contains { $0.text.contains("62914560 bytes of 3 huge allocations") })
        #expect(snapshot.notes.contains { $0.text.contains("No ByteBuf refers to the other 15000 bytes") })
        let owners = Dictionary(uniqueKeysWithValues: snapshot.owners.map { ($0.name, $0.liveBuffers) })
        #expect(owners["static Big.huge"] == 1)
        #expect(owners["Big$Session.pending"] == 200)
        #expect(owners["Big$Session.queue"] == 2)
    }

    @Test("every sum agrees, with Netty's own books too", arguments: Fixture.ofServersAndLedger)
    func checks(fixture: Fixture) throws {
        let result = try fixture.read()
        #expect(result.checks.filter { !$0.passed } == [])
        #expect(result.snapshot.completeness.isComplete)
    }

    @Test("the leak detector's report names the line that asked for the buffer")
    func leakReports() throws {
        let notes = try Fixture.leak41.read().snapshot.notes
        #expect(notes.contains { $0.text.contains("MqttDecoder.decodePublishPayload(MqttDecoder.java:421)") })
    }

    @Test("what a thread caches is that thread's")
    func threads() throws {
        let owners = try Fixture.leak41.read().snapshot.owners
        #expect(owners.contains { $0.kind == .thread && $0.name == "nioEventLoopGroup-3-1" && $0.liveBuffers > 0 })
        #expect(owners.contains { $0.kind == .arena && $0.name == "direct arena 0" && $0.liveBuffers > 0 })
    }

    @Test("a live buffer belongs to the nearest object of the program that holds it")
    func referrers() throws {
        let owners = try Fixture.kept41.read().snapshot.owners
        let referrer = try #require(owners.max { $0.liveBuffers < $1.liveBuffers })
        #expect(referrer.kind == .component)
        #expect(referrer.liveBuffers == 6_250)
        #expect(referrer.name == "static IncidentBroker.kept")
    }

    @Test("a dump compared with itself: all buffers survive")
    func difference() throws {
        let snapshot = try Fixture.kept41.read().snapshot
        let report = Report.difference(of: [snapshot, snapshot])
        let fields = report.sections.flatMap { section -> [Report.Field] in
            guard case .lines(let lines) = section.body else { return [] }
            return lines.flatMap(\.phrase.pieces).compactMap {
                if case .value(let value, let name?, _) = $0 { Report.Field(name, value) } else { nil }
            }
        }
        #expect(fields.first { $0.name == "survived_buffers" }?.value == .count(6_256))
        #expect(fields.first { $0.name == "born_buffers" }?.value == .count(0))
    }
}
