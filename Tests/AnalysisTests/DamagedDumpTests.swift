import DumpFormat
import Foundation
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("Questions to damaged dumps", .mayBlock)
struct DamagedDumpTests {
    /// Every question that reads buffers, and its answer shown: a trap anywhere ends the test.
    private func askEverything(_ snapshot: Snapshot) throws {
        let filter = try Filter(
            "not unreachable and (age > 1s or under ~ o or client ~ o or site ~ publish) and chunk >= 0")
        var reports: [Report?] = [
            .summary(of: snapshot), .buffers(of: snapshot, limit: 5, where: filter),
            .dominators(of: snapshot), .dominators(of: snapshot, siblings: nil, where: filter),
            .show(.serial(7), in: snapshot), .path(to: .address(0), in: snapshot),
        ]
        for grouping in Grouping.allCases {
            reports.append(.histogram(of: snapshot, by: grouping, where: filter))
            var question = ChunkQuestion()
            question.pinners = grouping
            question.ifFreed = filter
            question.request = 5_000
            reports.append(.chunks(of: snapshot, question))
        }
        var leaks = LeakSearch([snapshot, snapshot], baseline: snapshot)
        leaks.addDetails(from: snapshot)
        reports.append(leaks.report)
        if let narrowed = snapshot.narrowed(to: filter) { reports.append(.sites(of: narrowed)) }
        for report in reports {
            guard let report else { continue }
            _ = TextRenderer(width: 90).render(report)
            _ = JSONRenderer(toolVersion: "0").render(report)
        }
    }

    @Test("a torn or changed file gives an answer or an error")
    func files() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        try withTemporaryDirectory { folder in
            let file = try DumpFile.create(directory: folder.path, name: "whole.dump.zst")
            try DumpWriter(sink: file.sink).write(RandomArena.make(&random))
            let bytes = try Data(contentsOf: URL(fileURLWithPath: try file.commit()))
            let damaged = folder.appendingPathComponent("damaged.dump.zst")
            for turn in 0..<120 {
                var copy = bytes
                if turn % 2 == 0 {
                    copy = bytes.prefix(.random(in: 0...bytes.count, using: &random))
                } else {
                    copy[.random(in: 0..<bytes.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                }
                try copy.write(to: damaged)
                guard let snapshot = try? DumpReader.read(path: damaged.path, .everything) else { continue }
                try askEverything(snapshot)
            }
        }
    }

    @Test("numbers that lead nowhere are answered with unknown")
    func numbers() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<40 {
            var snapshot = RandomArena.make(&random)
            func wild() -> UInt64 { Bool.random(using: &random) ? .max : .random(in: 0...99, using: &random) }
            for row in 0..<snapshot.slots!.count where Bool.random(using: &random) {
                snapshot.slots!.site[row] = UInt32(truncatingIfNeeded: wild())
                snapshot.slots!.accessSite[row] = UInt32(truncatingIfNeeded: wild())
                snapshot.slots!.owner[row] = UInt32(truncatingIfNeeded: wild())
                snapshot.slots!.arena[row] = UInt16(truncatingIfNeeded: wild())
                snapshot.slots!.sizeClass[row] = UInt16(truncatingIfNeeded: wild())
                snapshot.slots!.address[row] = wild()
                snapshot.slots!.capacity[row] = wild()
                snapshot.slots!.birth[row] = wild()
                snapshot.slots!.state[row] = UInt8(truncatingIfNeeded: wild())
            }
            for reference in snapshot.references!.slotRow.indices where Bool.random(using: &random) {
                snapshot.references!.slotRow[reference] = UInt32(truncatingIfNeeded: wild())
                snapshot.references!.referrerOwner[reference] = UInt32(truncatingIfNeeded: wild())
                snapshot.references!.referrerKind[reference] = UInt8(truncatingIfNeeded: wild())
            }
            for run in 0..<snapshot.runs!.count where Bool.random(using: &random) {
                snapshot.runs!.pages[run] = UInt16(truncatingIfNeeded: wild())
                snapshot.runs!.chunk[run] = UInt32(truncatingIfNeeded: wild())
                snapshot.runs!.sizeClass[run] = UInt16(truncatingIfNeeded: wild())
                snapshot.runs!.liveElements[run] = UInt16(truncatingIfNeeded: wild())
            }
            for chunk in snapshot.chunks.indices where Bool.random(using: &random) {
                snapshot.chunks[chunk].index = UInt32(truncatingIfNeeded: wild())
                snapshot.chunks[chunk].bytes = wild()
                snapshot.chunks[chunk].liveBytes = wild()
            }
            for owner in snapshot.owners.indices where Bool.random(using: &random) {
                snapshot.owners[owner].parent = UInt32(truncatingIfNeeded: wild())
            }
            if Bool.random(using: &random) { snapshot.totals.chunkSize = wild() }
            if Bool.random(using: &random) { snapshot.totals.pageSize = wild() }
            if Bool.random(using: &random) { snapshot.totals.liveBytes = wild() }
            try askEverything(snapshot)
            try Self.expectAgreement(try #require(snapshot.narrowed(to: try Filter("size >= 0"))), "seed \(seed)")
        }
    }

    @Test("chunks answers where an address is the last that there is, and a chunk a byte")
    func lastAddress() throws {
        var random = SeededGenerator(seed: 1)
        var snapshot = RandomArena.make(&random)
        snapshot.totals.chunkSize = 1
        for row in 0..<snapshot.slots!.count { snapshot.slots!.address[row] = row % 3 == 0 ? .max : UInt64(row % 5) }
        try askEverything(snapshot)
    }

    /// Under a filter too, a site has what its allocation groups have.
    private static func expectAgreement(_ narrowed: Snapshot, _ comment: Comment) throws {
        for (id, site) in narrowed.sites.enumerated() {
            let allocationGroups = narrowed.allocationGroups.filter { $0.site == id }
            #expect(site.liveBuffers == allocationGroups.reduce(0) { $0 + $1.liveBuffers }, comment)
            #expect(site.liveBytes == allocationGroups.reduce(0) { $0 &+ $1.liveBytes }, comment)
        }
        let slots = try #require(narrowed.slots)
        #expect(narrowed.allocationGroups.reduce(0) { $0 + $1.liveBuffers } == UInt64(slots.count), comment)
        #expect(narrowed.owners.reduce(0) { $0 + $1.liveBuffers } == UInt64(slots.count), comment)
    }
}
