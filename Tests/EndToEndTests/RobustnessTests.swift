internal import Foundation
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import SeededRandom
internal import TestSupport
internal import Testing

extension EndToEnd {
    @Suite struct Robustness {
        @Test("garbage on the socket closes that connection, and never the broker")
        func garbage() async throws {
            let seed = UInt64.random(in: .min ... .max)
            var random = SeededGenerator(seed: seed)
            try await withBroker { broker in
                for _ in 0..<50 {
                    let count = Int.random(in: 1...4096, using: &random)
                    let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
                    try await send(bytes, to: broker.port)
                }
                // A valid CONNECT before the garbage: the decoders of all other packets meet it too.
                let connect: [UInt8] = [0x10, 14, 0, 4, 0x4D, 0x51, 0x54, 0x54, 4, 2, 0, 60, 0, 2, 0x67, 0x62]
                for _ in 0..<50 {
                    let count = Int.random(in: 1...512, using: &random)
                    let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
                    try await send(connect + bytes, to: broker.port)
                }
                #expect(broker.child.isRunning, "seed \(seed)")
                let report = try await broker.drive("--devices", "2", "--commands", "4", "--payload-size", "100")
                #expect(report.responses == 4, "seed \(seed)")
            }
        }

        @Test("SIGTERM ends the broker with exit code 0, clients connected or not")
        func terminate() async throws {
            try await withBroker { broker in
                let client = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                    .connect(host: "127.0.0.1", port: broker.port).get()
                broker.child.signal(SIGTERM)
                #expect(try await broker.child.exit() == 0)
                try await client.closeFuture.get()
            }
        }

        @Test(
            "wrong usage exits with 64 and says what was expected",
            arguments: [
                ("arena-broker", ["--no-such-flag"]),
                ("arena-broker", ["--memory-limit", "much"]),
                ("arena-broker", ["--port", "70000"]),
                ("arena-broker", ["--set", "port"]),
                ("arena-analyze", ["no-such-command"]),
                ("arena-analyze", ["help", "no-such-command"]),
                ("arena-analyze", ["summary"]),
                ("arena-bench", ["devices", "--devices", "0"]),
                ("arena-bench", ["devices", "--chatter", "101"]),
            ])
        func usage(product: String, arguments: [String]) async throws {
            let result = try await run(product, arguments)
            #expect(result.exitCode == 64, "\(product) \(arguments): \(result.text)")
            #expect(!result.text.isEmpty)
        }

        @Test("a file that is not a dump is a clear error with exit code 1")
        func notADump() async throws {
            try await withTemporaryDirectory { directory in
                let file = directory.appending(path: "notes.txt")
                try Data("these are my notes\n".utf8).write(to: file)
                let result = try await run("arena-analyze", ["summary", file.path()])
                #expect(result.exitCode == 1)
                #expect(result.text.contains("notes.txt"))
            }
        }

        /// Connects, sends, half-closes, and waits until the broker has closed too.
        private func send(_ bytes: [UInt8], to port: Int) async throws {
            let channel = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                .channelOption(.allowRemoteHalfClosure, value: false)
                .connect(host: "127.0.0.1", port: port).get()
            // The broker may have closed before all was sent: that is one of the right answers.
            try? await channel.writeAndFlush(ByteBuffer(bytes: bytes)).get()
            try? await channel.close(mode: .output).get()
            try await channel.closeFuture.get()
        }
    }
}
