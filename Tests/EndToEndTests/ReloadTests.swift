internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing

extension EndToEnd {
    /// SIGHUP when what is to be read does not come.
    @Suite struct Reloading {
        private static let good = "port = 0\nmemoryLimit = \"64MiB\"\n"

        /// A broker that has started, and whose configuration file is a pipe since.
        private func withPipe(_ body: (ChildProcess, _ pipe: String) async throws -> Void) async throws {
            try await withTemporaryDirectory { directory in
                let file = directory.appending(path: "broker.toml")
                try Self.good.write(to: file, atomically: true, encoding: .utf8)
                let broker = try ChildProcess("arena-broker", ["--config", "broker.toml"], in: directory)
                try await broker.line("listening") { $0.contains("listening on 127.0.0.1:") }
                try FileManager.default.removeItem(at: file)
                try #require(mkfifo(file.path, 0o600) == 0)
                try await body(broker, file.path)
            }
        }

        /// Opens a pipe for writing as soon as somebody reads it.
        private func writer(_ pipe: String) async throws -> CInt {
            let deadline = Patience.end
            while ContinuousClock.now < deadline {
                let descriptor = open(pipe, O_WRONLY | O_NONBLOCK | O_CLOEXEC)
                if descriptor >= 0 { return descriptor }
                try await Task.sleep(for: .milliseconds(5))
            }
            throw CocoaError(.fileReadUnknown)
        }

        @Test(
            "signals are answered while a reload waits for its file, and reloads that are asked for meanwhile are one")
        func pipe() async throws {
            try await withPipe { broker, pipe in
                broker.signal(SIGHUP)
                let first = try await writer(pipe)
                // The reload has begun: these find it under way.
                for _ in 0..<3 {
                    let from = broker.output.count
                    broker.signal(SIGHUP)
                    broker.signal(SIGUSR1)
                    try await broker.line("dump", from: from) { $0.contains("dump written") }
                }
                #expect(write(first, Self.good, Self.good.utf8.count) == Self.good.utf8.count)
                close(first)
                try await broker.line("reload") { $0.contains("configuration reloaded") }
                let second = try await writer(pipe)
                let from = broker.output.count
                try await broker.line("patience", from: from) {
                    $0.contains("warning reloading takes more than 3 s: a file that it reads does not come to an end")
                }
                try await broker.line("failure", from: from) {
                    $0.contains("error configuration not reloaded") && $0.contains("a pipe that nobody has written to")
                }
                close(second)
                // No third has begun.
                #expect(open(pipe, O_WRONLY | O_NONBLOCK | O_CLOEXEC) == -1 && errno == ENXIO)
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
                let reloads = broker.output.filter {
                    $0.contains("configuration reloaded") || $0.contains("not reloaded")
                }
                #expect(reloads.count == 2, "\(broker.output)")
            }
        }

        @Test("a broker ends in order while a reload waits for its file, and does not wait for it")
        func end() async throws {
            try await withPipe { broker, pipe in
                broker.signal(SIGHUP)
                let writer = try await writer(pipe)
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
                #expect(!broker.output.contains { $0.contains("reloaded") || $0.contains("takes more than") })
                close(writer)
            }
        }

        @Test("reloads that are asked for while the broker ends change nothing about that", arguments: [0, 1, 20, 100])
        func atTheEnd(milliseconds: Int) async throws {
            try await withTemporaryDirectory { directory in
                try Self.good.write(to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                let broker = try ChildProcess(
                    "arena-broker", ["--config", "broker.toml", "--data-directory", "data"], in: directory)
                try await broker.line("listening") { $0.contains("listening on 127.0.0.1:") }
                // One is under way, or is about to put in force what it has read.
                for _ in 0..<3 { broker.signal(SIGHUP) }
                try await Task.sleep(for: .milliseconds(milliseconds))
                broker.signal(SIGTERM)
                for _ in 0..<20 {
                    broker.signal(SIGHUP)
                    broker.signal(SIGUSR1)
                }
                #expect(try await broker.exit() == 0)
                #expect(!broker.output.contains { $0.contains("error") }, "\(broker.output)")
            }
        }

        @Test(
            "a start waits for no file: a pipe without a writer and a device are refused, one that is written is read",
            arguments: [
                (
                    "mkfifo p; exec $0 check p", 1,
                    "cannot read p: a pipe that nobody has written to its end within 5.0 s"
                ),
                ("exec $0 check .", 1, "cannot read .: a directory; name a file in it"),
                ("exec $0 check /dev/tty0", 1, "cannot read /dev/tty0: "),
                ("exec $0 check /dev/zero", 1, "cannot read /dev/zero: a device, not a file"),
                ("exec $0 check /dev/null", 0, "/dev/null: no mistake found"),
                ("echo 'port = 1' | exec $0 check /dev/stdin", 0, "/dev/stdin: no mistake found"),
                ("echo 'prot = 1' | exec $0 check /dev/stdin", 1, "/dev/stdin:1: unknown key prot"),
                (
                    "mkfifo p; echo '[[listeners]]\ncertificateFile = \"p\"\nkeyFile = \"p\"' > c; exec $0 check c", 1,
                    "c:2: listeners.0.certificateFile: cannot read p: a pipe that nobody has written"
                ),
            ] as [(String, Int32, String)])
        func start(script: String, exitCode: Int32, text: String) async throws {
            try await withTemporaryDirectory { directory in
                let broker = Program.path("arena-broker")
                let result = try await run("/bin/sh", ["-c", script, broker], in: directory)
                #expect(result.exitCode == exitCode && result.text.contains(text), "\(result.text)")
            }
        }
    }
}
