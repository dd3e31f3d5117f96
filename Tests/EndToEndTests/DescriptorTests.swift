internal import Foundation
internal import NIOCore
internal import NIOPosix
internal import Testing

extension EndToEnd {
    @Suite struct DescriptorTests {
        @Test(
            "without a free descriptor the listener rests, a dump is written, and service goes on when there are some")
        func exhausted() async throws {
            try await withBroker(configuration: "[limits]\nconnectTimeoutSeconds = 3600\n") { broker in
                // What it has, and some for connections.
                let limit = try broker.openDescriptors() + 10
                let limiter = try ChildProcess(
                    "/usr/bin/env", ["prlimit", "--nofile=\(limit)", "--pid", "\(broker.child.pid)"])
                #expect(try await limiter.exit() == 0, "\(limiter.output)")
                var clients: [any Channel] = []
                for _ in 0..<20 { clients.append(try await connect(broker)) }
                _ = try await broker.child.line("no descriptor left") { $0.contains("cannot accept a connection") }
                // One that the broker had for a moment, to read a file, may be free until the listener tries again.
                let open = try broker.openDescriptors()
                #expect(open >= limit - 1)

                let dump = try await broker.signalDump()
                #expect(FileManager.default.fileExists(atPath: dump.file.path))
                let again = try await broker.signalDump()
                #expect(again.file != dump.file)

                // A line a second, of at most so many attempts as there are pauses in a second.
                let lines = broker.child.output.filter { $0.contains("cannot accept a connection") }
                let failures = try lines.map { line in
                    try #require(line.split(separator: "failures=").last.flatMap { Int($0.prefix { $0.isNumber }) })
                }
                #expect(failures.reduce(0, +) <= 8 * lines.count, "\(lines)")

                for client in clients { try await client.close() }
                let report = try await broker.drive("--devices", "2", "--commands", "4", "--payload-size", "100")
                #expect(report.responses == 4)
            }
        }

        private func connect(_ broker: BrokerProcess) async throws -> any Channel {
            try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                .connect(host: "127.0.0.1", port: broker.port).get()
        }
    }
}

extension BrokerProcess {
    fileprivate func openDescriptors() throws -> Int {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(child.pid)/fd").count
    }
}
