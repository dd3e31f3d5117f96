import Analysis
import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import NettyHeap

/// Heap dumps have neither start time nor host, and in a container each process is number 1.
@Suite("Whether heap dumps are of one process", .mayBlock) struct SamenessTests {
    private func sameness(_ fixtures: Fixture...) throws -> ProcessSameness {
        ProcessSameness(try fixtures.map { try $0.read().snapshot })
    }

    @Test("the dumps of one run are of one process, proved by what only it has")
    func same() throws {
        let pooled = try sameness(.pooled4196Early, .pooled4196All, .pooled4196)
        #expect((pooled.verdict, pooled.grade) == (.same, .proved))
        #expect(pooled.reason.contains("the salt of the JVM's collections"))
        #expect(pooled.reason.contains("the address of the JVM's reference handler"))
        let adaptive = try sameness(.adaptiveEarly, .adaptive)
        #expect((adaptive.verdict, adaptive.grade) == (.same, .proved))
    }

    @Test(
        "two runs are two processes: of one program, with one Netty, without a process id as well",
        arguments: [
            (Fixture.leak41, Fixture.kept41, "the JVM's start time"), (.kept41, .clean41, "the JVM's start time"),
            (.pooled4168, .pooled4196, "the salt of the JVM's collections"),
        ])
    func different(left: Fixture, right: Fixture, reason: String) throws {
        var snapshots = [try left.read().snapshot, try right.read().snapshot]
        #expect(snapshots[0].header.program == snapshots[1].header.program)
        for index in snapshots.indices { snapshots[index].header.pid = 1 }
        let result = ProcessSameness(snapshots)
        #expect((result.verdict, result.grade) == (.different, .proved))
        #expect(result.reason == reason)
    }

    @Test("one different process among several is enough")
    func several() throws {
        #expect(try sameness(.pooled4196Early, .pooled4196, .pooled4168).verdict == .different)
        #expect(try sameness(.pooled4168, .pooled4196Early, .pooled4196).verdict == .different)
    }

    @Test("without any mark it cannot be known; with one it is likely; two that differ in one are two")
    func grades() throws {
        var (left, right) = (try Fixture.pooled4196Early.read().snapshot, try Fixture.pooled4196.read().snapshot)
        let marks = left.header.processMarks
        left.header.processMarks = Array(marks.prefix(1))
        #expect(ProcessSameness([left, right]).grade == .likely)
        left.header.processMarks = []
        let unknown = ProcessSameness([left, right])
        #expect((unknown.verdict, unknown.grade) == (.unknown, .cannotSay))
        left.header.processMarks = marks
        left.header.processMarks[1].value += 1
        #expect(ProcessSameness([left, right]).verdict == .different)
        // What others on the host have as well says nothing by being the same.
        left.header.processMarks = [.init(.shared, "the machine", 7)]
        right.header.processMarks = [.init(.shared, "the machine", 7)]
        #expect(ProcessSameness([left, right]).verdict == .unknown)
        right.header.processMarks[0].value = 8
        #expect(ProcessSameness([left, right]).verdict == .different)
        (left.header.processMarks, right.header.processMarks) = ([], [])
        right.header.program = "Other"
        let programs = ProcessSameness([left, right])
        #expect((programs.verdict, programs.grade) == (.different, .likely))
        (left.header.pid, right.header.pid) = (17, 18)
        #expect(ProcessSameness([left, right]).grade == .proved)
    }

    @Test("diff says which it is, and compares two processes by site, not by buffer")
    func words() throws {
        let same = try Program.run("diff", Fixture.pooled4196Early.path, Fixture.pooled4196.path)
        #expect(same.words.contains("process one, proved by the salt of the JVM's collections and"))
        #expect(same.words.contains("survived"))
        let other = try Program.run("diff", Fixture.kept41.path, Fixture.leak41.path)
        #expect(other.status == 0)
        #expect(other.words.contains("Two different processes (by"))
        #expect(other.words.contains("compared by site, not by buffer"))
        #expect(!other.words.contains("survived 6"))
        let json = try Program.run("diff", "--format", "json", Fixture.pooled4168.path, Fixture.pooled4196.path)
        let object = try #require(try JSONSerialization.jsonObject(with: json.output) as? [String: Any])
        #expect(object["same_process"] as? Bool == false)
        #expect(object["same_process_grade"] as? String == "proved")
        #expect(object["born_buffers"] == nil || object["born_buffers"] is NSNull)
    }

    @Test("redacted copies are still known to be of one process")
    func copies() throws {
        try withFolder { folder in
            for (name, fixture) in [("early", Fixture.pooled4196Early), ("late", .pooled4196), ("other", .pooled4168)] {
                let outcome = try Program.run("redact", "-o", "\(folder)/\(name).zst", fixture.path)
                #expect(outcome.status == 0, "\(outcome.errors)")
            }
            #expect(
                try Program.run("diff", folder + "/early.zst", folder + "/late.zst").words.contains(
                    "process one, proved"))
            #expect(
                try Program.run("diff", folder + "/other.zst", folder + "/late.zst").words.contains("Two different"))
        }
    }
}
