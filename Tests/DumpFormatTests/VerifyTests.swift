import Glibc
import Testing

@testable import DumpFormat

@Suite("verify")
struct VerifyTests {
    static func arena(_ seed: UInt64 = 11) -> Snapshot {
        var arena = SyntheticArena(seed: seed)
        arena.slots = 400
        return arena.make()
    }

    @Test("passes for a whole dump", arguments: 20..<25 as Range<UInt64>)
    func whole(seed: UInt64) throws {
        let file = TemporaryFile(try encode(Self.arena(seed)))
        let report = DumpVerifier.verify(path: file.path)
        #expect(report.passed, "seed \(seed): \(report.checks.filter { !$0.passed })")
        #expect(report.checks.count > 20)
    }

    /// A zstd stream has bits that mean nothing; who flips one of those has not changed the dump.
    @Test("fails for any flipped bit, unless every table is still as it was", arguments: 0..<3)
    func flips(part: Int) throws {
        let bytes = try encode(DamageTests.small)
        let file = TemporaryFile(bytes)
        var harmless = 0
        defer { #expect(harmless < 3) }
        try file.flip(bytes, at: stride(from: part * 13, to: bytes.count, by: 39), { _ in 0x40 }) { _ in
            if DumpVerifier.verify(path: file.path).passed {
                harmless += 1
                expectSame(try DumpReader.read(path: file.path, .everything), DamageTests.small)
            }
        }
    }

    @Test("looks at all blocks, whichever thread has them, and across them")
    func blocks() throws {
        var arena = SyntheticArena(seed: 5)
        arena.slots = 140_000
        let whole = arena.make()
        func failures(_ change: (inout Snapshot) -> Void) throws -> [String] {
            var snapshot = whole
            change(&snapshot)
            let file = TemporaryFile(try encode(snapshot))
            return DumpVerifier.verify(path: file.path).checks.filter { !$0.passed }.map { "\($0.name): \($0.detail)" }
        }
        #expect(try failures { _ in } == [])
        let last = 139_999
        #expect(
            try failures { $0.slots!.serial[last] = $0.slots!.serial[3] }
                == ["serial numbers are unique: serial \(whole.slots!.serial[3]) is there twice"])
        let sizes = try failures { $0.slots!.requested[last] = $0.slots!.capacity[last] + 1 }
        #expect(sizes.contains { $0.contains("slot row 139999: requested") })
        let references = try failures { $0.references!.slotRow[$0.references!.count - 1] = 1 << 30 }
        #expect(
            references.contains {
                $0.contains("reference row \(whole.references!.count - 1) points to slot row \(1 << 30)")
            })
        // Where the second thread's rows begin.
        let border = 65_536
        let overlap = try failures { $0.slots!.address[border] = $0.slots!.address[border - 1] }
        #expect(overlap.contains { $0.hasPrefix("no two slots overlap: slot row 65535 ends at") })
        let disorder = try failures { $0.slots!.address.swapAt(7, last) }
        #expect(!disorder.contains { $0.hasPrefix("serial numbers") })
        #expect(disorder.contains { $0.hasPrefix("chunks = sums") || $0.hasPrefix("each slot lies in a run") })
    }

    /// Arenas times chunks would be the work of hours.
    @Test("chunks of arenas are counted in one pass, however many there are of both", .timeLimit(.minutes(1)))
    func arenasAndChunks() throws {
        let count = 400_000
        var snapshot = Snapshot(header: Snapshot.Header(), totals: Snapshot.Totals())
        snapshot.arenas = [Snapshot.ArenaTotals](repeating: Snapshot.ArenaTotals(), count: count)
        var chunk = Snapshot.Chunk()
        chunk.arena = 3
        snapshot.chunks = [Snapshot.Chunk](repeating: chunk, count: count)
        // It is in no arena, whatever it says.
        snapshot.chunks[0].kind = .cached
        snapshot.arenas[3].chunkCount = UInt64(count) - 1
        func check() throws -> VerifyCheck {
            let results = SumChecks(tables: snapshot, sums: SlotAggregate(snapshot, .arenas)).results
            return try #require(results.first { $0.name == "arenas = sums over slots" })
        }
        #expect(try check().passed)
        // A chunk of an arena that is not there.
        snapshot.arenas = Array(snapshot.arenas.prefix(5))
        snapshot.chunks[1].arena = 5
        #expect(try check().detail == "chunks of arena 3 is \(count - 1), expected \(count - 2)")
    }

    @Test("says so where there is no file to check")
    func missing() {
        let report = DumpVerifier.verify(path: "/tmp/no-such-dump")
        #expect(!report.passed)
    }

    /// One inconsistency, and the check that must find it.
    struct Fault: Sendable, CustomTestStringConvertible {
        let check: String
        let make: @Sendable (inout Snapshot) -> Void
        var testDescription: String { check }

        init(_ check: String, _ make: @escaping @Sendable (inout Snapshot) -> Void) {
            self.check = check
            self.make = make
        }
    }

    static let faults: [Fault] = [
        Fault("counter = chunks + huge + ledger + snapshot buffer") { $0.totals.counterBytes += 1 },
        Fault("chunk bytes = chunks x chunk size") { $0.totals.chunkBytes += 1 },
        Fault("live + free = chunks + huge") { $0.totals.freeBytes -= 1 },
        Fault("totals = table of chunks") { $0.chunks.removeLast() },
        Fault("totals = sums over slots") { $0.totals.requestedBytes += 1 },
        Fault("chunks = sums over slots") { $0.chunks[0].liveBuffers += 1 },
        Fault("sites = sums over slots") { $0.sites[1].liveBytes += 16 },
        Fault("owners = sums over slots") { $0.owners[2].liveBuffers += 1 },
        Fault("arenas = sums over slots") { $0.arenas[0].chunkCount += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[0].oldestBirth += 1 },
        Fault("sites, owners and arenas of slots exist") { $0.slots!.accessSite[3] = 99 },
        Fault("requested <= capacity = size class") { $0.slots!.requested[0] = $0.slots!.capacity[0] + 1 },
        Fault("no two slots overlap") { $0.slots!.address[1] = $0.slots!.address[0] },
        Fault("serial numbers are unique") { $0.slots!.serial[1] = $0.slots!.serial[0] },
        Fault("births and accesses are not in the future") { $0.slots!.birth[0] = $0.header.monotonicTime + 1 },
        Fault("each slot lies in a chunk") { $0.slots!.address[0] = 77 << 24 },
        Fault("runs lie in chunks and do not overlap") { $0.runs!.firstPage[1] = $0.runs!.firstPage[0] },
        Fault("each slot lies in a run of its size class") { $0.runs!.sizeClass[0] += 1 },
        Fault("live elements of runs = slots in them") { $0.runs!.liveElements[0] += 1 },
        Fault("free pages = pages no run covers") { $0.chunks[0].largestFreeRunPages -= 1 },
        Fault("references lead from owners to live slots") { $0.references!.slotRow[0] = 100_000 },
        Fault("unreachable = live slots without a reference") { $0.totals.unreachableBuffers! += 1 },
    ]

    @Test("finds each inconsistency and gives numbers", arguments: faults)
    func fault(fault: Fault) throws {
        var snapshot = Self.arena()
        fault.make(&snapshot)
        let report = verify(try encode(snapshot))
        let check = try #require(report.checks.first { $0.name == fault.check })
        #expect(!check.passed)
        #expect(check.detail.contains { $0.isNumber }, "\(check.detail)")
    }

    /// Each figure of a table that is a sum over slots.
    static let figures: [Fault] = [
        Fault("totals = sums over slots") { $0.totals.liveBuffers += 1 },
        Fault("totals = sums over slots") { $0.totals.liveBytes += 1 },
        Fault("totals = sums over slots") { $0.totals.requestedBytes += 1 },
        Fault("chunks = sums over slots") { $0.chunks[1].liveBuffers += 1 },
        Fault("chunks = sums over slots") { $0.chunks[1].liveBytes += 1 },
        Fault("sites = sums over slots") { $0.sites[2].liveBuffers += 1 },
        Fault("sites = sums over slots") { $0.sites[2].liveBytes += 1 },
        Fault("sites = sums over slots") { $0.sites[2].requestedBytes += 1 },
        Fault("owners = sums over slots") { $0.owners[3].liveBuffers += 1 },
        Fault("owners = sums over slots") { $0.owners[3].liveBytes += 1 },
        Fault("arenas = sums over slots") { $0.arenas[1].liveBuffers += 1 },
        Fault("arenas = sums over slots") { $0.arenas[1].liveBytes += 1 },
        Fault("arenas = sums over slots") { $0.arenas[1].requestedBytes += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].site += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].accessSite += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].ownerKind = .arena },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].liveBuffers += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].liveBytes += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].requestedBytes += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].oldestBirth -= 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups[1].newestBirth += 1 },
        Fault("allocation groups = sums over slots") { $0.allocationGroups.removeLast() },
        Fault("allocation groups = sums over slots") { $0.allocationGroups.append($0.allocationGroups[0]) },
        Fault("unreachable = live slots without a reference") { $0.totals.unreachableBuffers! += 1 },
        Fault("unreachable = live slots without a reference") { $0.totals.unreachableBytes! += 1 },
        // What all allocation groups have together stays the same.
        Fault("unreachable = live slots without a reference") {
            $0.allocationGroups[0].unreachableBuffers += 1
            $0.allocationGroups[1].unreachableBuffers -= 1
        },
        Fault("unreachable = live slots without a reference") {
            $0.allocationGroups[0].unreachableBytes += 1
            $0.allocationGroups[1].unreachableBytes -= 1
        },
    ]

    @Test("finds each wrong sum, in a file and in a snapshot", arguments: figures)
    func figure(fault: Fault) throws {
        var snapshot = Self.arena()
        // So that it can have one less.
        for row in 0..<2 where snapshot.allocationGroups[row].unreachableBuffers == 0 {
            let allocationGroup = snapshot.allocationGroups[row]
            let slots = snapshot.slots!
            let slot = try #require(
                (0..<slots.count).first {
                    slots.site[$0] == allocationGroup.site && slots.accessSite[$0] == allocationGroup.accessSite
                        && snapshot.owners[Int(slots.owner[$0])].kind == allocationGroup.ownerKind
                        && slots.state[$0] == 1
                })
            snapshot.removeReferences(of: slot)
        }
        #expect(SnapshotInvariants.check(snapshot).filter { !$0.passed } == [])
        fault.make(&snapshot)
        for checks in [SnapshotInvariants.check(snapshot), verify(try encode(snapshot)).checks] {
            let failed = checks.filter { !$0.passed }
            #expect(failed.contains { $0.name == fault.check }, "\(failed)")
            #expect(failed.first { $0.name == fault.check }?.detail.contains { $0.isNumber } == true, "\(failed)")
        }
    }

    @Test("every check has a fault that it finds")
    func everyCheckIsTested() {
        let names = Set(SnapshotInvariants.check(Self.arena()).map(\.name))
        #expect(names == Set(Self.faults.map(\.check)))
    }
}

extension Snapshot {
    /// Makes a live slot unreachable, in all tables.
    fileprivate mutating func removeReferences(of slot: Int) {
        let kept = references!.slotRow.indices.filter { references!.slotRow[$0] != slot }
        references!.referrerOwner = kept.map { references!.referrerOwner[$0] }
        references!.referrerKind = kept.map { references!.referrerKind[$0] }
        references!.referredBytes = kept.map { references!.referredBytes[$0] }
        references!.slotRow = kept.map { references!.slotRow[$0] }
        let row = allocationGroups.firstIndex {
            $0.site == slots!.site[slot] && $0.accessSite == slots!.accessSite[slot]
                && $0.ownerKind == owners[Int(slots!.owner[slot])].kind
        }!
        totals.unreachableBuffers! += 1
        totals.unreachableBytes! += slots!.capacity[slot]
        allocationGroups[row].unreachableBuffers += 1
        allocationGroups[row].unreachableBytes += slots!.capacity[slot]
    }
}
