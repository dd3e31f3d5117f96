internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing
#if canImport(FoundationNetworking)
internal import FoundationNetworking
#endif

extension EndToEnd {
    /// HTTP of the program itself: started, reloaded, ended.
    @Suite struct HTTPService {
        private static let first = "11111111111111111111"
        private static let second = "22222222222222222222"
        private static let setting = "[http]\nport = 0\ntokenFile = \"tokens\"\n"

        private func status(_ port: Int, _ path: String, token: String) async throws -> Int {
            var request = URLRequest(url: try #require(URL(string: "http://127.0.0.1:\(port)\(path)")))
            request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
            let session = URLSession(configuration: .ephemeral)
            defer { session.finishTasksAndInvalidate() }
            let (_, response) = try await session.data(for: request)
            return try #require(response as? HTTPURLResponse).statusCode
        }

        /// A broker whose working directory has a file of tokens.
        private func withService(
            _ tokens: String, _ body: (ChildProcess, URL) async throws -> Void
        ) async throws {
            try await withTemporaryDirectory { directory in
                try Data("\(tokens)\n".utf8).write(to: directory.appending(path: "tokens"))
                try Data(Self.setting.utf8).write(to: directory.appending(path: "broker.toml"))
                let child = try ChildProcess(
                    "arena-broker", ["--port", "0", "--config", "broker.toml", "--memory-limit", "64MiB"], in: directory
                )
                try await body(child, directory)
            }
        }

        private func port(_ child: ChildProcess) async throws -> Int {
            let line = try await child.line("listening for HTTP") {
                $0.contains("listening on 127.0.0.1:") && $0.contains("protocol=http")
            }
            return try #require(line.loopbackPort)
        }

        @Test("tokens are read again on SIGHUP; a file with a mistake leaves the old ones in force")
        func reload() async throws {
            try await withService(Self.first) { child, directory in
                let port = try await port(child)
                #expect(try await status(port, "/v1/memory", token: Self.first) == 200)
                #expect(try await status(port, "/v1/memory", token: Self.second) == 401)

                let file = directory.appending(path: "tokens")
                try Data("\(Self.second)\n".utf8).write(to: file)
                child.signal(SIGHUP)
                try await child.line("configuration reloaded") { $0.contains("configuration reloaded") }
                #expect(try await status(port, "/v1/memory", token: Self.first) == 401)
                #expect(try await status(port, "/v1/memory", token: Self.second) == 200)

                try Data("short\n".utf8).write(to: file)
                child.signal(SIGHUP)
                try await child.line("a complaint") {
                    $0.contains("not reloaded") && $0.contains("tokens:1: a token has at least 16 characters")
                }
                #expect(try await status(port, "/v1/memory", token: Self.second) == 200)
                child.signal(SIGTERM)
                #expect(try await child.exit() == 0)
            }
        }

        @Test("a mistake elsewhere in the configuration leaves the old tokens in force too")
        func mistakeElsewhere() async throws {
            try await withService(Self.first) { child, directory in
                let port = try await port(child)
                let configuration = directory.appending(path: "broker.toml")
                try Data("\(Self.second)\n".utf8).write(to: directory.appending(path: "tokens"))
                try Data("\(Self.setting)[limits]\nmaxInflight = -1\n".utf8).write(to: configuration)
                child.signal(SIGHUP)
                try await child.line("a complaint") { $0.contains("not reloaded") && $0.contains("maxInflight") }
                #expect(try await status(port, "/v1/memory", token: Self.first) == 200)
                #expect(try await status(port, "/v1/memory", token: Self.second) == 401)
                try Data(Self.setting.utf8).write(to: configuration)
                child.signal(SIGHUP)
                try await child.line("configuration reloaded") { $0.contains("configuration reloaded") }
                #expect(try await status(port, "/v1/memory", token: Self.first) == 401)
                #expect(try await status(port, "/v1/memory", token: Self.second) == 200)
                child.signal(SIGTERM)
                #expect(try await child.exit() == 0)
            }
        }

        @Test("a port that is taken is a reason not to start, in one line")
        func taken() async throws {
            try await withService(Self.first) { child, directory in
                let port = try await port(child)
                let other = try await run(
                    "arena-broker",
                    [
                        "--port", "0", "--config", "broker.toml", "--set", "http.port=\(port)", "--memory-limit",
                        "64MiB",
                    ],
                    in: directory)
                #expect(other.exitCode == 1)
                #expect(other.text.contains("cannot listen on 127.0.0.1:\(port) for HTTP"), "\(other.text)")
                child.signal(SIGTERM)
                #expect(try await child.exit() == 0)
            }
        }
    }
}
