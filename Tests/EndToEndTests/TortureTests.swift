import TestSupport
internal import Foundation
internal import Testing

/// A broker that is killed, cut from power, lied to by its disk and its clock (Tests/Torture): one round, the same each time.
/// `make torture` plays others, for as long as one likes.
@Suite("Torture", .mayBlock)
struct TortureTests {
    private static let program =
        URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "Torture/torture.py").path

    /// Runs the torture to its end.
    private func play(_ arguments: String...) async throws -> (exitCode: Int32, text: String) {
        try await withTemporaryDirectory { directory in
            let child = try ChildProcess(
                "/usr/bin/env",
                ["python3", Self.program, "--bin", ChildProcess.products.path(), "--out", directory.path()] + arguments)
            let exitCode = try await child.exit(within: 900)
            return (exitCode, child.output.suffix(30).joined(separator: "\n"))
        }
    }

    @Test("whatever befalls the process, its disk and its clock, what was acknowledged is there")
    func round() async throws {
        let result = try await play(
            "--seed", "test", "--round", "1", "--terrors", "cut,kill-and-cut,bad-sync,clock,away,damage")
        #expect(result.exitCode == 0, "\(result.text)")
    }

    @Test("a disk that forgets what was synchronised is noticed")
    func selfTest() async throws {
        let result = try await play("--seed", "test", "--self-test")
        #expect(result.exitCode == 0, "\(result.text)")
    }
}
