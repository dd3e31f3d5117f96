import Analysis
import DumpFormat
import Foundation
import Ledger
import MQTT
import TestSupport
import Testing

@testable import Broker

/// What an idle broker says of its memory, over HTTP, to subscribers and to Prometheus, against SQL over a dump of the same
/// moment: figure by figure, since wrong ones can add up.
@Suite("Figures of memory against a dump of the same moment", .mayBlock, .serialized)
struct MemoryFiguresTests {
    /// Named figures, so that one that differs is named.
    private typealias Figures = [String: Int64]

    // MARK: A broker with something of everything

    /// Keeps clients that are connected and do not acknowledge.
    private struct Clients {
        let silent: TestClient
        let publisher: TestClient
    }

    /// Queues, windows, retained messages from a few bytes to a mapping of its own.
    private static func fill(_ broker: Broker) throws -> Clients {
        for number in 0..<3 {
            let away = try TestClient(port: broker.port)
            try away.connect("away-\(number)", clean: false)
            try away.subscribe(("queue/\(number == 0 ? "#" : "\(number)")", .atLeastOnce))
            try away.disconnect()
        }
        let silent = try TestClient(port: broker.port)
        try silent.connect("silent", clean: false)
        try silent.subscribe(("window/#", .atLeastOnce))
        let publisher = try TestClient(port: broker.port)
        try publisher.connect("publisher")
        for number in 0..<40 {
            try publisher.publish(
                "queue/\(number)", String(repeating: "q", count: 20 + number * 331), qos: .atLeastOnce)
        }
        for number in 0..<9 {
            try publisher.publish(
                "window/\(number)", String(repeating: "w", count: 700 * (number + 1)), qos: .atLeastOnce)
        }
        for number in 0..<9 { #expect(try silent.receivePublish().topicString == "window/\(number)") }
        for size in [1, 100, 1_000, 1_001, 30_000, 70_000, 300_000, 5_000_000, 17 << 20] {
            try publisher.publish(
                "retained/\(size)", String(repeating: "r", count: size), qos: .atLeastOnce, retain: true)
        }
        return Clients(silent: silent, publisher: publisher)
    }

    private static func configure(_ configuration: inout Configuration) {
        configuration.memoryLimit = 256 << 20
        configuration.limits.maxPacketBytes = 20 << 20
        configuration.limits.sysIntervalSeconds = 1
    }

    // MARK: What a dump says

    /// A dump of now, asked in SQL.
    private struct Dump {
        let snapshot: Snapshot

        init(_ broker: Broker) throws {
            let path = try #require(broker.dumper.dump(.request)).path
            defer { unlink(path) }
            snapshot = try DumpReader.read(path: path, .everything)
            #expect(snapshot.completeness.isComplete)
        }

        private func rows(_ sql: String) throws -> [[JSONValue]] {
            try #require(try Query(sql: sql).report(on: snapshot).mainTable).rows.map { $0.cells.map(\.json) }
        }

        /// The first column names, the others are figures; rows of one name are an error of the statement.
        func figures(_ list: String, _ names: [String], _ sql: String) throws -> Figures {
            var figures: Figures = [:]
            for row in try rows(sql) {
                for (name, value) in zip(names, row.dropFirst()) {
                    let key = "\(list)/\(Self.text(row[0]))\(name)"
                    #expect(figures[key] == nil, "\(key) twice")
                    figures[key] = Self.number(value)
                }
            }
            return figures
        }

        private static func text(_ value: JSONValue) -> String {
            if case .string(let text) = value { text } else { value.text }
        }

        private static func number(_ value: JSONValue) -> Int64 {
            switch value {
            case .signed(let number): number
            case .unsigned(let number): Int64(clamping: number)
            default: -1
            }
        }
    }

    private static let classes = """
        SELECT CASE WHEN size_class IS NULL THEN 'huge' ELSE bytes END, sum(bytes) AS bytes, count(*) AS buffers
        FROM buffers GROUP BY 1
        """
    private static let owners = """
        SELECT o.kind, sum(b.bytes) AS bytes, count(*) AS buffers FROM buffers b JOIN owners o ON o.owner = b.owner
        GROUP BY o.kind
        """
    private static let referrers = """
        WITH held AS (SELECT buffer, count(DISTINCT kind) AS kinds, min(kind) AS kind FROM referrers GROUP BY buffer)
        SELECT CASE WHEN b.state = 2 THEN 'freed' WHEN h.kinds IS NULL THEN 'unreachable' WHEN h.kinds > 1 THEN 'several'
            ELSE h.kind END, sum(b.bytes) AS bytes, count(*) AS buffers
        FROM buffers b LEFT JOIN held h ON h.buffer = b.buffer GROUP BY 1
        """
    private static let parts = """
        SELECT 'requested', sum(requested_bytes) FROM buffers
        UNION ALL SELECT 'internal fragmentation', sum(bytes - requested_bytes) FROM buffers
        UNION ALL SELECT 'free in chunks', sum(bytes - live_bytes) FROM chunks WHERE kind IN ('chunk', 'huge')
        UNION ALL SELECT 'cached chunks', ifnull(sum(bytes), 0) FROM chunks WHERE kind = 'cached'
        UNION ALL SELECT 'ledger', ledger_bytes FROM totals UNION ALL SELECT 'snapshot buffer', snapshot_buffer_bytes FROM totals
        """
    private static let totals = """
        SELECT 'limit', limit_bytes FROM totals UNION ALL SELECT 'counter', counter_bytes FROM totals
        UNION ALL SELECT 'live', (SELECT sum(bytes) FROM buffers) UNION ALL SELECT 'buffers', (SELECT count(*) FROM buffers)
        """
    private static let clients = """
        SELECT o.name, sum(b.bytes) AS bytes, count(*) AS buffers FROM buffers b JOIN owners o ON o.owner = b.owner
        WHERE o.kind IN ('session', 'connection') GROUP BY o.owner
        """
    private static let queues = """
        SELECT o.name, sum(b.bytes) AS bytes, count(*) AS buffers
        FROM referrers e JOIN buffers b ON b.buffer = e.buffer JOIN owners o ON o.owner = e.owner
        WHERE e.kind IN ('offline queue', 'inflight window') GROUP BY e.owner
        """
    private static let retained = """
        SELECT row_number() OVER (ORDER BY b.bytes DESC), b.bytes, 1 AS buffers
        FROM referrers e JOIN buffers b ON b.buffer = e.buffer WHERE e.kind = 'retained message'
        """

    private static let shares = ["", " buffers"]

    // MARK: What the broker says

    private static func figures(_ list: String, _ shares: [LiveMemory.Share]) -> Figures {
        var figures: Figures = [:]
        for share in shares {
            figures["\(list)/\(share.name)"] = Int64(share.bytes)
            figures["\(list)/\(share.name) buffers"] = Int64(share.buffers)
        }
        return figures
    }

    /// Asks for both until nothing has happened between them: what is wrong never agrees.
    private static func expectAgreement(
        _ said: () async throws -> Figures, _ dumped: () throws -> Figures
    ) async throws -> Figures {
        let deadline = Patience.end
        while true {
            let (said, dumped) = (try await said(), try dumped())
            if said == dumped { return said }
            if ContinuousClock.now >= deadline {
                let names = Set(said.keys).union(dumped.keys).filter { said[$0] != dumped[$0] }.sorted()
                for name in names {
                    Issue.record("\(name): said \(said[name] ?? 0), in the dump \(dumped[name] ?? 0)")
                }
                return said
            }
        }
    }

    private static func merged(_ parts: Figures...) -> Figures {
        parts.reduce(into: [:]) { all, part in all.merge(part) { _, _ in -1 } }
    }

    @Test("GET /v1/memory: totals, parts, classes, owners, referrers, clients, queues and retained messages")
    func http() async throws {
        try await withHTTPBroker(threads: 2, Self.configure) { broker, http in
            let clients = try Self.fill(broker)
            let figures = try await Self.expectAgreement {
                let answer = try await http.get("/v1/memory")
                let decoder = JSONDecoder()
                decoder.keyDecodingStrategy = .convertFromSnakeCase
                let memory = try decoder.decode(LiveMemory.self, from: answer.body)
                var all = Self.merged(
                    Self.figures("classes", memory.sizeClasses), Self.figures("owners", memory.owners),
                    Self.figures("referrers", memory.referrers), Self.figures("clients", memory.clients),
                    Self.figures("queues", memory.queues))
                for part in memory.parts { all["parts/\(part.name)"] = Int64(part.bytes) }
                for (rank, share) in memory.retained.enumerated() {
                    all["retained/\(rank + 1)"] = Int64(share.bytes)
                    all["retained/\(rank + 1) buffers"] = Int64(share.buffers)
                }
                all["totals/limit"] = Int64(memory.limitBytes)
                all["totals/counter"] = Int64(memory.counterBytes)
                all["totals/live"] = Int64(memory.liveBytes)
                all["totals/buffers"] = Int64(memory.liveBuffers)
                return all
            } _: {
                let dump = try Dump(broker)
                return Self.merged(
                    try dump.figures("classes", Self.shares, Self.classes),
                    try dump.figures("owners", Self.shares, Self.owners),
                    try dump.figures("referrers", Self.shares, Self.referrers),
                    try dump.figures("clients", Self.shares, Self.clients),
                    try dump.figures("queues", Self.shares, Self.queues),
                    try dump.figures("retained", Self.shares, Self.retained),
                    try dump.figures("parts", [""], Self.parts), try dump.figures("totals", [""], Self.totals))
            }
            // There was something to be wrong about.
            for name in [
                "classes/huge", "classes/64 buffers", "owners/session", "referrers/offline queue",
                "referrers/inflight window",
                "referrers/retained message", "queues/away-0", "queues/silent", "parts/free in chunks", "retained/9",
            ] {
                #expect(figures[name] ?? 0 > 0, "\(name)")
            }
            #expect(figures.keys.count { $0.hasPrefix("classes/") } > 30)
            withExtendedLifetime(clients) {}
        }
    }

    @Test("$SYS/broker/memory: each topic but those of the heap, which is no part of the arena")
    func sysTopics() async throws {
        try await withBroker(threads: 2, Self.configure) { broker in
            let clients = try Self.fill(broker)
            let listener = try TestClient(port: broker.port)
            try listener.connect("listener")
            try listener.subscribe(("$SYS/broker/memory/#", .atMostOnce))
            var values: [String: String] = [:]
            /// All that comes until the next report, which is the first of the values of its moment.
            func report() throws -> Figures {
                var reports = 0
                while reports < 2 {
                    let publish = try listener.receivePublish()
                    let name = String(publish.topicString.dropFirst("$SYS/broker/memory/".count))
                    if name == "report" { reports += 1 }
                    if reports < 2 { values[name] = publish.text }
                    if reports == 2 { values["report"] = publish.text }
                }
                var figures: Figures = [:]
                for (name, text) in values where text != "0" && name != "report" && !name.contains("heap") {
                    figures[name] = Int64(text)
                }
                return figures
            }
            let figures = try await Self.expectAgreement(report) {
                let dump = try Dump(broker)
                let all = Self.merged(
                    try dump.figures("classes", [""], Self.classes), try dump.figures("owners", [""], Self.owners),
                    try dump.figures("referrers", [""], Self.referrers), try dump.figures("parts", [""], Self.parts))
                var topics: Figures = [:]
                for (name, value) in all where value != 0 { topics[name.replacing(" ", with: "-")] = value }
                let totals = try dump.figures("totals", [""], Self.totals)
                topics["counter"] = totals["totals/counter"]
                topics["live"] = totals["totals/live"]
                return topics
            }
            for name in [
                "classes/huge", "classes/64", "referrers/offline-queue", "owners/session",
                "parts/internal-fragmentation",
            ] {
                #expect(figures[name] ?? 0 > 0, "\(name)")
            }
            withExtendedLifetime(clients) {}
        }
    }

    @Test("/metrics: each series of the arena, and no series twice")
    func prometheus() async throws {
        try await withHTTPBroker(threads: 2, Self.configure) { broker, http in
            let clients = try Self.fill(broker)
            let figures = try await Self.expectAgreement {
                var figures: Figures = [:]
                for line in try await http.get("/metrics").text.split(separator: "\n") where line.hasPrefix("arena_") {
                    let name = String(line[..<(line.lastIndex(of: " ") ?? line.endIndex)])
                    #expect(figures[name] == nil, "\(name) twice")
                    figures[name] = Int64(line.split(separator: " ").last ?? "")
                }
                // Of this moment, and of no dump.
                figures["arena_level"] = nil
                figures["arena_snapshot_buffer_bytes"] = nil
                figures["arena_counter_bytes"] = nil
                return figures
            } _: {
                let dump = try Dump(broker)
                let totals = try dump.figures(
                    "", [""],
                    """
                    SELECT 'arena_limit_bytes', limit_bytes FROM totals
                    UNION ALL SELECT 'arena_chunk_bytes', chunk_bytes FROM totals
                    UNION ALL SELECT 'arena_huge_bytes', huge_bytes FROM totals
                    UNION ALL SELECT 'arena_ledger_bytes', ledger_bytes FROM totals
                    UNION ALL SELECT 'arena_failed_allocations_total', failed_allocations FROM totals
                    UNION ALL SELECT 'arena_cached_chunks', (SELECT count(*) FROM chunks WHERE kind = 'cached')
                    UNION ALL SELECT 'arena_live_bytes', (SELECT sum(bytes) FROM buffers)
                    """)
                let sites = try dump.figures(
                    "", [""],
                    """
                    SELECT 'arena_site_live_bytes{site="' || s.label || '"}', sum(b.bytes)
                    FROM buffers b JOIN sites s ON s.site = b.site GROUP BY s.label
                    """)
                let classes = try dump.figures(
                    "", [""],
                    """
                    SELECT 'arena_class_live_buffers{bytes="' || CASE WHEN size_class IS NULL THEN 0 ELSE bytes END || '"}',
                      count(*) FROM buffers GROUP BY 1
                    """)
                let all = Self.merged(totals, sites, classes)
                return Dictionary(uniqueKeysWithValues: all.map { (String($0.key.dropFirst()), $0.value) })
            }
            #expect(figures["arena_class_live_buffers{bytes=\"0\"}"] ?? 0 > 0)
            #expect(figures["arena_site_live_bytes{site=\"queued message\"}"] ?? 0 > 0)
            // The counter is that of its parts, which were compared.
            let metrics = broker.pool.metrics()
            #expect(
                metrics.counterBytes
                    == metrics.chunkBytes + metrics.hugeBytes + metrics.ledgerBytes + metrics.snapshotBufferBytes)
            withExtendedLifetime(clients) {}
        }
    }
}
