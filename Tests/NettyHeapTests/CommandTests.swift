import Analysis
import DumpFormat
import Foundation
import NettyHeap
import TestSupport
import Testing

/// Each command of `arena-analyze` on a heap dump, as a person uses it.
@Suite("Commands on heap dumps", .mayBlock) struct CommandTests {
    private func path(_ fixture: Fixture) throws -> String { try fixture.path }

    @Test("every command answers on every kind of allocator", arguments: [Fixture.pooled4196, .adaptive])
    func all(fixture: Fixture) throws {
        let dump = try path(fixture)
        for command in [
            "summary", "sites", "leaks", "buffers", "owners", "chunks", "dominators", "histogram", "verify",
        ] {
            let outcome = try Program.run(command, dump)
            #expect(outcome.status == 0, "\(command): \(outcome.errors)")
            for nonsense in ["0 ns", "1970-", "born", "safepoint", "event loop"] {
                #expect(!outcome.text.contains(nonsense), "\(command) says \(nonsense)")
            }
            let json = try Program.run(command, "--format", "json", dump)
            #expect(try JSONSerialization.jsonObject(with: json.output) is [String: Any], "\(command)")
        }
    }

    @Test("leaks argues from Netty's own books, and says what to do")
    func leaks() throws {
        let text = try Program.run("leaks", path(.pooled4196)).words
        #expect(text.contains("Leak, proved: no ByteBuf refers to it: huge"))
        #expect(text.contains("the chunks' own books have them allocated"))
        #expect(text.contains("A heap dump does not say where or when they were allocated."))
        #expect(text.contains("-Dio.netty.leakDetection.level=paranoid"))
        // Where the detector has logged a leak, it is named.
        let incident = try Program.run("leaks", path(.leak41)).words
        #expect(incident.contains("MqttDecoder.decodePublishPayload(MqttDecoder.java:421)"))
        #expect(incident.contains("read the code that the leak detector names"))
    }

    @Test("a kept or clean program has no suspect", arguments: [Fixture.kept41, .clean41])
    func noLeak(fixture: Fixture) throws {
        let outcome = try Program.run("leaks", "--fail-on", "suspects > 0", path(fixture))
        #expect(outcome.status == 0)
        #expect(outcome.words.contains("No suspect") || outcome.words.contains("Too small"))
    }

    @Test("what asks for a time is told that there is none")
    func times() throws {
        let dump = try path(.adaptive)
        #expect(try Program.run("buffers", "--limit", "2", dump).words.contains("all ages are unknown"))
        #expect(try Program.run("histogram", "--by", "age", dump).words.contains("all ages are unknown"))
        let filtered = try Program.run("buffers", "--filter", "age > 10m", dump)
        #expect(filtered.words.contains("the filter asks for an age or a time, which no buffer in it has"))
        #expect(try Program.run("chunks", dump).words.contains("whether lifetimes are mixed in chunks cannot be told"))
    }

    @Test("show and path: one buffer that is held, one that is lost")
    func one() throws {
        let dump = try path(.adaptive)
        let rows = try Program.run("buffers", "--format", "csv", "--limit", "0", "--filter", "owner ~ queue", dump)
        let reachable = try #require(rows.text.split(separator: "\n").dropFirst().first?.split(separator: ",").first)
        #expect(try Program.run("show", dump, String(reachable)).words.contains("component Ledger$Session.queue"))
        #expect(try Program.run("path", dump, String(reachable)).words.contains("component Ledger$Session.queue"))
        let unreachable = try Program.run(
            "buffers", "--format", "csv", "--limit", "1", "--filter", "unreachable", dump)
        let lost = try #require(unreachable.text.split(separator: "\n").dropFirst().first?.split(separator: ",").first)
        #expect(try Program.run("show", dump, String(lost)).words.contains("nobody can release it"))
        let nothing = try Program.run("show", dump, "1")
        #expect(nothing.status == 1)
        #expect(nothing.errors.contains("has no live buffer"))
    }

    @Test("query sees slots, chunks, runs and owners")
    func query() throws {
        let sql = "SELECT count(*) AS n, sum(bytes) AS bytes FROM buffers WHERE bytes = 128"
        let outcome = try Program.run("query", "--format", "csv", path(.adaptive), sql)
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.text.contains("120,15360"))
        let kinds = try Program.run(
            "query", "--format", "csv", path(.adaptive), "SELECT kind, count(*) FROM runs GROUP BY kind ORDER BY kind")
        #expect(kinds.text.contains("bump,") && kinds.text.contains("slab,"))
    }

    @Test("report is one page, export has all its formats", arguments: [Fixture.pooled4196, .adaptive])
    func files(fixture: Fixture) throws {
        let dump = try path(fixture)
        try withFolder { folder in
            let page = try Program.run("report", "-o", folder + "/page.html", dump)
            #expect(page.status == 0, "\(page.errors)")
            let html = try String(contentsOfFile: folder + "/page.html", encoding: .utf8)
            #expect(html.contains("no ByteBuf refers to it"))
            #expect(!html.contains("1970-01-01"))
            for format in ["csv", "jsonl", "sqlite", "pprof", "folded"] {
                let file = folder + "/export-" + format
                let outcome = try Program.run("export", "--to", format, "-o", file, dump)
                #expect(outcome.status == 0, "\(format): \(outcome.errors)")
                let size = try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int
                #expect((size ?? 0) > 100, "\(format)")
            }
        }
    }

    @Test(
        "diff of two dumps of one process",
        arguments: [(Fixture.pooled4196Early, Fixture.pooled4196), (.adaptiveEarly, .adaptive)])
    func difference(early: Fixture, late: Fixture) throws {
        let outcome = try Program.run("diff", path(early), path(late))
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.words.contains("static Ledger.KEPT"))
        #expect(!outcome.text.contains("1970-"))
        let leaks = try Program.run("leaks", path(early), path(late))
        #expect(leaks.words.contains("They grew in every one of 2 dumps"))
    }

    @Test(
        "a redacted copy adds up, and keeps classes and notes but no names of threads",
        arguments: [
            (Fixture.pooled4196, "No ByteBuf refers to the other 900 bytes"),
            (.adaptive, "bump chunks have 12 buffers that no ByteBuf refers to"),
        ])
    func redact(fixture: Fixture, note: String) throws {
        try withFolder { folder in
            let copy = folder + "/copy.dump.zst"
            let outcome = try Program.run("redact", "-o", copy, path(fixture))
            #expect(outcome.status == 0, "\(outcome.errors)")
            let verified = try Program.run("verify", copy)
            #expect(verified.status == 0, "\(verified.text)")
            let owners = try Program.run("owners", copy).words
            #expect(owners.contains("static Ledger.KEPT"))
            #expect(!owners.contains("worker"))
            let original = try Program.run("summary", path(fixture)).words
            let copied = try Program.run("summary", copy).words
            for line in ["without a ByteBuf", "on Netty"] { #expect(copied.contains(line), "\(line)") }
            #expect(original.contains("unpooled 1.6 KiB") && copied.contains("unpooled 1.6 KiB"))
            #expect(original.contains(note) && copied.contains(note))
        }
    }

    @Test("a redacted copy still says where leaked buffers were made, and hides the program's hints")
    func redactedReports() throws {
        try withFolder { folder in
            let copy = folder + "/copy.dump.zst"
            #expect(try Program.run("redact", "-o", copy, path(.leak41)).status == 0)
            let place = "MqttDecoder.decodePublishPayload(MqttDecoder.java:421)"
            for command in ["summary", "leaks"] { #expect(try Program.run(command, copy).words.contains(place)) }

            var snapshot = try Fixture.clean41.read().snapshot
            let hints = ["user alice", "of"]
            snapshot.notes = [
                .init("made at a.B.c; the last of them to have it: \"user alice\", \"of\".", quoting: hints)
            ]
            let note = try #require(Redaction(Pseudonyms()).apply(to: snapshot).notes.first)
            #expect(note.text.hasPrefix("made at a.B.c; the last of them to have it: \"hint-"))
            #expect(!note.text.contains("alice") && !note.text.contains("\"of\""))
            #expect(note.quotes == [])
        }
    }

    @Test("query --schema says every state and kind of run that such a dump has")
    func schema() throws {
        let schema = try Program.run("query", "--schema").words
        #expect(schema.contains("3 in a thread's cache"))
        #expect(schema.contains("bump (of foreign allocators)"))
    }

    @Test("a heap dump of a program without Netty is refused, and said why")
    func foreign() throws {
        let dump = NSTemporaryDirectory() + "netty-" + UUID().uuidString + ".hprof"
        defer { unlink(dump) }
        let header = Array("JAVA PROFILE 1.0.2".utf8) + [0, 0, 0, 0, 8] + [UInt8](repeating: 0, count: 8)
        try Data(header + [0x2C] + [UInt8](repeating: 0, count: 8)).write(to: URL(fileURLWithPath: dump))
        let outcome = try Program.run("summary", dump)
        #expect(outcome.status == 1)
        #expect(outcome.errors.contains("without Netty's allocators"))
    }
}
