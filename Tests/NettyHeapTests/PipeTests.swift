import Foundation
import TestSupport
import Testing

/// Dumps through standard input and pipes, as people give them to `less`.
@Suite("Dumps through pipes", .mayBlock) struct PipeTests {
    private func names(in folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder)
    }

    @Test("each command answers from standard input as from the file, and leaves nothing behind")
    func commands() throws {
        try withFolder { folder in
            let path = try Fixture.pooled4196.path
            let packed = try Data(contentsOf: URL(fileURLWithPath: path))
            for command in ["summary", "sites", "leaks", "owners", "buffers", "chunks", "verify", "histogram"] {
                let expected = try Program.run(command, path)
                let child = try Program.start(command, "-", environment: ["TMPDIR": folder])
                child.input.write(packed)
                let outcome = try child.end()
                #expect(outcome.status == 0, "\(command): \(outcome.errors)")
                #expect(outcome.text == expected.text.replacing(path, with: "standard input"), "\(command)")
                #expect(try names(in: folder) == [])
            }
        }
    }

    @Test("a pipe in the place of a file is read, packed and plain", arguments: [false, true])
    func fifo(isPacked: Bool) throws {
        try withFolder { folder in
            let pipe = folder + "/pipe"
            #expect(mkfifo(pipe, 0o600) == 0)
            let path = try Fixture.adaptive.path
            let bytes = isPacked ? try Data(contentsOf: URL(fileURLWithPath: path)) : try Fixture.adaptive.bytes()
            let child = try Program.start("diff", try Fixture.adaptiveEarly.path, pipe)
            let writer = try #require(FileHandle(forWritingAtPath: pipe))
            writer.write(bytes)
            try writer.close()
            let outcome = try child.end()
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(outcome.text == (try Program.run("diff", Fixture.adaptiveEarly.path, path)).text)
        }
    }

    @Test("what comes is in a file without a name, and in little memory, also when the analyzer is killed")
    func bounded() throws {
        try withFolder { folder in
            let child = try Program.start("summary", "-", environment: ["TMPDIR": folder])
            child.input.write(Data("JAVA PROFILE 1.0.2\0".utf8))
            let piece = Data(count: 1 << 20)
            for _ in 0..<200 { child.input.write(piece) }
            // A pipe holds 64 KiB: nearly all was taken.
            #expect(try names(in: folder) == [])
            let status = try String(contentsOfFile: "/proc/\(child.process.processIdentifier)/status", encoding: .utf8)
            let peak = try #require(
                status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }.flatMap { Int($0.filter(\.isNumber)) })
            #expect(peak < 64 << 10, "\(peak) KiB for a pipe of 200 MiB")
            kill(child.process.processIdentifier, SIGKILL)
            _ = try child.end()
            #expect(try names(in: folder) == [])
        }
    }

    @Test("what is no dump ends soon, however much of it there is")
    func endless() throws {
        let child = try Program.start("summary", "-")
        signal(SIGPIPE, SIG_IGN)
        let line = Data(String(repeating: "y\n", count: 1 << 19).utf8)
        // Standard input stays open: only what has come decides.
        for _ in 0..<2 { try? child.input.write(contentsOf: line) }
        let outcome = try child.end(closing: false)
        #expect(outcome.status == 1)
        #expect(outcome.errors.contains("cannot read standard input: not an arena dump: text"))
    }

    @Test("nothing, a torn dump and a packed one through a pipe are told apart")
    func poor() throws {
        let nothing = try Program.run("summary", "-")
        #expect(nothing.status == 1)
        #expect(nothing.errors.contains("cannot read standard input: nothing came through it"))
        let torn = try Program.start("summary", "-")
        torn.input.write(try Fixture.pooled4196.bytes().prefix(1_500_000))
        let partial = try torn.end()
        #expect(partial.status == 4)
        #expect(partial.errors.contains("partial answer from standard input: "))
        #expect(partial.text.contains("Partial answer from standard input: "))
        let packed = try Program.start("summary", "-")
        packed.input.write(Data([0x42, 0x5A, 0x68, 0x39, 0, 0]))
        let refused = try packed.end()
        #expect(refused.status == 1)
        #expect(
            refused.errors.contains("it is a bzip2 file; unpack it first: bzip2 -dc FILE | arena-analyze summary -"))
    }

    @Test("standard input that is a file is read where it is")
    func redirected() throws {
        try withFolder { folder in
            let path = try Fixture.pooled4196.path
            // Nothing can be written there.
            let outcome = try Program.start(
                "verify", "-", environment: ["TMPDIR": folder + "/missing"], input: FileHandle(forReadingAtPath: path))
            let refused = try outcome.end()
            // The packed heap dump itself needs room; the dump of ours does not.
            #expect(refused.errors.contains("making a temporary file in \(folder)/missing"))
            let copy = folder + "/copy.dump.zst"
            #expect(try Program.run("redact", "-o", copy, path).status == 0)
            let child = try Program.start(
                "verify", "-", environment: ["TMPDIR": folder + "/missing"], input: FileHandle(forReadingAtPath: copy))
            #expect(try child.end().status == 0)
        }
    }
}
