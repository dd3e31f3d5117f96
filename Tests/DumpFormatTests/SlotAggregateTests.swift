import Ledger
import SeededRandom
import Testing

@testable import DumpFormat

/// Rows of which many name what is not there, and what they are to add up to, by the plainest of means.
private struct RandomRows {
    var tables: Snapshot
    var rows: [SlotAggregate.Row] = []
    var references: [(kind: UInt8, owner: UInt32, row: Int)] = []

    init(seed: UInt64, sites: Int, count: Int) {
        var random = SeededGenerator(seed: seed)
        tables = Snapshot(header: Snapshot.Header(), totals: Snapshot.Totals())
        tables.totals.chunkSize = 1 << 20
        tables.sites = Array(repeating: Snapshot.Site(), count: sites)
        tables.arenas = Array(repeating: Snapshot.ArenaTotals(), count: 3)
        tables.sizeClasses = (1...5).map { Snapshot.SizeClass(bytes: $0 * 64, runPages: 1, elements: 8) }
        for kind in [OwnerKind.process, .session, .session, .arena] {
            var owner = Snapshot.Owner()
            owner.kind = kind
            tables.owners.append(owner)
        }
        for index in [2, 3, 9] as [UInt32] {
            var chunk = Snapshot.Chunk()
            chunk.index = index
            tables.chunks.append(chunk)
        }
        /// Now and then a number that leads nowhere.
        func number(below count: Int) -> UInt64 {
            switch random.next() % 10 {
            case 0: .max
            case 1: UInt64(count)
            default: count == 0 ? random.next() : random.next() % UInt64(count)
            }
        }
        for _ in 0..<count {
            var row = SlotAggregate.Row()
            row.address = number(below: 12) << 20 | random.next() % (1 << 20)
            row.capacity = random.next() % 5 == 0 ? .max - random.next() % 9 : random.next() % 10_000
            row.requested = random.next() % 5 == 0 ? .max : random.next() % 10_000
            row.birth = random.next() % 1_000
            row.site = UInt32(truncatingIfNeeded: number(below: sites))
            row.accessSite = UInt32(truncatingIfNeeded: number(below: min(sites, 4)))
            row.owner = UInt32(truncatingIfNeeded: number(below: 4))
            row.sizeClass = UInt16(truncatingIfNeeded: number(below: 5))
            row.arena = UInt16(truncatingIfNeeded: number(below: 3))
            row.reach = Reach.all[Int(random.next() % UInt64(Reach.all.count))]
            rows.append(row)
            for _ in 0..<random.next() % 3 {
                references.append(
                    (UInt8(random.next() % 16), UInt32(truncatingIfNeeded: number(below: 4)), rows.count - 1))
            }
        }
    }

    static let allParts: SlotAggregate.Parts = [.tables, .sizeClasses, .reach, .queues]

    func feed(_ rows: Range<Int>) -> SlotAggregate {
        var sums = SlotAggregate(tables, Self.allParts)
        for row in self.rows[rows] { sums.add(row) }
        for reference in references where rows.contains(reference.row) {
            let row = self.rows[reference.row]
            sums.addReference(
                kind: reference.kind, owner: reference.owner, capacity: row.capacity, requested: row.requested)
        }
        return sums
    }

    var columns: Snapshot.SlotColumns {
        var slots = Snapshot.SlotColumns()
        slots.count = rows.count
        slots.address = rows.map(\.address)
        slots.capacity = rows.map(\.capacity)
        slots.requested = rows.map(\.requested)
        slots.birth = rows.map(\.birth)
        slots.site = rows.map(\.site)
        slots.accessSite = rows.map(\.accessSite)
        slots.owner = rows.map(\.owner)
        slots.sizeClass = rows.map(\.sizeClass)
        slots.arena = rows.map(\.arena)
        return slots
    }

    // MARK: The plain count

    func sum(where isMeant: (SlotAggregate.Row) -> Bool) -> SlotAggregate.Sum {
        rows.filter(isMeant).reduce(into: SlotAggregate.Sum()) { sum, row in
            sum.buffers += 1
            sum.bytes &+= row.capacity
            sum.requested &+= row.requested
        }
    }

    func site(_ number: UInt32) -> UInt32 { number < tables.sites.count ? number : 0 }
    func owner(_ number: UInt32) -> Int { number < tables.owners.count ? Int(number) : 0 }

    func key(_ row: SlotAggregate.Row) -> SlotAggregate.GroupKey {
        SlotAggregate.GroupKey(
            site: site(row.site), accessSite: site(row.accessSite), ownerKind: tables.owners[owner(row.owner)].kind)
    }

    func expectGroups(_ groups: [SlotAggregate.Group]) {
        let keys = rows.map(key)
        #expect(groups.map(\.key) == keys.enumerated().filter { keys.firstIndex(of: $1) == $0 }.map(\.element))
        for group in groups {
            #expect(group.live == sum(where: { key($0) == group.key }))
            #expect(group.unreachable == sum(where: { key($0) == group.key && $0.reach == .nobody }))
            let births = rows.filter { key($0) == group.key }.map(\.birth)
            #expect(group.oldestBirth == births.min() && group.newestBirth == births.max())
        }
    }

    func expectQueues(_ queues: ArraySlice<SlotAggregate.Sum>) {
        var expected = [SlotAggregate.Sum](repeating: SlotAggregate.Sum(), count: tables.owners.count)
        for reference in references
        where [ReferrerKind.offlineQueue, .inflight].map(\.rawValue).contains(reference.kind) {
            let owner = owner(reference.owner)
            expected[owner].buffers += 1
            expected[owner].bytes &+= rows[reference.row].capacity
            expected[owner].requested &+= rows[reference.row].requested
        }
        #expect(Array(queues) == expected)
    }
}

@Suite("sums over live slots")
struct SlotAggregateTests {
    @Test("are those of a plain count, whatever the rows name", arguments: [0, 1, 7, 600])
    func plain(sites: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        let random = RandomRows(seed: seed, sites: sites, count: 400)
        let sums = random.feed(0..<400)
        let tables = random.tables
        #expect(sums.total == random.sum(where: { _ in true }), "seed \(seed)")
        #expect(sums.sites.count == sites)
        for (id, sum) in sums.sites.enumerated() { #expect(sum == random.sum(where: { random.site($0.site) == id })) }
        #expect(sums.owners.count == tables.owners.count)
        for (id, sum) in sums.owners.enumerated() {
            #expect(sum == random.sum(where: { random.owner($0.owner) == id }))
        }
        #expect(sums.arenas.count == tables.arenas.count)
        for (id, sum) in sums.arenas.enumerated() { #expect(sum == random.sum(where: { $0.arena == id })) }
        #expect(sums.chunkRows.count == tables.chunks.count)
        for (row, sum) in sums.chunkRows.enumerated() {
            #expect(sum == random.sum(where: { $0.address >> 20 == tables.chunks[row].index }))
        }
        for (id, sum) in sums.sizeClasses.enumerated() {
            #expect(sum == random.sum(where: { min(Int($0.sizeClass), tables.sizeClasses.count) == id }))
        }
        for reach in Reach.all { #expect(sums[reach] == random.sum(where: { $0.reach == reach })) }
        random.expectGroups(sums.groups)
        random.expectQueues(sums.queues)
    }

    @Test("are the same by columns as row by row, of all rows and of some", arguments: [7, 600])
    func columns(sites: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        var random = RandomRows(seed: seed, sites: sites, count: 5_000)
        random.references = []
        let parts = RandomRows.allParts
        var sums = SlotAggregate(random.tables, parts)
        let reach = random.rows.map(\.reach)
        sums.add(random.columns, reach: reach)
        Self.expectEqual(sums, random.feed(0..<5_000), "seed \(seed)")

        var generator = SeededGenerator(seed: seed)
        let isIn = random.rows.map { _ in generator.next() % 3 == 0 }
        var some = SlotAggregate(random.tables, parts)
        some.add(random.columns, reach: reach, where: isIn)
        var rows = SlotAggregate(random.tables, parts)
        for (row, isIn) in zip(random.rows, isIn) where isIn { rows.add(row) }
        Self.expectEqual(some, rows, "seed \(seed)")
    }

    @Test("of parts, put together, are those of the whole", arguments: [7, 600])
    func parts(sites: Int) {
        let seed = UInt64.random(in: 0 ... .max)
        let random = RandomRows(seed: seed, sites: sites, count: 900)
        var sums = random.feed(0..<250)
        sums.add(random.feed(250..<251))
        sums.add(random.feed(251..<900))
        Self.expectEqual(sums, random.feed(0..<900), "seed \(seed)")
    }

    private static func expectEqual(_ some: SlotAggregate, _ others: SlotAggregate, _ comment: Comment) {
        #expect(some.total == others.total, comment)
        #expect(some.arenas == others.arenas, comment)
        #expect(some.sites == others.sites, comment)
        #expect(some.owners == others.owners, comment)
        #expect(some.chunkRows == others.chunkRows, comment)
        #expect(some.groups == others.groups, comment)
        #expect(some.sizeClasses == others.sizeClasses, comment)
        #expect(some.queues == others.queues, comment)
        for reach in Reach.all { #expect(some[reach] == others[reach], comment) }
    }

    @Test("are stored to the tables that were asked for, and to no other")
    func store() {
        let snapshot = VerifyTests.arena()
        var cleared = snapshot
        SlotAggregate(snapshot, [.tables, .reach]).store(to: &cleared)
        #expect(
            cleared.totals.liveBytes == 0 && cleared.totals.unreachableBuffers == 0 && cleared.allocationGroups == [])
        var tables = cleared
        var sums = SlotAggregate(snapshot, [.tables, .reach])
        sums.add(snapshot.slots!, reach: snapshot.references!.reach(snapshot.slots!.state))
        sums.store(to: &tables)
        expectSame(tables, snapshot)

        var sites = cleared
        sums = SlotAggregate(snapshot, .sites)
        sums.add(snapshot.slots!)
        sums.store(to: &sites)
        #expect(sites.sites == snapshot.sites)
        sites.sites = cleared.sites
        expectSame(sites, cleared)
    }

    @Test("of allocation groups have room for every kind of owner")
    func kinds() {
        #expect(OwnerKind.allCases.allSatisfy { Int($0.rawValue) < AllocationGroupSums.kinds })
    }

    @Test("a slot is reached by one kind, or by several; a kind that nobody knows is one more")
    func reach() {
        var references = Snapshot.ReferenceColumns()
        func add(_ row: UInt32, _ kind: UInt8) {
            references.slotRow.append(row)
            references.referrerKind.append(kind)
        }
        for kind in [ReferrerKind.will, .will] { add(1, kind.rawValue) }
        for kind in [ReferrerKind.will, .retained, .will] { add(2, kind.rawValue) }
        for kind in [0, 200, 255] as [UInt8] { add(3, kind) }
        add(4, 200)
        add(4, ReferrerKind.will.rawValue)
        for row in [5, 6, .max] as [UInt32] { add(row, ReferrerKind.inflight.rawValue) }
        let reach = references.reach([1, 1, 1, 1, 1, 2])
        #expect(reach == [.nobody, Reach(kind: ReferrerKind.will.rawValue), .several, .otherKind, .several, .freed])
        #expect(reach.map(\.kind) == [nil, .will, nil, nil, nil, nil])
    }
}
