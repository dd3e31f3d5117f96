import Foundation
import TestSupport
import Testing

/// What the program says of itself: help, completions.
@Suite("Help", .mayBlock)
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

    /// The examples in a command's help, as a shell gets them: lines that go on are one.
    private func examples(_ discussion: String) -> [String] {
        discussion.replacingOccurrences(of: "\\\n", with: "").split(separator: "\n")
            .filter { $0.hasPrefix("  arena-analyze") }.map { $0.trimmingCharacters(in: .whitespaces) }
    }

    @Test("every example works as it stands, beside the sample dumps")
    func examplesWork() throws {
        var count = 0
        // These need a broker that runs; its tests are elsewhere.
        for (name, discussion) in try commands() where !["capture", "top"].contains(name) {
            for example in examples(discussion) {
                try withFolder { folder in
                    for sample in ["1-before", "2-near-limit", "3-at-the-limit"] {
                        try FileManager.default.copyItem(
                            atPath: "\(Program.samples)/\(sample).dump.zst", toPath: "\(folder)/\(sample).dump.zst")
                    }
                    try FileManager.default.copyItem(
                        atPath: "\(Program.samples)/../../Tests/NettyHeapTests/Fixtures/netty-4.1.118-pools.hprof.zst",
                        toPath: "\(folder)/heap.hprof.zst")
                    // What the answer is piped into is another program, which need not be here.
                    let script = example.components(separatedBy: " | ")[0]
                    let outcome = try Program.run(
                        "/bin/sh", ["-c", "cd \(folder) && \(script)"],
                        environment: ["PATH": "\(Program.products.path):/usr/bin:/bin"])
                    // What the baseline has is known, and fails nothing.
                    let fails = script.contains("--fail-on") && !script.contains("--baseline")
                    let expected: Int32 = fails ? 3 : 0
                    #expect(outcome.status == expected, "\(script): \(outcome.errors)")
                    #expect(!outcome.text.contains("(none)"), "\(script): it has nothing to show")
                    count += 1
                }
            }
        }
        #expect(count >= 25)
    }

    /// A manual page in 80 columns has room for so many.
    @Test("neither help nor manual pages break an example in the middle: it can be copied from there")
    func examplesFit() throws {
        for (name, discussion) in try commands() {
            for line in discussion.split(separator: "\n") where line.hasPrefix("  ") {
                #expect(line.count <= 73, "\(name): \(line)")
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
        try withFolder { folder in
            let path = folder + "/completion"
            try script.output.write(to: URL(fileURLWithPath: path))
            #expect(try Program.run("/bin/bash", ["-n", path]).status == 0)
        }
    }

    /// What a shell offers for the last of some words.
    private struct Completion {
        let words: [String]
        let offers: [String]
    }

    private static let completions = [
        Completion(words: ["su"], offers: ["summary"]),
        Completion(words: ["sites", "--fi"], offers: ["--filter"]),
        Completion(words: ["sites", "--format", "j"], offers: ["json"]),
        Completion(words: ["histogram", "--by", "ow"], offers: ["owner", "owner-kind"]),
        Completion(words: ["leaks", "1-before.d"], offers: ["1-before.dump.zst"]),
        Completion(words: ["export", "--to", "csv", "-o", "2-near-limit.d"], offers: ["2-near-limit.dump.zst"]),
        Completion(words: ["verify", "2-near-limit.d"], offers: ["2-near-limit.dump.zst"]),
    ]

    @Test("bash completes commands, options, their values and the names of dumps")
    func bash() throws {
        try withFolder { folder in
            let path = folder + "/completion"
            try Program.run("--generate-completion-script", "bash").output.write(to: URL(fileURLWithPath: path))
            for completion in Self.completions {
                let words = ["arena-analyze"] + completion.words
                // As bash does on TAB: it sets these, and calls the function that is registered.
                let script = """
                    source \(path)
                    cd \(Program.samples)
                    function_name=$(complete -p arena-analyze | sed 's/.*-F \\([^ ]*\\).*/\\1/')
                    COMP_WORDS=(\(words.joined(separator: " "))) COMP_CWORD=\(words.count - 1)
                    COMP_LINE="${COMP_WORDS[*]}" COMP_POINT=${#COMP_LINE}
                    "$function_name" arena-analyze '\(words[words.count - 1])' '\(words[words.count - 2])'
                    printf '%s\\n' "${COMPREPLY[@]}"
                    """
                let outcome = try Program.run("/bin/bash", ["--norc", "-c", script])
                let offers = outcome.text.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
                #expect(offers.sorted() == completion.offers, "\(completion.words): \(outcome.errors)")
            }
        }
    }

    private static let hasFish = FileManager.default.isExecutableFile(atPath: "/usr/bin/fish")

    @Test("fish completes the same", .enabled(if: hasFish))
    func fish() throws {
        try withFolder { folder in
            let path = folder + "/completion"
            try Program.run("--generate-completion-script", "fish").output.write(to: URL(fileURLWithPath: path))
            for completion in Self.completions {
                let line = (["arena-analyze"] + completion.words).joined(separator: " ")
                let script = "source \(path); cd \(Program.samples); complete -C '\(line)'"
                let outcome = try Program.run(
                    "/usr/bin/fish", ["--no-config", "-c", script], environment: ["HOME": folder])
                // Behind a tab is what it means.
                let offers = outcome.text.split(separator: "\n").map { String($0.split(separator: "\t")[0]) }
                #expect(Set(offers).isSuperset(of: completion.offers), "\(line): \(offers) \(outcome.errors)")
            }
        }
    }
}
