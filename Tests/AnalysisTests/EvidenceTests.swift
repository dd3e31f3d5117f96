import DumpFormat
import Ledger
import TestSupport
import Testing

@testable import Analysis

/// What a conclusion from absence is worth, by the premises that a dump lacks.
@Suite("Evidence") struct EvidenceTests {
    /// A dump of the incident, without one premise.
    enum Lack: String, CaseIterable {
        case loop, end, section, references, recorder, foreign

        func apply(to snapshot: inout Snapshot) {
            switch self {
            case .loop:
                var loop = Snapshot.MissingLoop()
                loop.name = "loop-2"
                snapshot.missingLoops = [loop]
            case .end: snapshot.completeness.problems = ["the file ends inside a frame"]
            case .section: snapshot.completeness.sectionsMissing = ["slots"]
            case .references: (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (nil, nil)
            case .recorder:
                snapshot.header.reason = "flight-recorder"
                (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (nil, nil)
            case .foreign: snapshot.missingPremises = [.init(.allReferrers, "nobody asked")]
            }
        }
    }

    private func texts(_ snapshot: Snapshot) -> [String] {
        let search = LeakSearch([snapshot])
        return [
            TextRenderer(width: 100).render(.summary(of: snapshot)), TextRenderer(width: 100).render(search.report),
            JSONRenderer(toolVersion: "0").render(.summary(of: snapshot)),
            JSONRenderer(toolVersion: "0").render(search.report),
            ReportPage([("a", snapshot)], toolVersion: "0").html,
        ].map { $0.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
    }

    @Test("with all premises the leak is proved")
    func whole() {
        let diagnosis = Diagnosis(Fixture.leak())
        #expect(diagnosis.grade.level == .proved)
        #expect(diagnosis.grade.reason.isEmpty && diagnosis.grade.missing.isEmpty)
        #expect(texts(Fixture.leak()).allSatisfy { $0.contains("proved") || $0.contains("this is a leak") })
    }

    @Test(
        "without any one of them nothing says that it is proved, and each answer says what is missing",
        arguments: Lack.allCases)
    func lacking(lack: Lack) {
        var snapshot = Fixture.leak(hasReferences: lack != .references)
        lack.apply(to: &snapshot)
        let grade = Diagnosis(snapshot).grade
        #expect(grade.level == .likely)
        #expect(!grade.reason.isEmpty)
        for text in texts(snapshot) {
            let claims = text.replacing("not proved", with: "").replacing("proved,", with: "")
            #expect(!claims.contains("proved"), "\(lack): \(text)")
            #expect(!text.contains("this is a leak"), "\(lack)")
        }
        let json = texts(snapshot)[2]
        #expect(json.contains("\"evidence\": \"likely\""))
        #expect(json.contains("\"leak\": \"likely\""))
    }

    @Test("that there is no leak is said with what is missing too", arguments: Lack.allCases)
    func lackingWithoutLeak(lack: Lack) {
        var snapshot = Fixture.deepQueues()
        #expect(Diagnosis(snapshot).grade.level == .proved)
        lack.apply(to: &snapshot)
        let diagnosis = Diagnosis(snapshot)
        #expect(diagnosis.confidence == "none" && diagnosis.grade.level == .likely)
        #expect(diagnosis.sentence.hasPrefix("No suspect: "))
        let reservation = " Not proved, because \(diagnosis.grade.reason)."
        // Without references nothing is concluded from absence.
        #expect(diagnosis.sentence.hasSuffix(reservation) == (snapshot.totals.unreachableBuffers != nil))
    }

    @Test("of a heap dump that could not be read to its end nothing can be said")
    func tornHeapDump() throws {
        var snapshot = Fixture.leak()
        snapshot.header.format = .nettyHeapDump
        snapshot.completeness.problems = ["at byte 9: the file ends inside a record"]
        let diagnosis = Diagnosis(snapshot)
        #expect(diagnosis.grade.level == .cannotSay)
        #expect(diagnosis.confidence == "unknown")
        #expect(diagnosis.sentence.hasPrefix("Cannot say: "))
        #expect(diagnosis.sentence.contains("at byte 9: the file ends inside a record"))
        let search = LeakSearch([snapshot, snapshot])
        #expect(!search.hasSuspects)
        #expect(try Condition("suspects > 0").outcome(search.figures) == .undecided(["suspects"]))
        #expect(try Condition("unreachable = 0").outcome(search.figures) == .undecided(["unreachable"]))
        #expect(texts(snapshot).allSatisfy { !$0.contains("proved") })
    }

    @Test("where much may be held by those who were not asked, there is no verdict")
    func unjudged() throws {
        var snapshot = Fixture.deepQueues()
        Lack.loop.apply(to: &snapshot)
        snapshot.header.unjudgedBuffers = 4
        snapshot.header.unjudgedBytes = 16_384
        #expect(Diagnosis(snapshot).confidence == "none")
        snapshot.header.unjudgedBuffers = 40_000
        snapshot.header.unjudgedBytes = 40_960_000
        let diagnosis = Diagnosis(snapshot)
        #expect(diagnosis.confidence == "unknown")
        #expect(diagnosis.grade.level == .cannotSay)
        #expect(diagnosis.sentence.hasPrefix("Cannot say: nobody who was asked holds 40,000 of 1,000,000 live buffers"))
        #expect(diagnosis.sentence.contains("loop 2 did not come to the safepoint"))
        #expect(try Condition("unreachable > 0").outcome(.init(snapshot)) == .undecided(["unreachable"]))
        // Few or many: each of them may be a finding.
        for buffers in [UInt64(4), 40_000] {
            snapshot.header.unjudgedBuffers = buffers
            let figures = LeakSearch([snapshot]).figures
            for term in ["unreachable", "suspects", "suspect.bytes", "major"] {
                #expect(try Condition("\(term) > 0").outcome(figures) == .undecided([term]), "\(term)")
            }
            #expect(try Condition("proved > 0").outcome(figures) == .doesNotHold)
        }
    }

    @Test("few buffers of a heap dump may be under way: likely a leak, and no less so where there are many")
    func underWay() throws {
        var snapshot = LeakTests.fewLost()
        snapshot.header.format = .nettyHeapDump
        snapshot.header.threadCount = 8
        let diagnosis = Diagnosis(snapshot)
        #expect(diagnosis.confidence == "likely" && diagnosis.suspectImportance == .minor)
        #expect(diagnosis.grade.missing.map(\.premise) == [.nothingUnderWay])
        #expect(diagnosis.sentence.contains("a leak, minor so far, is likely, and not proved, because so few may be"))
        let figures = LeakSearch([snapshot]).figures
        #expect(try Condition("unreachable > 0 and suspects > 0 and proved = 0").holds(figures))
        // More than threads can be at.
        snapshot.header.threadCount = 2
        #expect(Diagnosis(snapshot).confidence == "proved")
        #expect(Diagnosis(snapshot).suspectImportance == .minor)
        // What nothing referred to at that moment is not in doubt.
        snapshot.header.threadCount = 8
        #expect(EvidenceGrade(snapshot, for: .unreachable).level == .proved)
    }

    @Test("show and dominators claim no more than the verdict does", arguments: Lack.allCases)
    func oneBuffer(lack: Lack) throws {
        var snapshot = BufferTests.pair()
        func texts() throws -> [String] {
            [
                TextRenderer(width: 900).render(try #require(Report.show(.serial(263), in: snapshot))),
                TextRenderer(width: 900).render(try #require(Report.dominators(of: snapshot))),
            ]
        }
        #expect(try texts()[0].contains("No referrer reaches it: it is lost"))
        #expect(try texts()[1].contains("no referrer reaches them: lost"))
        lack.apply(to: &snapshot)
        #expect(try texts()[0].contains("as it seems; not proved, because "))
        #expect(try texts()[1].contains("no referrer reaches them: likely lost"))
    }

    @Test("missing premises of a heap dump are kept in a redacted copy")
    func kept() throws {
        var snapshot = Fixture.leak()
        snapshot.header.format = .nettyHeapDump
        snapshot.missingPremises = [.init(.allReferrers, "the dump lacks the stacks of 50 virtual threads")]
        let copy = Redaction(Pseudonyms()).apply(to: snapshot)
        try withFolder { folder in
            let read = try DumpReader.read(path: try Program.write(copy, to: folder, as: "copy.dump.zst"))
            #expect(read.missingPremises == snapshot.missingPremises)
            #expect(Diagnosis(read).confidence == "likely")
        }
    }
}
