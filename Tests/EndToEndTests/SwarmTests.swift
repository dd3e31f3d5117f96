import TestSupport
internal import Foundation
internal import Testing

/// Random clients against real brokers, held to a model (Tests/Swarm): the same rounds each time, about a minute of them.
/// `make swarm` plays others, for as long as one likes. Beside the other end-to-end tests, not one of their series.
@Suite("The swarm", .mayBlock)
struct SwarmTests {
    private static let program =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Swarm/swarm.py").path

    @Test("over all transports, with kills and faults, clients get what they must and nothing that they must not")
    func rounds() async throws {
        try await withTemporaryDirectory { directory in
            let child = try ChildProcess(
                "/usr/bin/env",
                [
                    "python3", Self.program, "--bin", ChildProcess.products.path(), "--seed", "test", "--rounds", "10",
                    "--length", "220", "--shrink", "0", "--out", directory.path(),
                ])
            let exitCode = try await child.exit(within: 900)
            #expect(
                exitCode == 0,
                """
                \(child.output.suffix(30).joined(separator: "\n"))
                Once more, and shorter: make swarm SEED=test ROUND=...
                """)
        }
    }
}
