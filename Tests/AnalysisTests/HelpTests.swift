import Foundation
import Testing

/// What the program says of itself: help, completions.
@Suite("Help")
struct HelpTests {
    /// The commands, as the program lists them for tools that write manual pages.
    private func commands() throws -> [(name: String, discussion: String)] {
        let output = try Program.run("--experimental-dump-help").output
        let root = try #require(try JSONSerialization.jsonObject(with: output) as? [String: Any])
        let command = try #require(root["command"] as? [String: Any])
        let subcommands = try #require(command["subcommands"] as? [[String: Any]])
        return try subcommands.map {
            (try #require($0["commandName"] as? String), $0["discussion"] as? String ?? "")
        }.filter { $0.name != "help" }
    }

    @Test("every command's help has an example of it")
    func examples() throws {
        let commands = try commands()
        #expect(commands.count >= 18)
        for (name, discussion) in commands {
            let examples = discussion.split(separator: "\n").filter { $0.contains("arena-analyze \(name)") }
            #expect(!examples.isEmpty, "\(name)")
        }
    }

    /// The first words of a command line, past assignments: the shells' own parsers are not needed for our examples.
    @Test("the examples on the sample dumps are accepted as they stand")
    func examplesParse() throws {
        for (name, discussion) in try commands() where !["capture", "top", "report", "redact", "export"].contains(name)
        {
            for line in discussion.split(separator: "\n") where line.contains("arena-analyze \(name)") {
                // A line that goes on is not a whole example.
                guard !line.hasSuffix("\\") else { continue }
                let script = line.drop { $0 == " " }
                    .replacingOccurrences(of: "arena-analyze", with: "\"$ANALYZER\"")
                    .split(separator: "|")[0].split(separator: "&&")[0]
                guard script.hasPrefix("\"$ANALYZER\""), script.contains(".zst") || name == "help-filter" else {
                    continue
                }
                try Program.withFolder { folder in
                    for (sample, file) in [
                        ("2-near-limit", "near-limit"), ("1-before", "before"), ("3-at-the-limit", "after"),
                        ("1-before", "main"), ("2-near-limit", "ci"),
                    ] {
                        try FileManager.default.copyItem(
                            atPath: "\(Program.samples)/\(sample).dump.zst", toPath: "\(folder)/\(file).dump.zst")
                    }
                    try Data().write(to: URL(fileURLWithPath: folder + "/leaks.supp"))
                    let outcome = try Program.run(
                        "/bin/sh", ["-c", "cd \(folder) && \(script)"],
                        environment: ["ANALYZER": Program.products.appendingPathComponent("arena-analyze").path])
                    // 3 is a condition that holds, and 1 a serial number that the sample has not.
                    #expect([0, 1, 3].contains(outcome.status), "\(script): \(outcome.errors)")
                }
            }
        }
    }

    @Test("completions of each shell name every command", arguments: ["bash", "zsh", "fish"])
    func completions(shell: String) throws {
        let script = try Program.run("--generate-completion-script", shell)
        #expect(script.status == 0)
        for (name, _) in try commands() {
            #expect(script.text.range(of: "\\b\(name)\\b", options: .regularExpression) != nil, "\(shell): \(name)")
        }
        guard shell == "bash" else { return }
        try Program.withFolder { folder in
            let path = folder + "/completion"
            try script.output.write(to: URL(fileURLWithPath: path))
            #expect(try Program.run("/bin/bash", ["-n", path]).status == 0)
        }
    }
}
