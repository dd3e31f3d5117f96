internal import DumpFormat
internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing

extension EndToEnd {
    @Suite struct FlightRecorder {
        static let setting = "flightRecorder = \"flight.ledger\"\n"
        private static let leak = "[faults]\nrpcResponseLeakPercent = 100\n"

        /// What `arena-analyze summary --format json` says of how the process ended.
        private struct Ending: Decodable {
            let ending: String
        }

        /// A broker that forgot some buffers and stands still; a dump of it; then `end`, which must end it.
        private func recordedRun(
            _ end: (BrokerProcess) async throws -> Void, _ check: (URL, URL) async throws -> Void
        ) async throws {
            try await withBroker(configuration: Self.setting + Self.leak) { broker in
                try await broker.drive(
                    "--devices", "10", "--commands", "50", "--payload-size", "20000", "--chatter", "50")
                // Connections end a moment after their clients have gone. Once nobody holds anything all have, and
                // nothing changes any more: what is live are the forgotten buffers.
                var dump = try await broker.signalDump()
                var totals = try await summary(of: dump.file)
                let deadline = Date(timeIntervalSinceNow: TimeInterval(Patience.seconds))
                while totals.unreachable_buffers != totals.live_buffers, Date.now < deadline {
                    dump = try await broker.signalDump()
                    totals = try await summary(of: dump.file)
                }
                try #require(totals.live_buffers > 0 && totals.unreachable_buffers == totals.live_buffers)
                try await end(broker)
                try await check(broker.directory.appending(path: "flight.ledger"), dump.file)
            }
        }

        private func ending(of file: URL) async throws -> String {
            let json = try await analyze("summary", file.path(), "--format", "json")
            return try JSONDecoder().decode(Ending.self, from: Data(json.utf8)).ending
        }

        @Test("after kill -9 the file has the figures of the dump before, and every command reads it")
        func killed() async throws {
            try await recordedRun { broker in
                broker.child.signal(SIGKILL)
                let code = try await broker.child.exit()
                #expect(code == 128 + SIGKILL)
            } _: { file, dump in
                let recorded = try await summary(of: file)
                let dumped = try await summary(of: dump)
                #expect(recorded.reason == "flight-recorder")
                #expect(recorded.limit_bytes == dumped.limit_bytes)
                #expect(recorded.chunk_count == dumped.chunk_count)
                #expect(recorded.chunk_bytes == dumped.chunk_bytes)
                #expect(recorded.huge_bytes == dumped.huge_bytes)
                #expect(recorded.live_buffers == dumped.live_buffers)
                #expect(recorded.live_bytes == dumped.live_bytes)
                #expect(recorded.requested_bytes == dumped.requested_bytes)
                #expect(recorded.unreachable_bytes == nil)
                #expect(recorded.sites.map(\.live_bytes) == dumped.sites.map(\.live_bytes))
                // The dump's own copy counted as snapshot buffer while it was written.
                #expect(recorded.counter_bytes <= dumped.counter_bytes)
                #expect(try await ending(of: file).hasPrefix("the process did not end in order: kill -9"))

                for command in ["sites", "owners", "verify"] {
                    _ = try await analyze(command, file.path())
                }
                let text = try await analyze("diff", dump.path(), file.path())
                #expect(text.contains("born 0"))
            }
        }

        @Test(
            "a crash signal is noted with its number and time, and still ends the process",
            arguments: [SIGSEGV, SIGABRT])
        func crashed(signal: Int32) async throws {
            let name = signal == SIGSEGV ? "SIGSEGV" : "SIGABRT"
            try await recordedRun { broker in
                broker.child.signal(signal)
                // Swift's backtracer has its say first, and it takes its time.
                let code = try await broker.child.exit()
                #expect(code == 128 + signal)
            } _: { file, dump in
                let ending = try await ending(of: file)
                #expect(ending.hasPrefix("the process ended by signal \(signal) (\(name)) at 20"), "\(ending)")
                #expect(ending.contains("sent by process \(getpid())"), "\(ending)")
                #expect(try await summary(of: file).live_buffers == summary(of: dump).live_buffers)
                _ = try await analyze("verify", file.path())
            }
        }

        @Test("an orderly end says so, and the next start keeps the file of a run that crashed")
        func restarted() async throws {
            try await withBroker(configuration: Self.setting) { broker in
                broker.child.signal(SIGKILL)
                try await broker.child.exit()
                let file = broker.directory.appending(path: "flight.ledger")
                let again = try ChildProcess(
                    "arena-broker", ["--port", "0", "--flight-recorder", "flight.ledger"], in: broker.directory)
                try await again.line("listening on") { $0.contains("listening on") }
                try await awaitGuard(file)
                #expect(try await ending(of: file).hasPrefix("the process went on; this is what it had recorded at 20"))
                again.signal(SIGTERM)
                #expect(try await again.exit() == 0)
                #expect(try await ending(of: file).hasPrefix("the process ended in order at 20"))
                let previous = broker.directory.appending(path: "flight.ledger.previous")
                #expect(try await ending(of: previous).hasPrefix("the process did not end in order"))
            }
        }

        /// Whoever opens the file waits for the broker from then on.
        private func awaitGuard(_ file: URL) async throws {
            let inode = try #require(
                FileManager.default.attributesOfItem(atPath: file.path)[.systemFileNumber] as? UInt64)
            let deadline = Patience.end
            while try !String(contentsOfFile: "/proc/locks", encoding: .utf8).split(separator: "\n").contains(where: {
                $0.contains(" LEASE ") && $0.contains(":\(inode) ")
            }), ContinuousClock.now < deadline {
                try await Task.sleep(for: .milliseconds(20))
            }
        }

        @Test(
            "a program that cuts the file short, empties a part of it or writes to it gets the old one, and recording goes on",
            arguments: [
                ": > flight.ledger", "cp --sparse=always flight.ledger copy && : > flight.ledger",
                "fallocate --punch-hole --offset 0 --length 1000000 flight.ledger",
                "head -c 1000000 /dev/zero 1<> flight.ledger",
            ])
        func changedByOthers(command: String) async throws {
            try await recordedRun { broker in
                try await awaitGuard(broker.directory.appending(path: "flight.ledger"))
                let changing = try ChildProcess("/bin/sh", ["-c", command], in: broker.directory)
                #expect(try await changing.exit() == 0, "\(changing.output)")
                _ = try await broker.child.line("another program") { $0.contains("recording goes on in a new one") }
                _ = try await analyze("verify", broker.signalDump().file.path())
                broker.child.signal(SIGKILL)
                try await broker.child.exit()
            } _: { file, dump in
                #expect(try await ending(of: file).hasPrefix("the process did not end in order"))
                #expect(try await summary(of: file).live_buffers == summary(of: dump).live_buffers)
                _ = try await analyze("verify", file.path())
            }
        }

        @Test("a place that cannot be recorded to is a reason not to start")
        func refused() async throws {
            try await withTemporaryDirectory { directory in
                let result = try await run(
                    "arena-broker", ["--port", "0", "--flight-recorder", "none/flight.ledger"], in: directory)
                #expect(result.exitCode == 1)
                #expect(result.text.contains("none/flight.ledger: "), "\(result.text)")
                #expect(result.text.contains("No such file or directory"), "\(result.text)")
            }
        }
    }
}
