import DumpFormat
import Foundation
import TestSupport
import Testing
import Version

@testable import Analysis

/// The program itself, as a child process.
@Suite("arena-analyze", .mayBlock)
struct CommandLineTests {
    private func run(
        _ arguments: String..., environment: [String: String] = [:]
    ) throws -> (status: Int32, output: String, errors: String) {
        try run(arguments, environment: environment)
    }

    private func run(
        _ arguments: [String], environment: [String: String] = [:]
    ) throws -> (status: Int32, output: String, errors: String) {
        let outcome = try Program.run(arguments, environment: environment)
        return (outcome.status, outcome.text, outcome.errors)
    }

    private func write(_ snapshot: Snapshot, to folder: String, as name: String) throws -> String {
        try Program.write(snapshot, to: folder, as: name)
    }

    @Test("summary of a dump on disk answers, with exit code 0 and nothing on stderr")
    func summary() throws {
        try withFolder { folder in
            let path = try write(Fixture.leak(), to: folder, as: "leak.dump.zst")
            let text = try run("summary", path, environment: ["COLUMNS": "80"])
            #expect(text.status == 0)
            #expect(text.errors.isEmpty)
            #expect(
                text.output.split(whereSeparator: \.isWhitespace).joined(separator: " ").hasSuffix("this is a leak."))
            let json = try run("summary", "--format", "json", path)
            let object = try #require(
                try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
            #expect((object["dump"] as? [String: Any])?["path"] as? String == path)
            #expect(object["counter_bytes"] as? UInt64 == 1_998_700_544)
            let csv = try run("summary", "--format", "csv", "--limit", "1", path)
            #expect(csv.output.split(separator: "\n").count == 2)
        }
    }

    @Test("diff puts dumps in order, and says so")
    func diff() throws {
        try withFolder { folder in
            let before = try write(Fixture.growing(secondsAfterNoon: 60), to: folder, as: "before.dump.zst")
            let after = try write(Fixture.growing(secondsAfterNoon: 120), to: folder, as: "after.dump.zst")
            let right = try run("diff", before, after)
            #expect(right.status == 0)
            #expect(right.errors.isEmpty)
            #expect(right.output.contains("born 6,050"))
            let reversed = try run("diff", after, before)
            #expect(reversed.output == right.output)
            #expect(reversed.errors.contains("not given in the order they were taken"))
            let repeated = try run("diff", before, before, after, after)
            #expect(repeated.output == right.output)
            #expect(repeated.errors.contains("\(after) is the same dump as \(after), and left out"))
            #expect(try run("diff", after, after).status == 0)
        }
    }

    @Test("sites, owners and verify answer")
    func others() throws {
        try withFolder { folder in
            let path = try write(Fixture.growing(secondsAfterNoon: 10), to: folder, as: "a.dump.zst")
            #expect(try run("sites", "--sort", "label", path).output.contains("publish packet"))
            #expect(try run("owners", path).output.contains("process"))
            let unknown = try run("sites", "--sort", "colour", path)
            #expect(unknown.status == 64)
            #expect(unknown.errors.contains("columns: label, file"))
            // As it is headed, too.
            let headed = try run("sites", "--sort", "bytes", path)
            let named = try run("sites", "--sort", "live_bytes", path)
            #expect(headed.status == 0 && headed.output == named.output)
            #expect(try run("sites", "--sort", "live_byte", path).errors.contains("did you mean live_bytes?"))
        }
    }

    @Test("a command that is none is told from one that was meant", arguments: [["sumary", "x"], ["help", "sumary"]])
    func unknownCommand(words: [String]) throws {
        let answer = try Program.run(words)
        #expect(answer.status == 64 && answer.output.isEmpty)
        #expect(answer.errors == "arena-analyze: there is no command 'sumary'; did you mean summary?\n")
    }

    @Test("verify passes a whole dump, and tells a torn one and a changed byte by exit code 4")
    func verify() throws {
        try withFolder { folder in
            let path = try write(Fixture.consistent(), to: folder, as: "a.dump.zst")
            let whole = try run("verify", path)
            #expect(whole.status == 0)
            #expect(whole.errors.isEmpty)
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            let other = folder + "/other.dump.zst"
            try bytes.prefix(bytes.count * 9 / 10).write(to: URL(fileURLWithPath: other))
            let torn = try run("verify", other)
            #expect(torn.status == 4)
            var changed = bytes
            changed[bytes.count / 2] ^= 0x10
            try changed.write(to: URL(fileURLWithPath: other))
            let outcome = try run("verify", other)
            #expect(outcome.status == 4)
            #expect(outcome.output.contains("failed"))
        }
    }

    @Test("verify says what it found of a dump of which nothing can be read")
    func verifyOfNothing() throws {
        try withFolder { folder in
            let path = try write(Fixture.consistent(), to: folder, as: "a.dump.zst")
            let torn = folder + "/torn.dump.zst"
            try Data(contentsOf: URL(fileURLWithPath: path)).prefix(300).write(to: URL(fileURLWithPath: torn))
            let outcome = try run("verify", torn)
            #expect(outcome.status == 4)
            #expect(outcome.output.contains("seek table") && outcome.output.contains("failed"))
            #expect(outcome.errors.contains("warning: partial answer from \(torn): nothing of it could be read"))
            let json = try run("verify", "--format", "json", torn).output
            #expect(json.contains("\"partial\": true") && json.contains("\"pid\": null"))
        }
    }

    @Test("in a pipe nothing is cut; --width cuts tables as a window of that width does")
    func width() throws {
        let dump = Program.samples + "/3-at-the-limit.dump.zst"
        let whole = try run("summary", dump)
        #expect(whole.output.contains(/arena-[0-9T.]+Z-[0-9]+-3-allocation-failure\.dump\.zst/))
        #expect(!whole.output.contains("…"))
        let place = /last: convertToRpcCommandResponse  Broker\/RPCCommandResponse\.swift:[0-9]+/
        #expect(whole.output.contains(place))
        // How wide some window is, is nothing to a file.
        #expect(try run("summary", dump, environment: ["COLUMNS": "60"]).output.contains(place))
        #expect(try run("sites", dump).output.contains("max life"))
        #expect(try run("summary", "--width", "0", dump).output == whole.output)
        for (width, kept) in [(80, "last: convertToRpcCommandResponse"), (60, "mmandResponse")] {
            let narrow = try run("summary", "--width", "\(width)", dump)
            #expect(narrow.output.split(separator: "\n").allSatisfy { $0.count <= width })
            #expect(narrow.output.contains(kept) && !narrow.output.contains(place))
            #expect(narrow.output.contains("-allocation-failure.dump.zst") || width < 80)
        }
        #expect(try run("summary", "--width", "7", dump).status == 64)
    }

    @Test("what is no dump is refused with exit code 1 and a reason")
    func notADump() throws {
        try withFolder { folder in
            let text = folder + "/notes.txt"
            try Data("not a dump at all\n".utf8).write(to: URL(fileURLWithPath: text))
            for (path, reason) in [
                (text, "not an arena dump"), (folder, "directory"), ("/dev/null", "not a regular file"),
                (folder + "/missing", "no such file"),
            ] {
                for command in ["summary", "sites", "owners", "verify", "histogram", "buffers", "leaks", "chunks"] {
                    let outcome = try run(command, path)
                    #expect(outcome.status == 1, "\(command) \(path)")
                    #expect(outcome.output.isEmpty)
                    #expect(outcome.errors.hasPrefix("arena-analyze: cannot read \(path): "))
                    #expect(outcome.errors.contains(reason))
                }
            }
        }
    }

    @Test("a torn dump answers in part: exit code 4, said on stderr and in the answer")
    func torn() throws {
        try withFolder { folder in
            let path = try write(Fixture.growing(secondsAfterNoon: 60), to: folder, as: "whole.dump.zst")
            let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
            let torn = folder + "/torn.dump.zst"
            // All small tables come first, so half of the file still has them.
            try bytes.prefix(bytes.count / 2).write(to: URL(fileURLWithPath: torn))
            let outcome = try run("diff", torn, path)
            #expect(outcome.status == 4)
            #expect(outcome.errors.contains("warning: partial answer from \(torn): read "))
            #expect(outcome.output.contains("Partial answer from"))
            let json = try run("diff", "--format", "json", torn, path)
            #expect(json.output.contains("\"partial\": true"))
            // Whatever is asked of it: what holds in a part may not hold in the whole.
            for condition in ["live > 0", "live = 0", "unreachable > 0", "suspects > 0"] {
                let gate = try run("leaks", "--fail-on", condition, torn)
                #expect(gate.status == 4, "\(condition): \(gate.errors)")
            }
            #expect(try run("summary", "--fail-on", "live > 0", torn).status == 4)
            #expect(try run("verify", torn).status == 4)
            // Cut anywhere behind the first bytes, by which it is known, it exits so, whatever is asked of it.
            let commands = [
                ["summary"], ["verify"], ["sites"], ["owners"], ["histogram"], ["buffers"], ["leaks"], ["chunks"],
                ["dominators"], ["diff", path], ["leaks", "--baseline", path],
                ["report", "--force", "-o", folder + "/r"],
                ["export", "--force", "--to", "csv", "-o", folder + "/e"], ["redact", "--force", "-o", folder + "/c"],
            ]
            for (turn, length) in stride(from: 4, to: bytes.count, by: max(1, bytes.count / 56)).enumerated() {
                try bytes.prefix(length).write(to: URL(fileURLWithPath: torn))
                for command in [commands[0], commands[1], commands[turn % commands.count]] {
                    let outcome = try run(command + [torn])
                    #expect(outcome.status == 4, "\(command), cut to \(length) of \(bytes.count): \(outcome.errors)")
                }
            }
            for arguments in [["query", torn, "SELECT * FROM buffers"], ["show", torn, "7"], ["path", torn, "7"]] {
                #expect(try run(arguments).status == 4, "\(arguments)")
            }
            // What an answer is compared with counts as well.
            #expect(try run("leaks", "--baseline", torn, path).status == 4)
        }
    }

    @Test(
        "usage errors are exit code 64",
        arguments: [
            ["frobnicate"], ["summary"], ["diff", "one"], ["summary", "--format", "xml", "x"],
            ["sites", "--limit", "-1", "x"],
        ])
    func usage(arguments: [String]) throws {
        let outcome = try run(arguments)
        #expect(outcome.status == 64, "\(outcome.errors)")
        #expect(!outcome.errors.isEmpty)
    }

    @Test("histogram, buffers, show, path and dominators answer, and a filter that is none is shown with a caret")
    func buffers() throws {
        try withFolder { folder in
            let path = try write(BufferTests.pair(), to: folder, as: "a.dump.zst")
            let histogram = try run("histogram", "--by", "owner", "--filter", "age > 5m", path)
            #expect(histogram.status == 0, "\(histogram.errors)")
            #expect(histogram.output.contains("session device-1"))
            let csv = try run("buffers", "--filter", "unreachable", "--format", "csv", path)
            #expect(csv.output.split(separator: "\n").count == 2)
            #expect(try run("show", path, "263").output.contains("No referrer reaches it"))
            #expect(try run("path", path, "0x41").output.contains("2 referrers reach it"))
            #expect(try run("dominators", path).output.contains("(unreachable: no referrer reaches them: lost)"))
            let wrong = try run("buffers", "--filter", "agee > 5m", path)
            #expect(wrong.status == 64)
            #expect(wrong.errors.contains("\n  agee > 5m\n  ^~~~\n"))
            let sites = try run("sites", "--filter", "size > 2k", path)
            #expect(sites.output.hasPrefix("matched  1 buffer, 4 KiB: 80.0 % of 2 live buffers' 5 KiB"))
            let missing = try run("show", path, "264")
            #expect(missing.status == 1)
            #expect(missing.errors.contains("no live buffer serial 264"))
            #expect(try run("help-filter").output.contains("owner.kind"))
        }
    }

    @Test("leaks gates with exit code 3, and not when suppressed")
    func leaks() throws {
        try withFolder { folder in
            let path = try write(Fixture.leak(), to: folder, as: "leak.dump.zst")
            let gate = try run("leaks", "--fail-on", "suspects > 0", path)
            #expect(gate.status == 3)
            #expect(gate.output.contains("1. Leak, proved: convertToRpcCommandResponse loses buffers"))
            #expect(gate.errors == "arena-analyze: --fail-on 'suspects > 0' holds\n")
            let suppressions = folder + "/leaks.supp"
            try Data("access ~ RpcCommand\n".utf8).write(to: URL(fileURLWithPath: suppressions))
            #expect(try run("leaks", "--fail-on", "suspects > 0", "--suppress", suppressions, path).status == 0)
            #expect(try run("summary", "--fail-on", "unreachable > 0", path).status == 3)
            #expect(try run("summary", "--fail-on", "unreachable > zero", path).status == 64)
            let blind = try write(Fixture.leak(hasReferences: false), to: folder, as: "blind.dump.zst")
            let undecided = try run("summary", "--fail-on", "unreachable > 0", blind)
            #expect(undecided.status == 1)
            #expect(undecided.errors.contains("cannot be decided: this answer does not know unreachable"))
        }
    }

    @Test("version and help are answers")
    func help() throws {
        #expect(try run("--version").output == "\(programVersion)\n")
        for command in [
            "summary", "sites", "owners", "diff", "verify", "histogram", "buffers", "show", "path", "dominators",
            "leaks", "chunks",
        ] {
            let help = try run("help", command)
            #expect(help.status == 0)
            #expect(help.output.contains("arena-analyze \(command) "))
        }
    }
}
