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
            let outcome = try Analyzer.run(command, dump)
            #expect(outcome.status == 0, "\(command): \(outcome.errors)")
            for nonsense in ["0 ns", "1970-", "born", "safepoint", "event loop"] {
                #expect(!outcome.text.contains(nonsense), "\(command) says \(nonsense)")
            }
            let json = try Analyzer.run(command, "--format", "json", dump)
            #expect(try JSONSerialization.jsonObject(with: json.output) is [String: Any], "\(command)")
        }
    }

    @Test("leaks argues from Netty's own books, and says what to do")
    func leaks() throws {
        let text = try Analyzer.run("leaks", path(.pooled4196)).words
        #expect(text.contains("Leak, proved: no ByteBuf refers to it: huge"))
        #expect(text.contains("the chunks' own books have them allocated"))
        #expect(text.contains("A heap dump does not say where or when they were allocated."))
        #expect(text.contains("-Dio.netty.leakDetection.level=paranoid"))
        // Where the detector has logged a leak, it is named.
        let incident = try Analyzer.run("leaks", path(.leak41)).words
        #expect(incident.contains("MqttDecoder.decodePublishPayload(MqttDecoder.java:421)"))
        #expect(incident.contains("read the code that the leak detector names"))
    }

    @Test("a kept or clean program has no suspect", arguments: [Fixture.kept41, .clean41])
    func noLeak(fixture: Fixture) throws {
        let outcome = try Analyzer.run("leaks", "--fail-on", "suspects > 0", path(fixture))
        #expect(outcome.status == 0)
        #expect(outcome.words.contains("No suspect") || outcome.words.contains("Too small"))
    }

    @Test("what asks for a time is told that there is none")
    func times() throws {
        let dump = try path(.adaptive)
        #expect(try Analyzer.run("buffers", "--limit", "2", dump).words.contains("all ages are unknown"))
        #expect(try Analyzer.run("histogram", "--by", "age", dump).words.contains("all ages are unknown"))
        let filtered = try Analyzer.run("buffers", "--filter", "age > 10m", dump)
        #expect(filtered.words.contains("the filter asks for an age or a time, which no buffer in it has"))
        #expect(try Analyzer.run("chunks", dump).words.contains("whether lifetimes are mixed in chunks cannot be told"))
    }

    @Test("show and path: one buffer that is held, one that is lost")
    func one() throws {
        let dump = try path(.adaptive)
        let rows = try Analyzer.run("buffers", "--format", "csv", "--limit", "0", "--filter", "owner ~ queue", dump)
        let reachable = try #require(rows.text.split(separator: "\n").dropFirst().first?.split(separator: ",").first)
        #expect(try Analyzer.run("show", dump, String(reachable)).words.contains("component Ledger$Session.queue"))
        #expect(try Analyzer.run("path", dump, String(reachable)).words.contains("component Ledger$Session.queue"))
        let unreachable = try Analyzer.run(
            "buffers", "--format", "csv", "--limit", "1", "--filter", "unreachable", dump)
        let lost = try #require(unreachable.text.split(separator: "\n").dropFirst().first?.split(separator: ",").first)
        #expect(try Analyzer.run("show", dump, String(lost)).words.contains("nobody can release it"))
        let nothing = try Analyzer.run("show", dump, "1")
        #expect(nothing.status == 1)
        #expect(nothing.errors.contains("has no live buffer"))
    }

    @Test("query sees slots, chunks, runs and owners")
    func query() throws {
        let sql = "SELECT count(*) AS n, sum(bytes) AS bytes FROM buffers WHERE bytes = 128"
        let outcome = try Analyzer.run("query", "--format", "csv", path(.adaptive), sql)
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.text.contains("120,15360"))
        let kinds = try Analyzer.run(
            "query", "--format", "csv", path(.adaptive), "SELECT kind, count(*) FROM runs GROUP BY kind ORDER BY kind")
        #expect(kinds.text.contains("bump,") && kinds.text.contains("slab,"))
    }

    @Test("report is one page, export has all its formats", arguments: [Fixture.pooled4196, .adaptive])
    func files(fixture: Fixture) throws {
        let dump = try path(fixture)
        let folder = NSTemporaryDirectory() + "netty-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let page = try Analyzer.run("report", "-o", folder + "/page.html", dump)
        #expect(page.status == 0, "\(page.errors)")
        let html = try String(contentsOfFile: folder + "/page.html", encoding: .utf8)
        #expect(html.contains("no ByteBuf refers to it"))
        #expect(!html.contains("1970-01-01"))
        for format in ["csv", "jsonl", "sqlite", "pprof", "folded"] {
            let file = folder + "/export-" + format
            let outcome = try Analyzer.run("export", "--to", format, "-o", file, dump)
            #expect(outcome.status == 0, "\(format): \(outcome.errors)")
            let size = try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int
            #expect((size ?? 0) > 100, "\(format)")
        }
    }

    @Test(
        "diff of two dumps of one process",
        arguments: [(Fixture.pooled4196Early, Fixture.pooled4196), (.adaptiveEarly, .adaptive)])
    func difference(early: Fixture, late: Fixture) throws {
        let outcome = try Analyzer.run("diff", path(early), path(late))
        #expect(outcome.status == 0, "\(outcome.errors)")
        #expect(outcome.words.contains("static Ledger.KEPT"))
        #expect(!outcome.text.contains("1970-"))
        let leaks = try Analyzer.run("leaks", path(early), path(late))
        #expect(leaks.words.contains("They grew in every one of 2 dumps"))
    }

    @Test(
        "a redacted copy adds up, and keeps classes and notes but no names of threads",
        arguments: [
            (Fixture.pooled4196, "No ByteBuf refers to the other 900 bytes"),
            (.adaptive, "bump chunks have 12 buffers that no ByteBuf refers to"),
        ])
    func redact(fixture: Fixture, note: String) throws {
        let folder = NSTemporaryDirectory() + "netty-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let copy = folder + "/copy.dump.zst"
        let outcome = try Analyzer.run("redact", "-o", copy, path(fixture))
        #expect(outcome.status == 0, "\(outcome.errors)")
        let verified = try Analyzer.run("verify", copy)
        #expect(verified.status == 0, "\(verified.text)")
        let owners = try Analyzer.run("owners", copy).words
        #expect(owners.contains("static Ledger.KEPT"))
        #expect(!owners.contains("worker"))
        let original = try Analyzer.run("summary", path(fixture)).words
        let copied = try Analyzer.run("summary", copy).words
        for line in ["without a ByteBuf", "on Netty"] { #expect(copied.contains(line), "\(line)") }
        #expect(original.contains("unpooled 1.6 KiB") && copied.contains("unpooled 1.6 KiB"))
        #expect(original.contains(note) && copied.contains(note))
    }

    @Test("a redacted copy still says where leaked buffers were made, and hides the program's hints")
    func redactedReports() throws {
        let folder = NSTemporaryDirectory() + "netty-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let copy = folder + "/copy.dump.zst"
        #expect(try Analyzer.run("redact", "-o", copy, path(.leak41)).status == 0)
        let place = "MqttDecoder.decodePublishPayload(MqttDecoder.java:421)"
        for command in ["summary", "leaks"] { #expect(try Analyzer.run(command, copy).words.contains(place)) }

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

    @Test("query --schema says every state and kind of run that such a dump has")
    func schema() throws {
        let schema = try Analyzer.run("query", "--schema").words
        #expect(schema.contains("3 in a thread's cache"))
        #expect(schema.contains("bump (of foreign allocators)"))
    }

    @Test("a heap dump of a program without Netty is refused, and said why")
    func foreign() throws {
        let dump = NSTemporaryDirectory() + "netty-" + UUID().uuidString + ".hprof"
        defer { unlink(dump) }
        let header = Array("JAVA PROFILE 1.0.2".utf8) + [0, 0, 0, 0, 8] + [UInt8](repeating: 0, count: 8)
        try Data(header + [0x2C] + [UInt8](repeating: 0, count: 8)).write(to: URL(fileURLWithPath: dump))
        let outcome = try Analyzer.run("summary", dump)
        #expect(outcome.status == 1)
        #expect(outcome.errors.contains("without Netty's allocators"))
    }
}

/// `arena-analyze` as a child process.
enum Analyzer {
    struct Outcome {
        var status: Int32
        var output: Data
        var errors: String
        var text: String { String(decoding: output, as: UTF8.self) }
        /// The text without its line breaks.
        var words: String { text.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
    }

    static func run(_ arguments: String...) throws -> Outcome {
        try start(arguments, [:], FileHandle.nullDevice).end()
    }

    /// The program while it runs, with what is written to `input` as its standard input.
    struct Child {
        let process: Process
        let input: FileHandle
        fileprivate let output: URL
        fileprivate let errors: URL

        /// Waits for its end, after the end of its input.
        func end(closing: Bool = true) throws -> Outcome {
            if closing { try? input.close() }
            defer { for file in [output, errors] { try? FileManager.default.removeItem(at: file) } }
            let status = process.waitForEnd()
            return Outcome(
                status: status, output: try Data(contentsOf: output),
                errors: String(decoding: try Data(contentsOf: errors), as: UTF8.self))
        }
    }

    /// With a pipe as standard input where `input` is nil.
    static func start(
        _ arguments: String..., environment: [String: String] = [:], input: FileHandle? = nil
    ) throws -> Child {
        try start(arguments, environment, input)
    }

    private static func start(
        _ arguments: [String], _ environment: [String: String], _ input: FileHandle?
    ) throws -> Child {
        let process = Process()
        process.executableURL = products.appendingPathComponent("arena-analyze")
        process.arguments = arguments
        process.environment = ProcessInfo.processInfo.environment.filter { $0.key != "COLUMNS" }
            .merging(environment) { $1 }
        let pipe = Pipe()
        process.standardInput = input ?? pipe
        let folder = FileManager.default.temporaryDirectory
        let output = folder.appendingPathComponent(UUID().uuidString)
        let errors = folder.appendingPathComponent(UUID().uuidString)
        for file in [output, errors] { _ = FileManager.default.createFile(atPath: file.path, contents: nil) }
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: errors)
        try process.start()
        return Child(process: process, input: pipe.fileHandleForWriting, output: output, errors: errors)
    }

    /// Beside the test bundle, which is the running executable or its first argument.
    private static let products: URL = {
        let candidates = CommandLine.arguments.prefix(1) + CommandLine.arguments.filter { $0.hasSuffix(".xctest") }
        let folders = (candidates + [Bundle.main.bundlePath]).map { URL(fileURLWithPath: $0) }.flatMap {
            [$0, $0.deletingLastPathComponent()]
        }
        return folders.first {
            FileManager.default.isExecutableFile(atPath: $0.appendingPathComponent("arena-analyze").path)
        } ?? folders[0]
    }()
}
