import DumpFormat
import Foundation
import SQLite
import Ledger
import SwiftProtobuf
import TestSupport
import Testing

@testable import Analysis

/// A chain of owners, each with one buffer.
enum DeepOwners {
    static func snapshot(_ depth: Int) -> Snapshot {
        let buffers = (0..<UInt32(depth)).map {
            Fixture.Buffer(serial: UInt64($0), site: Fixture.publish, access: Fixture.publish, owner: 2 + $0, bytes: 64)
        }
        var snapshot = Fixture.snapshot(of: buffers, secondsAfterNoon: 1, chunks: 1, ownerKind: .session)
        for level in 0..<UInt32(depth) {
            var owner = Fixture.owner(.component, "o\(level)", parent: 1 + level)
            (owner.liveBuffers, owner.liveBytes) = (1, 64)
            snapshot.owners.append(owner)
        }
        return snapshot
    }
}

@Suite("export", .mayBlock)
struct ExportTests {
    private func text(_ format: ExportFormat, _ snapshot: Snapshot, table: String = "buffers") throws -> String {
        var exporter = Exporter(format: format)
        exporter.table = table
        var text = ""
        try exporter.write(DumpParts(snapshot)) { text += String(decoding: $0, as: UTF8.self) }
        return text
    }

    @Test("csv has a heading and a line a row, and quotes what must be quoted")
    func csv() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 100)
        let buffers = try text(.csv, snapshot).split(separator: "\n")
        #expect(buffers.count == 10_051)
        #expect(buffers[0].hasPrefix("buffer,serial,bytes,requested_bytes,"))
        #expect(buffers[1].hasPrefix("0,0,16384,16384,0,0,2,3,"))
        snapshot.owners[2].name = "a \"b\", c"
        #expect(try text(.csv, snapshot, table: "owners").contains(",session,\"a \"\"b\"\", c\","))
    }

    @Test("numbers of every length are written digit by digit as they are")
    func digits() throws {
        var numbers = [UInt64(Int64.max)]
        var power: UInt64 = 1
        for _ in 0..<19 {
            numbers += [power - 1, power, power + 1, 2 * power - 1].filter { $0 <= UInt64(Int64.max) }
            power *= 10
        }
        let buffers = numbers.map { Fixture.Buffer(serial: $0, site: 1, access: 1, owner: 1, bytes: 64) }
        let snapshot = Fixture.snapshot(of: buffers, secondsAfterNoon: 10, chunks: 1, ownerKind: .session)
        let written = try text(.csv, snapshot).split(separator: "\n").dropFirst().map { $0.split(separator: ",")[1] }
        #expect(written.map(String.init) == numbers.map { "\($0)" })
        #expect(try text(.jsonl, snapshot).contains("\"serial\":9223372036854775807,"))
    }

    @Test(
        "block by block the text is that of the whole, numbers of rows and referrers too",
        arguments: ["buffers", "referrers"])
    func blocks(table: String) throws {
        try withFolder { folder in
            // More than two blocks of rows.
            let buffers = (0..<150_050 as Range<UInt64>).map {
                Fixture.Buffer(
                    serial: 10 * $0, site: Fixture.publish, access: Fixture.convert, owner: 2, bytes: 64 + $0 % 7)
            }
            var snapshot = Fixture.snapshot(of: buffers, secondsAfterNoon: 10, chunks: 2, ownerKind: .session)
            snapshot.owners.append(Fixture.owner(.session, "device-1", parent: 1))
            snapshot.references = Snapshot.ReferenceColumns()
            for row in stride(from: UInt32(0), to: 150_000, by: 2) {
                snapshot.references!.slotRow.append(row)
                snapshot.references!.referrerOwner.append(2)
                snapshot.references!.referrerKind.append(row % 3 == 0 ? 2 : 5)
                snapshot.references!.referredBytes.append(row % 60)
            }
            (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (75_050, 75_050 * 67)
            let path = try Program.write(snapshot, to: folder, as: "a.dump.zst")
            let blocks = try #require(try DumpBlocks(path: path))
            for format in [ExportFormat.csv, .jsonl] {
                var exporter = Exporter(format: format)
                exporter.table = table
                var text = Data()
                try exporter.write(#require(try exporter.parts(of: blocks))) { text += $0 }
                var whole = Data()
                try exporter.write(DumpParts(snapshot)) { whole += $0 }
                // Not in the expectation: what differs in so much text would be looked for for ever.
                let isSame = text == whole
                #expect(isSame)
                #expect(text.count > 100_000)
            }
            let exporter = Exporter(format: .sqlite)
            let rows = try #require(try exporter.databaseParts(of: blocks))
            try exporter.writeDatabase(blocks.tables, rows: rows, path: folder + "/blocks.db")
            try exporter.writeDatabase(snapshot, path: folder + "/whole.db")
            let sums = try ["/blocks.db", "/whole.db"].map { name in
                var rows: [[DatabaseValue]] = []
                try DatabaseQueue(path: folder + name).read { database in
                    try database.run(
                        """
                        SELECT count(*), sum(buffer), sum(serial), sum(unreachable), sum(referrer_mask), max(buffer) FROM buffers
                        UNION ALL SELECT count(*), sum(buffer), sum(owner), count(DISTINCT kind), sum(referred_bytes), 0
                        FROM referrers
                        """
                    ) { rows.append($0.values) }
                }
                return rows
            }
            #expect(sums[0] == sums[1])
            #expect(sums[0][0][0] == .integer(150_050))
        }
    }

    @Test("jsonl is an object a line")
    func lines() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 1)
        snapshot.owners[2].name = "quote \" newline \n"
        let owners = try text(.jsonl, snapshot, table: "owners").split(separator: "\n")
        #expect(owners.count == 3)
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(owners[2].utf8)) as? [String: Any])
        #expect(object["name"] as? String == "quote \" newline \n")
        #expect(object["closed_age_ns"] is NSNull)
    }

    @Test("what a spreadsheet would take for a formula is text, and what nobody would see is seen; --raw leaves both")
    func hostileNames() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 1)
        (snapshot.owners[2].liveBuffers, snapshot.owners[2].liveBytes) = (1, 64)
        let names = [
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""), ("+1", "\"'+1\""), ("-1", "\"'-1\""),
            ("@SUM(1)", "\"'@SUM(1)\""),
            ("\u{FF1D}1", "\"'\u{FF1D}1\""), ("\t=1", "\\u{9}=1"), ("\r=1", "\\u{d}=1"), ("\u{1B}[2J", "\\u{1b}[2J"),
            ("a\u{202E}b", "a\\u{202e}b"), ("'=1", "\"''=1\""), ("a-b", "a-b"), ("it's", "it's"), ("", ""),
        ]
        for (name, written) in names {
            snapshot.owners[2].name = name
            for text in [try text(.csv, snapshot, table: "owners"), CSVRenderer().render(.owners(of: snapshot)) ?? ""] {
                #expect(text.contains(",session,\(written),"), "\(text)")
            }
            var exporter = Exporter(format: .csv)
            (exporter.table, exporter.isRaw) = ("owners", true)
            var raw = ""
            try exporter.write(DumpParts(snapshot)) { raw += String(decoding: $0, as: UTF8.self) }
            let plain = name.contains("\r") ? "\"\(name)\"" : name
            #expect(raw.contains(",session,\(plain),"))
            #expect(CSVRenderer(isRaw: true).render(.owners(of: snapshot))?.contains(",session,\(plain),") == true)
        }
        // Numbers are no texts.
        let growth = CSVRenderer().render(.difference(of: [Fixture.growing(secondsAfterNoon: 9), snapshot])) ?? ""
        #expect(growth.contains(",-") && !growth.contains("'-"))
        try withFolder { folder in
            snapshot.owners[2].name = "=1"
            let dump = try Program.write(snapshot, to: folder, as: "a.dump.zst")
            for command in [["owners", "--format", "csv"], ["export", "--to", "csv", "--table", "owners", "-o", "-"]] {
                #expect(try Program.run(command + [dump]).text.contains(",session,\"'=1\","))
                #expect(try Program.run(command + ["--raw", dump]).text.contains(",session,=1,"))
            }
            #expect(try Program.run("owners", "--raw", dump).status == 64)
            #expect(try Program.run("export", "--to", "jsonl", "--raw", "-o", "-", dump).status == 64)
        }
    }

    @Test("a chain of owners costs what its owners cost, however deep it is")
    func deepOwners() throws {
        func written(_ depth: Int) throws -> Int {
            let snapshot = DeepOwners.snapshot(depth)
            var (bytes, lines) = (0, 0)
            try Exporter(format: .folded).write(DumpParts(snapshot)) { piece in
                bytes += piece.count
                lines += piece.count { $0 == 10 }
                // Without a bound it would be 12 GB.
                if bytes > 2_000 * depth { throw TooMuch() }
            }
            #expect(lines == depth)
            return bytes
        }
        let (some, many) = (try written(5_000), try written(50_000))
        #expect(many < 11 * some)
    }

    private struct TooMuch: Error {}

    @Test("folded stacks go from the root to the site, and add up to the live bytes")
    func folded() throws {
        var snapshot = Fixture.growing(secondsAfterNoon: 2)
        snapshot.owners[2].name = "semi;colon"
        #expect(
            try text(.folded, snapshot) == """
                process;listener 0.0.0.0:1883;session semi,colon;channel read (Broker/Listener.swift:61) 102400
                process;listener 0.0.0.0:1883;session semi,colon;publish packet (Broker/Connection.swift:88) 3276800

                """)
        var exporter = Exporter(format: .folded)
        exporter.weight = .buffers
        var text = ""
        try exporter.write(DumpParts(snapshot)) { text += String(decoding: $0, as: UTF8.self) }
        #expect(text.contains("(Broker/Connection.swift:88) 200\n"))
    }

    @Test("a pprof profile has a value for each sample type, and its live bytes are the dump's")
    func pprof() throws {
        let snapshot = Fixture.leak()
        let profile = try Perftools_Profiles_Profile(
            serializedBytes: Exporter(format: .pprof).profile(snapshot))
        func string(_ index: Int64) -> String { profile.stringTable[Int(index)] }
        #expect(profile.stringTable.first == "")
        let types = profile.sampleType.map { string($0.type) }
        #expect(types.prefix(2) == ["live_buffers", "live_bytes"])
        #expect(string(profile.defaultSampleType) == "live_bytes")
        #expect(profile.sample.allSatisfy { $0.value.count == types.count })
        func sum(_ type: String) throws -> Int64 {
            let index = try #require(types.firstIndex(of: type))
            return profile.sample.reduce(0) { $0 + $1.value[index] }
        }
        #expect(try sum("live_bytes") == Int64(snapshot.totals.liveBytes))
        #expect(try sum("unreachable_bytes") == 1_996_357_632)
        #expect(try sum("allocations") == 60_000_000)
        // Leaf first: allocated at, then last accessed by, then the owner.
        let worst = try #require(profile.sample.max { $0.value[4] < $1.value[4] })
        let names = worst.locationID.map { id in
            string(profile.function[Int(profile.location[Int(id) - 1].line[0].functionID) - 1].name)
        }
        #expect(
            names == [
                "decodePublish() [publish packet]", "convertToRpcCommandResponse(_:) [convertToRpcCommandResponse]",
                "owner: session",
            ])
        #expect(profile.location.allSatisfy { $0.mappingID == 1 && $0.line.count == 1 })
    }

    private static let hasGo = FileManager.default.isExecutableFile(atPath: "/usr/bin/go")

    @Test("go tool pprof opens the profile, and finds the place that leaks", .enabled(if: hasGo))
    func goTool() throws {
        try withFolder { folder in
            let dump = try Program.write(Fixture.leak(), to: folder, as: "a.dump.zst")
            let path = folder + "/live.pb"
            #expect(try Program.run("export", "--to", "pprof", "-o", path, dump).status == 0)
            let home = ["HOME": folder, "PPROF_TMPDIR": folder, "GOTOOLCHAIN": "local"]
            func pprof(_ arguments: String...) throws -> String {
                let outcome = try Program.run("/usr/bin/go", ["tool", "pprof"] + arguments + [path], environment: home)
                #expect(outcome.status == 0, "\(outcome.errors)")
                return outcome.text
            }
            let top = try pprof("-top", "-sample_index=unreachable_bytes")
            #expect(top.contains("Type: unreachable_bytes"))
            #expect(top.contains("decodePublish [publish packet]"))
            #expect(top.contains("convertToRpcCommandResponse [convertToRpcCommandResponse]"))
            #expect(try pprof("-raw").contains("live_buffers/count live_bytes/bytes"))
            #expect(try pprof("-tags").contains("owner_kind"))
        }
    }

    @Test("an SQLite file has the tables and views, and agrees with the dump")
    func sqlite() throws {
        try withFolder { folder in
            let dump = try Program.write(Fixture.growing(secondsAfterNoon: 5), to: folder, as: "a.dump.zst")
            let path = folder + "/dump.db"
            #expect(try Program.run("export", "--to", "sqlite", "-o", path, dump).status == 0)
            let database = try DatabaseQueue(path: path)
            let (buffers, bytes) = try database.read { database in
                (
                    try database.integer("SELECT count(*) FROM buffers"),
                    try database.integer("SELECT sum(live_bytes) FROM by_site")
                )
            }
            #expect(buffers == 550)
            #expect(bytes == Int64(500 * 16_384 + 50 * 2_048))
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["a.dump.zst", "dump.db"])
        }
    }

    @Test("a file that exists is replaced only with --force, and a failure leaves nothing behind")
    func force() throws {
        try withFolder { folder in
            let dump = try Program.write(Fixture.leak(), to: folder, as: "a.dump.zst")
            let path = folder + "/out"
            try Data("mine".utf8).write(to: URL(fileURLWithPath: path))
            for format in ExportFormat.allCases {
                let refused = try Program.run("export", "--to", format.rawValue, "-o", path, dump)
                #expect(refused.status == 1)
                #expect(refused.errors.contains("\(path) exists and is left as it is; --force replaces it"))
            }
            #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == Data("mine".utf8))
            for format in ExportFormat.allCases {
                #expect(try Program.run("export", "--to", format.rawValue, "-o", path, "--force", dump).status == 0)
                #expect(try Data(contentsOf: URL(fileURLWithPath: path)) != Data("mine".utf8))
            }
            #expect(try Program.run("export", "--to", "csv", "-o", folder + "/b", folder + "/none").status == 1)
            #expect(try Program.run("export", "--to", "csv", "-o", folder + "/no/b", dump).status == 1)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["a.dump.zst", "out"])
        }
    }

    /// What every command is asked to write somewhere.
    private static let writers = [
        ["export", "--to", "csv"], ["export", "--to", "pprof"], ["report"],
        ["redact", "--key", "a passphrase of ours"],
    ]

    @Test("into a pipe or a device it is written, and both stay what they are", arguments: writers)
    func pipesAndDevices(command: [String]) throws {
        try withFolder { folder in
            let dump = Program.samples + "/1-before.dump.zst"
            let (pipe, whole) = (folder + "/pipe", folder + "/whole")
            #expect(mkfifo(pipe, 0o600) == 0)
            #expect(try Program.run(command + ["-o", whole, dump]).status == 0)
            for force in [[], ["--force"]] {
                // A reader that does not wait for ever where nobody writes.
                let script = "timeout 60 cat \"$0\" & \"$@\"; status=$?; wait; exit $status"
                let analyzer = Program.path("arena-analyze")
                let outcome = try Program.run(
                    "/bin/sh", ["-c", script, pipe, analyzer] + command + force + ["-o", pipe, dump])
                #expect(outcome.status == 0, "\(outcome.errors)")
                #expect(outcome.output == FileManager.default.contents(atPath: whole))
                #expect(Self.kind(pipe) == S_IFIFO)
            }
            // A link to a device, as nobody should have to lose one for a test.
            try FileManager.default.createSymbolicLink(atPath: folder + "/null", withDestinationPath: "/dev/null")
            #expect(try Program.run(command + ["--force", "-o", folder + "/null", dump]).status == 0)
            #expect(Self.kind(folder + "/null") == S_IFLNK)
            let sent = try Program.run(command + ["-o", "-", dump])
            #expect(sent.output == FileManager.default.contents(atPath: whole))
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["null", "pipe", "whole"])
        }
    }

    @Test(
        "through a link its file is replaced, whole and for its owner only; one that leads nowhere is refused",
        arguments: writers)
    func links(command: [String]) throws {
        try withFolder { folder in
            let dump = Program.samples + "/1-before.dump.zst"
            try Data("mine".utf8).write(to: URL(fileURLWithPath: folder + "/file"))
            try FileManager.default.createSymbolicLink(atPath: folder + "/link", withDestinationPath: "file")
            try FileManager.default.createSymbolicLink(atPath: folder + "/nowhere", withDestinationPath: "none")
            #expect(try Program.run(command + ["-o", folder + "/link", dump]).status == 1)
            #expect(try Data(contentsOf: URL(fileURLWithPath: folder + "/file")) == Data("mine".utf8))
            #expect(try Program.run(command + ["--force", "-o", folder + "/link", dump]).status == 0)
            #expect(Self.kind(folder + "/link") == S_IFLNK)
            var status = stat()
            #expect(stat(folder + "/file", &status) == 0)
            #expect(status.st_size > 100 && status.st_mode & 0o777 == 0o600)
            let refused = try Program.run(command + ["--force", "-o", folder + "/nowhere", dump])
            #expect(refused.status == 1)
            #expect(refused.errors.contains("nowhere: it is a symbolic link that leads nowhere"))
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["file", "link", "nowhere"])
        }
    }

    @Test("a database needs a file, and says so")
    func databaseIntoPipe() throws {
        let outcome = try Program.run(
            "export", "--to", "sqlite", "-o", "/dev/null", Program.samples + "/1-before.dump.zst")
        #expect(outcome.status == 1)
        #expect(outcome.errors.contains("cannot write /dev/null: an SQLite database needs a regular file"))
    }

    private static func kind(_ path: String) -> UInt32 {
        var status = stat()
        return lstat(path, &status) == 0 ? status.st_mode & S_IFMT : 0
    }

    @Test("a torn dump is exported in part, with exit code 4")
    func torn() throws {
        try withFolder { folder in
            let dump = try Program.write(Fixture.growing(secondsAfterNoon: 60), to: folder, as: "a.dump.zst")
            let bytes = try Data(contentsOf: URL(fileURLWithPath: dump))
            try bytes.prefix(bytes.count * 3 / 4).write(to: URL(fileURLWithPath: dump))
            for format in ["csv", "sqlite", "pprof", "folded"] {
                let outcome = try Program.run("export", "--to", format, "-o", folder + "/" + format, dump)
                #expect(outcome.status == 4, "\(format): \(outcome.errors)")
                #expect(outcome.errors.contains("warning: partial answer"))
            }
        }
    }

    @Test("wrong usage is exit code 64, and names what there is")
    func usage() throws {
        let table = try Program.run("export", "--to", "csv", "--table", "bufers", "-o", "x", "y")
        #expect(table.status == 64)
        #expect(table.errors.contains("tables: buffers, referrers"))
        #expect(try Program.run("export", "--to", "sqlite", "-o", "-", "y").status == 64)
        #expect(try Program.run("query", "only-a-file").status == 64)
        #expect(try Program.run("query", "file", "SELEC 1").status == 64)
        #expect(try Program.run("query", "--tables").text.contains("by_client"))
        #expect(
            try Program.run("query", "--schema", "--format", "csv").text.contains(
                "buffers,internal_fragmentation_bytes,integer,"))
    }
}
