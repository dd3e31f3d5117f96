internal import Ledger

/// Live slots added up by everything that has a figure of its own: in all, by arena, site, owner, chunk, allocation group,
/// size class, by what reaches them, and by the queues that do. The writer of dumps, their verifier, filters, heap dumps
/// and the live report all count by this, row by row or a block of columns at a time; partial sums are put together by
/// `add(_: SlotAggregate)`.
///
/// Rows may be of a damaged file, and name what is not there. Everywhere:
/// - a site, last access site or owner that is not there is row 0, "unknown" or the process (a ledger's reader says row 0 as
///   well for an owner whose record serves another by now);
/// - for an arena or a chunk that is not there no row could stand: such a slot is in the other sums only;
/// - a size class that is not there counts with the huge ones;
/// - sums wrap around. Nothing traps.
public struct SlotAggregate: Sendable {
    /// What is added up. Who feeds columns has to have those that its parts need: all need `capacity` and `requested`.
    public struct Parts: OptionSet, Sendable {
        public let rawValue: UInt16
        public init(rawValue: UInt16) { self.rawValue = rawValue }

        /// In all; `store(to:)` leaves the totals alone without it.
        public static let totals = Parts(rawValue: 1)
        public static let arenas = Parts(rawValue: 2)
        public static let sites = Parts(rawValue: 4)
        public static let owners = Parts(rawValue: 8)
        /// By address.
        public static let chunks = Parts(rawValue: 16)
        /// By site, last access site and owner; needs `birth` too.
        public static let groups = Parts(rawValue: 32)
        public static let sizeClasses = Parts(rawValue: 64)
        /// By what reaches them. Without it nobody was asked, and nothing is known to be unreachable.
        public static let reach = Parts(rawValue: 128)
        /// By the owners of the queues and windows that reach them.
        public static let queues = Parts(rawValue: 256)

        /// What the tables of a dump have, but for `reach`.
        public static let tables: Parts = [.totals, .arenas, .sites, .owners, .chunks, .groups]
    }

    /// One live slot.
    public struct Row: Sendable {
        public var address: UInt64 = 0
        /// Bytes of the size class, or of the mapping.
        public var capacity: UInt64 = 0
        public var requested: UInt64 = 0
        public var birth: UInt64 = 0
        public var site: UInt32 = 0
        public var accessSite: UInt32 = 0
        public var owner: UInt32 = 0
        public var sizeClass: UInt16 = 0
        public var arena: UInt16 = 0
        public var reach = Reach.unasked

        public init() {}
    }

    public let parts: Parts
    public private(set) var total = Sum()
    private var arenaSums: SumTable
    private var siteSums: SumTable
    private var ownerSums: SumTable
    private var chunkSums: SumTable
    private var classSums: SumTable
    private var queueSums: SumTable
    private var reachSums: SumTable
    private var groupSums: AllocationGroupSums
    /// By place in `ownerSums`.
    private let ownerKinds: [OwnerKind]
    private let chunks: ChunkNumbers
    private let chunkShift: UInt64

    /// - Parameter tables: how many there are of each, and of which kind.
    public init(_ tables: Snapshot, _ parts: Parts) {
        self.parts = parts
        arenaSums = SumTable(tables.arenas.count, .nowhere)
        siteSums = SumTable(tables.sites.count, .first)
        ownerSums = SumTable(tables.owners.count, .first)
        chunkSums = SumTable(tables.chunks.count, .nowhere)
        classSums = SumTable(tables.sizeClasses.count, .nowhere)
        queueSums = SumTable(parts.contains(.queues) ? tables.owners.count : 0, .first)
        reachSums = SumTable(Reach.count, .nowhere)
        groupSums = AllocationGroupSums(sites: parts.contains(.groups) ? tables.sites.count : 0)
        ownerKinds = tables.owners.map(\.kind) + [.free]
        chunks = ChunkNumbers(tables)
        chunkShift = tables.chunkShift
    }

    // MARK: Sums

    public var arenas: ArraySlice<Sum> { arenaSums.rows }
    public var sites: ArraySlice<Sum> { siteSums.rows }
    public var owners: ArraySlice<Sum> { ownerSums.rows }
    /// By row in the table of chunks.
    public var chunkRows: ArraySlice<Sum> { chunkSums.rows }
    /// In the order in which they were met first.
    public var groups: [Group] { groupSums.all }
    /// One more than there are classes: the last for huge buffers.
    public var sizeClasses: [Sum] { classSums.rows + [classSums.nowhere] }
    /// By owner; a slot in several queues, or twice in one, counts each time.
    public var queues: ArraySlice<Sum> { queueSums.rows }

    /// Each slot is in one of these.
    public subscript(reach: Reach) -> Sum { reachSums.rows[Int(reach.rawValue)] }

    // MARK: Row by row

    @inline(__always)
    public mutating func add(_ row: Row) {
        if parts.contains(.totals) { total.add(row.capacity, row.requested) }
        if parts.contains(.arenas) { arenaSums.add(Int(row.arena), row.capacity, row.requested) }
        if parts.contains(.sites) { siteSums.add(Int(row.site), row.capacity, row.requested) }
        if parts.contains(.owners) { ownerSums.add(Int(row.owner), row.capacity, row.requested) }
        if parts.contains(.chunks) { chunkSums.add(chunkRow(row.address), row.capacity, row.requested) }
        if parts.contains(.sizeClasses) { classSums.add(Int(row.sizeClass), row.capacity, row.requested) }
        if parts.contains(.reach) { reachSums.add(Int(row.reach.rawValue), row.capacity, row.requested) }
        if parts.contains(.groups) {
            groupSums.add(
                groupKey(row.site, row.accessSite, row.owner), row.capacity, row.requested, birth: row.birth, row.reach)
        }
    }

    /// One reference to a slot: only those of queues and inflight windows are added up.
    public mutating func addReference(kind: UInt8, owner: UInt32, capacity: UInt64, requested: UInt64) {
        guard parts.contains(.queues),
            kind == ReferrerKind.offlineQueue.rawValue || kind == ReferrerKind.inflight.rawValue
        else { return }
        queueSums.add(Int(owner), capacity, requested)
    }

    @inline(__always)
    private func groupKey(_ site: UInt32, _ accessSite: UInt32, _ owner: UInt32) -> GroupKey {
        GroupKey(
            site: UInt32(siteSums.place(Int(site))), accessSite: UInt32(siteSums.place(Int(accessSite))),
            ownerKind: ownerKinds[ownerSums.place(Int(owner))])
    }

    private func chunkRow(_ address: UInt64) -> Int { chunks.row(of: address >> chunkShift) ?? .max }

    // MARK: A block of columns

    /// So many rows at a time, that their columns stay in the nearest cache while each part goes through them.
    private static let batch = 2_048

    /// - Parameters:
    ///   - reach: of each row; nil where nobody was asked.
    ///   - isIn: which of the rows count; nil: all.
    public mutating func add(_ slots: Snapshot.SlotColumns, reach: [Reach]? = nil, where isIn: [Bool]? = nil) {
        var chosen: [Int] = []
        for first in stride(from: 0, to: slots.count, by: Self.batch) {
            let rows = first..<min(slots.count, first + Self.batch)
            guard let isIn else {
                add(slots, reach, rows: rows)
                continue
            }
            chosen.removeAll(keepingCapacity: true)
            for row in rows where isIn[row] { chosen.append(row) }
            add(slots, reach, rows: chosen)
        }
    }

    private mutating func add(_ slots: Snapshot.SlotColumns, _ reach: [Reach]?, rows: some Sequence<Int>) {
        if parts.contains(.totals) { for row in rows { total.add(slots.capacity[row], slots.requested[row]) } }
        if parts.contains(.arenas) { arenaSums.add(slots, rows) { Int(slots.arena[$0]) } }
        if parts.contains(.sites) { siteSums.add(slots, rows) { Int(slots.site[$0]) } }
        if parts.contains(.owners) { ownerSums.add(slots, rows) { Int(slots.owner[$0]) } }
        if parts.contains(.chunks) { addChunks(slots, rows) }
        if parts.contains(.sizeClasses) { classSums.add(slots, rows) { Int(slots.sizeClass[$0]) } }
        if parts.contains(.reach) {
            reachSums.add(slots, rows) { Int((reach?[$0] ?? .unasked).rawValue) }
        }
        if parts.contains(.groups) { addGroups(slots, reach, rows) }
    }

    private mutating func addChunks(_ slots: Snapshot.SlotColumns, _ rows: some Sequence<Int>) {
        let (chunks, shift) = (chunks, chunkShift)
        chunkSums.add(slots, rows) { chunks.row(of: slots.address[$0] >> shift) ?? .max }
    }

    private mutating func addGroups(_ slots: Snapshot.SlotColumns, _ reach: [Reach]?, _ rows: some Sequence<Int>) {
        for row in rows {
            groupSums.add(
                groupKey(slots.site[row], slots.accessSite[row], slots.owner[row]), slots.capacity[row],
                slots.requested[row], birth: slots.birth[row], reach?[row] ?? .unasked)
        }
    }

    // MARK: Of another thread

    /// Adds what another has counted of further rows, by the same tables.
    public mutating func add(_ other: SlotAggregate) {
        total.add(other.total)
        arenaSums.add(other.arenaSums)
        siteSums.add(other.siteSums)
        ownerSums.add(other.ownerSums)
        chunkSums.add(other.chunkSums)
        classSums.add(other.classSums)
        queueSums.add(other.queueSums)
        reachSums.add(other.reachSums)
        groupSums.add(other.groupSums)
    }
}
