import DumpFormat
import Foundation
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("docs/json.md", .mayBlock)
struct JSONFieldTests {
    private static let page: String = {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        return (try? String(contentsOf: root.appendingPathComponent("docs/json.md"), encoding: .utf8)) ?? ""
    }()

    /// The text of one command's heading, and the envelope's.
    private func section(_ command: String) -> String {
        let sections = Self.page.components(separatedBy: "\n## ")
        return sections.filter { $0.hasPrefix(command + "\n") || $0.hasPrefix("The envelope") }.joined()
    }

    private func names(_ value: JSONValue, into names: inout Set<String>) {
        switch value {
        case .object(let members):
            for member in members {
                names.insert(member.name)
                self.names(member.value, into: &names)
            }
        case .array(let elements): for element in elements { self.names(element, into: &names) }
        default: break
        }
    }

    @Test("every field of every command is on the page")
    func documented() throws {
        var random = SeededGenerator(seed: 7)
        let arena = RandomArena.make(&random)
        let serial = BufferName.serial(arena.slots!.serial[0])
        var question = ChunkQuestion()
        question.ifFreed = try Filter("size > 0")
        question.request = 4_096
        let leaks = LeakSearch([Fixture.leak()], suppressions: try Suppressions(text: "kind = growth"))
        let reports: [Report?] = [
            .summary(of: arena), .summary(of: Fixture.leak()), .histogram(of: arena, by: .owner),
            .buffers(of: arena, limit: 3), .show(serial, in: arena), .path(to: serial, in: arena),
            .show(.serial(7), in: BufferTests.pair()), .path(to: .serial(7), in: BufferTests.pair()),
            .dominators(of: arena), .chunks(of: arena, question), .chunks(of: Fixture.consistent()), leaks.report,
        ]
        for report in reports {
            let report = try #require(report)
            var used: Set<String> = []
            names(JSONRenderer(toolVersion: "0").value(of: report), into: &used)
            let text = section(report.command)
            for name in used where !name.hasSuffix("_omitted") {
                #expect(text.contains("`\(name)`"), "\(report.command): \(name)")
            }
        }
    }
}
