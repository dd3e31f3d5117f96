import TestSupport
internal import Testing

/// A broker that is killed, cut from power, lied to by its disk and its clock (Tests/Torture): one round, the same each time.
/// `make torture` plays others, for as long as one likes.
@Suite("Torture", .mayBlock)
struct TortureTests {
    private let program = PythonProgram(path: "Torture/torture.py")

    @Test("whatever befalls the process, its disk and its clock, what was acknowledged is there")
    func round() async throws {
        let result = try await program.play(
            "--seed", "test", "--round", "1", "--terrors", "cut,kill-and-cut,bad-sync,clock,away,damage")
        #expect(result.exitCode == 0, "\(result.text)")
    }

    @Test("a disk that forgets what was synchronised is noticed")
    func selfTest() async throws {
        let result = try await program.play("--seed", "test", "--self-test")
        #expect(result.exitCode == 0, "\(result.text)")
    }
}
