import TestSupport
internal import Testing

/// Random clients against real brokers, held to a model (Tests/Swarm): the same rounds each time, about a minute of them.
/// `make swarm` plays others, for as long as one likes. Beside the other end-to-end tests, not one of their series.
@Suite("The swarm", .mayBlock)
struct SwarmTests {
    private let program = PythonProgram(path: "Swarm/swarm.py")

    @Test("over all transports, with kills and faults, clients get what they must and nothing that they must not")
    func rounds() async throws {
        let result = try await program.play("--seed", "test", "--rounds", "8", "--length", "220", "--shrink", "0")
        #expect(
            result.exitCode == 0,
            "\(result.text)\nOnce more, and shorter: SEED=test ROUND=... scripts/swarm.sh plain --length 220")
    }
}
