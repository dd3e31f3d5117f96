import DumpFormat
import Foundation
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

/// Every command on damaged files, as a child process: a crash, an endless loop or another exit code fails.
@Suite("Commands on damaged files", .mayBlock)
struct DamagedFileTests {
    /// Every command that reads a dump. `whole` is an intact one, `folder` a place for what it writes.
    private static func commands(_ dump: String, whole: String, in folder: String) -> [[String]] {
        let filter = "not unreachable and (age > 1s or under ~ o) and chunk >= 0"
        func export(_ format: String) -> [String] {
            ["export", "--to", format, "--force", "-o", "\(folder)/\(format)", dump]
        }
        return [
            ["summary", dump], ["summary", "--filter", filter, dump], ["sites", dump],
            ["sites", "--filter", filter, dump], ["owners", dump], ["owners", "--filter", filter, dump],
            ["histogram", dump], ["histogram", "--by", "referrer", "--filter", filter, dump], ["buffers", dump],
            ["buffers", "--filter", filter, "--sort", "slack", dump], ["show", dump, "7"], ["show", dump, "0x40"],
            ["path", dump, "263"], ["dominators", dump], ["dominators", "--filter", filter, dump], ["leaks", dump],
            ["leaks", whole, dump], ["leaks", "--baseline", dump, whole],
            ["chunks", "--if-freed", filter, "--request", "1MiB", dump], ["chunks", "--by", "client", dump],
            ["diff", whole, dump], ["diff", "--filter", filter, dump, whole],
            ["query", dump, "SELECT * FROM live"], ["query", dump, "SELECT * FROM by_referrer"],
            export("csv"), export("jsonl"), export("sqlite"), export("pprof"), export("folded"),
            ["report", "--force", "-o", folder + "/report.html", dump],
            ["report", "--force", "-o", folder + "/reports.html", whole, dump], ["verify", dump],
            ["redact", "--force", "-o", folder + "/redacted.dump.zst", dump],
        ]
    }

    @Test("leaks of a dump whose buffers cannot be read says so, and proves nothing")
    func damagedDetails() throws {
        let whole = try Data(contentsOf: URL(fileURLWithPath: Program.samples + "/2-near-limit.dump.zst"))
        let starts = frames(whole).sorted() + [whole.count]
        var withoutDetails = 0
        try withFolder { folder in
            let path = folder + "/damaged.dump.zst"
            for (start, end) in zip(starts, starts.dropFirst()) {
                var bytes = whole
                bytes[start + (end - start) / 2] ^= 0xFF
                try bytes.write(to: URL(fileURLWithPath: path))
                let outcome = try Program.run("leaks", "--format", "json", path)
                if outcome.text.contains("\"owner_count\": null") {
                    withoutDetails += 1
                    #expect(outcome.status == 4, "frame at \(start)")
                }
                if outcome.status == 4 { #expect(!outcome.text.contains("\"proved\""), "frame at \(start)") }
            }
        }
        #expect(withoutDetails > 0)
    }

    /// Runs commands with a time limit, and says what ended otherwise than with an answer, part of one, or a clear error.
    private static func outrages(_ commands: some Sequence<[String]>) throws -> [String] {
        let analyzer = Program.path("arena-analyze")
        return try commands.compactMap { command in
            let outcome = try Program.run("/usr/bin/env", ["timeout", "120", analyzer] + command)
            // What is wrong with a file is verify's answer, and not an error of its own.
            let isVerdict = command[0] == "verify" && outcome.text.contains("failed")
            let isClear = outcome.status == 0 || isVerdict || outcome.errors.hasPrefix("arena-analyze: ")
            return [0, 1, 4].contains(outcome.status) && isClear
                ? nil : "\(command.joined(separator: " ")): exit code \(outcome.status), \(outcome.errors.prefix(300))"
        }
    }

    /// All commands for each file would be thousands of processes: each file gets some of them in turn, so that every
    /// command gets many files. `ARENA_THOROUGH=1` runs them all.
    private static let isThorough = ProcessInfo.processInfo.environment["ARENA_THOROUGH"] == "1"
    private static let commandsPerFile = 1

    private func check(_ damaged: [(name: String, bytes: Data)], whole: Data, _ seed: UInt64) throws {
        try withFolder { folder in
            let intact = folder + "/whole.dump.zst"
            try whole.write(to: URL(fileURLWithPath: intact))
            var turn = Int(seed % 33)
            for (name, bytes) in damaged {
                let path = folder + "/damaged.dump.zst"
                try bytes.write(to: URL(fileURLWithPath: path))
                let all = Self.commands(path, whole: intact, in: folder)
                let chosen =
                    Self.isThorough ? all : (0..<Self.commandsPerFile).map { all[(turn + $0 * 11) % all.count] }
                turn += 1
                let outrages = try Self.outrages(chosen)
                #expect(outrages == [], "\(name), seed \(seed)")
            }
        }
    }

    /// Where each zstd frame of a dump begins.
    private func frames(_ bytes: Data) -> [Int] {
        let magic = Data([0x28, 0xB5, 0x2F, 0xFD])
        var starts: [Int] = []
        var next = 0
        while let range = bytes.range(of: magic, in: next..<bytes.count) {
            starts.append(range.lowerBound)
            next = range.upperBound
        }
        return starts
    }

    /// A small dump in which every table has rows.
    private func sample(_ random: inout SeededGenerator) throws -> Data {
        var bytes = Data()
        try withFolder { folder in
            let path = try Program.write(RandomArena.make(&random), to: folder, as: "a.dump.zst")
            bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        }
        return bytes
    }

    @Test("cut off at, before and after each frame, and in between")
    func prefixes() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let whole = try sample(&random)
        var cuts = Set(stride(from: 0, to: whole.count, by: max(1, whole.count / 40)))
        for start in frames(whole) { cuts.formUnion([start - 1, start, start + 1]) }
        let damaged = cuts.filter { (0..<whole.count).contains($0) }.sorted().map {
            (name: "cut to \($0) of \(whole.count) bytes", bytes: Data(whole.prefix($0)))
        }
        try check(damaged, whole: whole, seed)
    }

    @Test("with one bit changed anywhere")
    func changedBits() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let whole = try sample(&random)
        let damaged = (0..<100).map { _ in
            let place = Int.random(in: 0..<whole.count, using: &random)
            var bytes = whole
            bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            return (name: "byte \(place) changed", bytes: bytes)
        }
        try check(damaged, whole: whole, seed)
    }

    @Test("a sample dump of the incident, cut and changed, to every command")
    func incident() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let whole = try Data(contentsOf: URL(fileURLWithPath: Program.samples + "/1-before.dump.zst"))
        var changed = whole
        changed[Int.random(in: whole.count / 2..<whole.count, using: &random)] ^= 0x20
        try withFolder { folder in
            for (name, bytes) in [("torn", Data(whole.prefix(whole.count * 4 / 5))), ("changed", changed)] {
                let path = folder + "/\(name).dump.zst"
                try bytes.write(to: URL(fileURLWithPath: path))
                let all = Self.commands(path, whole: Program.samples + "/1-before.dump.zst", in: folder)
                let outrages = try Self.outrages(all)
                #expect(outrages == [], "\(name), seed \(seed)")
            }
        }
    }
}
