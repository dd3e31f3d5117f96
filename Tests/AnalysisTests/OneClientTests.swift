import DumpFormat
import Ledger
import TestSupport
import Testing

@testable import Analysis

/// A client that goes and comes back with a new session has several owners, and is one client.
@Suite("One client, several sessions", .mayBlock)
struct OneClientTests {
    /// Owners 2 and 4 are sessions of device-1, the first closed; 3 is device-2's, 5 and 6 connections without a name.
    /// 7 is the queue of device-1's second session.
    private static func snapshot(_ buffersOf: [UInt32: Int], secondsAfterNoon: UInt64 = 0) -> Snapshot {
        var buffers: [Fixture.Buffer] = []
        for (owner, count) in buffersOf.sorted(by: { $0.key < $1.key }) {
            for number in 0..<count {
                buffers.append(
                    Fixture.Buffer(
                        serial: UInt64(owner) * 1_000 + UInt64(number), site: Fixture.publish, access: Fixture.convert,
                        owner: owner, bytes: 1_024))
            }
        }
        var snapshot = Fixture.snapshot(
            of: buffers, secondsAfterNoon: secondsAfterNoon, chunks: 1, ownerKind: .session)
        snapshot.owners += [
            Fixture.owner(.session, "device-1", parent: 1), Fixture.owner(.session, "device-2", parent: 1),
            Fixture.owner(.session, "device-1", parent: 1), Fixture.owner(.connection, "", parent: 1),
            Fixture.owner(.connection, "", parent: 1), Fixture.owner(.offlineQueue, "", parent: 4),
        ]
        snapshot.owners[2].closedTime = 9 * Fixture.second
        for (owner, count) in buffersOf {
            snapshot.owners[Int(owner)].liveBuffers = UInt64(count)
            snapshot.owners[Int(owner)].liveBytes = UInt64(count) * 1_024
        }
        return snapshot
    }

    @Test("histogram --by client has a row for each client")
    func histogram() throws {
        let snapshot = Self.snapshot([2: 5, 3: 4, 4: 3, 5: 2, 6: 1, 7: 6, 1: 7])
        let table = try #require(Report.histogram(of: snapshot, by: .client)?.mainTable)
        func column(_ name: String) -> Int { table.columns.firstIndex { $0.name == name }! }
        let rows = table.rows.map { ($0.cells[column("key")].text(), $0.cells[column("buffers")]) }
        #expect(
            rows.map(\.0) == ["session device-1", "no client", "session device-2", "connection", "connection"])
        #expect(rows.map(\.1) == [.count(14), .count(7), .count(4), .count(2), .count(1)])
    }

    @Test("chunks --by client has each client once")
    func chunks() throws {
        var question = ChunkQuestion()
        question.pinners = .client
        let report = try #require(Report.chunks(of: Self.snapshot([2: 5, 4: 3, 7: 6]), question))
        guard case .array(let pinners)? = JSONRenderer(toolVersion: "0").value(of: report)["pinners"] else {
            return #expect(Bool(false), "no pinners")
        }
        #expect(pinners.map { $0["name"] } == [.string("session device-1")])
        #expect(pinners.map { $0["live_buffers"] } == [.unsigned(14)])
    }

    @Test("diff has a row for each client, closed when all its sessions are")
    func difference() throws {
        let snapshots = [
            Self.snapshot([2: 5, 3: 4, 5: 2]), Self.snapshot([2: 8, 3: 4, 4: 10, 5: 3, 6: 2], secondsAfterNoon: 60),
        ]
        let report = Report.difference(of: snapshots)
        guard case .array(let owners)? = JSONRenderer(toolVersion: "0").value(of: report)["owners"] else {
            return #expect(Bool(false), "no owners")
        }
        let clients = owners.filter { $0["kind"] == .string("session") }
        #expect(clients.map { $0["name"] } == [.string("device-1"), .string("device-2")])
        #expect(clients.map { $0["change_buffers"] } == [.signed(13), .signed(0)])
        #expect(clients.map { $0["survived_buffers"] } == [.unsigned(5), .unsigned(4)])
        #expect(clients.map { $0["closed"] } == [.bool(false), .bool(false)])
        #expect(owners.count { $0["kind"] == .string("connection") } == 2)
        // Without its second session the client is gone.
        let gone = Report.difference(of: [Self.snapshot([2: 5]), Self.snapshot([2: 8], secondsAfterNoon: 60)])
        guard case .array(let left)? = JSONRenderer(toolVersion: "0").value(of: gone)["owners"] else {
            return #expect(Bool(false), "no owners")
        }
        #expect(left.map { $0["closed"] } == [.bool(true)])
    }

    @Test("a finding names each client once")
    func finding() throws {
        var snapshot = Self.snapshot([2: 5, 3: 7, 4: 3])
        snapshot.references = Snapshot.ReferenceColumns()
        (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (15, 15 * 1_024)
        snapshot = try #require(snapshot.narrowed(to: try Filter("serial >= 0")))
        var search = LeakSearch([snapshot])
        search.addDetails(from: snapshot)
        let table = try #require(search.report.mainTable)
        #expect(
            table.rows[0].cells[table.columns.firstIndex { $0.name == "top_owners" }!]
                == .text("session device-1, session device-2"))
        #expect(
            TextRenderer(width: 900).render(search.report).contains(
                "most have session device-1 (8, 8 KiB), session device-2"))
    }

    @Test("SQL's by_client says the same as the histogram")
    func query() throws {
        let report = try Query(sql: "SELECT client, live_buffers FROM by_client").report(
            on: Self.snapshot([2: 5, 4: 3, 7: 6]))
        #expect(report.mainTable?.rows.map { $0.cells.map(\.json) } == [[.string("device-1"), .unsigned(14)]])
    }
}
