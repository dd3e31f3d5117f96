import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("Buffers, counted and one by one", .mayBlock)
struct BufferTests {
    @Test("a histogram's groups add up to all live memory, whatever it groups by", arguments: Grouping.allCases)
    func sums(grouping: Grouping) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<20 {
            let snapshot = RandomArena.make(&random)
            let report = try #require(Report.histogram(of: snapshot, by: grouping))
            let rows = try #require(report.mainTable?.rows)
            #expect(rows.reduce(0) { $0 + $1.count(2) } == snapshot.totals.liveBuffers, "seed \(seed)")
            #expect(rows.reduce(0) { $0 + $1.bytes(3) } == snapshot.totals.liveBytes, "seed \(seed)")
        }
    }

    @Test("the first buffers are those that sorting all of them puts first")
    func topRows() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<100 {
            let keys = (0..<Int.random(in: 0..<60, using: &random)).map { _ in UInt64.random(in: 0..<20, using: &random)
            }
            let mask = RowMask(keys.map { _ in Bool.random(using: &random) })
            let all = keys.indices.filter { mask[$0] }.sorted { (keys[$0], $0) < (keys[$1], $1) }
            let limit = Int.random(in: 0..<70, using: &random)
            #expect(
                Report.smallest(keys.count, limit, where: mask) { keys[$0] } == Array(all.prefix(limit)), "seed \(seed)"
            )
            #expect(Report.smallest(keys.count, nil, where: mask) { keys[$0] } == all, "seed \(seed)")
        }
    }

    /// Two buffers in one chunk: one held twice, one lost.
    static func pair() -> Snapshot {
        let buffers = [
            Fixture.Buffer(serial: 7, site: Fixture.publish, access: Fixture.enqueue, owner: 2, bytes: 4_096),
            Fixture.Buffer(serial: 263, site: Fixture.publish, access: Fixture.convert, owner: 2, bytes: 1_024),
        ]
        var snapshot = Fixture.snapshot(of: buffers, secondsAfterNoon: 0, chunks: 1, ownerKind: .session)
        snapshot.owners += [
            Fixture.owner(.session, "device-1", parent: 1), Fixture.owner(.session, "device-2", parent: 1),
        ]
        snapshot.slots?.address = [0x40, 0x2000]
        snapshot.slots?.requested = [4_000, 1_000]
        snapshot.slots?.birth = [720, 60].map { snapshot.header.monotonicTime - $0 * Fixture.second }
        snapshot.slots?.accessTime = [719, 59].map { snapshot.header.monotonicTime - $0 * Fixture.second }
        var references = Snapshot.ReferenceColumns()
        references.referrerOwner = [2, 3]
        references.referrerKind = [ReferrerKind.offlineQueue.rawValue, ReferrerKind.offlineQueue.rawValue]
        references.slotRow = [0, 0]
        snapshot.references = references
        (snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) = (1, 1_024)
        return snapshot
    }

    @Test("buffers lists the oldest first, and says how many it left out")
    func list() throws {
        let report = try #require(Report.buffers(of: Self.pair(), limit: 1, where: Filter("size > 512")))
        #expect(
            TextRenderer(width: 140).render(report) == """
                matched  2 buffers, 5 KiB: 100.0 % of 2 live buffers' 5 KiB

                Buffer  address     size  capacity     age         idle  site            last access    owner             referrers
                #7      0x40     3.9 KiB   4.0 KiB  12 min  11 min 59 s  publish packet  offline queue  session device-1  offline queue
                … 1 more buffer

                """)
    }

    @Test("show tells who holds it, and what lies beside it")
    func show() throws {
        let report = try #require(Report.show(.address(0x2080), in: Self.pair()))
        #expect(TextRenderer(width: 100).render(report) == Self.shown)
        #expect(Report.show(.serial(8), in: Self.pair()) == nil)
    }

    private static let shown = """
        buffer     serial 263 at 0x2000: chunk 0, offset 8,192, arena 0
        size       1000 bytes asked for, takes 1 KiB, class unknown, slack 24 B
        allocated  publish packet  Broker/Connection.swift:88, 1 min before the dump (2026-11-23 11:59:03Z)
        accessed   last at convertToRpcCommandResponse  Broker/RPCBridge.swift:141, 59 s before the dump
        owner      process > listener 0.0.0.0:1883 > session device-1

        No referrer reaches it: it is lost, and its owner only had it last.

        Neighbours in the chunk
        Address   serial  capacity  gap before     age  site            owner             referrers
        0x40           7   4.0 KiB        64 B  12 min  publish packet  session device-1  offline queue
        0x2000 *     263   1.0 KiB     3.9 KiB   1 min  publish packet  session device-1  nobody

        """

    @Test("a buffer is named by serial number or address")
    func names() {
        #expect(BufferName("15439") == .serial(15_439))
        #expect(BufferName("#15439") == .serial(15_439))
        #expect(BufferName("0x7000040") == .address(0x700_0040))
        #expect(BufferName("fifteen") == nil)
        #expect(BufferName("-1") == nil)
    }
}

@Suite("Dominators", .mayBlock)
struct DominatorTests {
    /// Which owners would have to go for the buffer to go, by trying each: the lowest of them dominates.
    private func dominator(of row: Int, in snapshot: Snapshot) -> UInt32? {
        let references = snapshot.references!
        let referrers = references.slotRow.indices.filter { references.slotRow[$0] == UInt32(row) }.map {
            references.referrerOwner[$0]
        }
        guard !referrers.isEmpty else { return nil }
        func ancestors(_ owner: UInt32) -> [UInt32] {
            owner == 0 ? [0] : [owner] + ancestors(snapshot.owners[Int(owner)].parent)
        }
        return snapshot.owners.indices.map { UInt32($0) }
            .filter { candidate in referrers.allSatisfy { ancestors($0).contains(candidate) } }
            .max { ancestors($0).count < ancestors($1).count }
    }

    @Test("shallow and retained sizes are what trying each owner says, and add up to the byte")
    func oracle() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<60 {
            let snapshot = RandomArena.make(&random)
            let slots = snapshot.slots!
            let dominators = try #require(Dominators(snapshot))
            var shallow = [UInt64](repeating: 0, count: snapshot.owners.count)
            var unreachable: UInt64 = 0
            var freed: UInt64 = 0
            for row in 0..<slots.count {
                if let owner = dominator(of: row, in: snapshot) {
                    shallow[Int(owner)] += slots.capacity[row]
                } else if slots.state[row] == 1 {
                    unreachable += slots.capacity[row]
                } else {
                    freed += slots.capacity[row]
                }
            }
            #expect(dominators.shallow.map(\.bytes) == shallow, "seed \(seed)")
            for owner in snapshot.owners.indices {
                // Retained: what no owner outside its subtree holds.
                let inside = snapshot.owners.indices.filter { id in
                    var id = id
                    while id != owner, id != 0 { id = Int(snapshot.owners[id].parent) }
                    return id == owner
                }
                let retained = inside.reduce(0) { $0 + shallow[$1] }
                #expect(dominators.retained[owner].bytes == retained, "seed \(seed), owner \(owner)")
                #expect(dominators.owned[owner].bytes == snapshot.owners[owner].liveBytes, "seed \(seed)")
            }
            #expect(
                dominators.unreachable.bytes == unreachable && unreachable == snapshot.totals.unreachableBytes,
                "seed \(seed)")
            #expect(dominators.freed.bytes == freed, "seed \(seed)")
            #expect(dominators.total.bytes == snapshot.totals.liveBytes, "seed \(seed)")
            #expect(dominators.total.buffers == snapshot.totals.liveBuffers, "seed \(seed)")
            #expect(dominators.retained[0].bytes + unreachable + freed == snapshot.totals.liveBytes, "seed \(seed)")
        }
    }

    @Test("a damaged tree loses no byte")
    func damagedTree() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<60 {
            var snapshot = RandomArena.make(&random)
            for id in snapshot.owners.indices {
                snapshot.owners[id].parent = .random(in: 0..<14, using: &random)
                if Bool.random(using: &random) { snapshot.owners[id].kind = .free }
            }
            for reference in snapshot.references!.slotRow.indices where Bool.random(using: &random) {
                snapshot.references!.referrerOwner[reference] = .random(in: 0..<30, using: &random)
            }
            #expect(try #require(Dominators(snapshot)).total.bytes == snapshot.totals.liveBytes, "seed \(seed)")
            let report = try #require(Report.dominators(of: snapshot, siblings: nil))
            let roots = report.mainTable!.rows.filter { $0.depth == 0 }
            #expect(roots.reduce(0) { $0 + $1.bytes(7) } == snapshot.totals.liveBytes, "seed \(seed)")
        }
    }

    @Test("path names every referrer from the root down, and who would have to go")
    func path() throws {
        let report = try #require(Report.path(to: .serial(7), in: BufferTests.pair()))
        #expect(TextRenderer(width: 100).render(report) == Self.path)
    }

    private static let path = """
        buffer  serial 7 at 0x40, 4 KiB
        owner   process > listener 0.0.0.0:1883 > session device-1

        Path from the root                                  referrer
        process > listener 0.0.0.0:1883 > session device-1  offline queue
        process > listener 0.0.0.0:1883 > session device-2  offline queue

        2 referrers reach it; it goes only when all let go, or listener 0.0.0.0:1883 goes.

        """

    @Test("the lowest common owner of two is a few steps away, however deep they are")
    func deepAncestors() {
        var snapshot = Fixture.empty()
        let length: UInt32 = 100_000
        for chain in 0..<2 as Range<UInt32> {
            for level in 0..<length {
                let parent = level == 0 ? 1 : 1 + chain * length + level
                snapshot.owners.append(Fixture.owner(.component, "", parent: parent))
            }
        }
        let ancestry = Ancestry(OwnerTree(snapshot), snapshot.owners.count)
        func check(_ left: UInt32, _ right: UInt32, _ expected: UInt32) {
            for found in [ancestry.walk(left, right), ancestry.walk(right, left)] {
                #expect(found.owner == expected)
                #expect(found.steps <= 6 * 17, "\(found.steps)")
            }
        }
        // The ends of both chains; an end and its own middle; both ends and the owners above them.
        check(1 + length, 1 + 2 * length, 1)
        check(1 + length, 1 + length / 2, 1 + length / 2)
        check(2 + length, 2, 1)
        check(1 + 2 * length, 0, 0)
    }
}

extension Table.Row {
    func bytes(_ column: Int) -> UInt64 {
        guard case .bytes(let bytes) = cells[column] else { return 0 }
        return bytes
    }
    func count(_ column: Int) -> UInt64 {
        guard case .count(let count) = cells[column] else { return 0 }
        return count
    }
}
