import Foundation
import TestSupport
import Testing

/// docs/mqtt-conformance.md says which test shows which statement. This holds it to the tests.
@Suite("docs/mqtt-conformance.md", .mayBlock)
struct ConformancePageTests {
    struct Row {
        var version: String
        var statement: String
        var shownBy: String

        /// As tests are tagged.
        var tag: String { version == "5.0" ? "[\(statement)]" : "[3.1.1: \(statement)]" }

        var tests: [(suite: String, function: String)] {
            shownBy.matches(of: /`(\w+)\.(\w+)`/).map { (String($0.1), String($0.2)) }
        }
    }

    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func rows() throws -> [Row] {
        let page = try String(contentsOf: root.appending(path: "docs/mqtt-conformance.md"), encoding: .utf8)
        var version = ""
        return page.split(separator: "\n").compactMap { line in
            if line.hasPrefix("## MQTT ") { version = String(line.dropFirst("## MQTT ".count)) }
            let cells = line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
            guard cells.count == 3, cells[0].hasPrefix("MQTT-") else { return nil }
            return Row(version: version, statement: cells[0], shownBy: cells[2])
        }
    }

    static func sources() throws -> [String] {
        try ["BrokerTests", "MQTTTests"].flatMap { folder in
            let url = root.appending(path: "Tests/\(folder)")
            return try FileManager.default.contentsOfDirectory(at: url, includingPropertiesForKeys: nil)
                .filter { $0.pathExtension == "swift" }.map { try String(contentsOf: $0, encoding: .utf8) }
        }
    }

    @Test("has every statement of both standards once, each with a test or a reason")
    func isComplete() throws {
        let rows = try Self.rows()
        #expect(rows.count { $0.version == "5.0" } == 251)
        #expect(rows.count { $0.version == "3.1.1" } == 138)
        #expect(Set(rows.map(\.tag)).count == rows.count)
        #expect(rows.allSatisfy { !$0.shownBy.isEmpty })
    }

    @Test("names tests that are there and carry the statement's number")
    func namesTests() throws {
        let sources = try Self.sources()
        for row in try Self.rows() {
            for (suite, function) in row.tests {
                let isThere = sources.contains {
                    $0.contains(" \(suite) {") && $0.contains("func \(function)(") && $0.contains(row.tag)
                }
                #expect(isThere, "\(row.tag): \(suite).\(function)")
            }
        }
    }

    @Test("knows every number that a test carries")
    func knowsTags() throws {
        let known = Set(try Self.rows().map(\.tag))
        for source in try Self.sources() {
            for match in source.matches(of: /\[(3\.1\.1: )?MQTT-[0-9][0-9.\-]*\]/) {
                #expect(known.contains(String(match.output.0)))
            }
        }
    }
}
