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

    /// Runs the swarm to its end.
    private func play(_ arguments: String...) async throws -> (exitCode: Int32, text: String) {
        try await withTemporaryDirectory { directory in
            let child = try ChildProcess(
                "/usr/bin/env",
                ["python3", Self.program, "--bin", ChildProcess.products.path(), "--out", directory.path()] + arguments)
            let exitCode = try await child.exit(within: 900)
            return (exitCode, child.output.suffix(30).joined(separator: "\n"))
        }
    }

    @Test("over all transports, with kills and faults, clients get what they must and nothing that they must not")
    func rounds() async throws {
        let result = try await play("--seed", "test", "--rounds", "8", "--length", "220", "--shrink", "0")
        #expect(
            result.exitCode == 0,
            "\(result.text)\nOnce more, and shorter: SEED=test ROUND=... scripts/swarm.sh plain --length 220")
    }
}
