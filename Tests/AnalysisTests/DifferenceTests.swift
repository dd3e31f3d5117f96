import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("What grew between dumps", .mayBlock)
struct DifferenceTests {
    @Test("born, freed and survived are what comparing sets of serials says")
    func arithmetic() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<30 {
            func buffers(_ serials: Range<UInt64>) -> [Fixture.Buffer] {
                serials.filter { _ in Bool.random(using: &generator) }.shuffled(using: &generator).map { serial in
                    // Everything but touch and owner is fixed at birth.
                    Fixture.Buffer(
                        serial: serial * 0x1_0001, site: UInt32(serial % 5) + 1,
                        access: .random(in: 0..<Fixture.siteCount, using: &generator),
                        owner: .random(in: 0..<4, using: &generator), bytes: 64 << (serial % 7))
                }
            }
            let before = buffers(0..<300)
            let after = buffers(100..<500)
            let snapshots = [before, after].enumerated().map { index, buffers in
                var snapshot = Fixture.snapshot(
                    of: buffers, secondsAfterNoon: UInt64(index) * 60, chunks: 10, ownerKind: .session)
                snapshot.owners += ["device-1", "device-2"].map { Fixture.owner(.session, $0, parent: 1) }
                // Between the snapshots device-2 went, and its id was given to another.
                snapshot.owners[3].createdTime += UInt64(index)
                return snapshot
            }
            let difference = Difference(snapshots)
            let overall = try #require(difference.overall)

            func amount(_ buffers: [Fixture.Buffer]) -> Amount {
                Amount(buffers: UInt64(buffers.count), bytes: buffers.reduce(0) { $0 + $1.bytes })
            }
            func expected(_ isIn: (Fixture.Buffer) -> Bool) -> Turnover {
                let old = Set(before.map(\.serial))
                let new = Set(after.map(\.serial))
                return Turnover(
                    born: amount(after.filter { !old.contains($0.serial) && isIn($0) }),
                    freed: amount(before.filter { !new.contains($0.serial) && isIn($0) }),
                    survived: amount(after.filter { old.contains($0.serial) && isIn($0) }))
            }
            #expect(overall.total == expected { _ in true }, "seed \(seed)")
            for owner in UInt32(0)..<3 {
                let entry = difference.owners.entry(owner, in: 1)
                #expect(difference.owners.entry(owner, in: 0) == entry)
                #expect(overall.byOwner[entry] == expected { $0.owner == owner }, "seed \(seed), owner \(owner)")
            }
            let reused = expected { $0.owner == 3 }
            #expect(overall.byOwner[difference.owners.entry(3, in: 0)] == Turnover(freed: reused.freed))
            #expect(
                overall.byOwner[difference.owners.entry(3, in: 1)]
                    == Turnover(born: reused.born, survived: reused.survived))
            for site in 0..<Fixture.siteCount {
                let entry = difference.sites.entry(site, in: 0)
                #expect(overall.bySite[entry] == expected { $0.site == site }, "seed \(seed), site \(site)")
                for access in 0..<Fixture.siteCount {
                    let key = SlotDifference.pairKey(entry, difference.sites.entry(access, in: 0))
                    let turnover = overall.byPair[key] ?? Turnover()
                    #expect(turnover == expected { $0.site == site && $0.access == access }, "seed \(seed)")
                }
            }
        }
    }

    @Test("block by block from files the comparison is that of tables in memory")
    func blocks() throws {
        try withFolder { folder in
            let snapshots = [UInt64(0), 60].map { second in
                let buffers = (0..<140_000 as Range<UInt64>).map { number in
                    Fixture.Buffer(
                        serial: (number + 500 * second) * 7919 % 1_000_003, site: UInt32(number % 5) + 1,
                        access: UInt32(number % 3), owner: UInt32(number % 2) + 1, bytes: 64 << (number % 7))
                }
                var snapshot = Fixture.snapshot(of: buffers, secondsAfterNoon: second, chunks: 10, ownerKind: .session)
                snapshot.owners.append(Fixture.owner(.session, "device-1", parent: 1))
                return snapshot
            }
            let rows = try snapshots.enumerated().map { index, snapshot in
                let path = try Program.write(snapshot, to: folder, as: "\(index).dump.zst")
                let blocks = try DumpBlocks(path: path)
                return SlotRows(try #require(blocks))
            }
            let inMemory = try #require(Difference(snapshots).overall)
            let inBlocks = try #require(Difference(snapshots, rows: rows).overall)
            #expect(inBlocks.total == inMemory.total)
            #expect(inBlocks.bySite == inMemory.bySite)
            #expect(inBlocks.byOwner == inMemory.byOwner)
            #expect(inBlocks.byPair == inMemory.byPair)
            let (old, new) = (Set(snapshots[0].slots!.serial), Set(snapshots[1].slots!.serial))
            #expect(inBlocks.total.survived.buffers == UInt64(old.intersection(new).count))
            #expect(inBlocks.total.born.buffers == UInt64(new.subtracting(old).count))
            #expect(inBlocks.total.born.buffers > 10_000 && inBlocks.total.survived.buffers > 10_000)
            #expect(rows.map(\.isDamaged) == [false, false])
        }
    }

    @Test("a steady leak is named, with the time it leaves")
    func timeToLimit() {
        let snapshots = [UInt64(60), 120].map { Fixture.growing(secondsAfterNoon: $0) }
        let difference = Difference(snapshots)
        // 100 buffers a second of 16 KiB.
        #expect(difference.growth.bytesPerSecond == 1_638_400)
        let totals = snapshots[1].totals
        let headroom = totals.limitBytes - totals.ledgerBytes - totals.liveBytes
        #expect(difference.growth.headroom == headroom)
        #expect(difference.growth.nanosecondsToLimit == UInt64(Double(headroom) / 1_638_400 * 1e9))
        #expect(difference.suspect?.bytesChange == Int64(98_304_000))
        #expect(difference.sites.names[difference.suspect?.access ?? 0].label == "convertToRpcCommandResponse")
    }

    @Test("memory that shrinks or stands still has no deadline")
    func noDeadline() {
        let shrinking = Growth(
            [UInt64(120), 60].map { seconds in
                var snapshot = Fixture.growing(secondsAfterNoon: seconds)
                snapshot.header.wallTime = Fixture.noon + (180 - seconds) * Fixture.second
                return snapshot
            })
        #expect(shrinking.bytesPerSecond == -1_638_400)
        #expect(shrinking.nanosecondsToLimit == nil)
        let still = Fixture.growing(secondsAfterNoon: 60)
        #expect(Growth([still, still]).nanosecondsToLimit == nil)
    }

    /// Dumps that many seconds after noon, each with as much as the leak of so many seconds.
    private static func dumps(_ steps: [(seconds: UInt64, leaked: UInt64)]) -> [Snapshot] {
        steps.map { step in
            var snapshot = Fixture.growing(secondsAfterNoon: step.leaked)
            snapshot.header.wallTime = Fixture.noon + step.seconds * Fixture.second
            return snapshot
        }
    }

    @Test("a rate is what changed over the time it took, the same for all who say it")
    func rates() throws {
        let snapshots = Self.dumps([(10, 10), (20, 40), (50, 45), (60, 80)])
        let growth = Growth(snapshots)
        #expect(growth.bytesPerSecond == Double(70 * 1_638_400) / 50)
        #expect(growth.lastStepBytesPerSecond == Double(35 * 1_638_400) / 10)
        let json = JSONRenderer(toolVersion: "0").value(of: .difference(of: snapshots))
        #expect(json["growth_bytes_per_second"] == .double(growth.bytesPerSecond))
        #expect(json["last_step_bytes_per_second"] == .double(growth.lastStepBytesPerSecond))
        guard case .array(let steps)? = json["steps"] else { return #expect(Bool(false), "no steps") }
        #expect(steps.last?["growth_bytes_per_second"] == .double(growth.lastStepBytesPerSecond))
        // As `leaks` has it of the same dumps.
        let finding = try #require(Findings([snapshots[0], snapshots[3]]).findings.first)
        #expect(finding.growth?.bytesPerSecond == growth.bytesPerSecond)
    }

    @Test("what is to come is told from the last step")
    func forecast() {
        let speedsUp = Self.dumps([(0, 10), (50, 20), (60, 40)])
        let growth = Growth(speedsUp)
        #expect(growth.nanosecondsToLimit == UInt64(Double(growth.headroom) / (2 * 1_638_400) * 1e9))
        #expect(
            TextRenderer(width: 200).render(.difference(of: speedsUp)).contains(
                "growth   800 KiB/s; at the last step's 3.1 MiB/s the limit is reached in "))
        // It grew, and then it shrank.
        let isOver = Self.dumps([(0, 10), (50, 60), (60, 50)])
        #expect(Growth(isOver).forecast == .notGrowing)
        let text = TextRenderer(width: 200).render(.difference(of: isOver))
        #expect(text.contains("growth   1.0 MiB/s; in the last step live memory did not grow"))
        #expect(!text.contains("the limit is reached"))
    }

    @Test(
        "where the limit has been reached no time is left, whatever the last step was",
        arguments: [40, 50, 60] as [UInt64])
    func atLimit(leaked: UInt64) {
        var snapshots = Self.dumps([(0, 10), (50, 50), (60, leaked)])
        snapshots[2].totals.counterBytes = snapshots[2].totals.limitBytes - 1_000
        // Room for no chunk, and nobody was refused yet.
        #expect(Growth(snapshots).forecast != .atLimit(refused: 0))
        snapshots[1].totals.failedAllocations = 2
        snapshots[2].totals.failedAllocations = 17
        let growth = Growth(snapshots)
        #expect(growth.forecast == .atLimit(refused: 15))
        let report = Report.difference(of: snapshots)
        let json = JSONRenderer(toolVersion: "0").value(of: report)
        #expect(json["at_limit"] == .bool(true))
        #expect(json["time_to_limit_ns"] == .unsigned(0) && json["limit_time"] == .null)
        #expect(
            TextRenderer(width: 200).render(report).contains(
                "; no more is let in: 15 allocations were refused since the dump before\n"))
        // Some is kept for acknowledgements; then there is room again: what was refused is over.
        let (limit, chunk) = (snapshots[2].totals.limitBytes, snapshots[2].totals.chunkSize)
        let kept = max(limit / 4, chunk)
        snapshots[2].totals.counterBytes = limit - kept + 1
        #expect(Growth(snapshots).forecast == .atLimit(refused: 15))
        snapshots[2].totals.counterBytes = limit - kept
        #expect(Growth(snapshots).forecast != .atLimit(refused: 15))
        snapshots[2].totals.counterBytes = snapshots[2].totals.limitBytes
        snapshots[2].totals.failedAllocations = 2
        #expect(Growth(snapshots).forecast == .atLimit(refused: 0))
    }

    @Test("the verdict's figures are of the same buffers: how many there were, are, and of these are lost")
    func oneBase() {
        let snapshots = [UInt64(1), 8].map { seconds in
            var snapshot = Fixture.growing(secondsAfterNoon: seconds)
            for index in snapshot.allocationGroups.indices
            where snapshot.allocationGroups[index].accessSite == Fixture.convert {
                snapshot.allocationGroups[index].unreachableBuffers = snapshot.allocationGroups[index].liveBuffers
                snapshot.allocationGroups[index].unreachableBytes = snapshot.allocationGroups[index].liveBytes
            }
            snapshot.totals.unreachableBuffers = seconds * 100
            snapshot.totals.unreachableBytes = seconds * 100 * 16_384
            return snapshot
        }
        let sentence = Difference(snapshots).sentence
        #expect(sentence.contains("grew by 10.9 MiB, 100.0 % of the growth, from 100 to 800 buffers;"))
        #expect(sentence.contains("; of the first 100, 0 were freed;"))
        #expect(sentence.hasSuffix(". No referrer reaches any of these 800: this is a leak."))
    }

    @Test("what does not grow and is lost is not passed over")
    func lostWithoutGrowth() {
        let snapshots = [LeakTests.fewLost(), LeakTests.fewLost()]
        #expect(
            Difference(snapshots).sentence
                == "No referrer reaches 3 of 1,000,003 live buffers in the last dump (see leaks). "
                + "Live memory changed by 0 B in 0 ns.")
    }

    @Test("what grew overall but not in every dump is no suspect")
    func everyDump() {
        let snapshots = [UInt64(60), 120, 119, 180].enumerated().map { index, seconds in
            var snapshot = Fixture.growing(secondsAfterNoon: seconds)
            snapshot.header.wallTime = Fixture.noon + UInt64(index) * 60 * Fixture.second
            return snapshot
        }
        #expect(Difference(snapshots).suspect == nil)
        #expect(Difference([snapshots[0], snapshots[1], snapshots[3]]).suspect != nil)
    }

    @Test("two different processes are compared by site only, and that is said")
    func differentProcesses() {
        let before = Fixture.growing(secondsAfterNoon: 60)
        var after = Fixture.growing(secondsAfterNoon: 120)
        after.header.pid += 1
        // Another start interned its sites in another order.
        after.sites.swapAt(Int(Fixture.read), Int(Fixture.publish))
        for index in after.allocationGroups.indices {
            let site = after.allocationGroups[index].site
            let swapped = [Fixture.read: Fixture.publish, Fixture.publish: Fixture.read]
            after.allocationGroups[index].site = swapped[site] ?? site
            after.allocationGroups[index].accessSite =
                swapped[after.allocationGroups[index].accessSite] ?? after.allocationGroups[index].accessSite
        }
        let difference = Difference([before, after])
        #expect(difference.overall == nil)
        #expect(difference.suspect?.bytesChange == Int64(98_304_000))
        let text = TextRenderer().render(.difference(of: [before, after]))
        #expect(text.contains("different processes"))
        #expect(!text.contains("born 0"))
    }

    @Test("a dump without its slots is compared by site, and that is said")
    func withoutSlots() {
        var after = Fixture.growing(secondsAfterNoon: 120)
        after.slots = nil
        let report = Report.difference(of: [Fixture.growing(secondsAfterNoon: 60), after])
        #expect(TextRenderer().render(report).contains("lacks its slots table"))
    }

    @Test("more buffers than there is memory for are compared by site, and that is said")
    func tooManySlots() {
        let snapshots = [UInt64(60), 120].map { Fixture.growing(secondsAfterNoon: $0) }
        var slots = Snapshot.SlotColumns()
        slots.count = 1 << 45
        let report = Report.difference(of: snapshots, rows: [SlotRows(slots), SlotRows(slots)])
        #expect(TextRenderer().render(report).contains("has no memory"))
    }

    @Test("growth in a queue is called a backlog, not a leak")
    func backlog() {
        let snapshots = [UInt64(60), 120].map { seconds in
            var snapshot = Fixture.growing(secondsAfterNoon: seconds)
            for index in snapshot.allocationGroups.indices {
                snapshot.allocationGroups[index].ownerKind = .offlineQueue
            }
            return snapshot
        }
        #expect(Difference(snapshots).sentence.hasSuffix("They wait in offline queues, a backlog that is not drained."))
    }
}
