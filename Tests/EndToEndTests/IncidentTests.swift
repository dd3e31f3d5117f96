internal import Foundation
internal import Testing

extension EndToEnd {
    @Suite struct Incident {
        private static let culprit = "convertToRpcCommandResponse"
        private static let leak = "[faults]\nrpcResponseLeakPercent = 100\n"

        @Test("at a small limit: the dumps of a leaking broker name the handler that forgets its buffer")
        func drill() async throws {
            // Two loops leave a chunk to each other.
            try await withBroker(limit: "134217728", configuration: "threads = 1\n" + Self.leak) { broker in
                try await broker.drive(
                    "--devices", "10", "--commands", "40", "--payload-size", "100000", "--chatter", "50")
                let before = try await broker.signalDump()
                let report = try await broker.drive(
                    "--devices", "50", "--payload-size", "100000", "--until-refused", "--chatter", "30", "--time-limit",
                    "90")
                #expect(report.refused)
                let near = try await broker.dump("near-limit")
                let end = try await broker.signalDump()

                let atTheEnd = try await summary(of: end.file)
                let beside = atTheEnd.counter_bytes - atTheEnd.chunk_bytes - atTheEnd.huge_bytes
                #expect(atTheEnd.chunk_count == (134_217_728 - beside) >> 24)
                #expect(atTheEnd.counter_bytes <= 134_217_728)
                #expect(atTheEnd.verdict.contains(Self.culprit))
                #expect(atTheEnd.sites.first?.last_access?.contains(Self.culprit) == true)
                if let unreachable = atTheEnd.unreachable_bytes {
                    #expect(unreachable > atTheEnd.live_bytes / 2)
                }

                #expect(try await analyze("sites", end.file.path()).contains(Self.culprit))
                let diff = try await analyze("diff", before.file.path(), near.file.path(), end.file.path())
                #expect(diff.contains(Self.culprit))

                // One excursion, one dump, although usage stayed beyond the level all the time.
                #expect(broker.writtenDumps.count { $0.reason == "near-limit" } == 1)
                #expect(try await summary(of: near.file).reason == "near-limit")
            }
        }

        @Test("the defect has one fingerprint for payloads of all sizes, wherever their buffers come from")
        func fingerprint() async throws {
            var findings: [Leaks.Suspect] = []
            for size in ["200", "20000", "400000"] {
                try await withBroker(limit: "134217728", configuration: "threads = 1\n" + Self.leak) { broker in
                    try await broker.drive(
                        "--devices", "5", "--commands", "20", "--payload-size", size, "--chatter", "0")
                    let dump = try await broker.signalDump()
                    let json = try await analyze("leaks", dump.file.path(), "--format", "json")
                    findings += try JSONDecoder().decode(Leaks.self, from: Data(json.utf8)).suspects
                }
            }
            #expect(Set(findings.map(\.fingerprint)).count == 1)
            #expect(Set(findings.map { "\($0.label) \($0.function)" }).count > 1)
            #expect(findings.allSatisfy { $0.confidence == "proved" })
        }

        @Test("with the fault off the same traffic leaves no suspect")
        func healthy() async throws {
            try await withBroker(limit: "134217728") { broker in
                let report = try await broker.drive(
                    "--devices", "50", "--commands", "3000", "--payload-size", "100000", "--chatter", "30")
                #expect(report.responses == 3000)
                let dump = try await broker.signalDump()
                let summary = try await summary(of: dump.file)
                #expect(!summary.verdict.contains(Self.culprit))
                #expect(summary.live_bytes < 16 << 20)
                #expect((summary.unreachable_bytes ?? 0) == 0)
                #expect(broker.writtenDumps.map(\.reason) == ["signal"])
            }
        }

        @Test("the fault is loud: the log says that it is on")
        func loudFault() async throws {
            try await withBroker(configuration: Self.leak) { broker in
                _ = try await broker.child.line("a warning about the fault") {
                    $0.contains("warning") && $0.contains("rpcResponseLeakPercent")
                }
            }
        }
    }
}
