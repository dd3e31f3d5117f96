import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("The verdict on one dump", .mayBlock)
struct VerdictTests {
    static let healthy: [(String, Snapshot)] = [
        ("many connections", Fixture.manyConnections()),
        ("many connections, no references", Fixture.manyConnections(hasReferences: false)),
        ("deep queues", Fixture.deepQueues()),
        ("deep queues, no references", Fixture.deepQueues(hasReferences: false)),
        ("big retained messages", Fixture.bigRetained()),
        ("big retained messages, no references", Fixture.bigRetained(hasReferences: false)),
    ]

    @Test("a healthy broker has no suspect, however full it is", arguments: healthy.indices)
    func healthyShapes(index: Int) {
        let (name, snapshot) = Self.healthy[index]
        let sentence = Diagnosis(snapshot).sentence
        #expect(sentence.hasPrefix("No suspect: "), "\(name): \(sentence)")
    }

    @Test("a healthy verdict says where the memory is")
    func whereItIs() {
        #expect(
            Diagnosis(Fixture.deepQueues()).sentence
                == "No suspect: every live buffer is reachable; 100.0 % of live bytes (976.6 MiB) belong to offline queues."
        )
    }

    @Test("little is too small to judge only where nothing tells who holds it")
    func tooSmall() {
        #expect(
            Diagnosis(Fixture.nearlyEmpty(hasReferences: false)).sentence
                == "Too small to judge without references: 12 live buffers, 24 KiB.")
        #expect(
            Diagnosis(Fixture.nearlyEmpty()).sentence
                == "No suspect: every live buffer is reachable; 100.0 % of live bytes (24 KiB) belong to connections.")
        var nothing = Fixture.empty()
        Fixture.fill(&nothing, chunks: 1, hasReferences: true)
        #expect(Diagnosis(nothing).sentence == "No suspect: there is no live buffer.")
        #expect(Diagnosis(nothing).confidence == "none")
    }

    @Test("unreachable buffers prove the leak, and who accessed them last")
    func provedLeak() {
        let diagnosis = Diagnosis(Fixture.leak())
        #expect(diagnosis.confidence == "proved")
        #expect(diagnosis.suspect?.site == Fixture.publish)
        #expect(diagnosis.suspect?.access == Fixture.convert)
    }

    @Test("without references, survivors beyond the site's own lifetimes make it likely")
    func likelyLeak() {
        let diagnosis = Diagnosis(Fixture.leak(hasReferences: false))
        #expect(diagnosis.confidence == "likely")
        #expect(diagnosis.suspect?.access == Fixture.convert)
        #expect(diagnosis.sentence.hasSuffix("lived under 8.4 ms: a leak there is likely."))
    }

    @Test("without references, young buffers are not suspected")
    func youngBuffers() {
        var snapshot = Fixture.leak(hasReferences: false)
        for index in snapshot.allocationGroups.indices {
            snapshot.allocationGroups[index].oldestBirth = snapshot.header.monotonicTime - 59 * Fixture.second
        }
        #expect(Diagnosis(snapshot).confidence == "none")
    }

    @Test("a rate that explains as many live buffers clears the site")
    func explainedByRate() {
        var snapshot = Fixture.leak(hasReferences: false)
        // 73 a second, which live under 137 s: Little's law expects 10,000 of them.
        snapshot.sites[Int(Fixture.publish)].lifetimes = Fixture.histogram([36: 19_984_763])
        #expect(Diagnosis(snapshot).confidence == "none")
    }

    @Test("a site that never freed anything is possible only near the limit")
    func neverFreed() {
        var snapshot = Fixture.leak(hasReferences: false)
        snapshot.sites[Int(Fixture.publish)].lifetimes = Fixture.histogram([:])
        snapshot.sites[Int(Fixture.publish)].frees = 0
        #expect(Diagnosis(snapshot).confidence == "possible")
        snapshot.totals.limitBytes *= 2
        #expect(Diagnosis(snapshot).confidence == "none")
    }

    @Test("a few unreachable buffers are a leak, and a minor one")
    func fewUnreachable() {
        let diagnosis = Diagnosis(LeakTests.fewLost())
        #expect(diagnosis.confidence == "proved" && diagnosis.suspectImportance == .minor)
        #expect(
            diagnosis.sentence.hasPrefix(
                "convertToRpcCommandResponse was the last to access 3 of 1,000,003 live buffers (12 KiB, < 0.1 % of live"
            ))
        #expect(diagnosis.sentence.hasSuffix("referrers reach none of them: this is a leak, minor so far."))
        #expect(Diagnosis(Fixture.leak()).suspectImportance == .major)
        // Most of what the place has is held: the figures say which is which.
        var mixed = LeakTests.fewLost()
        mixed.allocationGroups[0].accessSite = Fixture.convert
        #expect(
            Diagnosis(mixed).sentence.contains("referrers do not reach 3 of these 1,000,003 (12 KiB): this is a leak"))
        #expect(Diagnosis(mixed).suspectAmount == Amount(buffers: 3, bytes: 12_288))
    }

    @Test("a dump that lost its allocation groups cannot be judged, and does not pretend")
    func tornTables() {
        var snapshot = Fixture.leak()
        snapshot.allocationGroups = []
        #expect(Diagnosis(snapshot).sentence.hasPrefix("Cannot say who holds the "))
    }

    @Test("ids that point nowhere are shown as unknown")
    func danglingIDs() {
        var snapshot = Fixture.leak()
        snapshot.sites = []
        snapshot.owners = [Fixture.owner(.process, "", parent: 77), Fixture.owner(.session, "s", parent: 9_999)]
        let text = TextRenderer(width: 100).render(.summary(of: snapshot))
        #expect(text.contains("allocated at \"unknown\""))
        #expect(TextRenderer().render(.owners(of: snapshot)).contains("process"))
        #expect(!TextRenderer().render(.sites(of: snapshot)).isEmpty)
    }

    @Test("lifetimes are read as upper bounds of their buckets")
    func lifetimes() {
        var site = Snapshot.Site()
        #expect(Lifetimes(site).bound(share: 0.5) == nil)
        site.lifetimes = Fixture.histogram([0: 50, 10: 49, 40: 1])
        #expect(Lifetimes(site).bound(share: 0.5) == 2)
        #expect(Lifetimes(site).bound(share: 0.99) == 2_048)
        #expect(Lifetimes(site).bound(share: 0.999) == 1 << 41)
        #expect(Lifetimes(site).longest == 1 << 41)
    }
}

@Suite("The owner tree", .mayBlock)
struct OwnerTreeTests {
    @Test("a subtree's total is the sum of what hangs below, whatever the parents are")
    func subtreesAddUp() {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<50 {
            var snapshot = Fixture.empty()
            for index in 0..<Int.random(in: 1..<60, using: &generator) {
                // Any parent at all: forward, backward, itself, one that is not there.
                var owner = Fixture.owner(.session, "s\(index)", parent: .random(in: 0..<70, using: &generator))
                owner.kind = Bool.random(using: &generator) ? .session : .free
                owner.liveBuffers = .random(in: 0..<5, using: &generator)
                owner.liveBytes = owner.liveBuffers * 1_024
                snapshot.owners.append(owner)
            }
            let tree = OwnerTree(snapshot)
            let used = snapshot.owners.filter { $0.kind != .free }
            let total = tree.rootIDs.reduce(0) { $0 + tree.bytes[Int($1)] }
            #expect(total == used.reduce(0) { $0 + $1.liveBytes }, "seed \(seed)")
        }
    }
}
