internal import Foundation
internal import Testing

extension EndToEnd {
    /// The dumps of the real drill (`make incident`), and what arena-analyze says about them (`make expected`).
    @Suite struct Samples {
        private static let directory = URL(filePath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appending(path: "samples/incident")
        private static let dumps = ["1-before", "2-near-limit", "3-at-the-limit"]

        @Test("summary and sites of the sample dumps say what they have always said", arguments: dumps)
        func golden(dump: String) async throws {
            for command in ["summary", "sites"] {
                let text = try await analyze(command, "\(dump).dump.zst", in: Self.directory)
                #expect(text == (try expected("\(dump).\(command)")))
            }
        }

        @Test("diff of the sample dumps says what it has always said")
        func goldenDiff() async throws {
            let files = Self.dumps.map { "\($0).dump.zst" }
            let text = try await analyze("diff", files[0], files[1], files[2], in: Self.directory)
            #expect(text == (try expected("diff")))
        }

        @Test("at the limit there are 119 chunks of 16 MiB, as in the incident")
        func incidentNumbers() async throws {
            let summary = try await summary(of: Self.directory.appending(path: "3-at-the-limit.dump.zst"))
            #expect(summary.limit_bytes == 2_050_000_000)
            #expect(summary.chunk_count == 119)
            #expect(summary.chunk_bytes == 1_996_488_704)
            #expect(summary.verdict.contains("convertToRpcCommandResponse"))
        }

        private func expected(_ name: String) throws -> String {
            let text = try String(contentsOf: Self.directory.appending(path: "\(name).expected.txt"), encoding: .utf8)
            return text.hasSuffix("\n") ? String(text.dropLast()) : text
        }
    }
}
