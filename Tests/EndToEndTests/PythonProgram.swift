internal import Foundation
internal import TestSupport

/// A program of `Tests` in Python that plays rounds against the brokers of this build, until it ends.
struct PythonProgram {
    /// Below `Tests`.
    let path: String

    /// - Returns: its exit code, and the last of what it said.
    func play(_ arguments: String...) async throws -> (exitCode: Int32, text: String) {
        let tests = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        return try await withTemporaryDirectory { directory in
            let child = try ChildProcess(
                "/usr/bin/env",
                [
                    "python3", tests.appending(path: path).path, "--bin", Program.products.path(), "--out",
                    directory.path(),
                ] + arguments)
            let exitCode = try await child.exit(within: 900)
            return (exitCode, child.output.suffix(30).joined(separator: "\n"))
        }
    }
}
