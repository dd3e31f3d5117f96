internal import Foundation
internal import Testing
internal import Version

extension EndToEnd {
    /// Who installs a package, reads a dump or reports a defect must not find two versions of one thing.
    @Suite("The version")
    struct Versions {
        private static let root =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()

        private func script(_ name: String, _ arguments: String...) async throws -> String {
            let child = try ChildProcess("/usr/bin/env", ["bash", "scripts/\(name)"] + arguments, in: Self.root)
            let status = try await child.exit()
            let text = child.output.joined(separator: "\n")
            try #require(status == 0, "\(text)")
            return text
        }

        @Test("programs, scripts, dumps, their readers and $SYS say the same")
        func agreement() async throws {
            #expect(programVersion.wholeMatch(of: /[0-9]+\.[0-9]+\.[0-9]+/) != nil)
            for program in ["arena-broker", "arena-analyze", "arena-bench"] {
                let result = try await run(program, ["--version"])
                #expect(result.exitCode == 0 && result.text == programVersion, "\(program): \(result.text)")
            }
            #expect(try await script("version.sh") == programVersion)

            try await withBroker { broker in
                let dump = try await broker.signalDump()
                let summary = try await analyze("summary", dump.file.path(), "--format", "json")
                #expect(summary.firstMatch(of: #/"tool_version" *: *"(.*?)"/#)?.1 == programVersion[...])
                #expect(try await analyze("summary", dump.file.path()).hasPrefix("arena-broker \(programVersion), "))
                guard FileManager.default.isExecutableFile(atPath: "/usr/bin/mosquitto_sub") else { return }
                let subscriber = try ChildProcess(
                    "/usr/bin/mosquitto_sub", ["-p", "\(broker.port)", "-t", "$SYS/broker/version", "-C", "1"])
                try await subscriber.line("the version") { $0 == "arena-broker version \(programVersion)" }
                #expect(try await subscriber.exit() == 0)
            }
        }

        @Test("the newest release of the changelog is this version, or an earlier one with something unreleased")
        func changelog() async throws {
            let text = try String(contentsOf: Self.root.appending(path: "CHANGELOG.md"), encoding: .utf8)
            let headings = text.matches(of: #/(?m)^## \[(.*?)\](?: - ([0-9]{4}-[0-9]{2}-[0-9]{2}))?$/#)
            #expect(headings.first?.1 == "Unreleased")
            #expect(headings.count == text.matches(of: #/(?m)^## /#).count, "a heading that is none of a release")
            let releases = headings.dropFirst()
            #expect(releases.allSatisfy { $0.2 != nil }, "a release without a date")
            if let newest = releases.first, newest.1 != programVersion {
                #expect(String(newest.1).compare(programVersion, options: .numeric) == .orderedAscending)
            }

            // The package is of the release, or sorts before it.
            let package = try await script("version.sh", "--package")
            let isReleased = releases.contains { $0.1 == programVersion }
            #expect(isReleased ? package == programVersion : package.hasPrefix(programVersion + "~"))
            let debian = try await script("changelog.sh", "--debian")
            #expect(debian.hasPrefix("arena-broker (\(package)) "))
        }
    }
}
