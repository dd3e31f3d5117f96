import Analysis
import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import Broker

/// The dump of a real broker with sessions, retained messages and a queue, read from memory: thousands of damaged
/// copies of it are looked at.
@Suite("a damaged dump of a broker gives a summary, or a reason", .mayBlock)
struct TornDumpTests {
    private func withDump(_ body: ([UInt8], Snapshot) throws -> Void) async throws {
        try await withBroker { broker in
            let result = try #require(broker.dumper.dump(.request))
            let bytes = [UInt8](try Data(contentsOf: URL(filePath: result.path)))
            try body(bytes, try DumpReader.read(bytes: bytes, name: "whole", .everything))
        }
    }

    /// The summary of what can be read; nil where nothing can, for a reason a person understands.
    private func summary(_ bytes: [UInt8], _ what: String) -> (snapshot: Snapshot, text: String)? {
        do throws(DumpError) {
            let snapshot = try DumpReader.read(bytes: bytes, name: what, parallelism: 1)
            return (snapshot, TextRenderer().render(.summary(of: snapshot)))
        } catch {
            #expect([.damaged, .notADump].contains(error.kind), "\(what): \(error)")
            #expect(!error.message.isEmpty)
            return nil
        }
    }

    @Test("cut at every byte", arguments: 0..<2)
    func cuts(part: Int) async throws {
        try await withDump { bytes, whole in
            var answers = 0
            for length in stride(from: part, to: bytes.count, by: 2) {
                guard let (snapshot, text) = summary(Array(bytes[..<length]), "cut at \(length)") else { continue }
                answers += 1
                #expect(snapshot.totals == whole.totals, "cut at \(length)")
                #expect(!snapshot.completeness.isComplete, "cut at \(length)")
                #expect(!text.isEmpty)
            }
            #expect(answers > bytes.count / 8)
        }
    }

    @Test("with every byte inverted, one after the other", arguments: 0..<2)
    func flips(part: Int) async throws {
        try await withDump { bytes, whole in
            // As it is read below: small tables only.
            var tables = whole
            (tables.runs, tables.slots, tables.references) = (nil, nil, nil)
            let expected = TextRenderer().render(.summary(of: tables))
            for offset in stride(from: part, to: bytes.count, by: 2) {
                var damaged = bytes
                damaged[offset] ^= 0xFF
                guard let (snapshot, text) = summary(damaged, "byte \(offset)") else { continue }
                // Where the damage is in what a summary does not read, its answer is the whole one.
                if snapshot.completeness.isComplete { #expect(text == expected, "byte \(offset)") }
            }
        }
    }
}
