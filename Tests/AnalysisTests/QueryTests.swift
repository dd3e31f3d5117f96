import DumpFormat
import Foundation
import Ledger
import TestSupport
import Testing

@testable import Analysis

@Suite("SQL over a dump", .mayBlock)
struct QueryTests {
    private func rows(_ sql: String, _ snapshot: Snapshot) throws -> [[JSONValue]] {
        let report = try Query(sql: sql).report(on: snapshot)
        return try #require(report.mainTable).rows.map { $0.cells.map(\.json) }
    }

    @Test("tables have the rows of the dump")
    func counts() throws {
        let snapshot = Fixture.growing(secondsAfterNoon: 10)
        #expect(try rows("SELECT count(*) FROM buffers", snapshot) == [[.signed(1_050)]])
        #expect(
            try rows("SELECT count(*), count(DISTINCT site) FROM buffers", snapshot) == [[.signed(1_050), .signed(2)]])
        #expect(try rows("SELECT sum(bytes) FROM buffers", snapshot) == [[.signed(1_000 * 16_384 + 50 * 2_048)]])
        #expect(
            try rows("SELECT label FROM sites WHERE site = 3", snapshot) == [[.string("convertToRpcCommandResponse")]])
        #expect(try rows("SELECT live_buffers FROM totals", snapshot) == [[.unsigned(1_050)]])
    }

    @Test("sums over buffers agree with the small tables")
    func agreement() throws {
        let snapshot = Fixture.growing(secondsAfterNoon: 10)
        let difference = try rows(
            """
            SELECT s.live_buffers - count(*), s.live_bytes - sum(b.bytes) FROM buffers b JOIN sites s ON s.site = b.site
            GROUP BY b.site
            """, snapshot)
        #expect(difference == [[.signed(0), .signed(0)], [.signed(0), .signed(0)]])
    }

    @Test("only what the statement names is read of the dump")
    func selection() throws {
        #expect(try Query(sql: "SELECT label FROM sites").selection == .tables)
        #expect(try Query(sql: "SELECT 1").selection == .tables)
        #expect(try Query(sql: "SELECT * FROM leaks").selection == .tables)
        #expect(try Query(sql: "SELECT sum(bytes) FROM buffers").selection.slots == [.capacity, .state])
        #expect(try Query(sql: "SELECT count(*) FROM runs").selection == DumpSelection(runs: true))
        let unreachable = try Query(sql: "SELECT sum(internal_fragmentation_bytes) FROM buffers WHERE unreachable")
            .selection
        #expect(unreachable == DumpSelection(slots: [.capacity, .requested, .state], reaches: true))
        #expect(
            try Query(sql: "SELECT * FROM buffers").selection.slots.isSuperset(of: [.serial, .address, .accessTime]))
    }

    @Test("leaks names site, last access and amounts; null where the dump cannot tell")
    func leaks() throws {
        let sql = "SELECT site, last_access, unreachable_buffers, unreachable_bytes FROM leaks"
        #expect(
            try rows(sql, Fixture.leak()) == [
                [
                    .string("publish packet"), .string("convertToRpcCommandResponse"), .unsigned(15_233),
                    .unsigned(1_996_357_632),
                ]
            ])
        #expect(try rows(sql, Fixture.leak(hasReferences: false)).isEmpty)
        #expect(try rows("SELECT unreachable_buffers FROM totals", Fixture.leak(hasReferences: false)) == [[.null]])
    }

    @Test("a reference makes a buffer reachable, whoever has it")
    func unreachable() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 1)
        var references = Snapshot.ReferenceColumns()
        references.referrerOwner = [2, 1]
        references.referrerKind = [4, 1]
        references.slotRow = [7, 7]
        snapshot.references = references
        snapshot.totals.unreachableBuffers = 149
        #expect(try rows("SELECT count(*) FROM buffers WHERE unreachable", snapshot) == [[.signed(149)]])
        #expect(
            try rows("SELECT referrer, live_buffers FROM by_referrer ORDER BY 1", snapshot) == [
                [.string("offline queue"), .unsigned(1)], [.string("read buffer"), .unsigned(1)],
            ])
    }

    @Test(
        "only statements that read are answered",
        arguments: [
            "DELETE FROM sites", "INSERT INTO sites (site) VALUES (99)", "DROP TABLE buffers", "CREATE TABLE a (b)",
            "ATTACH '/tmp/arena-analyze-must-not-exist' AS other", "VACUUM INTO '/tmp/arena-analyze-must-not-exist'",
            "PRAGMA query_only = 0", "SELECT 1; DROP TABLE buffers", "", "  ", "-- nothing",
        ])
    func readOnly(sql: String) {
        #expect(throws: Query.Problem.self) { try rows(sql, Fixture.leak()) }
        #expect(!FileManager.default.fileExists(atPath: "/tmp/arena-analyze-must-not-exist"))
    }

    @Test("what is wrong is said in SQLite's words")
    func errors() throws {
        let problem = #expect(throws: Query.Problem.self) { try Query(sql: "SELECT clint FROM by_client") }
        #expect(problem?.description == "no such column: clint")
        let other = #expect(throws: Query.Problem.self) { try Query(sql: "SELECT * FROM bufers") }
        #expect(other?.description == "no such table: bufers")
    }

    private func refusal(_ sql: String, _ limits: QueryLimits) -> String? {
        let snapshot = Fixture.growing(secondsAfterNoon: 10)
        return #expect(throws: Query.Problem.self) { try Query(sql: sql, limits: limits).report(on: snapshot) }?
            .description
    }

    @Test("a value that is too large is refused, in one line, and so is a row of too many columns")
    func largeValues() throws {
        for sql in [
            "SELECT zeroblob(1000000000)", "SELECT hex(zeroblob(16000000))",
        ] {
            #expect(refusal(sql, QueryLimits()) == "a text or blob of it has more than 16 MiB", "\(sql)")
        }
        let columns = (0...500).map(String.init).joined(separator: ", ")
        #expect(refusal("SELECT \(columns)", QueryLimits())?.contains("too many columns") == true)
        #expect(try rows("SELECT x'00ff1c'", Fixture.empty()) == [[.string("0 ff 1c")]])
        #expect(try rows("SELECT length(zeroblob(10000000))", Fixture.empty()) == [[.signed(10_000_000)]])
    }

    @Test("a statement without an end is ended, and says after how many steps")
    func steps() throws {
        var limits = QueryLimits()
        limits.steps = 1_000_000
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        let words = "it was ended after 1,000,000 steps of SQLite's, the most that one may take"
        #expect(refusal(endless, limits)?.hasPrefix(words) == true)
        #expect(refusal("SELECT count(*) FROM buffers, buffers, buffers", limits)?.hasPrefix(words) == true)
        // No row of it, and nothing but steps.
        #expect(refusal("SELECT 1 FROM buffers a, buffers b, buffers c WHERE a.bytes + b.bytes < 0", limits) != nil)
        let count = try Query(sql: "SELECT count(*) FROM buffers", limits: limits)
            .report(on: Fixture.growing(secondsAfterNoon: 10))
        #expect(count.mainTable?.rows.first?.cells == [.integer(1_050)])
    }

    @Test("an answer without an end is refused before the machine is full")
    func rowsWithoutEnd() throws {
        var limits = QueryLimits()
        limits.answerBytes = 1 << 20
        let problem = refusal("SELECT a.bytes FROM buffers a, buffers b", limits)
        #expect(problem?.hasPrefix("the answer has more than 1 MiB in more than ") == true, "\(problem ?? "")")
        #expect(problem?.contains("add a LIMIT") == true)
    }

    /// In a process of its own, as SQLite's memory is the process's.
    @Test("what needs more memory than it may have says so")
    func memory() async {
        await #expect(processExitsWith: .success) {
            var limits = QueryLimits()
            limits.heapBytes = 32 << 20
            let sql = """
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000)
                SELECT i, randomblob(1000) AS r FROM n ORDER BY r LIMIT 1 OFFSET 99999
                """
            do throws(Query.Problem) {
                _ = try Query(sql: sql, limits: limits).report(on: Fixture.empty())
                exit(1)
            } catch {
                exit(error.description.hasPrefix("it needs more than 32 MiB of memory") ? 0 : 2)
            }
        }
    }

    @Test("people see units by the column's name, programs plain integers")
    func units() throws {
        let report = try Query(
            sql: "SELECT 2048 AS live_bytes, 1500000000 AS age_ns, 12000 AS live_buffers, -7 AS n, 0.5 AS r, NULL AS z"
        ).report(on: Fixture.empty())
        #expect(
            TextRenderer(width: 100).render(report) == """
                live_bytes  age_ns  live_buffers   n    r  z
                   2.0 KiB   1.5 s        12,000  -7  0.5  unknown

                """)
        #expect(
            CSVRenderer().render(report) == """
                live_bytes,age_ns,live_buffers,n,r,z
                2048,1500000000,12000,-7,0.5,

                """)
    }

    @Test("columns of one name are told apart")
    func sameNames() throws {
        let report = try Query(sql: "SELECT 1 AS a, 2 AS a, 3 AS a").report(on: Fixture.empty())
        #expect(report.mainTable?.columns.map(\.name) == ["a", "a_2", "a_3"])
    }

    @Test("every view answers on every kind of dump")
    func views() throws {
        for snapshot in [Fixture.empty(), Fixture.leak(), Fixture.growing(secondsAfterNoon: 2)] {
            for view in DumpView.all { _ = try rows("SELECT * FROM \(view.name)", snapshot) }
            for table in DumpTables.all {
                #expect(try rows("SELECT * FROM \(table.name)", snapshot).count == table.rowCount(DumpFacts(snapshot)))
            }
        }
    }

    @Test("a client is the nearest session above an owner, even in a tree that is a circle")
    func clients() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 1)
        snapshot.owners.append(Fixture.owner(.offlineQueue, "", parent: 2))
        snapshot.owners.append(Fixture.owner(.component, "", parent: 5))
        snapshot.owners.append(Fixture.owner(.component, "", parent: 4))
        #expect(
            try rows("SELECT owner, client FROM owners WHERE owner >= 2", snapshot) == [
                [.signed(2), .string("device-1")], [.signed(3), .string("device-1")], [.signed(4), .null],
                [.signed(5), .null],
            ])
    }

    @Test("the examples of docs/query.md answer on the incident's dump")
    func documentation() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOf: root.appendingPathComponent("docs/query.md"), encoding: .utf8)
        let examples = page.components(separatedBy: "```sql\n").dropFirst().compactMap {
            $0.components(separatedBy: "```").first
        }
        #expect(examples.count >= 8)
        let path = root.appendingPathComponent("samples/incident/2-near-limit.dump.zst").path
        for example in examples {
            let query = try Query(sql: example)
            let answer = try query.report(on: try DumpReader.read(path: path, query.selection))
            #expect(answer.mainTable?.rows.isEmpty == false, "\(example)")
        }
        for table in DumpTables.all { #expect(page.contains("`\(table.name)`"), "\(table.name)") }
        for view in DumpView.all { #expect(page.contains("`\(view.name)`"), "\(view.name)") }
    }
}
