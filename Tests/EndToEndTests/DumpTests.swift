internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing

extension EndToEnd {
    @Suite struct Dumps {
        @Test("kill -USR1 leaves a dump only its owner can read, and summary tells what was in the arena")
        func signalledDump() async throws {
            try await withBroker(limit: "256MiB") { broker in
                try await broker.drive(
                    "--devices", "10", "--commands", "50", "--payload-size", "20000", "--chatter", "50")
                let dump = try await broker.signalDump()

                let files = try FileManager.default.contentsOfDirectory(atPath: broker.dumps.path())
                #expect(files == [dump.file.lastPathComponent])
                let attributes = try FileManager.default.attributesOfItem(atPath: dump.file.path())
                #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)

                let summary = try await summary(of: dump.file)
                #expect(summary.reason == "signal")
                #expect(summary.limit_bytes == 256 << 20)
                #expect(summary.chunk_count > 0)
                #expect(summary.chunk_bytes == summary.chunk_count * 16 << 20)
                #expect(summary.counter_bytes >= summary.chunk_bytes + summary.huge_bytes)
                #expect(summary.counter_bytes <= summary.limit_bytes)
                #expect(summary.free_bytes == summary.chunk_bytes + summary.huge_bytes - summary.live_bytes)
                #expect(summary.requested_bytes <= summary.live_bytes)
                #expect(summary.sites.map(\.live_bytes).reduce(0, +) <= summary.live_bytes)
            }
        }

        @Test("a dump passes its own verification")
        func verifiedDump() async throws {
            try await withBroker { broker in
                try await broker.drive("--devices", "5", "--commands", "20", "--payload-size", "100000")
                let dump = try await broker.signalDump()
                let result = try await run("arena-analyze", ["verify", dump.file.path()])
                #expect(result.exitCode == 0, "\(result.text)")
            }
        }

        @Test("two signals in a row give one dump or two, each of them whole")
        func twoSignals() async throws {
            try await withBroker { broker in
                broker.child.signal(SIGUSR1)
                broker.child.signal(SIGUSR1)
                _ = try await broker.dump("signal")
                // Asked for after the first is written: whatever the pair has coalesced to, this one comes.
                _ = try await broker.signalDump()

                let dumps = broker.writtenDumps
                #expect(2...3 ~= dumps.count)
                #expect(Set(dumps.map(\.file)).count == dumps.count)
                for dump in dumps {
                    #expect(try await summary(of: dump.file).reason == "signal")
                }
            }
        }

        @Test("a disk that is full leaves no half file, is reported, and the broker lives on")
        func fullDisk() async throws {
            try await withBroker { broker in
                try await broker.drive("--devices", "5", "--commands", "20", "--payload-size", "1000")
                // The kernel refuses to let any file of the broker grow beyond 4096 bytes from now on.
                try Program.succeed("prlimit", ["--pid", "\(broker.child.pid)", "--fsize=4096"])
                broker.child.signal(SIGUSR1)
                let line = try await broker.child.line("the dump's failure") { $0.contains("dump failed") }
                #expect(line.contains("File too large"))
                #expect(try FileManager.default.contentsOfDirectory(atPath: broker.dumps.path()).isEmpty)
                let report = try await broker.drive("--devices", "2", "--commands", "4", "--payload-size", "100")
                #expect(report.responses == 4)
            }
        }

        @Test("a dump that cannot be written is reported, and the broker lives on")
        func unwritableDirectory() async throws {
            try await withBroker { broker in
                // A plain file where the directory was: not writable for anybody, root included.
                try FileManager.default.removeItem(at: broker.dumps)
                try Data().write(to: broker.dumps)
                broker.child.signal(SIGUSR1)
                let line = try await broker.child.line("the dump's failure") {
                    $0.contains("dump") && $0.lowercased().contains("not a directory")
                }
                #expect(line.contains("dumps"))
                #expect(broker.writtenDumps.isEmpty)
                let report = try await broker.drive("--devices", "2", "--commands", "4", "--payload-size", "100")
                #expect(report.responses == 4)
            }
        }
    }
}
