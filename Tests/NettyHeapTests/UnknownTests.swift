import Foundation
import TestSupport
import Testing

/// A heap dump has no clock, no history of its sites, and says nothing of the process: that is null in every output, never 0.
@Suite("What a heap dump cannot know", .mayBlock) struct UnknownTests {
    private static let fixtures: [Fixture] = [.pooled4196, .adaptive, .leak41]

    /// By table of SQL.
    private static let columns: [String: [String]] = [
        "buffers": ["age_ns", "access_age_ns"], "chunks": ["age_ns"], "owners": ["age_ns", "closed_age_ns"],
        "allocation_groups": ["oldest_age_ns", "newest_age_ns"], "events": ["age_ns"],
        "sites": ["allocations", "frees", "allocated_bytes"], "arenas": ["remote_frees"],
        "totals": [
            "host", "reason", "uptime_ns", "pause_ns", "resident_bytes", "peak_counter_bytes", "failed_allocations",
        ],
    ]

    /// Of json, whatever the command.
    private static let fields: Set<String> = [
        "uptime_ns", "pause_ns", "birth_ns", "idle_ns", "birth_time", "first_birth", "last_birth", "host", "reason",
        "resident_bytes", "peak_counter_bytes", "failed_allocations", "over_limit_bytes", "frees", "allocations",
        "allocated_bytes", "allocations_per_second", "used_sites",
    ]

    @Test("null in SQL", arguments: fixtures)
    func sql(fixture: Fixture) throws {
        for (table, columns) in Self.columns {
            let counts = columns.map { "count(\($0))" }.joined(separator: ", ")
            let outcome = try Program.run(
                "query", "--format", "csv", fixture.path, "SELECT \(counts) FROM \(table)")
            let zeros = columns.map { _ in "0" }.joined(separator: ",")
            #expect(outcome.text.split(separator: "\n").last.map(String.init) == zeros, "\(table): \(outcome.errors)")
        }
        let ages = try Program.run("query", "--format", "csv", fixture.path, "SELECT age FROM by_age")
        #expect(ages.text == "age\nunknown\n")
    }

    @Test("no column of ages is anything else")
    func everyAge() throws {
        let schema = try Program.run("query", "--schema", "--format", "csv").text.split(separator: "\n")
        for line in schema where line.contains("age_ns") && !line.hasPrefix("freed,") {
            let cells = line.split(separator: ",")
            #expect(Self.columns[String(cells[0])]?.contains(String(cells[1])) == true, "\(line)")
        }
    }

    @Test("null in exports", arguments: fixtures)
    func exports(fixture: Fixture) throws {
        for (table, columns) in Self.columns {
            let lines = try Program.run("export", "--to", "jsonl", "--table", table, "-o", "-", fixture.path).text
            for line in lines.split(separator: "\n") {
                let row = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
                for column in columns { #expect(row[column] is NSNull, "\(table).\(column)") }
            }
        }
    }

    @Test("null in json", arguments: fixtures)
    func json(fixture: Fixture) throws {
        for command in [
            "summary", "sites", "leaks", "buffers", "owners", "chunks", "dominators", "histogram", "verify", "netty",
        ] {
            let outcome = try Program.run(command, "--format", "json", fixture.path)
            let known = Self.known(try JSONSerialization.jsonObject(with: outcome.output), "")
            #expect(known == [], "\(command)")
        }
    }

    /// The places of fields that say what cannot be known.
    private static func known(_ value: Any, _ place: String) -> [String] {
        if let list = value as? [Any] { return list.flatMap { known($0, place) } }
        guard let object = value as? [String: Any] else { return [] }
        return object.flatMap { name, value -> [String] in
            let isUnknown = fields.contains(name) || name.hasSuffix("age_ns") || name.hasPrefix("lifetime_")
            return isUnknown && !(value is NSNull) ? ["\(place).\(name) = \(value)"] : known(value, "\(place).\(name)")
        }
    }

    @Test(
        "neither a condition on ages nor its contrary holds for a buffer",
        arguments: ["age < 1s", "not age < 1s", "age != 5s", "idle < 1s or idle >= 1s", "not (age > 1s and size >= 0)"])
    func conditions(filter: String) throws {
        let outcome = try Program.run("buffers", "--format", "json", "--filter", filter, Fixture.adaptive.path)
        #expect(outcome.status == 0, "\(outcome.errors)")
        let object = try #require(try JSONSerialization.jsonObject(with: outcome.output) as? [String: Any])
        // That size >= 0 does not hold is known.
        #expect(object["matched_buffers"] as? Int == 0)
        let sizes = try Program.run(
            "buffers", "--format", "json", "--filter", "age < 1s or size >= 0", Fixture.adaptive.path)
        #expect(!sizes.text.contains("\"matched_buffers\": 0,"))
    }

    @Test("a gate on what is not known is no pass")
    func gates() throws {
        for condition in ["refused > 0", "over_limit.bytes > 0"] {
            let outcome = try Program.run("summary", "--fail-on", condition, Fixture.pooled4196.path)
            #expect(outcome.status == 1)
            #expect(outcome.errors.contains("cannot be decided"))
        }
    }

    @Test("the page says nothing of it")
    func page() throws {
        let html = try Program.run("report", "-o", "-", Fixture.pooled4196.path).text
        for nonsense in ["up 0 ns", "pid 0", "<dt>resident", "<dt>paused", "refused since the start", "on request"] {
            #expect(!html.contains(nonsense), "\(nonsense)")
        }
    }
}
